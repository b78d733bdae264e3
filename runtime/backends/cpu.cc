// The backend `cpu`: kernels of the fastest instruction set, over a pool of threads.
//
// Queued means done: every operation runs before it returns.
#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <vector>

#include "models/error.h"
#include "runtime/activation_rule.h"
#include "runtime/backend.h"
#include "runtime/bit_shares.h"
#include "runtime/clock.h"
#include "runtime/kernels/kernels.h"
#include "runtime/kernels/signs.h"
#include "runtime/row_pairs.h"
#include "runtime/set_bits.h"
#include "runtime/sum_parts.h"
#include "runtime/thread_pool.h"

namespace thermocline {
namespace {

constexpr uint64_t kHugePage = uint64_t{2} << 20;
constexpr int kWordBits = 64;
// From here on, tokens are worth sharing out among threads.
constexpr int kSharedTokens = 4;
// Up to here, memory is what a product waits for, so that the order of reading counts.
constexpr int kPairedTokens = 4;

size_t at(int row, int width) { return static_cast<size_t>(row) * static_cast<size_t>(width); }

constexpr size_t kLine = 64;
constexpr int kLineFloats = kLine / sizeof(float);
// Floats between what threads add to: on a Zen 5 two threads' sums of Q4_0 rows took 58 GB/s with
// 64, 68 with 1024, 75 with so many.
constexpr int kApart = 4096;
struct alignas(kLine) Line {
  std::byte bytes[kLine];
};

// Started means arrived.
class CpuRowMover final : public RowMover {
 public:
  CpuRowMover(uint64_t row_bytes, uint32_t batch_rows)
      : row_bytes_(row_bytes), staging_(row_bytes * batch_rows) {}
  std::byte* staging() override { return staging_.data(); }
  void start(std::byte* to, std::span<const uint32_t> places) override {
    for (size_t i = 0; i < places.size(); ++i)
      std::memcpy(to + places[i] * row_bytes_, staging_.data() + i * row_bytes_, row_bytes_);
    ++arrived_;
  }
  uint64_t arrived() override { return arrived_; }
  void wait() override {}

 private:
  uint64_t row_bytes_;
  std::vector<std::byte> staging_;
  uint64_t arrived_ = 0;
};

// The rows of one sequence within a forward.
struct Sequence {
  int first, count;
};

class CpuBackend final : public Backend {
 public:
  explicit CpuBackend(const BackendOptions& options) : pool_(options.thread_count, options.rank) {}

  std::string describe() const override {
    return std::string(kernels_.name) + ", " + std::to_string(pool_.size()) +
           (pool_.size() == 1 ? " thread" : " threads");
  }
  bool uses_host_memory() const override { return true; }

  // What the system could give, its caches included.
  uint64_t free_bytes() const override {
    std::ifstream facts("/proc/meminfo");
    for (std::string line; std::getline(facts, line);) {
      unsigned long long kibibytes = 0;
      if (std::sscanf(line.c_str(), "MemAvailable: %llu kB", &kibibytes) == 1)
        return kibibytes << 10;
    }
    return ~uint64_t{0};
  }

  std::string refusal_of_matrix(DType dtype, int cols) const override {
    const int block = static_cast<int>(facts(dtype).items_per_block);
    if (cols % block == 0) return "";
    return "rows of " + std::string(facts(dtype).name) + " have a multiple of " +
           std::to_string(block) + " columns, not " + std::to_string(cols);
  }
  std::string refusal_of_attention(int head_dim, int) const override {
    return head_dim % 2 == 0 ? "" : "rotary positions need an even head_dim";
  }

  // Pages come from the kernel, as zeros, when they are first written: by the thread that places
  // rows there. Large blocks begin at a huge page's border.
  std::shared_ptr<std::byte> allocate(uint64_t bytes) override {
    const uint64_t size = std::max<uint64_t>(bytes, 1) + kHugePage;
    void* memory =
        ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
      throw work_failed("no memory: " + std::to_string(bytes) + " bytes asked for, " +
                        std::to_string(free_bytes()) + " available");
    }
    const auto begin = reinterpret_cast<uintptr_t>(memory);
    const uintptr_t aligned = (begin + kHugePage - 1) / kHugePage * kHugePage;
    return {reinterpret_cast<std::byte*>(bytes >= kHugePage ? aligned : begin),
            [memory, size](std::byte*) { ::munmap(memory, size); }};
  }

