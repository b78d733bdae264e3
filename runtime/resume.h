// Resume: an interrupted recording goes on, as if it had never been interrupted.
//
// Each rank's shard is set aside; all ranks agree on the last step before which every task that
//   began had ended; what was recorded until then is shown to the observers of the new run
//   (recorder, live policies) step by step, and the engine goes on behind it.
// Goals: the trace, and what live policies count, equal those of a run without interruption;
// nothing
//   that was complete is lost if this run is interrupted too.
// Non-goals: logits, texts and times per token of what was executed before.
// Thread-safety: one rank, one thread.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "runtime/comm.h"
#include "runtime/engine.h"
#include "traces/interrupted.h"

namespace thermocline {

class Resume {
 public:
  // Collective. `header`: of the run that goes on. Errors, on all ranks: another model, weights,
  // layout, prompts or options, unless `overwrite`, which then starts over; shards that do not
  // belong together.
  Resume(Comm& comm, const std::string& path, const TraceHeader& header, bool overwrite);

  // Whether this rank found a recording of this run.
  bool found() const { return found_; }
  // All zeros where nothing can be taken over.
  const ResumePoint& point() const { return point_; }
  // What is taken over, as if it happened now.
  void replay(std::span<StepObserver* const> observers) const;
  // The new shard holds the first `safe_steps` steps: once these are all that was taken over, the
  // old file goes.
  void settle(uint64_t safe_steps);

 private:
  std::unique_ptr<InterruptedShard> shard_;  // null: none, or no longer needed
  bool found_ = false;
  ResumePoint point_;
};

}  // namespace thermocline
