#include "sim/replay_store.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "models/cli.h"
#include "models/error.h"

namespace thermocline {
namespace {

using Json = nlohmann::json;

Json json_of(const HotSetStats& stats) {
  Json list = Json::array();
  for_each_counter(stats, [&](const char*, uint64_t count) { list.push_back(count); });
  return list;
}

HotSetStats stats_of(const Json& list) {
  HotSetStats stats;
  size_t i = 0;
  for_each_counter(stats,
                   [&](const char*, uint64_t& count) { count = list.at(i++).get<uint64_t>(); });
  return stats;
}

Json json_of(const std::vector<TaskSums>& tasks) {
  Json list = Json::array();
  for (const TaskSums& task : tasks) {
    list.push_back({task.hits, task.needed, task.decode_ms, task.decode_tokens});
  }
  return list;
}

std::vector<TaskSums> tasks_of(const Json& list) {
  std::vector<TaskSums> tasks;
  for (const Json& item : list) {
    tasks.push_back({item.at(0).get<double>(), item.at(1).get<double>(), item.at(2).get<double>(),
                     item.at(3).get<double>()});
  }
  return tasks;
}

Json json_of(const LogHistogram& histogram) {
  const LogHistogram::Parts parts = histogram.parts();
  return {{"buckets", parts.buckets}, {"sum", parts.sum}, {"range", {parts.least, parts.greatest}}};
}

LogHistogram histogram_of(const Json& json) {
  LogHistogram::Parts parts;
  parts.buckets = json.at("buckets").get<std::vector<std::pair<uint64_t, uint64_t>>>();
  for (const auto& [bucket, count] : parts.buckets) {
    if (bucket > LogHistogram::kBucketMax) throw bad_input("", "a bucket of a number", "another");
  }
  parts.sum = json.at("sum").get<double>();
  parts.least = json.at("range").at(0).get<double>();
  parts.greatest = json.at("range").at(1).get<double>();
  return LogHistogram(parts);
}

Json json_of(const ReplayAccount& account) {
  return {{"tasks", json_of(account.tasks)},     {"ttft_ms", account.ttft_ms},
          {"tpot_ms", json_of(account.tpot_ms)}, {"hidden_ms", account.hidden_ms},
          {"decode_ms", account.decode_ms},      {"token_count", account.token_count}};
}

ReplayAccount account_of(const Json& json) {
  ReplayAccount account;
  account.tasks = tasks_of(json.at("tasks"));
  account.ttft_ms = json.at("ttft_ms").get<std::vector<double>>();
  account.tpot_ms = histogram_of(json.at("tpot_ms"));
  account.hidden_ms = json.at("hidden_ms").get<double>();
  account.decode_ms = json.at("decode_ms").get<double>();
  account.token_count = json.at("token_count").get<uint64_t>();
  return account;
}

Json json_of(const std::vector<std::optional<double>>& values) {
  Json list = Json::array();
  for (const auto& value : values) list.push_back(value ? Json(*value) : Json(nullptr));
  return list;
}

std::vector<std::optional<double>> optionals_of(const Json& list) {
  std::vector<std::optional<double>> values;
  for (const Json& item : list) {
    values.push_back(item.is_null() ? std::nullopt : std::optional(item.get<double>()));
  }
  return values;
}

Json json_of(const std::vector<HotSetStats>& pools) {
  Json list = Json::array();
  for (const HotSetStats& pool : pools) list.push_back(json_of(pool));
  return list;
}

std::vector<HotSetStats> pools_of(const Json& list) {
  std::vector<HotSetStats> pools;
  for (const Json& pool : list) pools.push_back(stats_of(pool));
  return pools;
}

Json json_of(const std::optional<HostHotSet>& host) {
  if (!host) return nullptr;
  return {{"budget", host->budget_bytes},
          {"total", json_of(host->total)},
          {"by_pool", json_of(host->by_pool)},
          {"hot_max", host->hot_max},
          {"needs", {host->needs.device, host->needs.host, host->needs.disk, host->needs.passed}}};
}

std::optional<HostHotSet> host_of(const Json& json) {
  if (json.is_null()) return std::nullopt;
  HostHotSet host;
  host.budget_bytes = json.at("budget").get<uint64_t>();
  host.total = stats_of(json.at("total"));
  host.by_pool = pools_of(json.at("by_pool"));
  host.hot_max = json.at("hot_max").get<std::vector<uint64_t>>();
  const auto needs = json.at("needs").get<std::vector<uint64_t>>();
  host.needs = {needs.at(0), needs.at(1), needs.at(2), needs.at(3)};
  return host;
}

// Whether both are of two tiers, or of three with the same budget of the host.
bool same_host(const std::optional<HostHotSet>& a, const std::optional<HostHotSet>& b) {
  if (!a || !b) return a.has_value() == b.has_value();
  return a->budget_bytes == b->budget_bytes && a->hot_max.size() == b->hot_max.size();
}

Json json_of(const ReplayStats& row) {
  Json json = {{"policy", row.policy.resolved()},
               {"budget", row.budget_bytes},
               {"total", json_of(row.total)},
               {"by_pool", json_of(row.by_pool)},
               {"hot_max", row.hot_max},
               {"hot_by_layer", row.hot_by_layer},
               {"watched", json_of(row.watched_threshold)},
               {"account", json_of(row.account)},
               {"host", json_of(row.host)},
               {"threshold", nullptr}};
  if (row.threshold) {
    const ThresholdRange& range = *row.threshold;
    json["threshold"] = {range.first, range.last, range.lowest, range.highest};
  }
  return json;
}

ReplayStats row_of(const Json& json, const ReplayStats& like) {
  ReplayStats row;
  row.policy = like.policy;
  row.budget_bytes = json.at("budget").get<uint64_t>();
  row.total = stats_of(json.at("total"));
  row.by_pool = pools_of(json.at("by_pool"));
  row.hot_max = json.at("hot_max").get<std::vector<uint64_t>>();
  row.hot_by_layer = json.at("hot_by_layer").get<std::vector<double>>();
  row.watched_threshold = optionals_of(json.at("watched"));
  row.account = account_of(json.at("account"));
  row.host = host_of(json.at("host"));
  if (!json.at("threshold").is_null()) {
    const auto range = json.at("threshold").get<std::vector<double>>();
    row.threshold = ThresholdRange{range.at(0), range.at(1), range.at(2), range.at(3)};
  }
  const bool same = json.at("policy") == like.policy.resolved() &&
                    row.budget_bytes == like.budget_bytes &&
                    row.hot_max.size() == like.hot_max.size() && same_host(row.host, like.host);
  if (!same) throw bad_input("", "a row of this replay", "one of another");
  return row;
}

Json json_of(const KeptRows& rows) {
  Json list = Json::array();
  for (const auto& [index, row] : rows) list.push_back({index, json_of(row)});
  return list;
}

// Discarded where the bytes are no CBOR; some lengths throw even so.
Json parse_cbor(std::string_view bytes) {
  try {
    return Json::from_cbor(bytes, true, false);
  } catch (const Json::exception&) {
    return Json(Json::value_t::discarded);
  }
}

KeptRows kept_of(const Json& list, const ReplayResult& like, const std::string& origin) {
  KeptRows rows;
  try {
    for (const Json& item : list) {
      const auto index = item.at(0).get<size_t>();
      rows[index] = row_of(item.at(1), like.rows.at(index));
    }
  } catch (const std::exception& error) {  // of this file's own making, or damaged
    throw bad_input(origin, "finished rows of a replay", error.what());
  }
  return rows;
}

}  // namespace

std::string bytes_of(const KeptRows& rows) {
  const std::vector<uint8_t> bytes = Json::to_cbor(json_of(rows));
  return {bytes.begin(), bytes.end()};
}

KeptRows parse_kept_rows(std::string_view bytes, const ReplayResult& like,
                         const std::string& origin) {
  const Json list = parse_cbor(bytes);
  if (!list.is_array()) throw bad_input(origin, "finished rows of a replay", "other bytes");
  return kept_of(list, like, origin);
}

ReplayStore::ReplayStore(std::string path, std::string key)
    : path_(std::move(path)), key_(std::move(key)) {}

KeptRows ReplayStore::load(const ReplayResult& like) const {
  if (path_.empty() || !std::filesystem::exists(path_)) return {};
  const Json file = parse_cbor(read_file(path_));
  if (!file.is_object() || file.value("key", Json()) != key_ || !file.contains("rows")) return {};
  return kept_of(file["rows"], like, path_);
}

void ReplayStore::save() const {
  if (path_.empty()) return;
  const std::vector<uint8_t> bytes = Json::to_cbor(Json{{"key", key_}, {"rows", json_of(rows_)}});
  write_file(path_, {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

void ReplayStore::remove() const {
  if (path_.empty()) return;
  std::error_code ignored;
  std::filesystem::remove(path_, ignored);
}

}  // namespace thermocline
