// `thermocline run --bench` without a model: what this program reaches on this machine.
//
// Rows are of kind "bench"; every time is measured. Thread-safety: one thread.
#pragma once

#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "runtime/backend_bench.h"
#include "runtime/run_plan.h"

namespace thermocline {

// What was measured, and on what.
struct MachineBench {
  std::string backend, device;  // "cpu", "avx2, 2 threads"
  ModelShape shape;             // whose dimensions the matrices have
  std::vector<BackendFigure> figures, scaling;
};

// On options.backend with options.threads. A terminal sees how far it is. Errors: Error{failed}
// after Ctrl-C, and what the backend throws.
MachineBench measure_machine(const RunOptions& options, const BackendBenchOptions& bench);
// How long passes must be on this machine; its threads.
BackendBenchOptions bench_options(const RunOptions& options);

void print_bench(std::FILE* out, const MachineBench& bench);
nlohmann::ordered_json bench_rows(const MachineBench& bench);

// All of it, as the options say.
void bench_machine(const RunOptions& options);

}  // namespace thermocline
