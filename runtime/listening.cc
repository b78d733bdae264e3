#include "runtime/listening.h"

#include <fmt/format.h>

#include <chrono>
#include <thread>

#include "models/cli.h"

namespace thermocline {
namespace {

constexpr std::chrono::milliseconds kLingerStep{100};

LiveSnapshot empty_snapshot(const RunPlan& plan) {
  LiveSnapshot snapshot;
  snapshot.model = plan.spec.text;
  snapshot.weights = plan.weight_provenance;
  snapshot.weight_hash = plan.weight_hash;
  snapshot.layout = plan.partition.layout.text();
  snapshot.bundle_bytes = bundle_bytes(plan.shape, plan.ffn_types);
  const auto tiers = hot_tiers(plan.tiers);
  snapshot.tiers.assign(tiers.begin(), tiers.end());
  snapshot.tasks_total = plan.tasks.size();
  for (const PolicySpec& policy : plan.live.policies) {
    for (const HotBudget& budget : plan.live.budgets) {
      const std::string tier(plan.hot_tier(snapshot.policies.size()));
      snapshot.policies.push_back({policy, budget.bytes, tier});
    }
  }
  return snapshot;
}

constexpr const char* kContents =
    "Live counters of a thermocline run.\n"
    "/metrics        for Prometheus, text exposition format 0.0.4\n"
    "/counters.json  the same as JSON\n";

}  // namespace

void SnapshotBoard::publish(LiveSnapshot snapshot) {
  auto newest = std::make_shared<const LiveSnapshot>(std::move(snapshot));
  const std::lock_guard lock(mutex_);
  newest_.swap(newest);
}

std::shared_ptr<const LiveSnapshot> SnapshotBoard::newest() const {
  const std::lock_guard lock(mutex_);
  return newest_;
}

HttpResponse live_page(const LiveSnapshot& snapshot, const std::string& path) {
  if (path == "/") return {200, "text/plain; charset=utf-8", kContents};
  if (path == "/metrics") {
    return {200, "text/plain; version=0.0.4; charset=utf-8", prometheus_text(snapshot)};
  }
  if (path == "/counters.json") return {200, "application/json", counters_json(snapshot)};
  return http_status(404);
}

Listening::Listening(Comm& comm, const RunPlan& plan, const RunOptions& options)
    : comm_(comm), snapshot_(empty_snapshot(plan)) {
  if (comm.rank() != 0) return;
  board_.publish(snapshot_);
  server_.emplace(parse_listen_address(options.listen),
                  [this](const std::string& path) { return live_page(*board_.newest(), path); });
}

std::string Listening::url() const {
  return server_.has_value() ? "http://" + server_->address().text() : "";
}

void Listening::begin(const Decoder& decoder, const LivePolicies* policies) {
  decoder_ = &decoder;
  policies_ = policies;
  const auto rank_count = static_cast<size_t>(comm_.size());
  mine_.sent = {std::vector<uint64_t>(rank_count), std::vector<uint64_t>(rank_count)};
  gather();
}

void Listening::on_report(const PassReport& report) {
  (report.phase == Phase::decode ? mine_.decode : mine_.prefill).add(report);
  if (report.phase == Phase::decode) rate_.add(now_ns(), report.step_count, report.duration_ns());
  // Where stages are at work on other chunks, waiting for them would take the pipeline's time.
  if (!report.all_met) return;
  mine_.sent = report.sent;
  gather();
}

void Listening::finish(const SentBytes& sent) {
  mine_.sent = sent;
  snapshot_.ended = true;
  gather();
}

// What is not counted pass by pass.
void Listening::look_at_rank() {
  mine_.weight_bytes = decoder_->weights().total_bytes();
  HotTierCounters* tier = mine_.tiers.data();  // the fastest first
  if (const DeviceTier* device = decoder_->weights().device_tier.get(); device != nullptr) {
    *tier++ = {device->size().hot_bytes, 0, device->counters()};
  }
  if (const BundleStore* store = decoder_->weights().tiers.get(); store != nullptr) {
    *tier = {store->hot_bytes(), store->staging_bytes(), store->counters()};
  }
  if (policies_ != nullptr) mine_.policies = policies_->states();
}

void Listening::gather() {
  const UncountedExchange quiet(comm_);
  look_at_rank();
  const std::vector<std::byte> bytes = packed(mine_);
  if (comm_.rank() != 0) return comm_.send(0, bytes.data(), bytes.size());
  receive_others(bytes.size());
  snapshot_.recent_tokens_per_second = rate_.tokens_per_second(now_ns());
  board_.publish(snapshot_);
}

void Listening::receive_others(size_t byte_count) {
  snapshot_.ranks = {mine_};
  std::vector<std::byte> bytes(byte_count);
  for (int rank = 1; rank < comm_.size(); ++rank) {
    comm_.receive(rank, bytes.data(), bytes.size());
    snapshot_.ranks.push_back(
        unpacked(bytes, static_cast<size_t>(comm_.size()), snapshot_.policies.size()));
  }
}

// Ranks that wait for another in MPI poll; these sleep, and ask each other ten times a second.
void Listening::linger(double seconds) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  std::vector<uint8_t> all(static_cast<size_t>(comm_.size()));
  for (bool over = false; !over;) {
    const uint8_t mine = interrupted() || std::chrono::steady_clock::now() >= end;
    comm_.all_gather(&mine, sizeof mine, all.data());
    for (const uint8_t rank_over : all) over = over || rank_over != 0;
    if (!over) std::this_thread::sleep_for(kLingerStep);
  }
}

}  // namespace thermocline
