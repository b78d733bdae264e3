// Listening: `thermocline run --listen`: the ranks' live counters, gathered and served by rank 0.
//
// Behind each pass at whose end all ranks met anyway, its clock stopped, every rank sends rank 0 a
//   small message, which is not counted among the bytes of links. Rank 0 puts a snapshot together
//   and hands it to the server's thread whole, so that a page is all of one pass; the thread
//   renders it when it is asked for.
// Goals: no result, no reported time and no result row depends on it. Non-goals: what a page looks
//   like (runtime/live_counters.h), HTTP (runtime/metrics_server.h).
// Thread-safety: one rank, one thread; the server's thread meets it at one lock.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "runtime/comm.h"
#include "runtime/decoder.h"
#include "runtime/engine.h"
#include "runtime/live_counters.h"
#include "runtime/metrics_server.h"
#include "runtime/run_plan.h"

namespace thermocline {

// The newest snapshot, from the thread that makes it to one that reads it.
class SnapshotBoard {
 public:
  void publish(LiveSnapshot snapshot);
  std::shared_ptr<const LiveSnapshot> newest() const;

 private:
  mutable std::mutex mutex_;
  std::shared_ptr<const LiveSnapshot> newest_ = std::make_shared<LiveSnapshot>();
};

// "/", "/metrics" and "/counters.json"; 404 for others.
HttpResponse live_page(const LiveSnapshot& snapshot, const std::string& path);

class Listening final : public StepObserver {
 public:
  // Rank 0 serves from now on. Error there where it cannot have the address.
  Listening(Comm& comm, const RunPlan& plan, const RunOptions& options);

  std::string url() const;  // "http://127.0.0.1:9100"; empty but on rank 0

  // Collective, before the first step. Decoder and policies (null: none) outlive the object.
  void begin(const Decoder& decoder, const LivePolicies* policies);
  void on_step(const StepInfo&, const StepTimes&, const StepData&) override {}
  void on_task_end(const TaskRecord&) override { ++snapshot_.tasks_done; }
  void on_report(const PassReport& report);  // collective where all ranks met
  void finish(const SentBytes& sent);        // collective, when the tasks have ended

  // Collective: all ranks stay, asleep, until so much time is over or one was interrupted.
  void linger(double seconds);

 private:
  void gather();
  void look_at_rank();
  void receive_others(size_t byte_count);

  Comm& comm_;
  const Decoder* decoder_ = nullptr;
  const LivePolicies* policies_ = nullptr;
  RankCounters mine_;
  DecodeRate rate_;
  LiveSnapshot snapshot_;  // beside tasks_done, rank 0's alone
  SnapshotBoard board_;
  std::optional<MetricsServer> server_;  // rank 0's; last: it reads the board
};

}  // namespace thermocline
