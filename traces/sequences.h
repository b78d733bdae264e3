// Which sequence each step of a trace belongs to, and when a sequence ends.
//
// A sequence is the steps of one task. In a batched run the steps of several tasks alternate: their
// sequences are open at the same time, each in a slot, and are numbered in the order in which they
// end. Layers follow the events alike, each on its own (traces/layer_counter.h).
// Goals: slots are used again, so that their number is that of the sequences open at once.
// Non-goals: bits.
// Thread-safety: belongs to one thread.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <vector>

namespace thermocline {

struct SequenceEvent {
  enum class Kind : uint8_t { step, end };
  Kind kind;
  uint32_t slot;
  uint64_t steps;  // of the sequence so far: before a step, and in all at the end
  uint64_t at;     // a step: which of its block; an end: the sequence's number
};

class OpenSequences {
 public:
  // A step of the task, in row `row` of its block. The first opens its sequence.
  void step(uint32_t task, uint64_t row, std::vector<SequenceEvent>& events);
  // Nothing where the task has no sequence.
  void end(uint32_t task, std::vector<SequenceEvent>& events);
  // In the order of their first steps.
  void end_all(std::vector<SequenceEvent>& events);

  uint64_t step_count() const { return step_count_; }
  uint64_t ended_count() const { return ended_count_; }
  uint32_t slot_count() const { return slot_count_; }  // that were in use at once

 private:
  struct Open {
    uint32_t slot;
    uint64_t first;  // its first step, of all
    uint64_t steps = 0;
  };

  std::map<uint32_t, Open> open_;  // by task
  std::set<uint32_t> free_;        // slots
  uint32_t slot_count_ = 0;
  uint64_t step_count_ = 0, ended_count_ = 0;
};

}  // namespace thermocline
