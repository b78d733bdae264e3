#include "runtime/backend_bench.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <iterator>
#include <limits>
#include <map>
#include <span>
#include <utility>

#include "models/counter_random.h"
#include "models/error.h"
#include "models/quantize.h"
#include "runtime/kernels/bandwidth.h"

namespace thermocline {
namespace {

constexpr int kRowUnit = 64;       // a matrix that has to be smaller has a multiple of it
constexpr int kPatternRows = 16;   // different rows, of which a matrix is made
constexpr int kComputeBound = 16;  // tokens from which on caches matter little
constexpr uint64_t kLine = 64;     // what begins, begins at a multiple of it

uint64_t whole_lines(uint64_t bytes) { return (bytes + kLine - 1) / kLine * kLine; }

uint64_t product(int a, int b) { return static_cast<uint64_t>(a) * static_cast<uint64_t>(b); }

uint64_t row_bytes(DType dtype, int cols) { return bytes_of(dtype, static_cast<uint64_t>(cols)); }

// Uniform in [-1, 1), the same for the same seed.
std::vector<float> random_floats(uint64_t count, uint32_t seed) {
  const uint64_t blocks = (count * 4 + RandomStream::kBytesPerBlock - 1) / 32;
  std::vector<uint32_t> bits(blocks * 8);
  RandomStream(seed, 0).blocks(0, 0, static_cast<uint32_t>(blocks),
                               reinterpret_cast<uint8_t*>(bits.data()));
  std::vector<float> values(count);
  for (uint64_t i = 0; i < count; ++i) values[i] = static_cast<float>(bits[i]) * 0x1p-31f - 1.0f;
  return values;
}

// Sets of `size` of `count` neurons, a bit each, without a neuron in common: sets x words.
std::vector<uint64_t> disjoint_sets(int count, int size, int sets) {
  const int words = (count + 63) / 64;
  std::vector<uint64_t> bits(product(sets, words));
  const RandomStream random(1, 1);
  for (int i = 0; i < sets * size; ++i) {
    const int neuron =
        static_cast<int>(random.permuted(static_cast<uint32_t>(i), static_cast<uint32_t>(count)));
    bits[product(i / size, words) + static_cast<uint64_t>(neuron / 64)] |= uint64_t{1}
                                                                           << (neuron % 64);
  }
  return bits;
}

// Memory for as many copies of the same weights as outgrow the caches.
struct Copies {
  std::shared_ptr<std::byte> memory;
  uint64_t bytes;  // of one
  int count;

  std::byte* at(int copy) const { return memory.get() + static_cast<uint64_t>(copy) * bytes; }
};

// The matrices of one copy of a layer, or those of its FFN.
struct Layer {
  WeightView q, k, v, o, gate, up, down;
  KvView cache;
};

// Takes memory for matrices, one after the other.
class Cursor {
 public:
  explicit Cursor(std::byte* at) : at_(at) {}

  WeightView matrix(DType dtype, int rows, int cols) {
    const WeightView view{dtype, rows, cols, row_bytes(dtype, cols), at_};
    at_ += whole_lines(static_cast<uint64_t>(rows) * view.stride);
    return view;
  }
  // Rows of gate, up and down in bundles.
  void bundles(DType dtype, int neurons, int cols, Layer& layer) {
    const uint64_t row = row_bytes(dtype, cols);
    layer.gate = {dtype, neurons, cols, 3 * row, at_};
    layer.up = {dtype, neurons, cols, 3 * row, at_ + row};
    layer.down = {dtype, neurons, cols, 3 * row, at_ + 2 * row};
    at_ += whole_lines(static_cast<uint64_t>(neurons) * 3 * row);
  }
  float* floats(uint64_t count) {
    float* values = reinterpret_cast<float*>(at_);
    at_ += whole_lines(count * sizeof(float));
    return values;
  }

 private:
  std::byte* at_;
};

// Neurons to look at: `sets` of them in turn, or every neuron.
struct Candidates {
  std::shared_ptr<std::byte> words;  // empty: every neuron
  int sets = 1;
  int size = 0;  // neurons of a set
  uint64_t stride = 0;

