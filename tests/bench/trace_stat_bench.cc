// Times what trace statistics cost a core: layers of 70B's width, bits made in memory.
//
//   trace_stat_bench [LAYERS [THREADS [TASKS_AT_ONCE]]]     default 4 layers, 1 thread, 1 task
//
// Limit: 300 MB/s of raw bits a core.
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>

#include "models/bit_sums.h"
#include "models/counter_random.h"
#include "models/error.h"
#include "traces/statistics.h"

using namespace thermocline;

namespace {

constexpr uint32_t kWidth = 28672, kSteps = 8192, kMadeSteps = 512, kTaskSteps = 256;
constexpr double kLimit = 0.3;  // GB/s a core
constexpr int kPasses = 3;

// Tasks of kTaskSteps, `at_once` of them taking turns. Bits, a quarter of them set, repeat after
// kMadeSteps, so that reading is a copy.
class MadeTrace final : public TraceReader {
 public:
  MadeTrace(uint32_t layers, uint32_t at_once) : at_once_(at_once) {
    header_.shape.layer_count = layers;
    header_.shape.ffn_dim = kWidth;
    const NeuronPool pool{0, layers, 0, kWidth};
    made_.resize(kMadeSteps * pool.words_per_step());
    const RandomStream stream(1, 0);
    uint8_t bytes[RandomStream::kBytesPerBlock];
    for (size_t i = 0; i < made_.size(); ++i) {
      stream.blocks(i / 65536, i % 65536, 1, bytes);
      const auto* words = reinterpret_cast<const uint64_t*>(bytes);
      made_[i] = words[0] & words[1];
    }
  }

  const TraceHeader& header() const override { return header_; }
  uint64_t step_count() const override { return kSteps; }
  bool finished() const override { return true; }
  const std::vector<std::string>& missing() const override { return missing_; }
  bool holds(uint32_t) const override { return true; }
  uint64_t file_bytes() const override { return 0; }
  const std::vector<TaskRecord>& tasks() const override { return tasks_; }
  std::vector<StepInfo> steps() const override {
    std::vector<StepInfo> steps;
    for (uint32_t i = 0; i < kSteps; ++i) {
      const uint32_t round = i / (at_once_ * kTaskSteps), task = round * at_once_ + i % at_once_;
      steps.push_back({0, i / at_once_ % kTaskSteps, task, Phase::decode});
    }
    return steps;
  }
  std::vector<StepTimes> times(uint32_t) const override { return {}; }
  std::vector<uint32_t> popcounts(uint64_t, uint64_t) const override { return {}; }
  void read(const NeuronPool& pool, uint64_t begin, uint64_t count,
            StepBlock& block) const override {
    block.pool = pool;
    block.step_begin = begin;
    block.step_count = count;
    block.words.resize(count * pool.words_per_step());
    const uint64_t layer_words = pool.words_per_layer();
    for (uint64_t i = 0; i < count; ++i) {
      const uint64_t row = (begin + i) % kMadeSteps * header_.shape.layer_count + pool.layer_begin;
      std::copy_n(made_.data() + row * layer_words, pool.words_per_step(),
                  block.words.data() + i * pool.words_per_step());
    }
  }
  void read_predicted(const NeuronPool&, uint64_t, uint64_t, StepBlock&) const override {}
  const std::vector<uint64_t>& magnitude_steps() const override { return magnitude_steps_; }
  void read_magnitudes(const NeuronPool&, uint64_t, uint64_t, std::vector<float>&) const override {}
  std::string hash() const override { return ""; }

 private:
  uint32_t at_once_;
  TraceHeader header_;
  std::vector<uint64_t> made_;  // (kMadeSteps, layer_count, words_per_layer)
  std::vector<std::string> missing_;
  std::vector<TaskRecord> tasks_;
  std::vector<uint64_t> magnitude_steps_;
};

struct Seconds {
  double wall, cores;  // the latter of all threads together: what a busy machine does not change
};

double core_seconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

Seconds seconds_of(const TraceReader& trace, uint32_t threads) {
  const auto begin = std::chrono::steady_clock::now();
  const double cores_begin = core_seconds();
  const TraceStatistics found = statistics_of(trace, {}, {}, {.threads = threads});
  TC_CHECK(found.step_count == kSteps, "steps are missing");
  return {std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count(),
          core_seconds() - cores_begin};
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// What one core does with rows that stay in its caches.
void print_row_sums() {
  constexpr size_t words = kWidth / 64;
  constexpr int repeats = 20000;
  const std::vector<uint64_t> row(words, 0x9249249249249249);
  for (const BitSums& sums : all_bit_sums()) {
    uint64_t total = 0;
    const auto begin = std::chrono::steady_clock::now();
    for (int i = 0; i < repeats; ++i) total += sums.count_both(row.data(), row.data(), words);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    TC_CHECK(total == repeats * sums.count(row.data(), words), "counts differ");
    std::printf("bits in both of two rows, %-16s %6.1f GB/s\n", sums.name,
                static_cast<double>(words) * 8e-9 * repeats / seconds.count());
  }
}

}  // namespace

int main(int argc, char** argv) {
  const auto option = [&](int i, int otherwise) {
    return static_cast<uint32_t>(argc > i ? std::max(1, std::atoi(argv[i])) : otherwise);
  };
  const uint32_t layers = option(1, 4), threads = option(2, 1), at_once = option(3, 1);
  print_row_sums();
  const MadeTrace trace(layers, at_once);
  std::vector<double> rates, core_rates;
  for (int i = 0; i < kPasses; ++i) {
    const double gigabytes = static_cast<double>(kSteps) * layers * (kWidth / 8) * 1e-9;
    const Seconds seconds = seconds_of(trace, threads);
    rates.push_back(gigabytes / seconds.wall);
    core_rates.push_back(gigabytes / seconds.cores);
  }
  struct rusage usage {};
  ::getrusage(RUSAGE_SELF, &usage);
  std::printf(
      "trace statistics, %u layers of %u neurons, %u threads, %u tasks at once: %.2f GB/s, "
      "%.2f GB a core second: %.0f %% of the limit\n",
      layers, kWidth, threads, at_once, median(rates), median(core_rates),
      100 * median(core_rates) / kLimit);
  std::printf("peak memory %.0f MB, of which the made bits %.0f MB\n",
              static_cast<double>(usage.ru_maxrss) * 1.024e-3,
              static_cast<double>(kMadeSteps) * layers * (kWidth / 8) * 1e-6);
}
