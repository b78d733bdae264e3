// Tuning: the parameters with which a policy does best on a validation trace.
//
// Each parameter of a policy lists values worth trying. They are tried one parameter after the
// other, twice around, each time keeping the best of all budgets together (coordinate descent): by
// the modelled time per token, which charges migrations; by the hit ratio where no step decodes.
// What the user set by hand stays.
// Goals: the replayed trace is never looked at; the same for any number of threads.
// Non-goals: the best of all combinations.
// Thread-safety: uses the readers from the calling thread.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "sim/replay.h"

namespace thermocline {

struct Tuned {
  PolicySpec policy;
  PolicySpec given;                   // as it was before
  size_t tried = 0;                   // settings
  double score_given = 0, score = 0;  // lower is better: ms per token, or misses of 1
};

// `options`: budgets, limits and cost as the replay will have them; its policies are those to tune.
// `say`: called with each policy before it is tuned.
std::vector<Tuned> tune_policies(const TraceReader& validation, const TraceReader* profile,
                                 const ReplayOptions& options,
                                 const std::function<void(const std::string&)>& say);

}  // namespace thermocline
