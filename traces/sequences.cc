#include "traces/sequences.h"

#include <algorithm>

namespace thermocline {

void OpenSequences::step(uint32_t task, uint64_t row, std::vector<SequenceEvent>& events) {
  auto found = open_.find(task);
  if (found == open_.end()) {
    if (free_.empty()) free_.insert(slot_count_++);
    found = open_.emplace(task, Open{*free_.begin(), step_count_}).first;
    free_.erase(free_.begin());
  }
  Open& open = found->second;
  events.push_back({SequenceEvent::Kind::step, open.slot, open.steps++, row});
  ++step_count_;
}

void OpenSequences::end(uint32_t task, std::vector<SequenceEvent>& events) {
  const auto found = open_.find(task);
  if (found == open_.end()) return;
  const Open& open = found->second;
  events.push_back({SequenceEvent::Kind::end, open.slot, open.steps, ended_count_++});
  free_.insert(open.slot);
  open_.erase(found);
}

void OpenSequences::end_all(std::vector<SequenceEvent>& events) {
  std::vector<std::pair<uint64_t, uint32_t>> tasks;  // first step, task
  for (const auto& [task, open] : open_) tasks.emplace_back(open.first, task);
  std::sort(tasks.begin(), tasks.end());
  for (const auto& [first, task] : tasks) end(task, events);
}

}  // namespace thermocline
