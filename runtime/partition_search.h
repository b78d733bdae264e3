// PartitionSearch: the fastest layout of given ranks, and the ranks with which it is fastest.
//
// Ranks on nodes with the same figures are of one kind, and are used in rank order, those on
// different nodes first. A stage is a set of ranks; what it takes for each number of layers is
// found once (stage_split.h), and layers are given to stages by dynamic programming.
// Goals: what partition_solver.h promises. Non-goals: sentences.
// Thread-safety: one object, one thread.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <tuple>
#include <vector>

#include "runtime/partition_forecast.h"

namespace thermocline {

// A layout and what it is predicted to take.
struct Arrangement {
  Layout layout;
  std::vector<uint32_t> job_ranks;  // of the layout's ranks
  std::vector<uint32_t> layers;     // (stages)
  double seconds = 0;
  double fullness = 0;  // of the fullest node
};

class PartitionSearch {
 public:
  explicit PartitionSearch(const PartitionProblem& problem);

  // Of exactly these ranks of the job, ascending. Nothing where none fits.
  std::optional<Arrangement> best_of(const std::vector<uint32_t>& ranks);
  // Of any ranks.
  std::optional<Arrangement> best();
  Partition partition_of(const Arrangement& arrangement);

  // Whether all ranks are of one kind, and their nodes have as many of them.
  bool all_alike() const;
  // The fewest bytes that a rank of so many can hold, over all layouts.
  uint64_t least_bytes(uint32_t rank_count) const;
  // Layouts of so many ranks in which each has something, as much tensor parallelism as goes first.
  std::vector<Layout> layouts_of(uint32_t rank_count) const;

 private:
  // A node's part in a stage: kind, ranks, memory that they may use, and of a device tier's host.
  using Member = std::tuple<uint32_t, uint32_t, uint64_t, uint64_t>;
  struct StageKey {
    std::vector<Member> members;  // ascending
    uint32_t tensor, layer_count;
    bool first, last;
    auto operator<=>(const StageKey&) const = default;
  };
  using Ranks = std::vector<uint32_t>;
  struct Place {
    Member member;
    uint32_t node;
    Ranks layout_ranks;  // of the stage, on this node
  };

  double rate_of(uint32_t rank) const;
  uint64_t memory_of_rank(uint32_t rank) const;
  Ranks by_falling(Ranks ranks, const std::function<double(uint32_t)>& value) const;
  std::vector<Ranks> orders_of(const Ranks& ranks, const Layout& layout) const;
  std::vector<Ranks> orders_of_kinds(const Ranks& ranks) const;
  std::vector<Ranks> choices_of(uint32_t kind) const;
  void consider(const Layout& layout, const Ranks& ranks, std::optional<Arrangement>& best);
  std::vector<Place> places_of(const Ranks& ranks, const Layout& layout, uint32_t stage) const;
  static StageKey key_of(const std::vector<Place>& places, const Layout& layout, uint32_t stage);
  const std::optional<StageSplit>& split_of(const StageKey& key);
  std::optional<Arrangement> best_of_choices(const std::vector<std::vector<Ranks>>& choices);
  std::optional<Arrangement> best_of_many(const std::vector<std::vector<Ranks>>& choices);
  void improve(const std::vector<std::vector<Ranks>>& choices, std::optional<Arrangement>& best);

  const PartitionProblem& problem_;
  std::vector<uint32_t> kinds_;          // (ranks of the job)
  std::vector<NodeProfile> kind_nodes_;  // (kinds)
  std::map<StageKey, std::optional<StageSplit>> splits_;
  std::map<Ranks, std::optional<Arrangement>> known_;  // by ranks
};

// Whether the first is better: faster beyond rounding, or as fast and less full.
bool better(double seconds, double fullness, double than_seconds, double than_fullness);

}  // namespace thermocline
