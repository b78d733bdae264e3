#include "sim/replay_job.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <iostream>

#include "models/cli.h"
#include "models/error.h"
#include "models/hash.h"
#include "models/text.h"
#include "models/units.h"
#include "sim/curve.h"
#include "traces/profile.h"

namespace thermocline {
namespace {

// Notes go to standard error: standard output is for the table.
void note(const WorkGroup& group, const std::string& text) {
  if (group.first()) std::cerr << "thermocline replay: " << text << "\n";
}

template <class T>
T choice(const std::string& option, const std::string& text,
         const std::vector<std::pair<std::string, T>>& choices) {
  std::vector<std::string> names;
  for (const auto& [name, value] : choices) {
    if (name == text) return value;
    names.push_back(name);
  }
  throw unknown_name("value of " + option, text, names);
}

std::vector<uint32_t> parse_batches(const std::string& text) {
  std::vector<uint32_t> batches;
  for (const std::string_view piece : split(text, ',')) {
    const uint64_t batch = parse_count(piece);
    if (batch < 1 || batch > 4096) {
      throw bad_usage(fmt::format("--batch: expected numbers from 1 to 4096, found {}", batch));
    }
    if (std::count(batches.begin(), batches.end(), batch) > 0) {
      throw bad_usage(fmt::format("--batch: {} is given twice", batch));
    }
    batches.push_back(static_cast<uint32_t>(batch));
  }
  return batches;
}

}  // namespace

ReplayJob::ReplayJob(const ReplayFlags& flags, WorkGroup& group) : flags_(flags), group_(group) {
  // Before the trace: a wrong word is known without reading it.
  options_.policies = parse_policies(flags.policies);
  options_.pools =
      choice<Pools>("--pools", flags.pools,
                    {{"rank", Pools::rank}, {"layer", Pools::layer}, {"model", Pools::model}});
  options_.fill =
      choice<Fill>("--fill", flags.fill, {{"step", Fill::step}, {"demand", Fill::demand}});
  if (options_.fill == Fill::demand) {
    options_.pools = Pools::model;
    if (flags.policies == "all") {
      std::erase_if(options_.policies,
                    [](const PolicySpec& policy) { return policy.entry->make_request == nullptr; });
    }
  }
  batches_ = parse_batches(flags.batches);
  if (flags.group == 0 || flags.group > kGroupMax || !std::has_single_bit(flags.group)) {
    throw bad_usage(fmt::format("--group: expected a power of two from 1 to {}, found {}",
                                kGroupMax, flags.group));
  }
  options_.group = flags.group;
  options_.warmup_steps = flags.warmup_steps;
  options_.thread_count = flags.thread_count != 0 ? flags.thread_count : available_cores();
  choose_tiers();

  trace_ = open_trace(flags.trace, flags.open_options());
  for (const std::string& line : trace_->missing()) note(group_, line);
  trace_hash_ = trace_->hash();
  open_profile();
  choose_cost();
  choose_budgets();
}

ReplayJob::~ReplayJob() = default;

void ReplayJob::open_profile() {
  if (flags_.profile.empty()) {
    for (const PolicySpec& spec : options_.policies) {
      if (spec.entry->needs_future || options_.fill == Fill::demand) continue;
      throw bad_usage("policy '" + spec.label() +
                      "' needs --profile TRACE, recorded on other prompts than the trace; "
                      "--profile self uses the trace itself and says so in every row");
    }
    return;
  }
  const bool self = flags_.profile == "self";
  const std::string& path = self ? flags_.trace : flags_.profile;
  profile_ = thermocline::open_trace(path, flags_.open_options());
  const TraceHeader& header = trace_->header();
  check_profile(profile_->header(), flags_.profile, header.shape, header.weight_hash, "trace");
  profile_hash_ = self ? trace_hash_ : profile_->hash();
  if (profile_hash_ == trace_hash_) {
    profile_hash_ = "self";
    note(group_, "the profile is the replayed trace itself: policies know more than online");
  } else if (profile_->header().prompts_hash == header.prompts_hash) {
    note(group_, "profile and trace were recorded on the same prompts");
  }
}

// --tiers as `run` has it; --tier names the faster of two.
void ReplayJob::choose_tiers() {
  fast_ = choice<Tier>("--tier", flags_.tier, {{"device", Tier::device}, {"host", Tier::host}});
  if (!flags_.tiers.empty()) {
    const auto tiers = choice<std::string_view>("--tiers", flags_.tiers,
                                                {{std::string(kDeviceHost), kDeviceHost},
                                                 {std::string(kHostDisk), kHostDisk},
                                                 {std::string(kDeviceHostDisk), kDeviceHostDisk}});
    if (fast_ != Tier::device && tiers != kHostDisk) {
      throw bad_usage(fmt::format("--tiers {}: expected no --tier {}", tiers, flags_.tier));
    }
    if (tiers == kHostDisk) fast_ = Tier::host;
    three_tiers_ = tiers == kDeviceHostDisk;
  }
  check_host_budget();
}

void ReplayJob::check_host_budget() const {
  const bool given = !flags_.host_budgets.empty();
  if (three_tiers_ && !given) {
    throw bad_usage(
        "--tiers device,host,disk needs --host-budget, for what is hot in host memory; --budget is "
        "the device's");
  }
  if (given && !three_tiers_) {
    throw bad_usage(
        "--host-budget is what host memory holds between a device and a disk: expected --tiers "
        "device,host,disk");
  }
  if (!three_tiers_ || options_.fill == Fill::step) return;
  throw bad_usage("--tiers device,host,disk: expected --fill step, found --fill demand");
}

void ReplayJob::choose_cost() {
  const bool joined = options_.pools == Pools::model;
  header_ = joined ? joined_pools(trace_->header()) : trace_->header();
  recorded_config_ = recording_config(trace_->header(), flags_.trace);
  config_ = joined ? joined_ranks(recorded_config_) : recorded_config_;
  cluster_ = flags_.cluster.empty() ? default_cluster() : open_cluster(flags_.cluster);
  if (three_tiers_) require_three_tiers(cluster_);
  if (fast_ != Tier::device) cluster_ = at_border(cluster_, fast_);
  const GateReads gate = choice<GateReads>(
      "--gate", flags_.gate, {{"predicted", GateReads::predicted}, {"exact", GateReads::exact}});
  cost_ = std::make_unique<CostModel>(header_, config_, cluster_, gate);
  options_.cost = cost_.get();
}

void ReplayJob::choose_budgets() {
  const uint64_t whole = ffn_bytes(header_.shape, header_.ffn_types);
  options_.budgets = parse_hot_budgets(flags_.budgets, whole, cost_->budget_ranks());
  if (three_tiers_) choose_host_budgets(whole);
  options_.migration_bytes = flags_.migration == "none" ? whole : parse_bytes(flags_.migration);
  if (flags_.migrations_max > 0) {
    options_.migration_bytes =
        std::min(options_.migration_bytes, flags_.migrations_max * header_.bundle_bytes());
  }
}

// One for all budgets of the device, or one for each; both ascend.
void ReplayJob::choose_host_budgets(uint64_t whole) {
  std::vector<HotBudget>& host = options_.host_budgets;
  host = parse_hot_budgets(flags_.host_budgets, whole, cost_->host_budget_ranks());
  if (host.size() == 1) host.resize(options_.budgets.size(), host.front());
  if (host.size() == options_.budgets.size()) return;
  throw bad_usage(fmt::format(
      "--host-budget {}: expected one budget, or one for each of the {} of --budget, found {}",
      flags_.host_budgets, options_.budgets.size(), host.size()));
}

bool ReplayJob::fits(const ReplayStats& row) const {
  return row.host ? cost_->fits(row.hot_max, row.host->hot_max) : cost_->fits(row.hot_max);
}

void ReplayJob::run() {
  if (!flags_.tune.empty()) tune();
  for (const uint32_t batch : batches_) replay_batch(batch);
  executed_ = compare_executed(*trace_, recorded_config_, executed_reason_);
}

// Every process tunes: what it takes is little beside the replay, and all get the same.
void ReplayJob::tune() {
  const auto validation = open_trace(flags_.tune, flags_.open_options());
  const TraceHeader& header = trace_->header();
  check_profile(validation->header(), flags_.tune, header.shape, header.weight_hash, "trace");
  tuned_on_ = validation->hash();
  const bool same_text =
      !header.prompts_hash.empty() && validation->header().prompts_hash == header.prompts_hash;
  if (tuned_on_ == trace_hash_ || same_text) {
    throw bad_usage("--tune " + flags_.tune +
                    ": expected a trace of other prompts than the replayed one, such as the "
                    "validation split, found the same");
  }
  tuned_ = tune_policies(*validation, profile_.get(), options_, [&](const std::string& policy) {
    note(group_, "tuning " + policy + " on " + flags_.tune);
  });
  // Beside the policies as they were given, so that both what tuning gained and the counters of
  // live runs can be seen.
  for (const Tuned& tuned : tuned_) {
    const auto same = [&](const PolicySpec& spec) {
      return spec.resolved() == tuned.policy.resolved();
    };
    if (std::any_of(options_.policies.begin(), options_.policies.end(), same)) continue;
    options_.policies.push_back(tuned.policy);
    tuned_policies_.insert(tuned.policy.resolved());
  }
}

std::string ReplayJob::key_of(uint32_t batch) const {
  Fnv1a hash;
  const auto add = [&](const std::string& text) { hash.add(text + '\n'); };
  add(std::string(kVersion));
  for (const std::string& text :
       {trace_hash_, profile_hash_, flags_.activation_threshold, flags_.pools, flags_.fill,
        flags_.tier, flags_.tiers, flags_.gate, flags_.cluster,
        flags_.cluster.empty() ? "" : read_file(flags_.cluster)}) {
    add(text);
  }
  for (const uint64_t number : {uint64_t{batch}, uint64_t{options_.group}, options_.warmup_steps,
                                options_.migration_bytes}) {
    add(std::to_string(number));
  }
  for (const PolicySpec& policy : options_.policies) add(policy.resolved());
  for (const auto* budgets : {&options_.budgets, &options_.host_budgets}) {
    for (const HotBudget& budget : *budgets) {
      add(std::to_string(budget.bytes));
      for (const uint64_t bytes : budget.by_rank) add(std::to_string(bytes));
    }
  }
  return hash.hex();
}

std::string ReplayJob::partial_path(uint32_t batch, uint32_t rank) const {
  if (flags_.json.empty() || flags_.json == "-") return "";
  return fmt::format("{}.partial.batch{}{}", flags_.json, batch,
                     rank == 0 ? "" : fmt::format(".rank{}", rank));
}

// Those of all processes, this job's and an earlier one's.
std::vector<std::string> ReplayJob::partial_files(uint32_t batch) const {
  std::vector<std::string> files;
  for (uint32_t rank = 0;; ++rank) {
    const std::string path = partial_path(batch, rank);
    if (path.empty() || !std::filesystem::exists(path)) return files;
    files.push_back(path);
  }
}

// Rows that any process of an earlier job had finished.
KeptRows ReplayJob::finished_before(uint32_t batch, const ReplayResult& like) const {
  KeptRows rows;
  if (!flags_.resume) return rows;
  for (const std::string& path : partial_files(batch)) {
    rows.merge(ReplayStore(path, key_of(batch)).load(like));
  }
  if (!rows.empty()) {
    note(group_, fmt::format("{} of {} rows were finished before", rows.size(), like.rows.size()));
  }
  return rows;
}

bool ReplayJob::mine(size_t row, const KeptRows& known) const {
  return row % group_.size == group_.rank && known.find(row) == known.end();
}

// Rows of the other processes, and those of before.
void ReplayJob::share(ReplayResult& result, const KeptRows& known) const {
  KeptRows done = known;
  for (size_t row = 0; row < result.rows.size(); ++row) {
    if (mine(row, known)) done[row] = std::move(result.rows[row]);
  }
  const std::vector<std::string> all =
      group_.gather ? group_.gather(bytes_of(done)) : std::vector<std::string>();
  for (auto& [row, stats] : done) result.rows[row] = std::move(stats);
  for (const std::string& bytes : all) {
    for (auto& [row, stats] : parse_kept_rows(bytes, result, "another process")) {
      result.rows[row] = std::move(stats);
    }
  }
}

void ReplayJob::replay_batch(uint32_t batch) {
  std::unique_ptr<JoinedTrace> joined;
  if (batch > 1) joined = std::make_unique<JoinedTrace>(*trace_, batch);
  const TraceReader& trace = joined ? static_cast<const TraceReader&>(*joined) : *trace_;
  ReplayOptions options = options_;
  if (joined) {
    options.shape_of = [&](uint64_t step) { return joined->shape_of(step); };
    options.tasks_of = [&](uint64_t step) { return joined->tasks_of(step); };
  }
  if (options.warmup_steps > 0 && options.warmup_steps >= trace.step_count()) {
    throw bad_usage(fmt::format("--warmup: expected fewer than the {} steps of the trace, found {}",
                                trace.step_count(), options.warmup_steps));
  }
  const ReplayResult like = empty_result(trace, options);
  const KeptRows known = finished_before(batch, like);
  ReplayStore store(partial_path(batch, group_.rank), key_of(batch));
  store.add(known);
  options.wanted = [&](size_t row) { return mine(row, known); };
  options.rows_done = [&](std::span<const size_t> rows, const std::vector<ReplayStats>& all) {
    KeptRows done;
    for (const size_t row : rows) done[row] = all[row];
    store.add(done);
    store.save();
  };
  std::optional<Progress> progress;
  options.progress = [&](uint64_t done, uint64_t total) {
    if (!group_.first()) return;
    if (!progress) progress.emplace("replaying", total, "steps");
    progress->update(done);
  };
  ReplayReport report;
  report.result = replay(trace, profile_.get(), options);
  share(report.result, known);
  report.header = &header_;
  report.trace_hash = trace_hash_;
  report.profile_hash = profile_hash_;
  report.tuned_on = tuned_on_;
  report.tuned = tuned_policies_;
  report.options = &options_;
  report.cluster = &cluster_;
  report.gate = flags_.gate;
  report.batch = batch;
  if (three_tiers_) report.in_tiers = executed_in_tiers(*trace_, recorded_config_, flags_.trace);
  for (const TaskRecord& task : trace_->tasks()) report.task_ids.push_back(task.task_id);
  if (!group_.first()) return;
  report.analysis =
      analyse_tasks(report.result, versus_of(options_.policies, flags_.versus), flags_.seed);
  for (const ReplayStats& row : report.result.rows) report.fits.push_back(fits(row));
  reports_.push_back(std::move(report));
}

nlohmann::ordered_json ReplayJob::rows() const {
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const ReplayReport& report : reports_) {
    for (auto& row : replay_rows(report)) rows.push_back(std::move(row));
  }
  if (executed_ && !reports_.empty()) rows.push_back(executed_row(reports_.front(), *executed_));
  return rows;
}