  NeuronMask mask(int call) const {
    if (words == nullptr) return {};
    const auto* first = reinterpret_cast<const uint64_t*>(words.get());
    return {first + static_cast<uint64_t>(call % sets) * stride, 0};
  }
};

class Bench {
 public:
  Bench(Backend& backend, const BackendBenchOptions& options)
      : backend_(backend), options_(options), shape_(options.shape) {
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
  int dim() const { return static_cast<int>(shape_.model_dim); }
  int ffn_dim() const { return static_cast<int>(shape_.ffn_dim); }
  int q_dim() const { return static_cast<int>(shape_.q_dim()); }
  int kv_dim() const { return static_cast<int>(shape_.kv_dim()); }
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
    const int rows = fitting(rows_wanted, row, 0);
    const Copies copies = make_copies(static_cast<uint64_t>(rows) * row);
    std::vector<WeightView> views;
    for (int copy = 0; copy < copies.count; ++copy) {
      views.push_back(Cursor(copies.at(copy)).matrix(type, rows, dim()));
      place({&views.back(), 1});
    }
    find_limits(copies);
    for (const int tokens : token_counts) {
      begin(tokens, 1);
      BackendFigure figure = figure_of(name, rows, rows_wanted, "rows", type, tokens);
      figure.bytes = static_cast<uint64_t>(rows) * row;
      const int count = tokens < kComputeBound ? copies.count : 1;
      measure(figure, 2.0 * static_cast<double>(product(rows, dim())) * tokens, count, [&](int i) {
        const Product one[] = {{views[static_cast<size_t>(i)], hidden_}};
        backend_.multiply(one, x_, tokens);
      });
    }
  }

  void ffn(DType type) {
    const uint64_t row = row_bytes(type, dim());
    const int neurons = fitting(ffn_dim(), 3 * row, 0);
    const Copies copies = make_copies(static_cast<uint64_t>(neurons) * 3 * row);
    std::vector<Layer> layers(static_cast<size_t>(copies.count));
    for (int copy = 0; copy < copies.count; ++copy) {
      Layer& layer = layers[static_cast<size_t>(copy)];
      Cursor(copies.at(copy)).bundles(type, neurons, dim(), layer);
      place_bundles(layer);
    }
    find_limits(copies);
    begin(1, 1);
    std::vector<double> percents = {100};
    percents.insert(percents.end(), options_.sparse_percents.begin(),
                    options_.sparse_percents.end());
    for (const double percent : percents) {
      const Candidates candidates = draw(neurons, percent);
      BackendFigure figure = figure_of("ffn", neurons, ffn_dim(), "neurons", type, 1);
      figure.active_percent = percent;
      figure.bytes = static_cast<uint64_t>(candidates.size) * 3 * row;
      measure(figure, ffn_operations(candidates.size), copies.count * candidates.sets, [&](int i) {
        queue_ffn(layers[static_cast<size_t>(i % copies.count)], candidates.mask(i / copies.count),
                  x_);
      });
    }
  }