  void place_rows(const WeightView& w, int row_begin, int row_end, const std::byte* host) override {
    const uint64_t row_bytes = bytes_of(w.dtype, static_cast<uint64_t>(w.cols));
    for (int r = row_begin; r < row_end; ++r, host += row_bytes) {
      cpu_pack_row(w.dtype, w.cols, host, const_cast<std::byte*>(w.row(r)));
    }
  }
  void upload(void* to, const void* host, uint64_t bytes) override { std::memcpy(to, host, bytes); }
  void download(void* host, const void* from, uint64_t bytes) override {
    std::memcpy(host, from, bytes);
  }
  void wait() override {}

  void run_on_host(int count, const std::function<void(int, int)>& work) override {
    pool_.run(count, 1, work);
  }

  void begin(std::span<const TokenRow> rows) override {
    rows_ = rows;
    sequences_.clear();
    for (size_t t = 0; t < rows.size(); ++t) {
      if (t > 0 && rows[t].slot == rows[t - 1].slot) {
        ++sequences_.back().count;
      } else {
        sequences_.push_back({static_cast<int>(t), 1});
      }
    }
  }
  void run_queued(uint64_t, const std::function<void()>& queue) override { queue(); }

  void embed(const WeightView& table, uint32_t first_token, float* x) override {
    for (size_t t = 0; t < rows_.size(); ++t, x += table.cols) {
      const uint32_t row = static_cast<uint32_t>(rows_[t].token) - first_token;  // wraps below
      if (row < static_cast<uint32_t>(table.rows)) {
        kernels_.decode_row(table, static_cast<int>(row), x);
      } else {
        std::fill_n(x, table.cols, 0.0f);
      }
    }
  }

  void rms_norm(const float* x, const float* weight, int dim, float epsilon, int count,
                float* y) override {
    for_each_token(count, [&](int t) {
      kernels_.rms_norm(x + at(t, dim), weight, dim, epsilon, y + at(t, dim));
    });
  }

  // Threads share the rows of all products as if they were one matrix.
  void multiply(std::span<const Product> products, const float* x, int count) override {
    const Inputs inputs = inputs_of(products, x, count);
    int total = 0;
    for (const Product& product : products) total += product.w.rows;
    pool_.run(total, 1, [&](int begin, int end) {
      int offset = 0;
      for (const Product& product : products) {
        const int rows = product.w.rows;
        const int first = std::clamp(begin - offset, 0, rows);
        const int last = std::clamp(end - offset, 0, rows);
        offset += rows;
        if (first < last) kernels_.matmul(product.w, first, last, inputs, count, product.y, rows);
      }
    });
  }

  void attend(const AttentionCall& call) override {
    pool_.run(call.kv_head_count * static_cast<int>(sequences_.size()), 1, [&](int begin, int end) {
      std::vector<float> scratch;
      for (int i = begin; i < end; ++i) {
        attend_head(call, i % call.kv_head_count,
                    sequences_[static_cast<size_t>(i / call.kv_head_count)], scratch);
      }
    });
  }

  void gate_and_up(const GateUpCall& call) override {
    const int count = token_count();
    up_.resize(std::max(up_.size(), at(count, call.up.rows)));
    const Product products[] = {{call.gate, nullptr}, {call.up, nullptr}};
    const Inputs inputs =
        inputs_of(std::span(products).first(call.up.rows > 0 ? 2 : 1), call.x, count);
    const bool paired = every_candidate_is_wanted(call) && count <= kPairedTokens &&
                        RowPairs::fit(call.gate, call.up);
    if (paired) pairs_.make(call.gate, call.up, call.candidates, count);
    run_chosen(call.candidates, call.gate.rows, [&](int begin, int end) {
      paired ? multiply_pairs(call, inputs, begin, end)
             : multiply_chosen(call.gate, call.candidates, inputs, begin, end, call.hidden);
      gate_and_up(call, inputs, begin, end, paired);
    });
  }

  bool has_tiers() const override { return true; }
  void scale_by_rows(const WeightView& w, const NeuronMask& mask, const float* x,
                     float* hidden) override {
    const int count = token_count();
    up_.resize(std::max(up_.size(), at(count, w.rows)));
    const Product products[] = {{w, nullptr}};
    const Inputs inputs = inputs_of(products, x, count);
    run_chosen(mask, w.rows,
               [&](int begin, int end) { scale_by_rows(w, mask, inputs, begin, end, hidden); });
  }

