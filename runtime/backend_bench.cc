#include "runtime/backend_bench.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <iterator>
#include <utility>

#include "runtime/bench_weights.h"
#include "runtime/kernels/bandwidth.h"

namespace thermocline {
namespace {

constexpr int kComputeBound = 16;    // tokens from which on caches matter little
constexpr uint64_t kBorders = 1024;  // bytes between the matrices of a layer, at most

class Bench {
 public:
  Bench(Backend& backend, const BackendBenchOptions& options)
      : backend_(backend),
        options_(options),
        shape_(options.shape),
        weights_(backend, options.pass_bytes, options.memory_bytes) {
    allocate_buffers();
  }

  std::vector<BackendFigure> measure_all() {
    for (const DType type : options_.matrix_types) {
      add(type, 1, [=, this] { matrix("attention matrix", q_dim(), type, {1}); });
    }
    for (const DType type : options_.matrix_types) {
      const std::vector<int> counts = token_counts(type);
      add(type, counts.size(), [=, this] { matrix("gate matrix", ffn_dim(), type, counts); });
    }
    for (const DType type : options_.ffn_types) {
      add(type, 1 + options_.sparse_percents.size(), [=, this] { ffn(type); });
    }
    if (refusal_of_attention().empty()) {
      add(options_.layer_type, 4, [this] { layer(options_.layer_type); });
      add(DType::f32, 1, [this] { long_attention(); });
    }
    return run_parts();
  }

  std::vector<BackendFigure> measure_scaling() {
    if (!refusal(options_.layer_type).empty()) return {};
    add(options_.layer_type, 3, [this] {
      reading_ = true;
      matrix("gate matrix", ffn_dim(), options_.layer_type, {1, options_.prefill});
    });
    return run_parts();
  }

 private:
  void allocate_buffers() {
    const int tokens = tokens_max();
    const int widest = std::max({ffn_dim(), q_dim(), dim()});
    x_ = weights_.allocate_floats(product(tokens, dim()), 1);
    norm_ = weights_.allocate_floats(static_cast<uint64_t>(dim()), 2);
    normed_ = weights_.allocate_floats(product(tokens, dim()), 0);
    q_ = weights_.allocate_floats(product(tokens, q_dim()), 3);
    k_ = weights_.allocate_floats(product(tokens, kv_dim()), 4);
    v_ = weights_.allocate_floats(product(tokens, kv_dim()), 5);
    attended_ = weights_.allocate_floats(product(tokens, q_dim()), 0);
    out_ = weights_.allocate_floats(product(tokens, dim()), 0);
    hidden_ = weights_.allocate_floats(product(tokens, widest), 0);
    active_ = reinterpret_cast<uint64_t*>(
        weights_.allocate_floats(2 * product(tokens, (ffn_dim() + 63) / 64), 0));
    const std::vector<double> frequencies = rope_frequencies(shape_);
    frequencies_ = reinterpret_cast<double*>(weights_.allocate_floats(2 * frequencies.size(), 0));
    backend_.upload(frequencies_, frequencies.data(), frequencies.size() * sizeof(double));
  }

  int dim() const { return static_cast<int>(shape_.model_dim); }
  int ffn_dim() const { return static_cast<int>(shape_.ffn_dim); }
  int q_dim() const { return static_cast<int>(shape_.q_dim()); }
  int kv_dim() const { return static_cast<int>(shape_.kv_dim()); }
  int position_count() const { return std::max(options_.position_count, options_.prefill); }
  int tokens_max() const { return std::max({1, options_.batch, options_.prefill}); }

  // ---- What is measured, in order.

  void add(DType type, size_t figures, std::function<void()> part) {
    if (!refusal(type).empty()) return;
    total_ += figures;
    parts_.push_back(std::move(part));
  }
  std::vector<BackendFigure> run_parts() {
    for (const auto& part : parts_) part();
    return std::move(figures_);
  }

  std::string refusal(DType type) const {
    const std::string reason = backend_.refusal_of_matrix(type, dim());
    return reason.empty() ? backend_.refusal_of_matrix(type, q_dim()) : reason;
  }
  std::string refusal_of_attention() const {
    return backend_.refusal_of_attention(
        static_cast<int>(shape_.head_dim),
        static_cast<int>(shape_.head_count / shape_.kv_head_count));
  }
  std::vector<int> token_counts(DType type) const {
    const auto& types = options_.ffn_types;
    if (std::find(types.begin(), types.end(), type) == types.end()) return {1};
    return {1, options_.batch, options_.prefill};
  }

