#include "runtime/live_counters.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <type_traits>
#include <utility>

#include "models/cli.h"
#include "models/error.h"
#include "models/utf8.h"

namespace thermocline {
namespace {

using Json = nlohmann::ordered_json;

double seconds(uint64_t ns) { return static_cast<double>(ns) / 1e9; }

uint64_t duration_of(const StepTimes& times) {
  return times.compute_ns + times.transfer_ns + times.comm_ns + times.wait_ns;
}

// Rank 0's: all ranks go through the same passes.
RankCounters first_rank(const LiveSnapshot& snapshot) {
  return snapshot.ranks.empty() ? RankCounters{} : snapshot.ranks.front();
}

// What has one size on every rank.
struct FixedCounters {
  PhaseCounters prefill, decode;
  uint64_t weight_bytes;
  std::array<HotTierCounters, kHotTiersMax> tiers;
};

template <class T>
void append(std::vector<std::byte>& bytes, const T* values, size_t count) {
  static_assert(std::is_trivially_copyable_v<T>);
  const auto* first = reinterpret_cast<const std::byte*>(values);
  bytes.insert(bytes.end(), first, first + count * sizeof(T));
}

template <class T>
void take(std::span<const std::byte>& bytes, T* values, size_t count) {
  static_assert(std::is_trivially_copyable_v<T>);
  TC_CHECK(bytes.size() >= count * sizeof(T), "counters of a rank of the same job");
  if (count == 0) return;
  std::memcpy(values, bytes.data(), count * sizeof(T));
  bytes = bytes.subspan(count * sizeof(T));
}

// The format is UTF-8: bytes that are none become U+FFFD.
std::string escaped(std::string_view text, bool quotes) {
  std::string result;
  for (size_t size = 0; !text.empty(); text.remove_prefix(std::max<size_t>(size, 1))) {
    size = utf8_size(text);
    const std::string_view character = text.substr(0, size);
    if (size == 0) {
      result += "\xef\xbf\xbd";
    } else if (character == "\n") {
      result += "\\n";
    } else {
      if (character == "\\" || (character == "\"" && quotes)) result += '\\';
      result += character;
    }
  }
  return result;
}

std::string number_text(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "+Inf" : "-Inf";
  return fmt::format("{}", value);
}

using Labels = std::vector<std::pair<const char*, std::string>>;

// Prometheus' text exposition format: families of samples.
class Exposition {
 public:
  void counter(const std::string& name, const std::string& help) { begin(name, "counter", help); }
  void gauge(const std::string& name, const std::string& help) { begin(name, "gauge", help); }
  void add(const Labels& labels, uint64_t value) { add_text(labels, std::to_string(value)); }
  void add(const Labels& labels, double value) { add_text(labels, number_text(value)); }
  std::string text() const { return text_; }

 private:
  void begin(const std::string& name, const char* type, const std::string& help) {
    name_ = "thermocline_" + name;
    text_ += fmt::format("# HELP {} {}\n# TYPE {} {}\n", name_, escaped(help, false), name_, type);
  }
  void add_text(const Labels& labels, const std::string& value) {
    text_ += name_;
    const char* separator = "{";
    for (const auto& [name, of] : labels) {
      text_ += fmt::format("{}{}=\"{}\"", separator, name, escaped(of, true));
      separator = ",";
    }
    text_ += fmt::format("{} {}\n", labels.empty() ? "" : "}", value);
  }