  // Threads share the parts of the sum; where there are more threads, also their columns.
  void sum_rows(const WeightView& w, const NeuronMask& mask, const float* a, float* y) override {
    const int count = token_count();
    const int slices = (pool_.size() + SumParts::kCount - 1) / SumParts::kCount;
    parts_.cut(mask.words != nullptr ? mask : every(w.rows), w.rows, count);
    PartSums sums = part_sums(w.cols, count);
    pool_.run(SumParts::kCount * slices, 1, [&](int begin, int end) {
      for (int i = begin; i < end; ++i) sum_part(w, i / slices, i % slices, slices, a, sums);
    });
    pool_.run(w.cols, kLineFloats, [&](int begin, int end) {
      for (int t = 0; t < count; ++t) add_parts(sums, t, begin, end, y + at(t, w.cols));
    });
  }

  std::shared_ptr<std::byte> allocate_host(uint64_t bytes) override { return allocate(bytes); }
  void queue_copy(void* to, const void* from, uint64_t bytes) override {
    std::memcpy(to, from, bytes);
  }
  void mark(uint32_t number) override {
    if (marks_.size() <= number) marks_.resize(number + 1);
    marks_[number] = now_ns();
  }
  void wait_for(uint32_t) override {}
  uint64_t ns_between(uint32_t first, uint32_t second) override {
    return marks_[second] - marks_[first];
  }
  void intersect(const NeuronMask& mask, const uint64_t* words, uint32_t word_count,
                 uint64_t* bits) override {
    for (int t = 0; t < token_count(); ++t, bits += word_count)
      for (uint32_t w = 0; w < word_count; ++w) bits[w] = words_of(mask, t)[w] & words[w];
  }
  void pack_row(DType dtype, int cols, const std::byte* from, std::byte* to) const override {
    cpu_pack_row(dtype, cols, from, to);
  }
  std::unique_ptr<RowMover> make_mover(uint64_t row_bytes, uint32_t batch_rows) override {
    return std::make_unique<CpuRowMover>(row_bytes, batch_rows);
  }
  uint64_t mover_bytes(uint64_t row_bytes, uint32_t batch_rows) const override {
    return row_bytes * batch_rows;
  }

  void add(float* x, const float* y, uint64_t count) override {
    for (uint64_t i = 0; i < count; ++i) x[i] += y[i];
  }

  void match_signs(const SignCall& call) override {
    const int words = sign_words(call.cols), count = token_count();
    signs_.resize(std::max(signs_.size(), at(count, words)));
    for_each_token(count, [&](int t) {
      signs_of(call.x + at(t, call.cols), call.cols, signs_.data() + at(t, words));
    });
    pool_.run(call.rows, kWordBits, [&](int begin, int end) {
      sign_kernels().match(call.signs, words, begin, end, signs_.data(), count, call.differing_max,
                           call.bits, call.stride);
    });
  }

  void relu(float* x, uint64_t count) override {
    for (uint64_t i = 0; i < count; ++i) x[i] = x[i] > 0.0f ? x[i] : 0.0f;
  }

  void mark_reached(const float* scores, int width, float threshold, uint64_t* bits,
                    uint64_t stride) override {
    for_each_token(token_count(), [&](int t) {
      const float* row = scores + at(t, width);
      uint64_t* words = bits + static_cast<uint64_t>(t) * stride;
      for (int first = 0; first < width; first += kWordBits) {
        const int count = std::min(kWordBits, width - first);
        uint64_t word = 0;
        for (int i = 0; i < count; ++i) word |= uint64_t{row[first + i] >= threshold} << i;
        words[first / kWordBits] = word;
      }
    });
  }

 private:
  int token_count() const { return static_cast<int>(rows_.size()); }

  template <class Work>
  void for_each_token(int count, const Work& work) {
    const auto part = [&](int begin, int end) {
      for (int t = begin; t < end; ++t) work(t);
    };
    count < kSharedTokens ? part(0, count) : pool_.run(count, 1, part);
  }

  // Threads share the rows that the mask, if there is one, chooses; parts begin at multiples of 64.
  template <class Work>
  void run_chosen(const NeuronMask& mask, int rows, const Work& work) {
    if (mask.words == nullptr || pool_.size() == 1) return pool_.run(rows, kWordBits, work);
    shares_.cut(mask, rows, token_count(), pool_.size());
    pool_.run(pool_.size(), 1, [&](int first, int last) {
      const int begin = shares_.begin(first), end = shares_.begin(last);
      if (begin < end) work(begin, end);
    });
  }

