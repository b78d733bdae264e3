#include "runtime/partition_search.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <set>

#include "models/error.h"

namespace thermocline {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();
constexpr double kRounding = 1e-9;
constexpr size_t kOrdersMax = 120;    // of a layout's ranks
constexpr double kSubsetsMax = 1024;  // of a job's ranks

bool same_figures(const NodeProfile& a, const NodeProfile& b) {
  for (int tier = 0; tier < kTierCount; ++tier) {
    const TierProfile &x = a.tiers[tier], &y = b.tiers[tier];
    if (x.memory_bytes != y.memory_bytes || x.bytes_per_second != y.bytes_per_second ||
        x.operations_per_second != y.operations_per_second) {
      return false;
    }
  }
  return true;
}

// Ways to order items of which some are equal; kOrdersMax + 1 where they are more.
size_t order_count(const std::vector<uint32_t>& sorted) {
  double count = 1;
  size_t run = 0;
  for (size_t i = 0; i < sorted.size(); ++i) {
    run = i > 0 && sorted[i] == sorted[i - 1] ? run + 1 : 1;
    count = count * static_cast<double>(i + 1) / static_cast<double>(run);
  }
  return count > kOrdersMax ? kOrdersMax + 1 : static_cast<size_t>(count + 0.5);
}

bool keep_better(std::optional<Arrangement>& best, const std::optional<Arrangement>& other) {
  if (!other.has_value()) return false;
  if (best.has_value() && !better(other->seconds, other->fullness, best->seconds, best->fullness)) {
    return false;
  }
  best = other;
  return true;
}

// The least of a DP over stages for `count` layers.
struct Best {
  double seconds = kNever, fullness = kNever;
  uint32_t layers = 0;  // of the last stage
};

}  // namespace

bool better(double seconds, double fullness, double than_seconds, double than_fullness) {
  if (than_seconds == kNever || seconds == kNever) return seconds < than_seconds;
  const double slack = kRounding * than_seconds;
  if (seconds < than_seconds - slack) return true;
  return seconds <= than_seconds + slack && fullness < than_fullness - kRounding;
}

PartitionSearch::PartitionSearch(const PartitionProblem& problem) : problem_(problem) {
  std::vector<uint32_t> of_nodes;  // kind of each node
  std::vector<uint32_t> examples;
  for (uint32_t node = 0; node < problem.cluster.nodes.size(); ++node) {
    const auto like = std::find_if(examples.begin(), examples.end(), [&](uint32_t other) {
      return same_figures(problem.cluster.nodes[node], problem.cluster.nodes[other]) &&
             reserve_of(problem, node) == reserve_of(problem, other);
    });
    of_nodes.push_back(static_cast<uint32_t>(like - examples.begin()));
    if (like != examples.end()) continue;
    examples.push_back(node);
    kind_nodes_.push_back(problem.cluster.nodes[node]);
  }
  for (const uint32_t node : problem.rank_nodes) kinds_.push_back(of_nodes[node]);
}

bool PartitionSearch::all_alike() const {
  std::map<uint32_t, uint32_t> of_nodes;
  for (const uint32_t node : problem_.rank_nodes) ++of_nodes[node];
  const auto as_many = [&](const auto& item) { return item.second == of_nodes.begin()->second; };
  const auto same_kind = [&](uint32_t kind) { return kind == kinds_[0]; };
  return std::all_of(of_nodes.begin(), of_nodes.end(), as_many) &&
         std::all_of(kinds_.begin(), kinds_.end(), same_kind);
}

std::vector<Layout> PartitionSearch::layouts_of(uint32_t rank_count) const {
  std::vector<Layout> layouts;
  for (uint32_t tensor = rank_count; tensor >= 1; --tensor) {
    if (rank_count % tensor != 0) continue;
    const Layout layout{rank_count / tensor, tensor};
    if (refusal_of_layout(problem_.shape, problem_.types.longest_o, layout).empty()) {
      layouts.push_back(layout);
    }
  }
  return layouts;
}

uint64_t PartitionSearch::least_bytes(uint32_t rank_count) const {
  uint64_t least = UINT64_MAX;
  for (const Layout& layout : layouts_of(rank_count)) {
    const uint32_t layers = layout.pipeline == 1 ? problem_.shape.layer_count : 1;
    const bool first = layout.pipeline <= 2, last = layout.pipeline == 1;
    const StageTask task = stage_task(problem_, layout.tensor, layers, first, last);
    PerKind<uint32_t> units = {1, 1, 1};
    if (layout.tensor == 1) units = task.units;
    least = std::min(least, bytes_of(task, StageNode{}, units));
  }
  return least;
}

