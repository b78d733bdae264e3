// Every format's figures beside their limits, as `thermocline run --bench` prints those of some.
//
//   kernels_bench [THREADS [CSV]]     appends its rows to CSV
#include <cstdio>
#include <cstdlib>

#include "models/error.h"
#include "runtime/kernels/kernels.h"
#include "runtime/machine_bench.h"

using namespace thermocline;

namespace {

int append(const char* path, const MachineBench& bench) {
  std::FILE* csv = std::fopen(path, "a");
  if (csv == nullptr) {
    std::fprintf(stderr, "cannot append to %s\n", path);
    return 1;
  }
  if (std::ftell(csv) == 0)
    std::fprintf(csv,
                 "kernels,threads,name,format,tokens,active_percent,bytes,ms,gb_per_s,"
                 "share_of_limit,gflop_per_s,share_of_peak\n");
  for (const auto& figures : {bench.figures, bench.scaling})
    for (const BackendFigure& figure : figures)
      std::fprintf(csv, "%s,%d,\"%s\",%s,%d,%g,%llu,%.6f,%.3f,%.3f,%.3f,%.3f\n", cpu_kernels().name,
                   figure.threads, figure.name.c_str(), figure.format.c_str(), figure.tokens,
                   figure.active_percent, static_cast<unsigned long long>(figure.bytes), figure.ms,
                   figure.gb_per_s, figure.share_of_limit, figure.gflop_per_s,
                   figure.share_of_peak);
  return std::fclose(csv) == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  RunOptions options;
  options.backend = "cpu";
  const int threads = argc > 1 ? std::atoi(argv[1]) : 0;
  if (argc > 1 && (threads < 1 || threads > 1024)) {
    std::fprintf(stderr, "usage: kernels_bench [THREADS [CSV]]\n");
    return 2;
  }
  options.threads = static_cast<uint32_t>(threads);
  BackendBenchOptions bench_of = bench_options(options);
  bench_of.matrix_types.clear();
  for (int i = 0; i < kDTypeCount; ++i) bench_of.matrix_types.push_back(static_cast<DType>(i));
  bench_of.ffn_types = bench_of.matrix_types;
  try {
    const MachineBench bench = measure_machine(options, bench_of);
    print_bench(stdout, bench);
    return argc > 2 ? append(argv[2], bench) : 0;
  } catch (const Error& error) {
    std::fprintf(stderr, "kernels_bench: %s\n", error.what());
    return 1;
  }
}