  std::string name_, text_;
};

void add_run(const LiveSnapshot& snapshot, Exposition& out) {
  out.gauge("run_info", "What runs; always 1.");
  out.add({{"model", snapshot.model},
           {"weights", snapshot.weights},
           {"weight_hash", snapshot.weight_hash},
           {"layout", snapshot.layout},
           {"version", std::string(kVersion)}},
          uint64_t{1});
  out.gauge("run_ended", "1 once all tasks have ended, and every counter is final.");
  out.add({}, uint64_t{snapshot.ended});
  out.gauge("tasks", "Tasks of the run.");
  out.add({}, snapshot.tasks_total);
  out.counter("tasks_done_total", "Tasks that have ended, with those that --resume took over.");
  out.add({}, snapshot.tasks_done);
  const RankCounters rank = first_rank(snapshot);
  out.counter("steps_total", "Token positions that went through all layers, by phase.");
  out.add({{"phase", "prefill"}}, rank.prefill.step_count);
  out.add({{"phase", "decode"}}, rank.decode.step_count);
  out.counter("passes_total",
              "Passes over the weights, which a prompt's or a batch's steps share.");
  out.add({{"phase", "prefill"}}, rank.prefill.pass_count);
  out.add({{"phase", "decode"}}, rank.decode.pass_count);
  out.gauge("decode_tokens_per_second", "Decoded per second of decode passes, over the run.");
  out.add({}, snapshot.tokens_per_second());
  out.gauge("decode_recent_tokens_per_second",
            fmt::format("The same, over the passes of the last {} seconds.", kRecentSeconds));
  out.add({}, snapshot.recent_tokens_per_second);
}

void add_seconds(const std::string& rank, const char* phase, const StepTimes& times,
                 Exposition& out) {
  const std::pair<const char*, uint64_t> parts[] = {{"compute", times.compute_ns},
                                                    {"transfer", times.transfer_ns},
                                                    {"comm", times.comm_ns},
                                                    {"wait", times.wait_ns}};
  for (const auto& [part, ns] : parts) {
    out.add({{"rank", rank}, {"phase", phase}, {"part", part}}, seconds(ns));
  }
}

// A family with a sample of each rank.
template <class Value>
void add_by_rank(const LiveSnapshot& snapshot, Exposition& out, Value value) {
  for (size_t rank = 0; rank < snapshot.ranks.size(); ++rank) {
    out.add({{"rank", std::to_string(rank)}}, value(snapshot.ranks[rank]));
  }
}

void add_ranks(const LiveSnapshot& snapshot, Exposition& out) {
  out.counter("rank_seconds_total",
              "Time of a rank's passes: computing, waiting for weights of another tier (transfer), "
              "exchanging with other ranks (comm), waiting for them.");
  for (size_t rank = 0; rank < snapshot.ranks.size(); ++rank) {
    const std::string name = std::to_string(rank);
    add_seconds(name, "prefill", snapshot.ranks[rank].prefill.times, out);
    add_seconds(name, "decode", snapshot.ranks[rank].decode.times, out);
  }
  out.gauge("weight_bytes", "Weights that a rank holds in memory.");
  add_by_rank(snapshot, out, [](const RankCounters& rank) { return rank.weight_bytes; });
}

void add_links(const LiveSnapshot& snapshot, Exposition& out) {
  const auto add = [&](const std::vector<uint64_t> SentBytes::*bytes) {
    for (size_t from = 0; from < snapshot.ranks.size(); ++from) {
      const std::vector<uint64_t>& sent = snapshot.ranks[from].sent.*bytes;
      for (size_t to = 0; to < sent.size(); ++to) {
        if (to == from) continue;
        out.add({{"from", std::to_string(from)}, {"to", std::to_string(to)}}, sent[to]);
      }
    }
  };
  out.counter("link_bytes_total", "Payload that one rank sent to another, in the whole run.");
  add(&SentBytes::run);
  out.counter("link_decode_bytes_total", "Of link_bytes_total, in decode steps.");
  add(&SentBytes::decode);
}

struct TierFamily {
  const char* name;
  const char* help;
  uint64_t TierCounters::*count;
};
constexpr TierFamily kTierFamilies[] = {
    {"tier_needed_bundles_total",
     "Bundles that layers asked for, once a pass; below a device, what is cold there.",
     &TierCounters::needed},
    {"tier_in_fast_bundles_total", "Of these, hot and in the faster tier.", &TierCounters::here},
    {"tier_read_bytes_total", "Read from the bundle file for what was not in memory.",
     &TierCounters::read_bytes},
    {"tier_reads_total", "As so many reads.", &TierCounters::read_count},
    {"tier_ahead_bytes_total", "Of tier_read_bytes_total, before a layer asked for them.",
     &TierCounters::ahead_bytes},
    {"tier_ahead_bundles_total", "As so many bundles.", &TierCounters::ahead_count},
    {"tier_ahead_used_bundles_total", "Of these, needed.", &TierCounters::ahead_used},
    {"tier_moved_bytes_total", "Brought from the slower tier for the hot set.",
     &TierCounters::moved_bytes},
    {"tier_moved_bundles_total", "As so many bundles.", &TierCounters::moved_count},
    {"tier_passed_bytes_total", "Read from the bundle file for a tier above, not hot in this one.",
     &TierCounters::passed_bytes},
    {"tier_passed_bundles_total", "As so many bundles.", &TierCounters::passed_count},
};

// A family with a sample of each rank and tier.
template <class Value>
void add_by_tier(const LiveSnapshot& snapshot, Exposition& out, Value value) {
  for (size_t rank = 0; rank < snapshot.ranks.size(); ++rank) {
    for (size_t i = 0; i < snapshot.tiers.size(); ++i) {
      out.add({{"rank", std::to_string(rank)}, {"tier", snapshot.tiers[i]}},
              value(snapshot.ranks[rank].tiers[i]));
    }
  }
}

void add_tiers(const LiveSnapshot& snapshot, Exposition& out) {
  if (snapshot.tiers.empty()) return;
  using Tier = HotTierCounters;
  out.gauge("hot_room_bytes", "Room of a rank's tier for hot bundles, as its budget allows.");
  add_by_tier(snapshot, out, [](const Tier& tier) { return tier.hot_bytes; });
  out.gauge("staging_bytes", "Memory for the other bundles of a layer, the most in use so far.");
  add_by_tier(snapshot, out, [](const Tier& tier) { return tier.staging_bytes; });
  for (const TierFamily& family : kTierFamilies) {
    out.counter(family.name, family.help);
    add_by_tier(snapshot, out, [&](const Tier& tier) { return tier.counters.*family.count; });
  }
  out.counter("tier_wait_seconds_total", "What a rank waited for bundles.");
  add_by_tier(snapshot, out, [](const Tier& tier) { return seconds(tier.counters.wait_ns); });
}

struct PolicySample {
  Labels labels;
  LivePolicyState total;
};

std::vector<PolicySample> policy_samples(const LiveSnapshot& snapshot) {
  std::vector<PolicySample> samples;
  for (size_t i = 0; i < snapshot.policies.size(); ++i) {
    const LivePolicyName& name = snapshot.policies[i];
    PolicySample sample{
        {{"policy", name.policy.label()}, {"budget_bytes", std::to_string(name.budget_bytes)}},
        snapshot.policy_total(i)};
    if (!name.tier.empty()) sample.labels.push_back({"tier", name.tier});
    samples.push_back(std::move(sample));
  }
  return samples;
}

// All counters but the peak only grow.
void add_policy_counters(const std::vector<PolicySample>& samples, Exposition& out) {
  const HotSetStats none;
  size_t number = 0;
  for_each_counter(none, [&](const std::string& name, uint64_t) {
    const std::string help = "The counter " + name + " of result rows, over all ranks.";
    if (name == "hot_count_peak") {
      out.gauge("policy_" + name, help);
    } else {
      out.counter("policy_" + name + "_total", help);
    }
    for (const PolicySample& sample : samples) {
      size_t i = 0;
      for_each_counter(sample.total.stats, [&](const char*, uint64_t count) {
        if (i++ == number) out.add(sample.labels, count);
      });
    }
    ++number;
  });
}

void add_policies(const LiveSnapshot& snapshot, Exposition& out) {
  const std::vector<PolicySample> samples = policy_samples(snapshot);
  if (samples.empty()) return;
  add_policy_counters(samples, out);
  out.gauge("policy_hit_ratio", "Of the neurons that were needed, those that were hot.");
  for (const PolicySample& sample : samples) {
    out.add(sample.labels, hit_ratio(sample.total.stats));
  }
  out.gauge("policy_hot_bytes", "Bundles that are hot now, over all ranks.");
  for (const PolicySample& sample : samples) {
    out.add(sample.labels, sample.total.hot_count * snapshot.bundle_bytes);
  }
  out.gauge("policy_hot_threshold",
            "The score above which a neuron is hot now, mean over ranks, where a policy has one.");
  for (const PolicySample& sample : samples) {
    if (sample.total.hot_threshold) out.add(sample.labels, *sample.total.hot_threshold);
  }
}

Json json_of(const PhaseCounters& phase) {
  return {{"pass_count", phase.pass_count},
          {"step_count", phase.step_count},
          {"compute_seconds", seconds(phase.times.compute_ns)},
          {"transfer_seconds", seconds(phase.times.transfer_ns)},
          {"comm_seconds", seconds(phase.times.comm_ns)},
          {"wait_seconds", seconds(phase.times.wait_ns)}};
}

Json tier_json(const std::string& name, const HotTierCounters& tier) {
  Json json = {
      {"tier", name}, {"hot_bytes", tier.hot_bytes}, {"staging_bytes", tier.staging_bytes}};
  for_each_counter(tier.counters, name,
                   [&](const char* counter, uint64_t count) { json[counter] = count; });
  json["wait_seconds"] = seconds(tier.counters.wait_ns);
  return json;
}

Json rank_json(const LiveSnapshot& snapshot, size_t index) {
  const RankCounters& rank = snapshot.ranks[index];
  Json json = {{"rank", index},
               {"prefill", json_of(rank.prefill)},
               {"decode", json_of(rank.decode)},
               {"weight_bytes", rank.weight_bytes}};
  for (size_t i = 0; i < snapshot.tiers.size(); ++i) {
    json["tiers"].push_back(tier_json(snapshot.tiers[i], rank.tiers[i]));
  }
  return json;
}

Json links_json(const LiveSnapshot& snapshot) {
  Json links = Json::array();
  for (size_t from = 0; from < snapshot.ranks.size(); ++from) {
    const SentBytes& sent = snapshot.ranks[from].sent;
    for (size_t to = 0; to < sent.run.size(); ++to) {
      if (sent.run[to] == 0) continue;
      links.push_back({{"from", from},
                       {"to", to},
                       {"run_bytes", sent.run[to]},
                       {"decode_bytes", sent.decode[to]}});
    }
  }
  return links;
}

Json policy_json(const LiveSnapshot& snapshot, size_t index) {
  const LivePolicyName& name = snapshot.policies[index];
  const LivePolicyState total = snapshot.policy_total(index);
  Json json = {{"policy", name.policy.entry->name},
               {"parameters", name.policy.parameters()},
               {"budget_bytes", name.budget_bytes},
               {"tier", name.tier.empty() ? Json(nullptr) : Json(name.tier)},
               {"hit_ratio", hit_ratio(total.stats)},
               {"hot_bytes", total.hot_count * snapshot.bundle_bytes},
               {"hot_threshold", nullptr}};
  if (total.hot_threshold) json["hot_threshold"] = *total.hot_threshold;
  for_each_counter(total.stats,
                   [&](const char* counter, uint64_t count) { json["counters"][counter] = count; });
  return json;
}

}  // namespace

void PhaseCounters::add(const PassReport& report) {
  ++pass_count;
  step_count += report.step_count;
  times.compute_ns += report.times.compute_ns;
  times.transfer_ns += report.times.transfer_ns;
  times.comm_ns += report.times.comm_ns;
  times.wait_ns += report.times.wait_ns;
}

std::vector<std::byte> packed(const RankCounters& counters) {
  const FixedCounters fixed{counters.prefill, counters.decode, counters.weight_bytes,
                            counters.tiers};
  std::vector<std::byte> bytes;
  append(bytes, &fixed, 1);
  append(bytes, counters.sent.run.data(), counters.sent.run.size());
  append(bytes, counters.sent.decode.data(), counters.sent.decode.size());
  append(bytes, counters.policies.data(), counters.policies.size());
  return bytes;
}

RankCounters unpacked(std::span<const std::byte> bytes, size_t rank_count, size_t policy_count) {
  FixedCounters fixed;
  take(bytes, &fixed, 1);
  RankCounters counters{fixed.prefill, fixed.decode, fixed.weight_bytes, fixed.tiers, {}, {}};
  counters.sent.run.resize(rank_count);
  counters.sent.decode.resize(rank_count);
  counters.policies.resize(policy_count);
  take(bytes, counters.sent.run.data(), rank_count);
  take(bytes, counters.sent.decode.data(), rank_count);
  take(bytes, counters.policies.data(), policy_count);
  TC_CHECK(bytes.empty(), "counters of a rank of the same job");
  return counters;
}

LivePolicyState LiveSnapshot::policy_total(size_t policy) const {
  LivePolicyState total;
  double threshold_sum = 0, threshold_count = 0;
  for (const RankCounters& rank : ranks) {
    const LivePolicyState& state = rank.policies.at(policy);
    add_pool(total.stats, state.stats);
    total.hot_count += state.hot_count;
    if (!state.hot_threshold.has_value()) continue;
    threshold_sum += *state.hot_threshold;
    ++threshold_count;
  }
  if (threshold_count > 0) total.hot_threshold = threshold_sum / threshold_count;
  return total;
}

double LiveSnapshot::tokens_per_second() const {
  const PhaseCounters decode = first_rank(*this).decode;
  const uint64_t ns = duration_of(decode.times);
  return ns == 0 ? 0.0 : static_cast<double>(decode.step_count) / seconds(ns);
}

void DecodeRate::add(uint64_t now_ns, uint64_t step_count, uint64_t duration_ns) {
  passes_.push_back({now_ns, step_count, duration_ns});
  step_count_ += step_count;
  duration_ns_ += duration_ns;
  forget(now_ns);
}

double DecodeRate::tokens_per_second(uint64_t now_ns) {
  forget(now_ns);
  return duration_ns_ == 0 ? 0.0 : static_cast<double>(step_count_) / seconds(duration_ns_);
}

void DecodeRate::forget(uint64_t now_ns) {
  while (!passes_.empty() && passes_.front().end_ns + kRecentSeconds * 1'000'000'000 <= now_ns) {
    step_count_ -= passes_.front().step_count;
    duration_ns_ -= passes_.front().duration_ns;
    passes_.pop_front();
  }
}

std::string prometheus_text(const LiveSnapshot& snapshot) {
  Exposition out;
  add_run(snapshot, out);
  add_ranks(snapshot, out);
  add_links(snapshot, out);
  add_tiers(snapshot, out);
  add_policies(snapshot, out);
  return out.text();
}

std::string counters_json(const LiveSnapshot& snapshot) {
  const RankCounters rank = first_rank(snapshot);
  Json json = {
      {"version", kVersion},
      {"model", snapshot.model},
      {"weights", snapshot.weights},
      {"weight_hash", snapshot.weight_hash},
      {"layout", snapshot.layout},
      {"ended", snapshot.ended},
      {"tasks", {{"done", snapshot.tasks_done}, {"total", snapshot.tasks_total}}},
      {"steps", {{"prefill", rank.prefill.step_count}, {"decode", rank.decode.step_count}}},
      {"passes", {{"prefill", rank.prefill.pass_count}, {"decode", rank.decode.pass_count}}},
      {"decode_tokens_per_second",
       {{"run", snapshot.tokens_per_second()}, {"recent", snapshot.recent_tokens_per_second}}},
      {"ranks", Json::array()},
      {"links", links_json(snapshot)},
      {"policies", Json::array()}};
  for (size_t i = 0; i < snapshot.ranks.size(); ++i)
    json["ranks"].push_back(rank_json(snapshot, i));
  for (size_t i = 0; i < snapshot.policies.size(); ++i) {
    json["policies"].push_back(policy_json(snapshot, i));
  }
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace thermocline
