// Live counters: what a run has done so far, as `thermocline run --listen` tells it.
//
// RankCounters is what a rank knows of itself and sends to rank 0 behind a pass; LiveSnapshot is
//   all of them behind one pass, and what they add up to. Policies' counters are those of the
//   run's result rows and of a replay of its trace, to the last integer.
// Goals: pure functions of a snapshot: Prometheus' text exposition format 0.0.4, with its rules for
//   names (base units, _total for what only grows); JSON with the names of result rows.
// Non-goals: gathering (runtime/listening.h), sockets (runtime/metrics_server.h).
// Thread-safety: pure functions; DecodeRate is one thread's.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <vector>

#include "runtime/engine.h"
#include "runtime/live_policies.h"
#include "runtime/tiers/bundle_store.h"

namespace thermocline {

// Of the passes of one phase, on one rank.
struct PhaseCounters {
  uint64_t pass_count = 0;
  uint64_t step_count = 0;  // of these passes
  StepTimes times;          // of whole passes

  void add(const PassReport& report);
};

// Of a tier that has a hot set, on one rank.
struct HotTierCounters {
  uint64_t hot_bytes = 0, staging_bytes = 0;  // places for bundles
  TierCounters counters;
};
inline constexpr size_t kHotTiersMax = 2;

struct RankCounters {
  PhaseCounters prefill, decode;  // executed now: what --resume took over is not in them
  uint64_t weight_bytes = 0;      // in memory
  std::array<HotTierCounters, kHotTiersMax> tiers;  // as many as the run has
  SentBytes sent;
  std::vector<LivePolicyState> policies;  // (policy, budget)
};

// RankCounters as bytes: as many on every rank of a job.
std::vector<std::byte> packed(const RankCounters& counters);
RankCounters unpacked(std::span<const std::byte> bytes, size_t rank_count, size_t policy_count);

struct LivePolicyName {
  PolicySpec policy;
  uint64_t budget_bytes = 0;
  std::string tier = {};  // whose hot set it keeps: "device"; empty: none's
};

struct LiveSnapshot {
  std::string model, weights, weight_hash, layout;  // as in result rows
  uint64_t bundle_bytes = 0;
  std::vector<std::string> tiers;  // that have a hot set, the fastest first; empty: none
  std::vector<LivePolicyName> policies;

  bool ended = false;
  uint64_t tasks_done = 0, tasks_total = 0;  // done: with what --resume took over
  double recent_tokens_per_second = 0;       // of decoding, over kRecentSeconds
  std::vector<RankCounters> ranks;           // empty: before the first pass

  // Sums over ranks; the hot threshold is the mean of those that have one, as replay has it.
  LivePolicyState policy_total(size_t policy) const;
  double tokens_per_second() const;  // of decoding, over the run
};

inline constexpr uint64_t kRecentSeconds = 5;

// Tokens per second of the passes that ended in the last kRecentSeconds, while they ran.
class DecodeRate {
 public:
  void add(uint64_t now_ns, uint64_t step_count, uint64_t duration_ns);
  double tokens_per_second(uint64_t now_ns);

 private:
  struct Pass {
    uint64_t end_ns, step_count, duration_ns;
  };
  void forget(uint64_t now_ns);

  std::deque<Pass> passes_;
  uint64_t step_count_ = 0, duration_ns_ = 0;  // of these
};

std::string prometheus_text(const LiveSnapshot& snapshot);
std::string counters_json(const LiveSnapshot& snapshot);

}  // namespace thermocline
