// Small models and runs for tests of tiers.
//
// Thread-safety: pure functions; checks belong to the test's thread.
#pragma once

#include <catch2/catch.hpp>
#include <string>

#include "tests/runtime/local_run.h"

namespace thermocline::test {

inline ModelShape small_shape(FfnActivation activation) {
  return {.layer_count = 3,
          .model_dim = 64,
          .ffn_dim = 256,
          .head_count = 4,
          .kv_head_count = 2,
          .head_dim = 16,
          .vocab_size = 80,
          .context_length = 96,
          .activation = activation};
}

// Two tasks in flight, prompts in chunks, teacher-forced and decoded tokens.
inline LocalRunOptions three_tasks(const std::string& layout) {
  LocalRunOptions options;
  options.layout = layout;
  options.threads = 2;
  options.batch = 2;
  options.chunk_max = 3;
  options.silu_threshold = 0.1f;
  options.tasks = {{0, 0, {1, 5, 9, 20, 33}, {4, 8, 15, 16, 23}, 0},
                   {1, 1, {1, 7, 7, 2}, {3, 1, 4, 1, 5, 9, 2, 6}, 0},
                   {2, 2, {1, 2}, {4, 2, 4, 2}, 0}};
  return options;
}

// For emulated GPUs, which are slow.
inline ModelShape tiny_shape(FfnActivation activation) {
  ModelShape shape = small_shape(activation);
  shape.layer_count = 2;
  shape.ffn_dim = 96;
  return shape;
}
inline LocalRunOptions two_tasks(const std::string& layout) {
  LocalRunOptions options = three_tasks(layout);
  options.threads = 1;
  options.tasks = {{0, 0, {1, 5, 9, 20}, {4, 8}, 0}, {1, 1, {1, 7}, {3, 1, 4}, 0}};
  return options;
}

// Of tiers on an emulated GPU and the CPU, with runs on either alone. Inputs of quantised weights
// are in fixed point on the CPU and f32 on a GPU.
inline void check_agrees(const LocalRunResult& tiered, const LocalRunResult& on_cpu,
                         const LocalRunResult& on_cuda, DType dtype) {
  const double tolerance = dtype == DType::f32 ? 1e-5 : 3e-4;
  CHECK(relative_difference(on_cpu.logits, tiered.logits) < tolerance);
  CHECK(relative_difference(on_cuda.logits, tiered.logits) < tolerance);
  size_t differ = 0;
  for (size_t i = 0; i < tiered.active.size(); ++i) differ += tiered.active[i] != on_cuda.active[i];
  CHECK(differ <= tiered.active.size() / 1000);
}

}  // namespace thermocline::test