double PartitionSearch::rate_of(uint32_t rank) const {
  return weight_tier(problem_, kind_nodes_[kinds_[rank]]).bytes_per_second;
}

// Its part of its node's.
uint64_t PartitionSearch::memory_of_rank(uint32_t rank) const {
  const auto& nodes = problem_.rank_nodes;
  const auto ranks = std::count(nodes.begin(), nodes.end(), nodes[rank]);
  return memory_of(problem_, nodes[rank]) / static_cast<uint64_t>(ranks);
}

// Of equal ones the lower rank first.
PartitionSearch::Ranks PartitionSearch::by_falling(
    Ranks ranks, const std::function<double(uint32_t)>& value) const {
  std::stable_sort(ranks.begin(), ranks.end(),
                   [&](uint32_t a, uint32_t b) { return value(a) > value(b); });
  return ranks;
}

// All orders of the kinds where these are few, the ranks of a kind being alike; else the kinds one
// behind the other in each of their orders, if these are few.
std::vector<PartitionSearch::Ranks> PartitionSearch::orders_of_kinds(const Ranks& ranks) const {
  std::map<uint32_t, Ranks> of_kinds;
  Ranks sequence;
  for (const uint32_t rank : ranks) of_kinds[kinds_[rank]].push_back(rank);
  for (const uint32_t rank : ranks) sequence.push_back(kinds_[rank]);
  std::sort(sequence.begin(), sequence.end());
  const bool few = order_count(sequence) <= kOrdersMax;
  if (!few) sequence.erase(std::unique(sequence.begin(), sequence.end()), sequence.end());
  std::vector<Ranks> orders;
  if (order_count(sequence) > kOrdersMax) return orders;
  do {
    Ranks order;
    std::map<uint32_t, size_t> next;
    for (const uint32_t kind : sequence) {
      const Ranks& of_kind = of_kinds[kind];
      if (few) {
        order.push_back(of_kind[next[kind]++]);
      } else {
        order.insert(order.end(), of_kind.begin(), of_kind.end());
      }
    }
    orders.push_back(std::move(order));
  } while (std::next_permutation(sequence.begin(), sequence.end()));
  return orders;
}

// Different ways to lay ranks out over stages; rank order first.
std::vector<PartitionSearch::Ranks> PartitionSearch::orders_of(const Ranks& ranks,
                                                               const Layout& layout) const {
  std::vector<Ranks> orders = {ranks};
  if (layout.pipeline == 1) return orders;
  std::vector<Ranks> more = orders_of_kinds(ranks);
  more.push_back(by_falling(ranks, [&](uint32_t rank) { return rate_of(rank); }));
  more.push_back(by_falling(ranks, [&](uint32_t rank) { return -rate_of(rank); }));
  std::set<Ranks> seen = {ranks};
  for (Ranks& order : more) {
    for (uint32_t stage = 0; stage < layout.pipeline; ++stage) {  // within one it does not matter
      const auto first = order.begin() + stage * layout.tensor;
      std::sort(first, first + layout.tensor);
    }
    if (seen.insert(order).second) orders.push_back(std::move(order));
  }
  return orders;
}

// The nodes of a stage, in the order of its key. A node whose ranks work in several stages gives
// each its part of the memory.
std::vector<PartitionSearch::Place> PartitionSearch::places_of(const Ranks& ranks,
                                                               const Layout& layout,
                                                               uint32_t stage) const {
  std::map<uint32_t, uint32_t> used;  // ranks by node
  std::map<uint32_t, Ranks> here;     // ranks of the layout by node
  for (uint32_t i = 0; i < ranks.size(); ++i) {
    const uint32_t node = problem_.rank_nodes[ranks[i]];
    ++used[node];
    if (i / layout.tensor == stage) here[node].push_back(i);
  }
  std::vector<Place> places;
  for (const auto& [node, of_node] : here) {
    const auto count = static_cast<uint32_t>(of_node.size());
    const uint32_t on_node = used[node];
    const auto share = [&](uint64_t memory) {
      return count == on_node ? memory : memory / on_node * count;
    };
    const Member member{kinds_[ranks[of_node[0]]], count, share(memory_of(problem_, node)),
                        share(host_memory_of(problem_, node))};
    places.push_back({member, node, of_node});
  }
  std::stable_sort(places.begin(), places.end(),
                   [](const Place& a, const Place& b) { return a.member < b.member; });
  return places;
}

PartitionSearch::StageKey PartitionSearch::key_of(const std::vector<Place>& places,
                                                  const Layout& layout, uint32_t stage) {
  StageKey key{{}, layout.tensor, 0, stage == 0, stage + 1 == layout.pipeline};
  for (const Place& place : places) key.members.push_back(place.member);
  return key;
}

