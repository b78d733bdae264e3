// Times the CPU kernels on LLaMA-70B's matrices and prints GB/s beside what the machine reads.
//
//   kernels_bench [THREADS [CSV]]     appends its rows to CSV
//
// Weights are read from memory, not from cache: each pass takes the next of as many matrices as
// fill 512 MiB.
#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "runtime/kernels/bandwidth.h"
#include "runtime/kernels/kernels.h"

using namespace thermocline;

namespace {

constexpr uint64_t kBufferBytes = uint64_t{512} << 20;
constexpr double kSecondsPerRow = 0.25;

std::byte* make_buffer() {
  void* memory =
      ::mmap(nullptr, kBufferBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) std::abort();
  ::madvise(memory, kBufferBytes, MADV_HUGEPAGE);
  // Small numbers in every format: an f16 scale or a bf16 or f32 exponent below one.
  std::byte* bytes = static_cast<std::byte*>(memory);
  for (uint64_t i = 0; i < kBufferBytes; ++i)
    bytes[i] = i % 2 == 1 ? std::byte{0x2c} : static_cast<std::byte>(i * 2654435761u >> 13);
  return bytes;
}

// Runs work(thread) on all threads and returns the seconds that the slowest took.
double run_threads(int thread_count, const std::function<void(int)>& work) {
  const auto begin = std::chrono::steady_clock::now();
  std::vector<std::thread> threads;
  for (int t = 1; t < thread_count; ++t) threads.emplace_back(work, t);
  work(0);
  for (std::thread& thread : threads) thread.join();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// Where part `index` of `count` begins, in whole blocks of any type.
int part_begin(int total, int count, int index) {
  return static_cast<int>(static_cast<int64_t>(total / 256) * index / count) * 256;
}

struct Shape {
  const char* name;
  int rows, cols;
};
// The largest matrices of a layer; down is stored by neuron, so it has gate's shape.
constexpr Shape kShapes[] = {{"wq", 8192, 8192}, {"gate", 28672, 8192}};

struct Bench {
  std::byte* buffer = make_buffer();
  const Kernels& kernels = cpu_kernels();
  int thread_count;
  std::FILE* csv;
  double limit = read_bandwidth(buffer, kBufferBytes, thread_count, 0.3);

  // The best of the passes that fit the time; work(weights, thread).
  double best_seconds(uint64_t bytes, const std::function<void(const std::byte*, int)>& work) {
    double best = 1e9, spent = 0;
    for (int pass = 0; pass < 3 || spent < kSecondsPerRow; ++pass) {
      const std::byte* weights = buffer + pass % (kBufferBytes / bytes) * bytes;
      const double took = run_threads(thread_count, [&](int t) { work(weights, t); });
      best = std::min(best, took);
      spent += took;
    }
    return best;
  }

  void print(const std::string& name, DType dtype, int tokens, double bytes, double multiplies,
             double seconds) {
    const std::string type(facts(dtype).name);
    std::printf("%-22s %-5s %3d tokens %9.3f ms %7.1f GB/s %4.0f %% %8.1f GFLOP/s\n", name.c_str(),
                type.c_str(), tokens, seconds * 1e3, bytes / seconds / 1e9,
                100 * bytes / seconds / limit, 2 * multiplies / seconds / 1e9);
    if (csv != nullptr)
      std::fprintf(csv, "%s,%d,%s,%s,%d,%.0f,%.6f,%.3f,%.3f\n", kernels.name, thread_count,
                   name.c_str(), type.c_str(), tokens, bytes, seconds * 1e3, bytes / seconds / 1e9,
                   bytes / seconds / limit);
  }

  // Random inputs, as f32 and in fixed point.
  struct Prepared {
    std::vector<float> values, scales, sums;
    std::vector<int16_t> codes;
    Inputs inputs;

    Prepared(const Kernels& kernels, int tokens, int cols)
        : values(static_cast<size_t>(tokens) * cols), codes(values.size()) {
      scales.resize(values.size() / kFixedBlock);
      sums.resize(scales.size());
      for (size_t i = 0; i < values.size(); ++i)
        values[i] = static_cast<float>(i * 37 % 101) / 50 - 1;
      kernels.to_fixed(values.data(), static_cast<int>(values.size()), codes.data(), scales.data(),
                       sums.data());
      inputs = {values.data(), cols, codes.data(), scales.data(), sums.data()};
    }
  };

  static WeightView view(const Shape& shape, DType dtype, const std::byte* weights) {
    return {dtype, shape.rows, shape.cols, bytes_of(dtype, shape.cols), weights};
  }

  void matmul(const Shape& shape, DType dtype, int tokens) {
    const Prepared x(kernels, tokens, shape.cols);
    std::vector<float> y(static_cast<size_t>(tokens) * shape.rows);
    const uint64_t bytes = bytes_of(dtype, static_cast<uint64_t>(shape.rows) * shape.cols);
    const double seconds = best_seconds(bytes, [&](const std::byte* w, int t) {
      kernels.matmul(view(shape, dtype, w), part_begin(shape.rows, thread_count, t),
                     part_begin(shape.rows, thread_count, t + 1), x.inputs, tokens, y.data(),
                     shape.rows);
    });
    print(std::string("matmul ") + shape.name, dtype, tokens, bytes,
          static_cast<double>(shape.rows) * shape.cols * tokens, seconds);
  }

  // 18 % of the rows for each token, as runs of random length: the bytes are those touched.
  std::vector<uint64_t> sparse_mask(int rows, int tokens) {
    std::vector<uint64_t> mask(static_cast<size_t>(tokens) * rows / 64);
    uint64_t state = 1;
    for (uint64_t& word : mask)
      for (int bit = 0; bit < 64; ++bit) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        word |= static_cast<uint64_t>((state >> 40) % 100 < 18) << bit;
      }
    return mask;
  }

  void sparse(const Shape& shape, DType dtype, int tokens) {
    const auto mask = sparse_mask(shape.rows, tokens);
    const int words = shape.rows / 64;
    uint64_t touched = 0, wanted = 0;
    for (int r = 0; r < shape.rows; ++r) {
      int count = 0;
      for (int t = 0; t < tokens; ++t) count += mask[t * words + r / 64] >> (r % 64) & 1;
      touched += count > 0;
      wanted += count;
    }
    const Prepared x(kernels, tokens, shape.cols);
    std::vector<float> hidden(static_cast<size_t>(tokens) * shape.rows, 0.25f);
    std::vector<float> out(static_cast<size_t>(tokens) * shape.cols);
    const uint64_t all = bytes_of(dtype, static_cast<uint64_t>(shape.rows) * shape.cols);
    const double bytes = static_cast<double>(bytes_of(dtype, touched * shape.cols));
    const double multiplies = static_cast<double>(wanted) * shape.cols;
    double seconds = best_seconds(all, [&](const std::byte* w, int t) {
      kernels.weighted_rows(view(shape, dtype, w), part_begin(shape.cols, thread_count, t),
                            part_begin(shape.cols, thread_count, t + 1), mask.data(), words,
                            hidden.data(), shape.rows, tokens, out.data(), shape.cols);
    });
    print("weighted_rows 18 %", dtype, tokens, bytes, multiplies, seconds);
    seconds = best_seconds(all, [&](const std::byte* w, int t) {
      kernels.matmul_masked(view(shape, dtype, w), part_begin(shape.rows, thread_count, t),
                            part_begin(shape.rows, thread_count, t + 1), mask.data(), words,
                            x.inputs, tokens, hidden.data(), shape.rows);
    });
    print("matmul_masked 18 %", dtype, tokens, bytes, multiplies, seconds);
  }

  // One head over a long context: keys and values are read once.
  void attend(int positions) {
    constexpr int kDim = 128, kKvDim = 1024;
    const std::vector<float> q(kDim, 0.1f);
    std::vector<std::vector<float>> scores(thread_count, std::vector<float>(positions)),
        outs(thread_count, std::vector<float>(kDim));
    const uint64_t bytes = uint64_t{8} * positions * kKvDim;
    const double seconds = best_seconds(bytes, [&](const std::byte* memory, int t) {
      const float* keys = reinterpret_cast<const float*>(memory);
      for (int head = t; head < kKvDim / kDim; head += thread_count)
        kernels.attend(q.data(), keys + head * kDim, keys + positions * kKvDim + head * kDim,
                       positions, kKvDim, kDim, scores[t].data(), outs[t].data());
    });
    print("attend, 8 heads", DType::f32, positions, bytes, 2.0 * positions * kKvDim, seconds);
  }
};

}  // namespace

