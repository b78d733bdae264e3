#include "sim/replay_lane.h"

#include <algorithm>

namespace thermocline {

void ReplayLane::start(std::unique_ptr<PolicyDriver> own,
                       std::unique_ptr<PolicyDriver> host_driver) {
  driver = std::move(own);
  before = driver->stats();
  layers_before.resize(pool.layer_count);
  if (host_driver == nullptr) return;
  host.emplace();
  host->driver = std::move(host_driver);
  host->before = host->driver->stats();
}

void ReplayLane::run(const PassBlocks& blocks, const LaneSteps& trace) {
  steps.clear();
  passes.clear();
  if (host) {
    host->admitted.clear();
    host->passed.clear();
    host->steps.clear();
    host->passes.clear();
  }
  for (size_t pass = 0; pass < blocks.passes().size(); ++pass) {
    const PassRange& range = blocks.passes()[pass];
    StepCounts joined;
    if (range.count > 1) {
      const PassUnion& all = blocks.union_of(pool_index, pass);
      joined.needed = all.needed;
      joined.hits = static_cast<uint32_t>(driver->count_hot(all.words));
      if (host) add_needs(all.words, host->passes);
    }
    for (uint32_t i = 0; i < range.count; ++i) {
      const StepCounts counts = run_step(blocks, trace, range.begin + i);
      if (range.count == 1) joined = counts;
      if (range.count == 1 && host) join_step();
      if (range.count > 1) joined.admitted += counts.admitted;
    }
    passes.push_back(joined);
  }
}

// From where the neurons of `words` are needed now, layer by layer.
std::span<const LayerNeeds> ReplayLane::add_needs(std::span<const uint64_t> words,
                                                  std::vector<LayerNeeds>& to) const {
  to.resize(to.size() + pool.layer_count);
  const std::span<LayerNeeds> added = std::span(to).last(pool.layer_count);
  count_needs(pool, words, driver->hot_neurons(), host->driver->hot_neurons(), added);
  return added;
}

// A pass of one step needs what the step does.
void ReplayLane::join_step() {
  const auto layer_count = static_cast<ptrdiff_t>(pool.layer_count);
  host->passes.insert(host->passes.end(), host->steps.end() - layer_count, host->steps.end());
}

StepCounts ReplayLane::run_step(const PassBlocks& blocks, const LaneSteps& trace, uint64_t step) {
  const StepInfo& info = trace.infos[step];
  ActiveStep active = blocks.step(pool_index, step);
  active.task = info.task;
  active.prompt = info.phase == Phase::prefill;
  if (step == trace.warmup_steps) {
    before = driver->stats();
    layers_before = driver->hot_sum_by_layer();
  }
  if (host) run_host_step(active, step, trace.warmup_steps);
  const StepCounts counts = driver->step(active);
  if (host) note_passed(step >= trace.warmup_steps);
  steps.push_back(counts);
  note_threshold(info.task == trace.watched_task);
  return counts;
}

// Before the lane's own driver, whose hot set it asks.
void ReplayLane::run_host_step(const ActiveStep& active, uint64_t step, uint64_t warmup_steps) {
  if (step == warmup_steps) host->before = host->driver->stats();
  for (const LayerNeeds& layer : add_needs(active.words, host->steps)) {
    if (step >= warmup_steps) host->needs.add(layer);
  }
  host->admitted.push_back(host->driver->step(active).admitted);
  const std::span<const uint64_t> device_hot = driver->hot_neurons();
  host->device_before.assign(device_hot.begin(), device_hot.end());
}

// After both: what the step sent to the device without its being hot on the host.
void ReplayLane::note_passed(bool counts) {
  host->passed.push_back(
      count_passed(host->device_before, driver->hot_neurons(), host->driver->hot_neurons()));
  if (counts) host->needs.passed += host->passed.back();
}

void ReplayLane::note_threshold(bool is_watched) {
  const std::optional<double> now = driver->hot_threshold();
  if (is_watched) watched.push_back(now);
  if (!now.has_value()) return;
  if (!threshold.has_value()) threshold = ThresholdRange{*now, *now, *now, *now};
  threshold->last = *now;
  threshold->lowest = std::min(threshold->lowest, *now);
  threshold->highest = std::max(threshold->highest, *now);
}

}  // namespace thermocline
