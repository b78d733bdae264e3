#include "sim/replay_account.h"

#include <algorithm>

namespace thermocline {
namespace {

void add_counts(ReplayAccount& account, const AccountStep& step) {
  const double share = 1.0 / static_cast<double>(step.tasks.size());
  for (const uint32_t task : step.tasks) {
    account.tasks[task].needed += share * step.counts.needed;
    account.tasks[task].hits += share * step.counts.hits;
  }
}

void add_token(ReplayAccount& account, uint32_t task, const PassTime& time) {
  account.tasks[task].decode_ms += 1e3 * time.seconds;
  account.tasks[task].decode_tokens += 1;
  account.tpot_ms.add(1e3 * time.seconds);
  account.hidden_ms += 1e3 * time.hidden;
  ++account.token_count;
}

}  // namespace

void add_pass(ReplayAccount& account, std::span<const AccountStep> steps, const PassTime& time,
              bool timed) {
  bool decodes = false;
  std::vector<uint32_t> waiting;  // tasks whose prompt is in the pass
  for (const AccountStep& step : steps) {
    add_counts(account, step);
    if (!timed) continue;
    for (const uint32_t task : step.tasks) {
      if (step.phase == Phase::decode) {
        decodes = true;
        add_token(account, task, time);
      } else if (std::find(waiting.begin(), waiting.end(), task) == waiting.end()) {
        waiting.push_back(task);
      }
    }
  }
  for (const uint32_t task : waiting) account.ttft_ms[task] += 1e3 * time.seconds;
  if (decodes) account.decode_ms += 1e3 * time.seconds;
}

}  // namespace thermocline
