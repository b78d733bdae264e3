// Live counters against the replay's.
#include <fmt/format.h>

#include <map>
#include <set>

#include "sim/results.h"

namespace thermocline {
namespace {

std::string key_of(const PolicyRow& row) {
  const std::string batch = row.batch == 1 ? "" : fmt::format(" in batches of {}", row.batch);
  return fmt::format("{} at {} bytes{}", row.name(), row.budget_bytes, batch);
}

}  // namespace

std::string difference_of(const Counters& live, const std::string& live_trace,
                          const Counters& replayed, const std::string& replayed_trace) {
  if (live_trace != replayed_trace) {
    return fmt::format("live on trace {}, replayed on trace {}", live_trace, replayed_trace);
  }
  std::string text;
  std::set<std::string> names;
  for (const auto& [name, value] : live) names.insert(name);
  for (const auto& [name, value] : replayed) names.insert(name);
  const auto shown = [](const Counters& counters, const std::string& name) {
    const auto found = counters.find(name);
    return found == counters.end() ? std::string("none") : std::to_string(found->second);
  };
  for (const std::string& name : names) {
    const std::string a = shown(live, name), b = shown(replayed, name);
    if (a != b)
      text += fmt::format("{}{} live {}, replay {}", text.empty() ? "" : "; ", name, a, b);
  }
  return text;
}

Agreement compare_live(const ModelResults& model) {
  std::map<std::string, const PolicyRow*> replayed;
  for (const PolicyRow& row : model.replayed) replayed[key_of(row)] = &row;
  Agreement agreement;
  for (const PolicyRow& live : model.live) {
    const auto found = replayed.find(key_of(live));
    const std::string difference =
        found == replayed.end() ? "no such row in the replay"
                                : difference_of(live.counters, live.trace_hash,
                                                found->second->counters, found->second->trace_hash);
    agreement.add(difference.empty() ? "" : model.label + ": " + key_of(live) + ": " + difference);
  }
  return agreement;
}

Agreement agreement_of(const Results& results, Agreement (*compare)(const ModelResults&)) {
  Agreement sum;
  for (const ModelResults& model : results.models) {
    const Agreement one = compare(model);
    sum.total += one.total;
    sum.equal += one.equal;
    sum.differences.insert(sum.differences.end(), one.differences.begin(), one.differences.end());
  }
  return sum;
}

}  // namespace thermocline
