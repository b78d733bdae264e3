// Recorder: an observer that writes what this rank's neurons did into its shard of a trace.
//
// Goals: the trace is whole only when every task ran; anything less stays a partial file.
// Thread-safety: one rank, one thread (the writer has a thread of its own).
#pragma once

#include <memory>
#include <string>

#include "runtime/comm.h"
#include "runtime/engine.h"
#include "traces/trace.h"

namespace thermocline {

class Recorder final : public StepObserver {
 public:
  Recorder(const std::string& path, const TraceHeader& header, uint32_t rank)
      : path_(path), writer_(create_shard(path, header, rank)) {}

  void on_step(const StepInfo& info, const StepTimes& times, const StepData& data) override {
    writer_->append(info, times, data);
  }
  void on_task_end(const TaskRecord& task) override { writer_->end_task(task); }

  // Collective: finishes every shard, then rank 0 joins them. Returns the trace's hash on rank 0.
  std::string finish(Comm& comm);

 private:
  std::string path_;
  std::unique_ptr<TraceWriter> writer_;
};

}  // namespace thermocline
