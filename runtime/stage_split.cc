#include "runtime/stage_split.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace thermocline {
namespace {

using Units = PerKind<uint32_t>;

constexpr double kExactWays = 20'000;  // splits that are looked at one by one
constexpr int kMovesMax = 20'000;      // each makes the slowest node faster
constexpr uint32_t kHandfuls = 256;    // of a kind's units, before single ones are moved

bool fits(const StageTask& task, const StageNode& node, const Units& units) {
  return bytes_of(task, node, units) <= node.memory_bytes &&
         units[kNeuronUnits] <= node.neuron_units_max;
}

// Largest units first, so that smaller ones fill what these leave: heads, neurons, vocabulary.
class GreedySplit {
 public:
  explicit GreedySplit(const StageTask& task)
      : task_(task), units_(task.nodes.size()), seconds_(units_.size()), bytes_(units_.size()) {}

  std::optional<std::vector<Units>> run() {
    if (!give_the_least()) return std::nullopt;
    for (int kind = 0; kind < kUnitKinds; ++kind) {
      if (!give(kind)) return std::nullopt;
    }
    for (int moves = 0; moves < kMovesMax && move_from_slowest(); ++moves) {
    }
    return units_;
  }

 private:
  bool give_the_least() {
    left_ = task_.units;
    for (size_t i = 0; i < units_.size(); ++i) {
      const StageNode& node = task_.nodes[i];
      for (uint32_t& left : left_) {
        if (left < node.rank_count) return false;
        left -= node.rank_count;
      }
      units_[i].fill(node.rank_count);
      seconds_[i] = seconds_of(node, units_[i]);
      bytes_[i] = bytes_of(task_, node, units_[i]);
      if (!fits(task_, node, units_[i])) return false;
    }
    return true;
  }

  // As far as the node's other memory goes.
  uint64_t more(size_t node, int kind) const {
    if (kind != kNeuronUnits) return UINT64_MAX;
    return task_.nodes[node].neuron_units_max - units_[node][kind];
  }

  uint64_t room(size_t node, int kind) const {
    const uint64_t unit = std::max<uint64_t>(1, task_.unit_bytes[kind]);
    return std::min((task_.nodes[node].memory_bytes - bytes_[node]) / unit, more(node, kind));
  }

  void add(size_t node, int kind, int64_t count) {
    units_[node][kind] = static_cast<uint32_t>(units_[node][kind] + count);
    seconds_[node] = seconds_of(task_.nodes[node], units_[node]);
    bytes_[node] = bytes_of(task_, task_.nodes[node], units_[node]);
  }

  // What a node would be at with `count` more: its time, or where they take none, its memory.
  double level(size_t node, int kind, uint32_t count) const {
    const StageNode& at = task_.nodes[node];
    if (at.seconds[kind] > 0) return seconds_[node] + count * at.seconds[kind];
    const uint64_t bytes = bytes_[node] + count * task_.unit_bytes[kind];
    return static_cast<double>(bytes) / static_cast<double>(at.memory_bytes);
  }

  bool give(int kind) {
    const uint32_t handful = std::max(1u, left_[kind] / kHandfuls);
    while (left_[kind] > 0) {
      uint32_t count = std::min(handful, left_[kind]);
      size_t best = units_.size();
      for (size_t i = 0; i < units_.size(); ++i) {
        if (room(i, kind) == 0) continue;
        if (best == units_.size() || level(i, kind, count) < level(best, kind, count)) best = i;
      }
      if (best == units_.size()) return false;
      count = static_cast<uint32_t>(std::min<uint64_t>(count, room(best, kind)));
      add(best, kind, count);
      left_[kind] -= count;
    }
    return true;
  }

  // `count` units of a kind go from the slowest node to another, `back_count` of another kind back.
  struct Move {
    size_t to;
    int kind, back_kind;
    uint32_t count, back_count;
    double then;  // the longer of both nodes' times
  };

  bool can_give(size_t node, int kind, uint64_t count) const {
    return units_[node][kind] >= task_.nodes[node].rank_count + count;
  }

  // What `to` must give back to have room: as few units of `back` as go, and then as many of `kind`
  // as these make room for.
  std::optional<Move> exchange(size_t from, size_t to, int kind, int back) const {
    const uint64_t in = std::max<uint64_t>(1, task_.unit_bytes[kind]);
    const uint64_t out = std::max<uint64_t>(1, task_.unit_bytes[back]);
    const uint64_t free = task_.nodes[to].memory_bytes - bytes_[to];
    const uint64_t back_count = in <= free ? 1 : (in - free + out - 1) / out;
    if (!can_give(to, back, back_count)) return std::nullopt;
    const uint64_t to_give = units_[from][kind] - task_.nodes[from].rank_count;
    const uint64_t count =
        std::min({(free + back_count * out) / in, uint64_t{to_give}, more(to, kind)});
    const uint64_t room_there = task_.nodes[from].memory_bytes - bytes_[from] + count * in;
    if (count == 0 || back_count * out > room_there || back_count > more(from, back)) {
      return std::nullopt;
    }
    return Move{to, kind, back, static_cast<uint32_t>(count), static_cast<uint32_t>(back_count), 0};
  }

  double time_then(size_t from, const Move& move) const {
    const auto &a = task_.nodes[from].seconds, &b = task_.nodes[move.to].seconds;
    return std::max(
        seconds_[from] - move.count * a[move.kind] + move.back_count * a[move.back_kind],
        seconds_[move.to] + move.count * b[move.kind] - move.back_count * b[move.back_kind]);
  }

