// A solved partition as a table for people and as rows: who holds what, what it takes, and why.
//
// Every time in it is modelled (partition_forecast.h).
// Thread-safety: pure functions.
#pragma once

#include <cstdint>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "runtime/run_plan.h"

namespace thermocline {

// The plan has a solved partition, but for left_out_ranks and predicted_step.
void print_partition(std::FILE* out, const RunPlan& plan);
// Kind "partition" (one) and "rank" (one a rank of the job, with those that are left out).
nlohmann::ordered_json partition_rows(const RunPlan& plan);
// Of a rank of the job: {node, layout_rank, predicted_ms, predicted_bytes, memory_share, reason}.
nlohmann::ordered_json partition_facts(const RunPlan& plan, uint32_t job_rank);

std::vector<uint32_t> left_out_ranks(const RunPlan& plan);  // of the job

// A decode step (of a batch: a pass) as it was predicted, beside the mean of what was executed.
struct PredictedStep {
  double predicted_ms = 0, executed_ms = 0;
  double predicted_over_executed() const { return predicted_ms / executed_ms; }
};
// Nothing without a solved partition or decode steps.
std::optional<PredictedStep> predicted_step(const RunPlan& plan,
                                            const std::vector<double>& tpot_ms);

}  // namespace thermocline
