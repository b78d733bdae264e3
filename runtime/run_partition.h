// Which rank of a run holds what: as the command line gives it, by default, or solved.
//
// Goals: `run --cluster FILE` without --layout and --rank-weights runs on the partition that is
//   solved from the nodes of FILE; else nothing of the cluster reaches the partition.
// Non-goals: solving (partition_solver.h), printing (partition_table.h).
// Thread-safety: pure functions but for the plan that they complete.
#pragma once

#include <cstdint>

#include "runtime/run_plan.h"

namespace thermocline {

// Completes a plan whose model, tasks, batch and policies are known: partition, cluster, where its
// ranks are, and live budgets. rank_count: of the job.
void place_ranks(const RunOptions& options, RunPlan& plan, uint32_t rank_count);

// What --host-budget says, once the ranks have their places. Usage Error where it is not one
// budget.
HotBudget host_budget_of(const RunOptions& options, const RunPlan& plan, uint32_t rank_count);

// Budgets of single ranks or nodes are not known until the partition is: the forecast of a solved
// plan follows them now, rank by rank.
void forecast_known_budgets(const RunOptions& options, RunPlan& plan, uint32_t rank_count);

// The ranks that --print-partition is about: --ranks, those of the job, else of the cluster.
uint32_t ranks_to_print(const RunOptions& options);

}  // namespace thermocline