const std::optional<StageSplit>& PartitionSearch::split_of(const StageKey& key) {
  const auto [at, is_new] = splits_.try_emplace(key);
  if (!is_new) return at->second;
  StageTask task = stage_task(problem_, key.tensor, key.layer_count, key.first, key.last);
  for (const auto& [kind, rank_count, memory, host_memory] : key.members) {
    StageNode node = stage_node(problem_, kind_nodes_[kind], key.tensor, key.layer_count, key.last);
    node.rank_count = rank_count;
    node.memory_bytes = memory;
    node.neuron_units_max = host_neuron_units(problem_, key.tensor, key.layer_count, host_memory);
    task.nodes.push_back(node);
  }
  at->second = split_stage(task);
  return at->second;
}

// Layers go to the stages by dynamic programming: best[l] is of the stages so far with l layers.
void PartitionSearch::consider(const Layout& layout, const Ranks& ranks,
                               std::optional<Arrangement>& found) {
  const uint32_t layer_count = problem_.shape.layer_count;
  std::vector<std::vector<Best>> best(layout.pipeline + 1, std::vector<Best>(layer_count + 1));
  best[0][0] = {0, 0, 0};
  for (uint32_t stage = 0; stage < layout.pipeline; ++stage) {
    StageKey key = key_of(places_of(ranks, layout, stage), layout, stage);
    const bool alone = layout.pipeline == 1;
    const uint32_t most = layer_count - (layout.pipeline - 1);
    for (uint32_t layers = alone ? layer_count : 1; layers <= most; ++layers) {
      key.layer_count = layers;
      const std::optional<StageSplit>& split = split_of(key);
      if (!split.has_value()) break;  // nor do more layers fit
      const double seconds =
          split->seconds +
          exchange_seconds(problem_, layers, static_cast<uint32_t>(key.members.size()));
      for (uint32_t before = 0; before + layers <= layer_count; ++before) {
        const Best& from = best[stage][before];
        if (from.seconds == kNever) continue;
        Best& to = best[stage + 1][before + layers];
        const Best with{from.seconds + seconds, std::max(from.fullness, split->fullness), layers};
        if (better(with.seconds, with.fullness, to.seconds, to.fullness)) to = with;
      }
    }
  }
  const Best& whole = best[layout.pipeline][layer_count];
  if (whole.seconds == kNever) return;
  const double seconds = whole.seconds + handover_seconds(problem_, layout.pipeline);
  const bool first = !found.has_value();
  if (!first && !better(seconds, whole.fullness, found->seconds, found->fullness)) return;
  Arrangement arrangement{layout, ranks, std::vector<uint32_t>(layout.pipeline), seconds,
                          whole.fullness};
  for (uint32_t stage = layout.pipeline, left = layer_count; stage-- > 0;) {
    arrangement.layers[stage] = best[stage + 1][left].layers;
    left -= arrangement.layers[stage];
  }
  found = std::move(arrangement);
}

std::optional<Arrangement> PartitionSearch::best_of(const Ranks& ranks) {
  const auto [at, is_new] = known_.try_emplace(ranks);
  if (!is_new) return at->second;
  for (const uint32_t rank : ranks) {
    if (!refusal_of_node(problem_, kind_nodes_[kinds_[rank]]).empty()) return std::nullopt;
  }
  std::optional<Arrangement> best;
  for (const Layout& layout : layouts_of(static_cast<uint32_t>(ranks.size()))) {
    for (const Ranks& order : orders_of(ranks, layout)) consider(layout, order, best);
  }
  at->second = best;
  return best;
}

// How many ranks of a kind may be used, all first: the first of each of its nodes, then the second,
// as far as it goes; and all ranks of its first nodes.
std::vector<PartitionSearch::Ranks> PartitionSearch::choices_of(uint32_t kind) const {
  std::map<uint32_t, Ranks> of_nodes;
  for (uint32_t rank = 0; rank < kinds_.size(); ++rank) {
    if (kinds_[rank] == kind) of_nodes[problem_.rank_nodes[rank]].push_back(rank);
  }
  Ranks by_turns, by_nodes;
  for (size_t turn = 0, before = SIZE_MAX; before != by_turns.size(); ++turn) {
    before = by_turns.size();
    for (const auto& [node, ranks] : of_nodes) {
      if (turn < ranks.size()) by_turns.push_back(ranks[turn]);
    }
  }
  std::set<Ranks> choices;
  for (size_t count = 0; count <= by_turns.size(); ++count) {
    Ranks choice(by_turns.begin(), by_turns.begin() + static_cast<ptrdiff_t>(count));
    std::sort(choice.begin(), choice.end());
    choices.insert(choice);
  }
  for (const auto& [node, ranks] : of_nodes) {
    by_nodes.insert(by_nodes.end(), ranks.begin(), ranks.end());
    choices.insert(by_nodes);
  }
  std::vector<Ranks> ordered(choices.begin(), choices.end());
  std::stable_sort(ordered.begin(), ordered.end(),
                   [](const Ranks& a, const Ranks& b) { return a.size() > b.size(); });
  return ordered;
}

