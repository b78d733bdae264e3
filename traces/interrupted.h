// InterruptedShard: what a rank of an interrupted run recorded, to go on from.
//
// The file is set aside under a name of its own (x.rank0003.h5.interrupted) before a new shard is
//   begun, and stays until what it holds is safe in the new one: killed at any moment, nothing that
//   was complete is lost.
// A run goes on at a step before which every task that began had ended. In a batched run that may
//   be earlier than the last task that ended; then the tasks in between are executed again.
// Thread-safety: one thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "traces/trace.h"

namespace thermocline {

class Shard;

// Where a run goes on.
struct ResumePoint {
  uint64_t step_count = 0;
  uint32_t task_count = 0;
  uint32_t pass_count = 0;
  uint64_t content = 0;  // FNV-1a over these steps: equal on all ranks of one recording
};

class InterruptedShard {
 public:
  // Sets aside the shard of `rank` at `path`, finished or not, or finds one set aside before:
  // whichever holds more steps. Null where none can be read, and where the master is there: then
  // nothing was interrupted.
  static std::unique_ptr<InterruptedShard> take(const std::string& path, uint32_t rank);
  ~InterruptedShard();

  const std::string& path() const;
  const TraceHeader& header() const;
  uint64_t step_count() const;
  uint32_t task_count() const;  // that ended
  // The last within these steps and tasks.
  ResumePoint point(uint64_t step_max, uint32_t task_max) const;
  // Calls on_step for each step before the point, and on_task after the last step of each task.
  void replay(
      const ResumePoint& point,
      const std::function<void(const StepInfo&, const StepTimes&, const StepData&)>& on_step,
      const std::function<void(const TaskRecord&)>& on_task) const;
  // Removes the file.
  void remove();

 private:
  explicit InterruptedShard(std::unique_ptr<Shard> shard);
  std::unique_ptr<Shard> shard_;
};

// True where `rank` of a run that ended early left something to go on with.
bool holds_steps(const std::string& path, uint32_t rank);
// True where rank 0 of an interrupted run at `path` left a file.
bool has_interrupted(const std::string& path);

}  // namespace thermocline
