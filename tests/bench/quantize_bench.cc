// Times quantisation and dequantisation of Gaussian rows on one core, and prints what they cost in
// accuracy: GB/s of f32 beside what the machine reads, and the error as a share of the deviation.
//
//   quantize_bench [CSV]     appends its rows to CSV
#include <chrono>
#include <cmath>
#include <cstdio>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "models/quantize.h"
#include "runtime/kernels/bandwidth.h"

using namespace thermocline;

namespace {

constexpr uint64_t kCount = uint64_t{8} << 20;  // 32 MiB of f32, beyond most caches of one core
constexpr double kF32Bytes = kCount * sizeof(float);
constexpr double kSecondsPerRow = 0.3;

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

// Root of the mean squared error; the values have deviation 1.
double rms_error(const std::vector<float>& values, const std::vector<float>& back) {
  double sum = 0;
  for (uint64_t i = 0; i < kCount; ++i) {
    const double error = static_cast<double>(values[i]) - back[i];
    sum += error * error;
  }
  return std::sqrt(sum / kCount);
}

}  // namespace

int main(int argc, char** argv) {
  std::FILE* csv = argc > 1 ? std::fopen(argv[1], "a") : nullptr;
  if (argc > 1 && csv == nullptr) {
    std::fprintf(stderr, "cannot append to %s\n", argv[1]);
    return 1;
  }
  std::mt19937_64 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> values(kCount), back(kCount);
  for (float& value : values) value = normal(random);
  const double limit =
      read_bandwidth(reinterpret_cast<const std::byte*>(values.data()), kF32Bytes, 1, 0.3);
  std::printf("one core; this machine reads %.1f GB/s\n", limit / 1e9);
  if (csv != nullptr && std::ftell(csv) == 0)
    std::fprintf(csv, "dtype,bits,quantize_gb_per_s,dequantize_gb_per_s,limit_gb_per_s,rms\n");
  const double look = best_seconds([&] { first_non_finite(values.data(), kCount); });
  std::printf("looking for NaN and infinity: %.2f GB/s\n", kF32Bytes / look / 1e9);
  for (int i = 0; i < kDTypeCount; ++i) {
    const auto dtype = static_cast<DType>(i);
    std::vector<std::byte> bytes(bytes_of(dtype, kCount));
    const double forth =
        best_seconds([&] { quantize(dtype, values.data(), kCount, bytes.data()); });
    const double and_back =
        best_seconds([&] { dequantize(dtype, bytes.data(), kCount, back.data()); });
    const std::string name(facts(dtype).name);
    const double bits = 8.0 * bytes_of(dtype, 256) / 256, error = rms_error(values, back);
    std::printf("%-5s %6.4g bits  quantise %6.2f GB/s  dequantise %6.2f GB/s  rms error %.6f\n",
                name.c_str(), bits, kF32Bytes / forth / 1e9, kF32Bytes / and_back / 1e9, error);
    if (csv != nullptr)
      std::fprintf(csv, "%s,%g,%.3f,%.3f,%.3f,%.7f\n", name.c_str(), bits, kF32Bytes / forth / 1e9,
                   kF32Bytes / and_back / 1e9, limit / 1e9, error);
  }
  return csv != nullptr && std::fclose(csv) != 0 ? 1 : 0;
}