std::string ReplayJob::curve_csv() const {
  std::vector<PolicySpec> ranked;
  for (const PolicySpec& policy : options_.policies) {
    if (policy.entry->ranked) ranked.push_back(policy);
  }
  const uint64_t whole = ffn_bytes(header_.shape, header_.ffn_types);
  std::string text = "policy,parameters,oracle,budget_bytes,budget_percent,needed,hits,hit_ratio\n";
  for (const BudgetCurve& curve :
       budget_curves(*trace_, profile_.get(), ranked, options_.thread_count, cost_->rates(0))) {
    for (uint64_t point = 0; point <= kCurvePoints; ++point) {
      const uint64_t bytes =
          whole / kCurvePoints * point + whole % kCurvePoints * point / kCurvePoints;
      const uint64_t hits = curve.hits_at(bytes), needed = curve.needed();
      text +=
          fmt::format("{},\"{}\",{},{},{:.1f},{},{},{}\n", curve.policy.entry->name,
                      curve.policy.parameters(), curve.policy.entry->needs_future, bytes,
                      100.0 * static_cast<double>(point) / kCurvePoints, needed, hits,
                      needed == 0 ? 1.0 : static_cast<double>(hits) / static_cast<double>(needed));
    }
  }
  return text;
}

void ReplayJob::forget_partial() const {
  for (const uint32_t batch : batches_) {
    for (const std::string& path : partial_files(batch)) ReplayStore(path, "").remove();
  }
}

}  // namespace thermocline
