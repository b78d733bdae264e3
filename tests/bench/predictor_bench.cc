// What activation predictors of a 70B layer cost: sign bits, and low rank in f16, beside what the
// same threads read in the same run and the FFN's gate in 4 bits that they stand for.
//
//   predictor_bench [THREADS [CSV]]     appends its rows to CSV
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "runtime/backend.h"
#include "runtime/kernels/signs.h"
#include "runtime/node_facts.h"

using namespace thermocline;

namespace {

constexpr int kDim = 8192, kNeurons = 28672, kRank = 1024;
constexpr int kCopies = 12;  // of the signs, 29 MB each: more than caches hold
constexpr double kSeconds = 0.5;

double best_seconds(int count, const std::function<void(int)>& call) {
  using Clock = std::chrono::steady_clock;
  const auto since = [](Clock::time_point begin) {
    return std::chrono::duration<double>(Clock::now() - begin).count();
  };
  double best = 1e30;
  const Clock::time_point start = Clock::now();
  while (since(start) < kSeconds) {
    const Clock::time_point begin = Clock::now();
    for (int i = 0; i < count; ++i) call(i);
    best = std::min(best, since(begin) / count);
  }
  return best;
}

struct Bench {
  Backend& backend;
  double limit;  // bytes/s
  int threads;
  std::FILE* csv;

  void show(const std::string& name, int tokens, uint64_t bytes, double seconds) const {
    const double rate = static_cast<double>(bytes) / seconds;
    std::printf("%-12s %3d tokens %8.3f ms %8.1f MB %7.2f GB/s, %3.0f %% of %.2f\n", name.c_str(),
                tokens, seconds * 1e3, static_cast<double>(bytes) * 1e-6, rate * 1e-9,
                100 * rate / limit, limit * 1e-9);
    if (csv == nullptr) return;
    std::fprintf(csv, "\"%s\",%d,%d,%llu,%.6f,%.3f,%.3f\n", name.c_str(), threads, tokens,
                 static_cast<unsigned long long>(bytes), seconds * 1e3, rate * 1e-9, rate / limit);
  }

  // Threads touch what they read.
  std::shared_ptr<std::byte> filled(uint64_t rows, uint64_t row_bytes) const {
    auto memory = backend.allocate(rows * row_bytes);
    backend.run_on_host(static_cast<int>(rows), [&](int begin, int end) {
      auto* words = reinterpret_cast<uint16_t*>(memory.get());
      for (uint64_t i = static_cast<uint64_t>(begin) * row_bytes / 2;
           i < static_cast<uint64_t>(end) * row_bytes / 2; ++i)
        words[i] = static_cast<uint16_t>(i * 0x9E37 & 0xBBFF);  // finite as f16
    });
    return memory;
  }

  void signs(const float* x, uint64_t* bits) const {
    const uint64_t row_bytes = sign_words(kDim) * sizeof(uint64_t);
    std::vector<std::shared_ptr<std::byte>> copies;
    for (int i = 0; i < kCopies; ++i) copies.push_back(filled(kNeurons, row_bytes));
    for (const int tokens : {1, 4, 32}) {
      const std::vector<TokenRow> rows(static_cast<size_t>(tokens));
      backend.begin(rows);
      const double seconds = best_seconds(kCopies, [&](int i) {
        const auto* words = reinterpret_cast<const uint64_t*>(copies[static_cast<size_t>(i)].get());
        backend.match_signs({words, kNeurons, kDim, kDim / 2, x, bits, kNeurons / 64});
      });
      show(std::string("sign, ") + sign_kernels().name, tokens, kNeurons * row_bytes, seconds);
    }
  }

  void low_rank(const float* x, uint64_t* bits) const {
    const auto projected = backend.allocate(32 * kRank * sizeof(float));
    const auto scores = backend.allocate(uint64_t{32} * kNeurons * sizeof(float));
    constexpr int kPairs = 4;
    std::vector<std::shared_ptr<std::byte>> first, second;
    for (int i = 0; i < kPairs; ++i) first.push_back(filled(kRank, kDim * 2));
    for (int i = 0; i < kPairs; ++i) second.push_back(filled(kNeurons, kRank * 2));
    auto* low = reinterpret_cast<float*>(projected.get());
    auto* out = reinterpret_cast<float*>(scores.get());
    for (const int tokens : {1, 4}) {
      const std::vector<TokenRow> rows(static_cast<size_t>(tokens));
      backend.begin(rows);
      const double seconds = best_seconds(kPairs, [&](int i) {
        const auto at = static_cast<size_t>(i);
        const Product fc1[] = {{{DType::f16, kRank, kDim, kDim * 2, first[at].get()}, low}};
        const Product fc2[] = {{{DType::f16, kNeurons, kRank, kRank * 2, second[at].get()}, out}};
        backend.multiply(fc1, x, tokens);
        backend.multiply(fc2, low, tokens);
        backend.mark_reached(out, kNeurons, 0.0f, bits, kNeurons / 64);
      });
      show("lowrank 1024", tokens, uint64_t{2} * kRank * (kDim + kNeurons), seconds);
    }
  }
};

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : static_cast<int>(cores_of_process(1));
  if (threads < 1 || threads > 1024) {
    std::fprintf(stderr, "usage: predictor_bench [THREADS [CSV]]\n");
    return 2;
  }
  std::FILE* csv = argc > 2 ? std::fopen(argv[2], "a") : nullptr;
  if (argc > 2 && csv == nullptr) {
    std::fprintf(stderr, "cannot append to %s\n", argv[2]);
    return 1;
  }
  if (csv != nullptr && std::ftell(csv) == 0)
    std::fprintf(csv, "name,threads,tokens,bytes,ms,gb_per_s,share_of_limit\n");
  const double limit = measure_read_bandwidth(static_cast<uint32_t>(threads), 1, kSeconds);
  const auto backend = backends().by_name("cpu").make({threads, {}, 0});
  const Bench bench{*backend, limit, threads, csv};
  std::vector<float> x(uint64_t{32} * kDim);
  for (size_t i = 0; i < x.size(); ++i) x[i] = i * 2654435761u % 7 < 3 ? -0.5f : 0.25f;
  std::vector<uint64_t> bits(uint64_t{32} * kNeurons / 64);
  bench.signs(x.data(), bits.data());
  bench.low_rank(x.data(), bits.data());
  std::printf("gate, 4 bits %41.1f MB\n", kNeurons * kDim * 0.5625 * 1e-6);
  return csv == nullptr || std::fclose(csv) == 0 ? 0 : 1;
}