std::optional<Arrangement> PartitionSearch::best_of_choices(
    const std::vector<std::vector<Ranks>>& choices) {
  std::optional<Arrangement> best;
  std::vector<size_t> at(choices.size());
  for (bool more = true; more;) {
    Ranks ranks;
    for (size_t kind = 0; kind < choices.size(); ++kind) {
      const Ranks& of_kind = choices[kind][at[kind]];
      ranks.insert(ranks.end(), of_kind.begin(), of_kind.end());
    }
    std::sort(ranks.begin(), ranks.end());
    if (!ranks.empty()) keep_better(best, best_of(ranks));
    more = false;
    for (size_t kind = 0; kind < choices.size() && !more; ++kind) {
      more = ++at[kind] < choices[kind].size();
      if (!more) at[kind] = 0;
    }
  }
  return best;
}

std::optional<Arrangement> PartitionSearch::best() {
  std::vector<std::vector<Ranks>> choices;
  double subsets = 1;
  for (uint32_t kind = 0; kind < kind_nodes_.size(); ++kind) {
    choices.push_back(choices_of(kind));
    subsets *= static_cast<double>(choices.back().size());
  }
  if (subsets <= kSubsetsMax) return best_of_choices(choices);
  return best_of_many(choices);
}

// Too many subsets to try all: the fastest ranks, as many as help, and likewise the largest; then
// one kind after the other, until none changes any more.
std::optional<Arrangement> PartitionSearch::best_of_many(
    const std::vector<std::vector<Ranks>>& choices) {
  Ranks ranks(kinds_.size());
  std::iota(ranks.begin(), ranks.end(), 0u);
  std::optional<Arrangement> best;
  const auto consider_first = [&](const Ranks& sorted) {
    for (size_t count = sorted.size(); count > 0; --count) {
      Ranks first(sorted.begin(), sorted.begin() + static_cast<ptrdiff_t>(count));
      std::sort(first.begin(), first.end());
      keep_better(best, best_of(first));
    }
  };
  consider_first(by_falling(ranks, [&](uint32_t rank) { return rate_of(rank); }));
  consider_first(
      by_falling(ranks, [&](uint32_t rank) { return static_cast<double>(memory_of_rank(rank)); }));
  if (best.has_value()) improve(choices, best);
  return best;
}

void PartitionSearch::improve(const std::vector<std::vector<Ranks>>& choices,
                              std::optional<Arrangement>& best) {
  for (bool changed = true; changed;) {
    changed = false;
    for (uint32_t kind = 0; kind < choices.size(); ++kind) {
      for (const Ranks& choice : choices[kind]) {
        Ranks with = choice;
        for (const uint32_t rank : best->job_ranks) {
          if (kinds_[rank] != kind) with.push_back(rank);
        }
        std::sort(with.begin(), with.end());
        if (!with.empty() && keep_better(best, best_of(with))) changed = true;
      }
    }
  }
}

Partition PartitionSearch::partition_of(const Arrangement& arrangement) {
  const Layout& layout = arrangement.layout;
  std::vector<StagePart> parts(layout.rank_count());
  for (uint32_t stage = 0; stage < layout.pipeline; ++stage) {
    const std::vector<Place> places = places_of(arrangement.job_ranks, layout, stage);
    StageKey key = key_of(places, layout, stage);
    key.layer_count = arrangement.layers[stage];
    const std::optional<StageSplit>& split = split_of(key);
    TC_CHECK(split.has_value(), "a stage that was found");
    for (size_t i = 0; i < places.size(); ++i) {
      const Ranks& ranks = places[i].layout_ranks;
      const std::vector<double> equal(ranks.size(), 1.0);
      const PerKind<uint32_t>& units = split->units[i];
      const auto heads = split_units(units[kHeadUnits], equal);
      const auto neurons = split_units(units[kNeuronUnits], equal);
      const auto vocab = split_units(units[kVocabUnits], equal);
      for (size_t j = 0; j < ranks.size(); ++j) {
        parts[ranks[j]] = {heads[j].count, neurons[j].count, vocab[j].count};
      }
    }
  }
  return partition_of_parts(problem_.shape, problem_.types.longest_o, layout, arrangement.layers,
                            parts);
}

}  // namespace thermocline