int main(int argc, char** argv) {
  const int threads =
      argc > 1 ? std::atoi(argv[1]) : static_cast<int>(std::thread::hardware_concurrency());
  if (threads < 1 || threads > 1024) {
    std::fprintf(stderr, "usage: kernels_bench [THREADS [CSV]]\n");
    return 2;
  }
  std::FILE* csv = argc > 2 ? std::fopen(argv[2], "a") : nullptr;
  if (argc > 2 && csv == nullptr) {
    std::fprintf(stderr, "cannot append to %s\n", argv[2]);
    return 1;
  }
  Bench bench{.thread_count = threads, .csv = csv};
  std::printf("%s kernels, %d threads; this machine reads %.1f GB/s\n", bench.kernels.name, threads,
              bench.limit / 1e9);
  if (csv != nullptr && std::ftell(csv) == 0)
    std::fprintf(csv, "kernels,threads,name,dtype,tokens,bytes,ms,gb_per_s,share_of_limit\n");
  for (int i = 0; i < kDTypeCount; ++i) {
    const auto dtype = static_cast<DType>(i);
    bench.matmul(kShapes[0], dtype, 1);
    if (dtype == DType::f32) continue;  // a whole gate matrix in f32 is larger than the buffer
    bench.matmul(kShapes[1], dtype, 1);
    bench.sparse(kShapes[1], dtype, 1);
  }
  for (const DType dtype : {DType::bf16, DType::q4_0, DType::q4_k}) {
    for (const int tokens : {4, 16, 64}) bench.matmul(kShapes[0], dtype, tokens);
    bench.sparse(kShapes[1], dtype, 8);
  }
  bench.attend(2048);
  if (csv != nullptr && std::fclose(csv) != 0) return 1;
  return 0;
}
