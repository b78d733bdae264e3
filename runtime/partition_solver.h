// PartitionSolver: which ranks of a job hold what, solved from the profiles of their nodes.
//
// Where all nodes are alike the partition is the default one, so that the same command gives the
// same bits with and without a cluster file. Else, of all ranks, layouts, orders of ranks, splits
// of layers over stages and of heads, neurons and rows within a stage, the one whose decode step is
// predicted to be the shortest (partition_forecast.h) and that fits into every node's memory: a
// node too small for its proportional share gets what it can hold; one that cannot hold the least
// share, or with which a step would take longer, is left out, and told why.
// Goals: never slower than the default partition where that fits; exact where a stage has few ways
//   to be split (stage_split.h); the same result for the same input, on every rank.
// Limits: ranks of a node that work in several stages get equal parts of its memory; with many
//   different nodes, ranks to leave out are searched one kind of node after the other, and stages
//   are made of neighbours in some orders only.
// Non-goals: measuring nodes (calibrate), hot sets, which change no share.
// Thread-safety: pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/partition_forecast.h"

namespace thermocline {

// Of one rank of the job.
struct RankDecision {
  int64_t layout_rank = -1;  // its rank in the layout; -1: left out
  std::string reason;        // a sentence: why this much, or why nothing
};

struct SolvedPartition {
  Partition partition;                // of the ranks that are used
  std::vector<uint32_t> job_ranks;    // which rank of the job each of them is
  std::vector<RankDecision> ranks;    // of the job
  std::vector<uint32_t> rank_nodes;   // (ranks of the job)
  std::vector<uint64_t> node_memory;  // (nodes) that ranks may use
  PartitionForecast forecast;
  std::string limit;  // what a step waits for most: a sentence

  bool leaves_out_any() const { return job_ranks.size() < ranks.size(); }
};

// Usage Error where nothing fits: what is needed, what there is, what would help.
SolvedPartition solve_partition(const PartitionProblem& problem);

// The same description of a partition that somebody else chose, over all ranks of the job.
SolvedPartition describe_partition(const PartitionProblem& problem, const Partition& partition);

// The forecast of what is decided, where more is known of the problem than when it was: what is
// hot of each rank. Reasons stay those of then.
void forecast_again(const PartitionProblem& problem, SolvedPartition& solved);

}  // namespace thermocline
