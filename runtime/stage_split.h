// The split of one pipeline stage over nodes: heads, neurons and vocabulary rows, in whole units.
//
// Every unit has a cost in seconds, which depends on the node, and in bytes, which does not; a
// node's time is the sum of its units', and the stage's is that of its slowest node. Memory is
// water-filling's border: a node that is full is clamped, and the rest goes to the others.
// Goals: the least time; exact where there are few ways to split, else within about a unit of it;
//   the same result for the same input. Non-goals: which nodes make a stage (partition_solver.h).
// Thread-safety: pure functions.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

namespace thermocline {

enum UnitKind : int { kHeadUnits, kNeuronUnits, kVocabUnits, kUnitKinds };
template <class T>
using PerKind = std::array<T, kUnitKinds>;

struct StageNode {
  uint32_t rank_count = 1;  // of the stage; each takes at least one unit of every kind
  uint64_t memory_bytes = 0;
  PerKind<double> seconds = {};            // of one unit
  uint32_t neuron_units_max = UINT32_MAX;  // that another memory of it has room for
};

struct StageTask {
  PerKind<uint32_t> units = {};
  PerKind<uint64_t> unit_bytes = {};
  uint64_t rank_bytes = 0;  // of every rank, whatever it holds
  std::vector<StageNode> nodes;
};

struct StageSplit {
  std::vector<PerKind<uint32_t>> units;  // by node
  double seconds = 0;                    // of the slowest node
  double fullness = 0;                   // of the node whose memory is fullest: bytes over memory
};

double seconds_of(const StageNode& node, const PerKind<uint32_t>& units);
uint64_t bytes_of(const StageTask& task, const StageNode& node, const PerKind<uint32_t>& units);

// Nothing where it does not fit.
std::optional<StageSplit> split_stage(const StageTask& task);

}  // namespace thermocline