  // x, and in fixed point where a product takes it so.
  Inputs inputs_of(std::span<const Product> products, const float* x, int count) {
    const int cols = products[0].w.cols;
    const auto wants = [](const Product& product) { return takes_fixed(product.w.dtype); };
    if (std::none_of(products.begin(), products.end(), wants)) return {x, cols, nullptr};
    const size_t row_bytes = fixed_bytes(cols);
    fixed_.resize(std::max(fixed_.size(), static_cast<size_t>(count) * row_bytes / kLine));
    std::byte* fixed = fixed_.data()->bytes;
    for_each_token(count, [&](int t) {
      kernels_.to_fixed(x + at(t, cols), cols, fixed + static_cast<size_t>(t) * row_bytes);
    });
    return {x, cols, fixed};
  }

  NeuronMask every(int count) {
    const auto words = static_cast<size_t>((count + kWordBits - 1) / kWordBits);
    if (all_.size() < words) all_.resize(words, ~uint64_t{0});
    return {all_.data(), 0};
  }

  // Grouped-query attention (Ainslie et al. 2023): the query heads of a group share one kv head.
  void attend_head(const AttentionCall& call, int kv_head, const Sequence& sequence,
                   std::vector<float>& scratch) {
    const int dim = call.head_dim, group = call.head_count / call.kv_head_count;
    const TokenRow& first = rows_[static_cast<size_t>(sequence.first)];
    const size_t cached =
        first.slot * call.cache.slot_stride + static_cast<size_t>(kv_head) * call.cache.head_stride;
    float* keys = call.cache.keys + cached;
    float* values = call.cache.values + cached;
    const int begin = static_cast<int>(first.position);
    for (int i = 0; i < sequence.count; ++i) {
      const size_t from = at((sequence.first + i) * call.kv_head_count + kv_head, dim);
      float* key = keys + at(begin + i, dim);
      std::copy_n(call.k + from, dim, key);
      std::copy_n(call.v + from, dim, values + at(begin + i, dim));
      kernels_.rope(key, 1, dim, begin + i, call.frequencies);
    }
    scratch.resize(attend_scratch(group, begin + sequence.count, dim));
    std::vector<float> query(at(group, dim));
    for (int i = 0; i < sequence.count; ++i) {
      const size_t from = at((sequence.first + i) * call.head_count + kv_head * group, dim);
      std::copy_n(call.q + from, query.size(), query.data());
      kernels_.rope(query.data(), group, dim, begin + i, call.frequencies);
      kernels_.attend(query.data(), group, keys, values, begin + i + 1, dim, dim, scratch.data(),
                      call.out + from);
    }
  }

  // SiLU has no zeros: whoever is looked at has its up row read, too.
  static bool every_candidate_is_wanted(const GateUpCall& call) {
    return call.activation == FfnActivation::silu && call.up.rows > 0;
  }

  // Gate's and up's products of neurons [begin, end), to hidden and up_.
  void multiply_pairs(const GateUpCall& call, const Inputs& inputs, int begin, int end) {
    const int count = token_count(), neurons = call.gate.rows;
    multiply_chosen(pairs_.rows(), pairs_.mask(), inputs, 2 * begin, 2 * end, pairs_.products());
    for (int t = 0; t < count; ++t) {
      const float* from = pairs_.products() + at(t, 2 * neurons);
      float* gate = call.hidden + at(t, neurons);
      float* up = up_.data() + at(t, neurons);
      const auto part = [&](int i) { gate[i] = from[2 * i], up[i] = from[2 * i + 1]; };
      if (call.candidates.words == nullptr) {
        for (int i = begin; i < end; ++i) part(i);
      } else {
        for_each_bit(words_of(call.candidates, t), begin, end, part);
      }
    }
  }

  // For neurons [begin, end), whose gate is in hidden; begin is a multiple of 64. up_: it has up's
  // products already.
  void gate_and_up(const GateUpCall& call, const Inputs& inputs, int begin, int end, bool up_done) {
    const int count = token_count(), neurons = call.gate.rows;
    for (int t = 0; t < count; ++t) {
      float* gate = call.hidden + at(t, neurons);
      uint64_t* active = call.active + static_cast<size_t>(t) * call.active_stride;
      const uint64_t* candidates =
          call.candidates.words != nullptr ? words_of(call.candidates, t) : nullptr;
      activate(call.activation, call.threshold, gate, begin, end, candidates, active);
      pass_magnitudes(call, t, begin, end);
    }
    if (call.up.rows == 0) return;
    const NeuronMask computed = every_candidate_is_wanted(call)
                                    ? call.candidates
                                    : NeuronMask{call.active, call.active_stride};
    if (!up_done) multiply_chosen(call.up, computed, inputs, begin, end, up_.data());
    scale_by_up(call.up, computed, begin, end, call.hidden);
  }

