// HotBudget: memory for hot neurons, of a whole model or of each of its ranks.
//
// Replay and the live runtime read --budget here, so that it means the same in both.
// Goals: one parser for "10%", "4GiB..40GiB/4GiB", "24GiB+8GiB" (each rank, or each node of the
//   cluster, its own) and "cluster" (what the fast tiers have left beside the dense weights).
// Non-goals: bundles of a pool (sim/policy.h), what a policy does with them.
// Thread-safety: plain data and pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "models/node.h"

namespace thermocline {

struct HotBudget {
  HotBudget(uint64_t whole) : bytes(whole) {}  // NOLINT: a number of bytes is a budget
  explicit HotBudget(std::vector<uint64_t> of_ranks);
  bool operator==(const HotBudget&) const = default;

  uint64_t bytes = 0;             // of the whole model
  std::vector<uint64_t> by_rank;  // empty: split over the ranks by their neurons
};

// What unequal budgets are about: the ranks that have neurons, and where they are.
struct BudgetRanks {
  std::vector<uint64_t> neurons;      // (ranks)
  std::vector<uint64_t> dense_bytes;  // (ranks) read by each step whatever is active
  std::vector<uint32_t> nodes;        // (ranks) node of the cluster
  std::vector<uint64_t> fast_bytes;   // (nodes) memory of the fast tier
  uint64_t bundle_bytes = 0;
  // Of a job that leaves ranks out: which of its ranks each of these is. Budgets may then name
  // those that are left out, too. Empty: there are no others.
  std::vector<uint32_t> job_ranks = {};
  uint32_t job_size = 0;

  // Bytes of each node, split over its ranks by neurons, none above what a rank's bundles take.
  std::vector<uint64_t> over_ranks(std::span<const uint64_t> by_node) const;
  // What the fast tier of each node has left for hot bundles, split likewise.
  std::vector<uint64_t> room() const;
};

// A comma list of what parse_budgets (models/units.h) reads, "A+B+..." and "cluster"; ascending by
// bytes; no rank has more than its bundles take. Errors: usage, naming what was expected.
std::vector<HotBudget> parse_hot_budgets(std::string_view text, uint64_t full_bytes,
                                         const BudgetRanks& ranks);

}  // namespace thermocline
