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

std::string difference_of(const PolicyRow& live, const PolicyRow* replayed) {
  if (replayed == nullptr) return key_of(live) + ": no such row in the replay";
  if (live.trace_hash != replayed->trace_hash) {
    return fmt::format("{}: live on trace {}, replayed on trace {}", key_of(live), live.trace_hash,
                       replayed->trace_hash);
  }
  std::string text;
  std::set<std::string> names;
  for (const auto& [name, value] : live.counters) names.insert(name);
  for (const auto& [name, value] : replayed->counters) names.insert(name);
  const auto shown = [](const Counters& counters, const std::string& name) {
    const auto found = counters.find(name);
    return found == counters.end() ? std::string("none") : std::to_string(found->second);
  };
  for (const std::string& name : names) {
    const std::string a = shown(live.counters, name), b = shown(replayed->counters, name);
    if (a != b)
      text += fmt::format("{}{} live {}, replay {}", text.empty() ? "" : "; ", name, a, b);
  }
  return text.empty() ? "" : key_of(live) + ": " + text;
}

}  // namespace

Agreement compare_live(const ModelResults& model) {
  std::map<std::string, const PolicyRow*> replayed;
  for (const PolicyRow& row : model.replayed) replayed[key_of(row)] = &row;
  Agreement agreement;
  for (const PolicyRow& live : model.live) {
    const auto found = replayed.find(key_of(live));
    const std::string line = difference_of(live, found == replayed.end() ? nullptr : found->second);
    ++agreement.total;
    if (line.empty()) ++agreement.equal;
    if (!line.empty()) agreement.differences.push_back(model.label + ": " + line);
  }
  return agreement;
}

Agreement agreement_of(const Results& results) {
  Agreement sum;
  for (const ModelResults& model : results.models) {
    const Agreement one = compare_live(model);
    sum.total += one.total;
    sum.equal += one.equal;
    sum.differences.insert(sum.differences.end(), one.differences.begin(), one.differences.end());
  }
  return sum;
}

}  // namespace thermocline