  // From the slowest node to where it helps most; false where nothing helps. Where a node is full,
  // it may give something back that is read less for the memory that it takes.
  bool move_from_slowest() {
    const auto slowest = std::max_element(seconds_.begin(), seconds_.end());
    const auto from = static_cast<size_t>(slowest - seconds_.begin());
    std::optional<Move> best;
    const auto consider = [&](std::optional<Move> move) {
      if (!move.has_value()) return;
      move->then = time_then(from, *move);
      if (move->then < (best.has_value() ? best->then : *slowest * (1 - 1e-12))) best = move;
    };
    for (int kind = 0; kind < kUnitKinds; ++kind) {
      if (task_.nodes[from].seconds[kind] <= 0 || !can_give(from, kind, 1)) continue;
      for (size_t to = 0; to < units_.size(); ++to) {
        if (to == from) continue;
        if (room(to, kind) > 0) consider(Move{to, kind, kind, 1, 0, 0});
        for (int back = 0; back < kUnitKinds; ++back) {
          if (back != kind) consider(exchange(from, to, kind, back));
        }
      }
    }
    if (!best.has_value()) return false;
    add(from, best->kind, -int64_t{best->count});
    add(best->to, best->kind, best->count);
    add(best->to, best->back_kind, -int64_t{best->back_count});
    add(from, best->back_kind, best->back_count);
    return true;
  }

  const StageTask& task_;
  Units left_ = {};
  std::vector<Units> units_;  // by node
  std::vector<double> seconds_;
  std::vector<uint64_t> bytes_;
};

// All splits, node after node; what is no better than the best so far is not followed.
class ExactSplit {
 public:
  ExactSplit(const StageTask& task, double best) : task_(task), best_(best) {
    units_.resize(task.nodes.size());
    for (const StageNode& node : task.nodes) ranks_left_ += node.rank_count;
  }

  std::optional<std::vector<Units>> run() {
    follow(0, task_.units, ranks_left_);
    return found_;
  }

 private:
  void follow(size_t node, const Units& left, uint32_t ranks_left) {
    const StageNode& at = task_.nodes[node];
    const uint32_t behind = ranks_left - at.rank_count;  // ranks of later nodes
    const auto first = [&](int kind) { return behind == 0 ? left[kind] : at.rank_count; };
    for (const uint32_t count : left) {
      if (count < ranks_left) return;
    }
    for (uint32_t h = first(kHeadUnits); h + behind <= left[kHeadUnits]; ++h) {
      for (uint32_t n = first(kNeuronUnits); n + behind <= left[kNeuronUnits]; ++n) {
        for (uint32_t v = first(kVocabUnits); v + behind <= left[kVocabUnits]; ++v) {
          take(node, {h, n, v}, left, behind);
        }
      }
    }
  }

  void take(size_t node, const Units& units, const Units& left, uint32_t behind) {
    const StageNode& at = task_.nodes[node];
    if (seconds_of(at, units) >= best_ || !fits(task_, at, units)) return;
    units_[node] = units;
    if (node + 1 < units_.size()) {
      follow(node + 1, {left[0] - units[0], left[1] - units[1], left[2] - units[2]}, behind);
      return;
    }
    double slowest = 0;
    for (size_t i = 0; i < units_.size(); ++i) {
      slowest = std::max(slowest, seconds_of(task_.nodes[i], units_[i]));
    }
    best_ = slowest;
    found_ = units_;
  }

  const StageTask& task_;
  double best_;
  uint32_t ranks_left_ = 0;
  std::vector<Units> units_;  // by node
  std::optional<std::vector<Units>> found_;
};

// In how many ways `units` of each kind go to so many nodes, about: the product over the kinds of
// units^(nodes - 1) / (nodes - 1)!.
double ways_of(const StageTask& task) {
  double ways = 1;
  for (const uint32_t units : task.units) {
    for (size_t i = 1; i < task.nodes.size(); ++i) {
      ways *= static_cast<double>(units + i) / static_cast<double>(i);
    }
  }
  return ways;
}

StageSplit described(const StageTask& task, std::vector<Units> units) {
  StageSplit split{std::move(units), 0, 0};
  for (size_t i = 0; i < split.units.size(); ++i) {
    const StageNode& node = task.nodes[i];
    const double full = static_cast<double>(bytes_of(task, node, split.units[i])) /
                        static_cast<double>(node.memory_bytes);
    split.seconds = std::max(split.seconds, seconds_of(node, split.units[i]));
    split.fullness = std::max(split.fullness, full);
  }
  return split;
}

}  // namespace

double seconds_of(const StageNode& node, const PerKind<uint32_t>& units) {
  double seconds = 0;
  for (int kind = 0; kind < kUnitKinds; ++kind) seconds += units[kind] * node.seconds[kind];
  return seconds;
}

uint64_t bytes_of(const StageTask& task, const StageNode& node, const PerKind<uint32_t>& units) {
  uint64_t bytes = node.rank_count * task.rank_bytes;
  for (int kind = 0; kind < kUnitKinds; ++kind) bytes += units[kind] * task.unit_bytes[kind];
  return bytes;
}

std::optional<StageSplit> split_stage(const StageTask& task) {
  auto units = GreedySplit(task).run();
  if (ways_of(task) <= kExactWays) {
    const double best = units.has_value() ? described(task, *units).seconds
                                          : std::numeric_limits<double>::infinity();
    if (auto better = ExactSplit(task, best).run()) units = std::move(better);
  }
  if (!units.has_value()) return std::nullopt;
  return described(task, std::move(*units));
}

}  // namespace thermocline
