// Recorder: an observer that writes what this rank's neurons did into its shard of a trace.
//
// With --resume it begins with what an interrupted run recorded (resume.h).
// Goals: the trace is whole only when every task ran; anything less stays a partial file.
// Thread-safety: one rank, one thread (the writer has a thread of its own).
#pragma once

#include <memory>
#include <string>

#include "runtime/comm.h"
#include "runtime/engine.h"
#include "runtime/resume.h"
#include "traces/trace.h"

namespace thermocline {

class Recorder final : public StepObserver {
 public:
  // resume: null, or what outlives the recorder.
  Recorder(const std::string& path, const TraceHeader& header, uint32_t rank, Resume* resume)
      : path_(path), writer_(create_shard(path, header, rank)), resume_(resume) {}

  void on_step(const StepInfo& info, const StepTimes& times, const StepData& data) override {
    writer_->append(info, times, data);
    if (resume_ != nullptr) resume_->settle(writer_->safe_steps());
  }
  void on_task_end(const TaskRecord& task) override { writer_->end_task(task); }

  // Collective: finishes every shard, then rank 0 joins them. Returns the trace's hash on rank 0.
  std::string finish(Comm& comm);

 private:
  std::string path_;
  std::unique_ptr<TraceWriter> writer_;
  Resume* resume_;
};

// Collective, once all ranks know that the run failed and have closed their recorders: where one of
// them holds no step, nothing can be read of the whole model or gone on with, and the shards that
// this run made go. made_shard: whether this rank's is one of them.
void drop_shards_of_no_use(Comm& comm, const std::string& path, bool made_shard);

}  // namespace thermocline