  void layer(DType type) {
    const uint64_t row = row_bytes(type, dim());
    const uint64_t dense = attention_bytes(type), cache = cache_bytes();
    const uint64_t beside = dense + cache * static_cast<uint64_t>(options_.batch) + 16 * kLine;
    const int neurons = fitting(ffn_dim(), 3 * row, beside);
    const Copies copies = make_copies(beside + static_cast<uint64_t>(neurons) * 3 * row);
    std::vector<Layer> layers;
    for (int copy = 0; copy < copies.count; ++copy) {
      layers.push_back(make_layer(copies.at(copy), type, neurons));
    }
    find_limits(copies);
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
      const Candidates candidates = draw(neurons, one.percent);
      BackendFigure figure = figure_of(one.name, neurons, ffn_dim(), "neurons", type, one.tokens);
      figure.active_percent = one.percent;
      figure.bytes = dense + cache * static_cast<uint64_t>(one.slots) +
                     static_cast<uint64_t>(candidates.size) * 3 * row;
      const uint64_t first_key = next_key_;
      const int count = copies.count * candidates.sets;
      next_key_ += static_cast<uint64_t>(count);
      measure(figure, layer_operations(candidates.size) * one.tokens, count, [&](int i) {
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
    const Copies copies = make_copies(bytes);
    std::vector<KvView> caches;
    for (int copy = 0; copy < copies.count; ++copy) {
      Cursor cursor(copies.at(copy));
      caches.push_back(make_cache(cursor, positions, 1));
    }
    find_limits(copies);
    rows_ = {{0, static_cast<uint32_t>(positions - 1), 0}};
    backend_.begin(rows_);
    BackendFigure figure =
        figure_of(fmt::format("attention to {}", positions), 1, 1, "", DType::f32, 1);
    figure.bytes = bytes;
    measure(figure, attention_operations(positions), copies.count,
            [&](int i) { queue_attention(caches[static_cast<size_t>(i)]); });
  }

  // ---- Operations.

  void queue_ffn(const Layer& layer, const NeuronMask& candidates, const float* x) {
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

  void queue_layer(const Layer& layer, const NeuronMask& candidates) {
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
      const int position = std::max(0, options_.position_count - each) + t % each;
      rows_.push_back({0, static_cast<uint32_t>(position), static_cast<uint32_t>(t / each)});
    }
    backend_.begin(rows_);
  }

  // ---- What they cost.

  uint64_t attention_bytes(DType type) const {
    const auto rows = static_cast<uint64_t>(q_dim() + 2 * kv_dim());
    return rows * row_bytes(type, dim()) + static_cast<uint64_t>(dim()) * row_bytes(type, q_dim());
  }
  uint64_t cache_bytes() const {
    return 2 * product(options_.position_count, kv_dim()) * sizeof(float);
  }
  double ffn_operations(int neurons) const {
    return 2.0 * 3 * static_cast<double>(product(neurons, dim()));
  }
  double attention_operations(int positions) const {
    return 2.0 * 2 * static_cast<double>(product(positions, q_dim()));
  }
  double layer_operations(int neurons) const {
    const double weights = static_cast<double>(product(2 * q_dim() + 2 * kv_dim(), dim()));
    return 2 * weights + attention_operations(options_.position_count) + ffn_operations(neurons);
  }

  // ---- Memory.

  uint64_t room() const {
    const uint64_t free = backend_.free_bytes();
    // Half of a machine's memory is left to others; a device's is ours but for some scratch.
    const uint64_t share = backend_.uses_host_memory() ? free / 2 : free / 10 * 9;
    return std::min(share, options_.memory_bytes);
  }

  // As many rows as there is room for, `beside` other bytes.
  int fitting(int rows, uint64_t bytes_per_row, uint64_t beside) const {
    const uint64_t bytes = room();
    const uint64_t fit = bytes <= beside ? 0 : (bytes - beside) / bytes_per_row;
    if (fit >= static_cast<uint64_t>(rows)) return rows;
    if (fit >= kRowUnit) return static_cast<int>(fit) / kRowUnit * kRowUnit;
    throw work_failed(fmt::format(
        "bench: no room for {} rows of {} bytes, beside {} other bytes: {} may be taken", kRowUnit,
        bytes_per_row, beside, bytes));
  }

  Copies make_copies(uint64_t bytes_of_one) {
    const uint64_t bytes = whole_lines(bytes_of_one);
    const uint64_t wanted = (options_.pass_bytes + bytes - 1) / bytes;
    const uint64_t count = std::max<uint64_t>(1, std::min(wanted, room() / bytes));
    Copies copies{backend_.allocate(bytes * count), bytes, static_cast<int>(count)};
    // As for a model's weights (runtime/rank_weights.cc): a hint.
    if (backend_.uses_host_memory()) ::madvise(copies.memory.get(), bytes * count, MADV_HUGEPAGE);
    return copies;
  }

  float* allocate_floats(uint64_t count, uint32_t seed) {
    buffers_.push_back(backend_.allocate(count * sizeof(float)));
    float* memory = reinterpret_cast<float*>(buffers_.back().get());
    if (seed != 0) fill(memory, count, seed);
    return memory;
  }
  void fill(float* memory, uint64_t count, uint32_t seed) {
    const std::vector<float> values = random_floats(count, seed);
    backend_.upload(memory, values.data(), count * sizeof(float));
  }

  void allocate_buffers() {
    const int tokens = tokens_max();
    const int widest = std::max({ffn_dim(), q_dim(), dim()});
    x_ = allocate_floats(product(tokens, dim()), 1);
    norm_ = allocate_floats(static_cast<uint64_t>(dim()), 2);
    normed_ = allocate_floats(product(tokens, dim()), 0);
    q_ = allocate_floats(product(tokens, q_dim()), 3);
    k_ = allocate_floats(product(tokens, kv_dim()), 4);
    v_ = allocate_floats(product(tokens, kv_dim()), 5);
    attended_ = allocate_floats(product(tokens, q_dim()), 0);
    out_ = allocate_floats(product(tokens, dim()), 0);
    hidden_ = allocate_floats(product(tokens, widest), 0);
    active_ =
        reinterpret_cast<uint64_t*>(allocate_floats(2 * product(tokens, (ffn_dim() + 63) / 64), 0));
    const std::vector<double> frequencies = rope_frequencies(shape_);
    frequencies_ = reinterpret_cast<double*>(allocate_floats(2 * frequencies.size(), 0));
    backend_.upload(frequencies_, frequencies.data(), frequencies.size() * sizeof(double));
  }

  // Rows that are repeated all over a matrix: small, so that many layers in a row stay finite.
  const std::byte* pattern(DType type, int cols) {
    std::vector<std::byte>& bytes = patterns_[{type, cols}];
    if (bytes.empty()) {
      std::vector<float> values = random_floats(product(kPatternRows, cols), 6);
      for (float& value : values) value *= 0.02f;
      bytes.resize(kPatternRows * row_bytes(type, cols));
      quantize(type, values.data(), values.size(), bytes.data());
    }
    return bytes.data();
  }

  // Matrices of as many rows each, by the threads that are to read them.
  void place(std::span<const WeightView> matrices) {
    const std::byte* rows = pattern(matrices[0].dtype, matrices[0].cols);
    backend_.run_on_host(matrices[0].rows, [&](int begin, int end) {
      for (int r = begin; r < end; r += kPatternRows) {
        for (const WeightView& matrix : matrices) {
          backend_.place_rows(matrix, r, std::min(end, r + kPatternRows), rows);
        }
      }
    });
  }
  void place_bundles(const Layer& layer) {
    const WeightView rows[] = {layer.gate, layer.up, layer.down};
    place(rows);
  }

  Layer make_layer(std::byte* memory, DType type, int neurons) {
    Cursor cursor(memory);
    Layer layer;
    layer.q = cursor.matrix(type, q_dim(), dim());
    layer.k = cursor.matrix(type, kv_dim(), dim());
    layer.v = cursor.matrix(type, kv_dim(), dim());
    layer.o = cursor.matrix(type, dim(), q_dim());
    for (const WeightView& matrix : {layer.q, layer.k, layer.v, layer.o}) place({&matrix, 1});
    cursor.bundles(type, neurons, dim(), layer);
    place_bundles(layer);
    layer.cache = make_cache(cursor, options_.position_count, options_.batch);
    return layer;
  }

  KvView make_cache(Cursor& cursor, int positions, int slots) {
    const uint64_t slot = product(positions, kv_dim());
    const uint64_t count = slot * static_cast<uint64_t>(slots);
    float* keys = cursor.floats(count);
    float* values = cursor.floats(count);
    fill(keys, count, 7);
    fill(values, count, 8);
    return {keys, values, slot, product(positions, static_cast<int>(shape_.head_dim)), positions};
  }

  Candidates draw(int neurons, double percent) {
    if (percent >= 100) return {nullptr, 1, neurons, 0};
    const int size = std::max(1, static_cast<int>(std::lround(neurons * percent / 100)));
    const int sets = std::max(1, neurons / size);
    const std::vector<uint64_t> bits = disjoint_sets(neurons, size, sets);
    const uint64_t bytes = bits.size() * sizeof(uint64_t);
    Candidates candidates{backend_.allocate(bytes), sets, size,
                          bits.size() / static_cast<uint64_t>(sets)};
    backend_.upload(candidates.words.get(), bits.data(), bytes);
    return candidates;
  }

  // ---- Time.

  // Of one call: the best pass over calls [0, count).
  double best_seconds(int count, const std::function<void(int)>& call) {
    using Clock = std::chrono::steady_clock;
    const auto since = [](Clock::time_point begin) {
      return std::chrono::duration<double>(Clock::now() - begin).count();
    };
    const Clock::time_point start = Clock::now();
    double best = std::numeric_limits<double>::infinity();
    for (int pass = 0; pass < 2 || since(start) < options_.seconds; ++pass) {
      const Clock::time_point begin = Clock::now();
      for (int i = 0; i < count; ++i) call(i);
      backend_.wait();
      best = std::min(best, since(begin));
    }
    return std::max(best, 1e-9) / count;
  }

  // On the threads of the backend and the memory of what is measured next.
  void find_limits(const Copies& copies) {
    read_limit_ = options_.read_limit;
    compute_limit_ = options_.compute_limit;
    if (!backend_.uses_host_memory()) return;
    const RunParts run = [this](int count, const std::function<void(int, int)>& work) {
      backend_.run_on_host(count, work);
    };
    compute_limit_ = compute_peak(run, options_.seconds / 2);
    const double seconds = best_seconds(
        copies.count, [&](int copy) { read_once(copies.at(copy), copies.bytes, run); });
    read_limit_ = static_cast<double>(copies.bytes) / seconds;
    if (!reading_) return;
    BackendFigure figure;
    figure.name = "read bandwidth";
    figure.bytes = copies.bytes;
    finish(figure, 0, seconds);
  }

  BackendFigure figure_of(const std::string& name, int rows, int rows_wanted, const char* unit,
                          DType type, int tokens) const {
    BackendFigure figure;
    figure.name = rows == rows_wanted ? name : fmt::format("{}, {} {}", name, rows, unit);
    figure.format = facts(type).name;
    figure.tokens = tokens;
    return figure;
  }

  void measure(const BackendFigure& figure, double operations, int count,
               const std::function<void(int)>& call) {
    finish(figure, operations, best_seconds(count, call));
  }

  void finish(BackendFigure figure, double operations, double seconds) {
    const double read = static_cast<double>(figure.bytes) / seconds;
    const double computed = operations / seconds;
    figure.threads = options_.thread_count;
    figure.ms = seconds * 1e3;
    figure.gb_per_s = read * 1e-9;
    figure.share_of_limit = read_limit_ > 0 ? read / read_limit_ : 0;
    figure.gflop_per_s = computed * 1e-9;
    figure.share_of_peak = compute_limit_ > 0 ? computed / compute_limit_ : 0;
    figures_.push_back(std::move(figure));
    if (options_.on_figure) options_.on_figure(figures_.size(), total_);
  }

  Backend& backend_;
  const BackendBenchOptions& options_;
  const ModelShape& shape_;
  std::vector<std::function<void()>> parts_;
  size_t total_ = 0;  // figures of all parts
  std::vector<BackendFigure> figures_;
  bool reading_ = false;  // the read limit is a figure too
  double read_limit_ = 0, compute_limit_ = 0;
  uint64_t next_key_ = 1;
  std::vector<TokenRow> rows_;
  std::map<std::pair<DType, int>, std::vector<std::byte>> patterns_;
  std::vector<std::shared_ptr<std::byte>> buffers_;
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