  void matrix(const std::string& name, int rows_wanted, DType type,
              const std::vector<int>& token_counts) {
    const uint64_t row = row_bytes(type, dim());
    const int rows = weights_.fitting(rows_wanted, row, 0);
    const BenchCopies copies = weights_.make_copies(static_cast<uint64_t>(rows) * row);
    std::vector<WeightView> views;
    for (int copy = 0; copy < copies.count; ++copy) {
      views.push_back(weights_.make_matrix(copies.at(copy), type, rows, dim()));
    }
    if (reading_) measure_reading(copies);
    for (const int tokens : token_counts) {
      begin(tokens, 1);
      BackendFigure figure = figure_of(name, rows, rows_wanted, "rows", type, tokens);
      figure.bytes = static_cast<uint64_t>(rows) * row;
      const int count = tokens < kComputeBound ? copies.count : 1;
      measure(copies, figure, 2.0 * static_cast<double>(product(rows, dim())) * tokens, count,
              [&](int i) {
                const Product one[] = {{views[static_cast<size_t>(i)], hidden_}};
                backend_.multiply(one, x_, tokens);
              });
    }
  }

  void ffn(DType type) {
    const uint64_t row = row_bytes(type, dim());
    const int neurons = weights_.fitting(ffn_dim(), 3 * row, 0);
    const BenchCopies copies = weights_.make_copies(static_cast<uint64_t>(neurons) * 3 * row);
    std::vector<BenchLayer> layers;
    for (int copy = 0; copy < copies.count; ++copy) {
      layers.push_back(weights_.make_ffn(copies.at(copy), type, neurons, dim()));
    }
    begin(1, 1);
    std::vector<double> percents = {100};
    percents.insert(percents.end(), options_.sparse_percents.begin(),
                    options_.sparse_percents.end());
    for (const double percent : percents) {
      const Candidates candidates = weights_.draw(neurons, percent);
      BackendFigure figure = figure_of("ffn", neurons, ffn_dim(), "neurons", type, 1);
      figure.active_percent = percent;
      figure.bytes = static_cast<uint64_t>(candidates.size) * 3 * row;
      measure(copies, figure, ffn_operations(candidates.size), copies.count * candidates.sets,
              [&](int i) {
                queue_ffn(layers[static_cast<size_t>(i % copies.count)],
                          candidates.mask(i / copies.count), x_);
              });
    }
  }

  void layer(DType type) {
    const uint64_t row = row_bytes(type, dim());
    const uint64_t dense = attention_bytes(type), cache = cache_bytes();
    const uint64_t beside = dense + cache * static_cast<uint64_t>(options_.batch) + kBorders;
    const int neurons = weights_.fitting(ffn_dim(), 3 * row, beside);
    const BenchCopies copies =
        weights_.make_copies(beside + static_cast<uint64_t>(neurons) * 3 * row);
    std::vector<BenchLayer> layers;
    for (int copy = 0; copy < copies.count; ++copy) {
      layers.push_back(weights_.make_layer(copies.at(copy), type, neurons, shape_, position_count(),
                                           options_.batch));
    }
    struct Case {
      const char* name;
      double percent;
      int tokens, slots;
    };
    const double sparse = options_.sparse_percents.empty() ? 100 : options_.sparse_percents.back();
    for (const Case& one : {Case{"layer", 100, 1, 1}, Case{"layer", sparse, 1, 1},
                            Case{"layer, batch", 100, options_.batch, options_.batch},
                            Case{"layer, prefill", 100, options_.prefill, 1}}) {
      begin(one.tokens, one.slots);
      const Candidates candidates = weights_.draw(neurons, one.percent);
      BackendFigure figure = figure_of(one.name, neurons, ffn_dim(), "neurons", type, one.tokens);
      figure.active_percent = one.percent;
      figure.bytes = dense + cache * static_cast<uint64_t>(one.slots) +
                     static_cast<uint64_t>(candidates.size) * 3 * row;
      const double positions = position_count() - (one.tokens / one.slots - 1) / 2.0;  // mean
      const uint64_t first_key = next_key_;
      const int count = copies.count * candidates.sets;
      next_key_ += static_cast<uint64_t>(count);
      measure(copies, figure, layer_operations(candidates.size, positions) * one.tokens, count,
              [&](int i) {
                backend_.run_queued(first_key + static_cast<uint64_t>(i), [&] {
                  queue_layer(layers[static_cast<size_t>(i % copies.count)],
                              candidates.mask(i / copies.count));
                });
              });
    }
  }

