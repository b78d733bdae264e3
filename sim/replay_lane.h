// ReplayLane: one policy at one budget in one pool, stepped through the blocks of a trace.
//
// With three tiers it has two drivers, the device's and the host's, which see the same steps; what
// a step needs from which tier, and what passes the host, is counted from both hot sets.
// Goals: counts of each step and of each pass of a block; integers alone, the same for any number
//   of threads. Non-goals: sums over pools, time (replay.cc), who is hot (sim/policy_driver.h).
// Thread-safety: a lane is one thread's at a time; different lanes share nothing that changes.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "sim/pass_blocks.h"
#include "sim/policy_driver.h"
#include "sim/tier_needs.h"
#include "traces/trace.h"

namespace thermocline {

// The hot threshold over the steps, a mean over the pools that have one.
struct ThresholdRange {
  double first = 0, last = 0, lowest = 0, highest = 0;
};

// With three tiers: the host's hot set, beside that of the lane's driver.
struct HostLane {
  std::unique_ptr<PolicyDriver> driver;
  // Of the block, for each step: bundles admitted here; on their way to the device.
  std::vector<uint32_t> admitted, passed;
  // Of the block, (layers) each: from where each step needed its neurons, and the union of each
  // pass.
  std::vector<LayerNeeds> steps, passes;
  std::vector<uint64_t> device_before;  // hot there when the step began
  HotSetStats before;                   // at the end of the warm-up
  TierNeeds needs;                      // since then
};

// What all lanes of a replay go through.
struct LaneSteps {
  std::span<const StepInfo> infos;  // of the trace
  uint64_t warmup_steps = 0;
  uint32_t watched_task = 0;  // whose thresholds are kept
};

struct ReplayLane {
  size_t row = 0;  // of the result
  uint32_t pool_index = 0;
  NeuronPool pool = {};
  std::unique_ptr<PolicyDriver> driver = nullptr;
  std::vector<StepCounts> steps = {};   // of the block: each step
  std::vector<StepCounts> passes = {};  // of the block: the union of each pass
  HotSetStats before = {};              // at the end of the warm-up
  std::vector<uint64_t> layers_before = {};
  std::optional<ThresholdRange> threshold = {};
  std::vector<std::optional<double>> watched = {};
  std::optional<HostLane> host = {};

  // Before the first block. host_driver: null with two tiers.
  void start(std::unique_ptr<PolicyDriver> own, std::unique_ptr<PolicyDriver> host_driver);
  // The block that `blocks` has now.
  void run(const PassBlocks& blocks, const LaneSteps& trace);

 private:
  StepCounts run_step(const PassBlocks& blocks, const LaneSteps& trace, uint64_t step);
  void run_host_step(const ActiveStep& active, uint64_t step, uint64_t warmup_steps);
  void note_passed(bool counts);
  void note_threshold(bool is_watched);
  std::span<const LayerNeeds> add_needs(std::span<const uint64_t> words,
                                        std::vector<LayerNeeds>& to) const;
  void join_step();
};

}  // namespace thermocline