  void scale_by_rows(const WeightView& w, const NeuronMask& mask, const Inputs& inputs, int begin,
                     int end, float* hidden) {
    multiply_chosen(w, mask, inputs, begin, end, up_.data());
    scale_by_up(w, mask, begin, end, hidden);
  }

  void scale_by_up(const WeightView& w, const NeuronMask& mask, int begin, int end,
                   float* hidden) const {
    for (int t = 0; t < token_count(); ++t) {
      float* of_token = hidden + at(t, w.rows);
      const float* up = up_.data() + at(t, w.rows);
      if (mask.words == nullptr) {
        for (int i = begin; i < end; ++i) of_token[i] *= up[i];
      } else {
        for_each_bit(words_of(mask, t), begin, end, [&](int i) { of_token[i] *= up[i]; });
      }
    }
  }

  static const uint64_t* words_of(const NeuronMask& mask, int t) {
    return mask.words + static_cast<size_t>(t) * mask.stride;
  }

  void multiply_chosen(const WeightView& w, const NeuronMask& mask, const Inputs& inputs, int begin,
                       int end, float* y) {
    if (mask.words == nullptr) {
      kernels_.matmul(w, begin, end, inputs, token_count(), y, w.rows);
    } else {
      kernels_.matmul_masked(w, begin, end, mask.words, static_cast<int>(mask.stride), inputs,
                             token_count(), y, w.rows);
    }
  }

  // The sums of all parts, (token_count, stride) floats each, apart: prefetching runs on past the
  // end of one, and would take lines from the thread that adds to the next.
  struct PartSums {
    float* values;
    int stride, token_count;
    float* row(int part, int token) const {
      return values + at(part * token_count + token, stride) + at(part, kApart);
    }
  };
  PartSums part_sums(int cols, int count) {
    const int lines = (cols + kLineFloats - 1) / kLineFloats;
    const size_t all =
        at(SumParts::kCount * count, lines) + at(SumParts::kCount, kApart / kLineFloats);
    sums_.resize(std::max(sums_.size(), all));
    return {reinterpret_cast<float*>(sums_.data()), lines * kLineFloats, count};
  }

  void sum_part(const WeightView& w, int part, int slice, int slices, const float* a,
                const PartSums& sums) const {
    const int chunks = (w.cols + kChunk - 1) / kChunk;
    const int begin = chunks * slice / slices * kChunk;
    const int end = std::min(chunks * (slice + 1) / slices * kChunk, w.cols);
    if (begin >= end) return;
    for (int t = 0; t < sums.token_count; ++t)
      std::fill(sums.row(part, t) + begin, sums.row(part, t) + end, 0.0f);
    const NeuronMask rows = parts_.part(part);
    kernels_.weighted_rows(w, begin, end, rows.words, static_cast<int>(rows.stride), a, w.rows,
                           sums.token_count, sums.row(part, 0), sums.stride);
  }

  static void add_parts(const PartSums& sums, int token, int begin, int end, float* y) {
    std::copy(sums.row(0, token) + begin, sums.row(0, token) + end, y + begin);
    for (int part = 1; part < SumParts::kCount; ++part) {
      const float* of_part = sums.row(part, token);
      for (int c = begin; c < end; ++c) y[c] += of_part[c];
    }
  }

  // While hidden holds act(gate x).
  static void pass_magnitudes(const GateUpCall& call, int t, int begin, int end) {
    if (call.magnitudes == nullptr) return;
    const float* gate = call.hidden + at(t, call.gate.rows);
    float* out = call.magnitudes + at(t, call.gate.rows);
    for (int i = begin; i < end; ++i) out[i] = std::fabs(gate[i]);
  }

  const Kernels& kernels_ = cpu_kernels();
  ThreadPool pool_;
  std::span<const TokenRow> rows_;  // the caller's
  std::vector<Sequence> sequences_;
  // Scratch, as large as the largest call so far.
  std::vector<Line> fixed_;  // inputs in fixed point
  std::vector<float> up_;    // (token_count, neurons)
  BitShares shares_;
  RowPairs pairs_;
  SumParts parts_;
  std::vector<Line> sums_;       // of parts
  std::vector<uint64_t> all_;    // ones
  std::vector<uint64_t> marks_;  // when each was set, ns
  std::vector<uint64_t> signs_;  // (token_count, sign_words) of inputs
};

std::string usable() { return ""; }

std::unique_ptr<Backend> make_cpu(const BackendOptions& options) {
  return std::make_unique<CpuBackend>(options);
}

}  // namespace

THERMOCLINE_BACKEND(cpu, "this machine's cores: AVX-512, AVX2 or plain C++", usable, make_cpu);

}  // namespace thermocline