  // One token that attends to a long context.
  void long_attention() {
    const int positions = options_.long_position_count;
    const uint64_t bytes = 2 * product(positions, kv_dim()) * sizeof(float);
    const BenchCopies copies = weights_.make_copies(bytes);
    std::vector<KvView> caches;
    for (int copy = 0; copy < copies.count; ++copy) {
      caches.push_back(weights_.make_cache(copies.at(copy), shape_, positions, 1));
    }
    rows_ = {{0, static_cast<uint32_t>(positions - 1), 0}};
    backend_.begin(rows_);
    BackendFigure figure =
        figure_of(fmt::format("attention to {}", positions), 1, 1, "", DType::f32, 1);
    figure.bytes = bytes;
    measure(copies, figure, attention_operations(positions), copies.count,
            [&](int i) { queue_attention(caches[static_cast<size_t>(i)]); });
  }

  // ---- Operations.

  void queue_ffn(const BenchLayer& layer, const NeuronMask& candidates, const float* x) {
    const auto words = static_cast<uint64_t>((layer.gate.rows + 63) / 64);
    backend_.gate_and_up({layer.gate, layer.up, FfnActivation::silu, 0.0f, candidates, x, hidden_,
                          active_, words, nullptr});
    backend_.sum_rows(layer.down, candidates, hidden_, out_);
  }

  void queue_attention(const KvView& cache) {
    backend_.attend({q_, k_, v_, cache, static_cast<int>(shape_.head_count),
                     static_cast<int>(shape_.kv_head_count), static_cast<int>(shape_.head_dim),
                     frequencies_, attended_});
  }

  void queue_layer(const BenchLayer& layer, const NeuronMask& candidates) {
    const int count = static_cast<int>(rows_.size());
    backend_.rms_norm(x_, norm_, dim(), shape_.norm_epsilon, count, normed_);
    const Product inputs[] = {{layer.q, q_}, {layer.k, k_}, {layer.v, v_}};
    backend_.multiply(inputs, normed_, count);
    queue_attention(layer.cache);
    const Product output[] = {{layer.o, out_}};
    backend_.multiply(output, attended_, count);
    backend_.add(x_, out_, product(count, dim()));
    backend_.rms_norm(x_, norm_, dim(), shape_.norm_epsilon, count, normed_);
    queue_ffn(layer, candidates, normed_);
    backend_.add(x_, out_, product(count, dim()));
  }

  // Tokens of `slots` sequences, whose last ones see position_count positions.
  void begin(int tokens, int slots) {
    rows_.clear();
    const int each = tokens / slots;
    for (int t = 0; t < tokens; ++t) {
      const int position = position_count() - each + t % each;
      rows_.push_back({0, static_cast<uint32_t>(position), static_cast<uint32_t>(t / each)});
    }
    backend_.begin(rows_);
  }

  // ---- What they cost.

  uint64_t attention_bytes(DType type) const {
    const auto rows = static_cast<uint64_t>(q_dim() + 2 * kv_dim());
    return rows * row_bytes(type, dim()) + static_cast<uint64_t>(dim()) * row_bytes(type, q_dim());
  }
  uint64_t cache_bytes() const { return 2 * product(position_count(), kv_dim()) * sizeof(float); }
  double ffn_operations(int neurons) const {
    return 2.0 * 3 * static_cast<double>(product(neurons, dim()));
  }
  double attention_operations(double positions) const { return 2.0 * 2 * positions * q_dim(); }
  double layer_operations(int neurons, double positions) const {
    const double weights = static_cast<double>(product(2 * q_dim() + 2 * kv_dim(), dim()));
    return 2 * weights + attention_operations(positions) + ffn_operations(neurons);
  }

  // ---- Time.

  // A pass over the calls, and what memory and cores gave just before.
  struct Round {
    double seconds;  // of one call
    double read_limit, compute_limit;
  };

  double seconds_of(const std::function<void()>& work) {
    using Clock = std::chrono::steady_clock;
    const Clock::time_point begin = Clock::now();
    work();
    backend_.wait();
    return std::max(std::chrono::duration<double>(Clock::now() - begin).count(), 1e-9);
  }

  // Where it is arithmetic that binds, its limit is taken anew each time; else `peak` will do, so
  // that there is time for more rounds.
  Round measure_round(const BenchCopies& copies, bool computes, double peak, int count,
                      const std::function<void(int)>& call) {
    Round round = {0, options_.read_limit, peak};
    if (backend_.uses_host_memory()) {
      if (computes) round.compute_limit = host_peak();
      round.read_limit = host_reading(copies);
    }
    round.seconds = seconds_of([&] {
                      for (int i = 0; i < count; ++i) call(i);
                    }) /
                    count;
    return round;
  }

  // On the threads of the backend, and the memory of what is measured next.
  double host_peak() { return compute_peak(run_on_host_, options_.seconds / 20); }
  double host_reading(const BenchCopies& copies) {
    const double seconds = seconds_of([&] {
      for (int i = 0; i < copies.count; ++i) read_once(copies.at(i), copies.bytes, run_on_host_);
    });
    return static_cast<double>(copies.bytes) * copies.count / seconds;
  }

