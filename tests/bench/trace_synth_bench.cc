// Times the activity process alone, without a file, on one core: GB/s of bits beside what the same
// core writes to memory. 70B dimensions: 280 KiB a step.
//
//   trace_synth_bench [CSV]     appends its rows to CSV
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "models/model_spec.h"
#include "traces/activity_process.h"
#include "traces/bernoulli_bits.h"

using namespace thermocline;

namespace {

constexpr uint32_t kSteps = 64;  // at a time, as the command makes them
constexpr uint32_t kRuns = 4;    // of kSteps to a task: 256 steps, about MBPP's mean
constexpr double kSecondsPerRow = 1.0;
constexpr double kLimitBytes = 256 << 20;

double best_seconds(const std::function<void()>& work) {
  double best = 1e9, spent = 0;
  for (int pass = 0; pass < 3 || spent < kSecondsPerRow; ++pass) {
    const auto begin = std::chrono::steady_clock::now();
    work();
    const double took =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    best = std::min(best, took);
    spent += took;
  }
  return best;
}

struct Row {
  const char* name;
  const char* model;
  ActivityProcessOptions options;
};

void print(std::FILE* csv, const std::string& name, double bytes_per_second, double limit) {
  std::printf("%-36s %6.2f GB/s  %5.1f %% of what it writes\n", name.c_str(),
              bytes_per_second / 1e9, 100 * bytes_per_second / limit);
  if (csv != nullptr)
    std::fprintf(csv, "%s,%.3f,%.3f\n", name.c_str(), bytes_per_second / 1e9, limit / 1e9);
}

}  // namespace

int main(int argc, char** argv) {
  std::FILE* csv = argc > 1 ? std::fopen(argv[1], "a") : nullptr;
  if (argc > 1 && csv == nullptr) {
    std::fprintf(stderr, "cannot append to %s\n", argv[1]);
    return 1;
  }
  const Row rows[] = {
      {"relullama-70b", "preset:relullama-70b", {}},
      {"hermes", "preset:relullama-70b,regime=hermes", {}},
      {"hermes, a topic a task", "preset:relullama-70b,regime=hermes,drift=0.5", {}},
      {"relullama-70b, swing", "preset:relullama-70b", {.swing = 0.3, .predictor = {}}},
      {"relullama-70b, predicted", "preset:relullama-70b", {.predictor = {{0.95, 0.6}}}},
  };
  std::vector<uint64_t> active, predicted;
  active.resize(uint64_t{kSteps} * 80 * 28672 / 64);
  const double bytes = static_cast<double>(active.size() * sizeof(uint64_t));
  std::vector<uint8_t> memory(kLimitBytes);  // beyond most caches
  uint8_t value = 0;
  const double limit =
      kLimitBytes / best_seconds([&] { std::memset(memory.data(), ++value, memory.size()); });
  std::printf("one core; it writes %.1f GB/s of memory\n", limit / 1e9);
  if (csv != nullptr && std::ftell(csv) == 0) std::fprintf(csv, "row,gb_per_s,limit_gb_per_s\n");
  for (const BitKernels& kernels : bit_kernels()) {
    for (const Row& row : rows) {
      if (kernels.name != bit_kernels().back().name && &row != rows) continue;
      ActivityProcess process(parse_model_spec(row.model), row.options, kernels);
      predicted.resize(row.options.predictor ? active.size() : 0);
      uint32_t task = 0;
      const double seconds = best_seconds([&] {
        process.start_task(task++);
        for (uint32_t run = 0; run < kRuns; ++run) process.next(kSteps, active, predicted);
      });
      print(csv, std::string(kernels.name) + ": " + row.name, kRuns * bytes / seconds, limit);
    }
  }
  return csv != nullptr && std::fclose(csv) != 0 ? 1 : 0;
}
