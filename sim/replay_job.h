// ReplayJob: what `thermocline replay` decides and does, from options to rows.
//
// Goals: a wrong option or file is found before anything is replayed; a job that was ended goes on
//   with --resume; processes of one job share its rows, and give the same results to the byte.
// Non-goals: parsing the command line (sim/replay_command.cc), tables (sim/replay_tables.h).
// Thread-safety: belongs to the main thread.
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "models/work_group.h"
#include "sim/joined_trace.h"
#include "sim/replay_rows.h"
#include "sim/replay_store.h"
#include "sim/tune.h"

namespace thermocline {

// As the command line says.
struct ReplayFlags {
  std::string trace, profile, policies = "all", budgets = "auto", migration = "32MiB", cluster;
  std::string activation_threshold, json, csv, curve, tune, versus;
  std::string tiers, host_budgets;  // "device,host,disk", and what the host has between the others
  std::string pools = "rank", fill = "step", tier = "device", gate = "predicted", batches = "1";
  uint64_t migrations_max = 0;  // per step; 0: as many as the bytes allow
  uint64_t warmup_steps = 0, seed = 1;
  uint32_t group = 1;
  uint32_t thread_count = 0;  // 0: one per core
  bool list = false, allow_partial = false, resume = false;

  OpenOptions open_options() const {
    return {.allow_partial = allow_partial, .activation_threshold = activation_threshold};
  }
};

class ReplayJob {
 public:
  ReplayJob(const ReplayFlags& flags, WorkGroup& group);
  ~ReplayJob();

  // Tunes, replays at every batch, compares with the recording machine. Collective.
  void run();

  // Of the first process, after run().
  const std::vector<ReplayReport>& reports() const { return reports_; }  // one a batch
  const std::vector<Tuned>& tuned() const { return tuned_; }
  const std::optional<ExecutedComparison>& executed() const { return executed_; }
  const std::string& executed_reason() const { return executed_reason_; }  // why there is none
  nlohmann::ordered_json rows() const;
  // Hits at kCurvePoints budgets of every ranked policy, as CSV: one pass over the trace.
  static constexpr uint64_t kCurvePoints = 1000;
  std::string curve_csv() const;
  // After the results are written: what --resume would have needed goes.
  void forget_partial() const;

 private:
  void open_profile();
  void choose_tiers();
  void check_host_budget() const;
  void choose_cost();
  void choose_budgets();
  void choose_host_budgets(uint64_t whole);
  bool fits(const ReplayStats& row) const;
  void tune();
  void replay_batch(uint32_t batch);
  std::string key_of(uint32_t batch) const;
  std::string partial_path(uint32_t batch, uint32_t rank) const;
  std::vector<std::string> partial_files(uint32_t batch) const;
  KeptRows finished_before(uint32_t batch, const ReplayResult& like) const;
  void share(ReplayResult& result, const KeptRows& known) const;
  bool mine(size_t row, const KeptRows& known) const;

  const ReplayFlags& flags_;
  WorkGroup& group_;
  std::unique_ptr<TraceReader> trace_, profile_;
  TraceHeader header_;  // the trace's, its pools as they are replayed
  RecordingConfig config_, recorded_config_;
  Cluster cluster_;
  Tier fast_ = Tier::device;  // of two tiers
  bool three_tiers_ = false;
  std::unique_ptr<CostModel> cost_;
  ReplayOptions options_;
  std::vector<uint32_t> batches_;
  std::string trace_hash_, profile_hash_, tuned_on_, executed_reason_;
  std::vector<Tuned> tuned_;
  std::set<std::string> tuned_policies_;  // resolved
  std::vector<ReplayReport> reports_;
  std::optional<ExecutedComparison> executed_;
};

}  // namespace thermocline