  // Of the rounds that there is time for, the one in the middle by what its calls reached of the
  // limit that holds them, with the other limit's own middle. Neither the best nor the worst moment
  // of a machine that others use too.
  Round middle_round(const BenchCopies& copies, bool computes, int count,
                     const std::function<void(int)>& call) {
    const double peak = backend_.uses_host_memory() ? host_peak() : options_.compute_limit;
    std::vector<Round> rounds;
    measure_round(copies, computes, peak, count, call);  // warms up
    const auto since = std::chrono::steady_clock::now();
    const std::chrono::duration<double> time(options_.seconds);
    while (rounds.size() < 3 || std::chrono::steady_clock::now() - since < time)
      rounds.push_back(measure_round(copies, computes, peak, count, call));
    const auto by = [&](auto of) {
      const auto middle = rounds.begin() + static_cast<std::ptrdiff_t>(rounds.size() / 2);
      std::nth_element(rounds.begin(), middle, rounds.end(),
                       [&](const Round& a, const Round& b) { return of(a) < of(b); });
      return *middle;
    };
    Round round = by([&](const Round& one) {
      return one.seconds * std::max(computes ? one.compute_limit : one.read_limit, 1.0);
    });
    if (computes) round.read_limit = by([](const Round& one) { return one.read_limit; }).read_limit;
    return round;
  }

  // Beside itself: how much a share of this machine is worth.
  void measure_reading(const BenchCopies& copies) {
    BackendFigure figure;
    figure.name = "read bandwidth";
    figure.bytes = copies.bytes;
    measure(copies, figure, 0, copies.count,
            [&](int i) { read_once(copies.at(i), copies.bytes, run_on_host_); });
  }

  BackendFigure figure_of(const std::string& name, int rows, int rows_wanted, const char* unit,
                          DType type, int tokens) const {
    BackendFigure figure;
    figure.name = rows == rows_wanted ? name : fmt::format("{}, {} {}", name, rows, unit);
    figure.format = facts(type).name;
    figure.tokens = tokens;
    return figure;
  }

  void measure(const BenchCopies& copies, BackendFigure figure, double operations, int count,
               const std::function<void(int)>& call) {
    const Round round = middle_round(copies, figure.tokens >= kComputeBound, count, call);
    const double read = static_cast<double>(figure.bytes) / round.seconds;
    const double computed = operations / round.seconds;
    figure.threads = options_.thread_count;
    figure.ms = round.seconds * 1e3;
    figure.gb_per_s = read * 1e-9;
    figure.share_of_limit = round.read_limit > 0 ? read / round.read_limit : 0;
    figure.gflop_per_s = computed * 1e-9;
    figure.share_of_peak = round.compute_limit > 0 ? computed / round.compute_limit : 0;
    figures_.push_back(std::move(figure));
    if (options_.on_figure) options_.on_figure(figures_.size(), total_);
  }

  Backend& backend_;
  const BackendBenchOptions& options_;
  const ModelShape& shape_;
  std::vector<std::function<void()>> parts_;
  size_t total_ = 0;  // figures of all parts
  std::vector<BackendFigure> figures_;
  const RunParts run_on_host_ = [this](int count, const std::function<void(int, int)>& work) {
    backend_.run_on_host(count, work);
  };
  bool reading_ = false;  // the read limit is a figure too
  uint64_t next_key_ = 1;
  std::vector<TokenRow> rows_;
  BenchWeights weights_;
  float *x_, *norm_, *normed_, *q_, *k_, *v_, *attended_, *out_, *hidden_;
  uint64_t* active_;
  double* frequencies_;
};

}  // namespace

std::vector<BackendFigure> measure_backend(Backend& backend, const BackendBenchOptions& options) {
  return Bench(backend, options).measure_all();
}

std::vector<BackendFigure> measure_scaling(
    const std::function<std::unique_ptr<Backend>(int thread_count)>& make,
    const BackendBenchOptions& options) {
  std::vector<int> counts;
  for (int count = 1; count < options.thread_count; count *= 2) counts.push_back(count);
  counts.push_back(options.thread_count);
  std::vector<BackendFigure> all;
  for (const int count : counts) {
    BackendBenchOptions one = options;
    one.thread_count = count;
    one.on_figure = [&](size_t done, size_t total) {
      if (options.on_figure) options.on_figure(all.size() + done, counts.size() * total);
    };
    const std::unique_ptr<Backend> backend = make(count);
    std::vector<BackendFigure> figures = Bench(*backend, one).measure_scaling();
    std::move(figures.begin(), figures.end(), std::back_inserter(all));
  }
  return all;
}

}  // namespace thermocline
