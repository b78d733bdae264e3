#include "sim/joined_trace.h"

#include <algorithm>

#include "models/bit_sums.h"
#include "models/error.h"

namespace thermocline {

// A request in flight.
struct JoinedTrace::Slot {
  uint32_t task = 0;
  size_t next = 0;  // of its steps
  bool busy = false;
};

JoinedTrace::JoinedTrace(const TraceReader& source, uint32_t batch)
    : source_(source),
      source_infos_(source.steps()),
      task_steps_(task_count_of(source, source_infos_)),
      tasks_(source.tasks()),
      kept_max_(size_t{2} * batch + 2) {
  if (batch == 0) throw bad_usage("--batch: expected at least 1, found 0");
  for (uint64_t step = 0; step < source_infos_.size(); ++step) {
    task_steps_[source_infos_[step].task].push_back(step);
  }
  constexpr uint64_t kAtOnce = 4096;
  for (uint64_t begin = 0; begin < source_infos_.size(); begin += kAtOnce) {
    const uint64_t count = std::min<uint64_t>(kAtOnce, source_infos_.size() - begin);
    const std::vector<uint32_t> counts = source.popcounts(begin, count);
    const size_t layers = counts.size() / count;
    for (uint64_t i = 0; i < count; ++i) {
      uint64_t sum = 0;
      for (size_t layer = 0; layer < layers; ++layer) sum += counts[i * layers + layer];
      source_active_.push_back(sum);
    }
  }
  tasks_.resize(task_steps_.size());  // a trace that was cut off has no record of its last task
  for (TaskRecord& task : tasks_) task.step_begin = task.step_count = 0;
  plan(batch);
}

void JoinedTrace::plan(uint32_t batch) {
  std::vector<Slot> slots(batch);
  for (bool busy = true; busy || next_task_ < task_steps_.size();) {
    for (Slot& slot : slots) {
      while (!slot.busy && next_task_ < task_steps_.size()) {
        slot = {next_task_++, 0, true};
        add_prompt(slot);
      }
    }
    add_decode(slots);
    busy = std::any_of(slots.begin(), slots.end(), [](const Slot& slot) { return slot.busy; });
  }
}

// Steps before the first decoded token; passes stay as they were recorded.
void JoinedTrace::add_prompt(Slot& slot) {
  const std::vector<uint64_t>& steps = task_steps_[slot.task];
  uint32_t recorded_pass = 0;
  for (; slot.next < steps.size(); ++slot.next) {
    StepInfo info = source_infos_[steps[slot.next]];
    if (info.phase == Phase::decode) return;
    if (slot.next == 0 || info.pass != recorded_pass) ++next_pass_;
    recorded_pass = info.pass;
    info.pass = next_pass_;
    add_step(info, {&steps[slot.next], 1});
  }
  slot.busy = false;  // nothing was decoded
}

void JoinedTrace::add_decode(std::vector<Slot>& slots) {
  std::vector<uint64_t> sources;
  for (Slot& slot : slots) {
    if (!slot.busy) continue;
    const std::vector<uint64_t>& steps = task_steps_[slot.task];
    sources.push_back(steps[slot.next++]);
    slot.busy = slot.next < steps.size();
  }
  if (sources.empty()) return;
  StepInfo info = source_infos_[sources.front()];
  info.pass = ++next_pass_;
  info.phase = Phase::decode;
  add_step(info, sources);
}

void JoinedTrace::add_step(const StepInfo& info, std::span<const uint64_t> sources) {
  for (const uint64_t source : sources) {
    const uint32_t task = source_infos_[source].task;
    if (tasks_[task].step_count++ == 0) {
      tasks_[task].step_begin = static_cast<uint32_t>(infos_.size());
    }
    sources_.push_back(source);
    step_tasks_.push_back(task);
  }
  offsets_.push_back(sources_.size());
  infos_.push_back(info);
}

std::span<const uint64_t> JoinedTrace::sources_of(uint64_t step) const {
  return std::span(sources_).subspan(offsets_[step], offsets_[step + 1] - offsets_[step]);
}

std::span<const uint32_t> JoinedTrace::tasks_of(uint64_t step) const {
  return std::span(step_tasks_).subspan(offsets_[step], offsets_[step + 1] - offsets_[step]);
}

StepShape JoinedTrace::shape_of(uint64_t step) const {
  uint64_t sum = 0;
  for (const uint64_t source : sources_of(step)) sum += source_active_[source];
  return {static_cast<uint32_t>(sources_of(step).size()), sum};
}

std::vector<StepTimes> JoinedTrace::times(uint32_t /*rank*/) const {
  return std::vector<StepTimes>(infos_.size());
}

std::vector<uint32_t> JoinedTrace::popcounts(uint64_t step_begin, uint64_t count) const {
  const ModelShape& shape = header().shape;
  const NeuronPool whole{0, shape.layer_count, 0, shape.ffn_dim};
  std::vector<uint32_t> counts;
  StepBlock block;
  for (uint64_t step = step_begin; step < step_begin + count; ++step) {
    read(whole, step, 1, block);
    for (uint32_t layer = 0; layer < shape.layer_count; ++layer) {
      counts.push_back(block.step(0).layer(layer).count());
    }
  }
  return counts;
}

void JoinedTrace::read(const NeuronPool& pool, uint64_t step_begin, uint64_t count,
                       StepBlock& block) const {
  const std::lock_guard lock(mutex_);
  const uint64_t stride = pool.words_per_step();
  block.pool = pool;
  block.step_begin = step_begin;
  block.step_count = count;
  block.words.assign(count * stride, 0);
  for (uint64_t i = 0; i < count; ++i) {
    for (const uint64_t source : sources_of(step_begin + i)) {
      const std::span<const uint64_t> row = source_row(pool, source);
      bit_sums().widen(block.words.data() + i * stride, row.data(), stride);
    }
  }
}

std::span<const uint64_t> JoinedTrace::source_row(const NeuronPool& pool, uint64_t step) const {
  const uint64_t begin = step / kBlockSteps * kBlockSteps;
  auto kept = std::find_if(kept_.begin(), kept_.end(), [&](const Kept& one) {
    return one.block.step_begin == begin && one.block.pool == pool;
  });
  if (kept == kept_.end()) {
    if (kept_.size() < kept_max_) kept_.emplace_back();
    kept = std::min_element(kept_.begin(), kept_.end(),
                            [](const Kept& a, const Kept& b) { return a.used < b.used; });
    const uint64_t end = std::min<uint64_t>(begin + kBlockSteps, source_.step_count());
    source_.read(pool, begin, end - begin, kept->block);
  }
  kept->used = ++reads_;
  return kept->block.step(step - begin).words;
}

void JoinedTrace::read_predicted(const NeuronPool& /*pool*/, uint64_t /*step_begin*/,
                                 uint64_t /*count*/, StepBlock& /*block*/) const {
  TC_CHECK(false, "predictions of joined requests");
}

void JoinedTrace::read_magnitudes(const NeuronPool& /*pool*/, uint64_t /*row_begin*/,
                                  uint64_t /*row_count*/,
                                  std::vector<float>& /*magnitudes*/) const {
  TC_CHECK(false, "magnitudes of joined requests");
}

}  // namespace thermocline
