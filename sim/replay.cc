#include "sim/replay.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <numeric>

#include "models/cli.h"
#include "models/error.h"
#include "models/parallel.h"
#include "models/units.h"
#include "sim/future_uses.h"
#include "sim/pass_blocks.h"
#include "traces/profile.h"

namespace thermocline {
namespace {

constexpr size_t kLanesPerThread = 4;  // policies share a pass over the trace until there are these

// What the policies of one pool may know before the first step. All in groups.
struct Knowledge {
  ActivationProfile profile, future;
  FutureUses uses;
};

std::vector<NeuronPool> pools_of(const TraceHeader& header, Pools pools) {
  if (pools == Pools::model) return {whole_model(header)};
  if (pools == Pools::rank) return header.pools;
  std::vector<NeuronPool> layers;
  for (const NeuronPool& rank : header.pools) {
    for (uint32_t layer = 0; layer < rank.layer_count; ++layer) {
      NeuronPool pool = rank;
      pool.layer_begin += layer;
      pool.layer_count = 1;
      layers.push_back(pool);
    }
  }
  return layers;
}

std::vector<uint32_t> ranks_of(const TraceHeader& header, Pools pools) {
  std::vector<uint32_t> ranks;
  for (uint32_t rank = 0; rank < header.pools.size(); ++rank) {
    const uint32_t count = pools == Pools::layer ? header.pools[rank].layer_count : 1;
    ranks.insert(ranks.end(), count, pools == Pools::model ? 0 : rank);
  }
  if (pools == Pools::model) ranks.resize(1);
  return ranks;
}

// The task of median length: long enough to show something, and no outlier.
uint32_t median_task(const std::vector<TaskRecord>& tasks) {
  if (tasks.empty()) return 0;
  std::vector<uint32_t> order(tasks.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
    return tasks[a].step_count < tasks[b].step_count;
  });
  return order[order.size() / 2];
}

uint64_t memory_limit(const ReplayOptions& options) {
  if (options.memory_bytes_max > 0) return options.memory_bytes_max;
  const long pages = ::sysconf(_SC_PHYS_PAGES), page_bytes = ::sysconf(_SC_PAGE_SIZE);
  return pages > 0 && page_bytes > 0 ? static_cast<uint64_t>(pages) * page_bytes / 2 : UINT64_MAX;
}

class Replayer {
 public:
  Replayer(const TraceReader& trace, const TraceReader* profile, const ReplayOptions& options)
      : trace_(trace),
        profile_(profile),
        options_(options),
        header_(trace.header()),
        pools_(pools_of(header_, options.pools)),
        ranks_(ranks_of(header_, options.pools)),
        rank_count_(1 + *std::max_element(ranks_.begin(), ranks_.end())),
        infos_(trace.steps()),
        task_count_(task_count_of(trace, infos_)) {
    TC_CHECK(options.warmup_steps == 0 || options.warmup_steps < trace.step_count(),
             "a warm-up as long as the trace");
    result_ = empty_result(trace, options);
    for (const ReplayStats& row : result_.rows) {
      TC_CHECK(profile != nullptr || row.policy.entry->needs_future || options.fill == Fill::demand,
               row.policy.label() + " needs a profile");
    }
    turns_ = turns();
  }

  ReplayResult run() {
    if (!turns_.empty()) learn();
    for (size_t turn = 0; turn < turns_.size(); ++turn) {
      add_lanes(turns_[turn]);
      run_turn(turn);
      collect(turns_[turn]);
    }
    return std::move(result_);
  }

 private:
  // Rows that share a pass over the trace: all ranked policies, which cost little; of the others as
  // many as keep the threads busy.
  std::vector<std::vector<size_t>> turns() const {
    std::vector<std::vector<size_t>> turns;
    std::vector<size_t> ranked, others;
    for (size_t row = 0; row < result_.rows.size(); ++row) {
      if (options_.wanted && !options_.wanted(row)) continue;
      if (result_.rows[row].policy.entry->ranked) {
        ranked.push_back(row);
        continue;
      }
      const bool new_policy = row % options_.budgets.size() == 0 || others.empty();
      if (new_policy && others.size() * pools_.size() >= kLanesPerThread * options_.thread_count) {
        turns.push_back(std::exchange(others, {}));
      }
      others.push_back(row);
    }
    if (!ranked.empty()) turns.insert(turns.begin(), ranked);
    if (!others.empty()) turns.push_back(others);
    return turns;
  }

  // Of the rows that are run: what was finished before needs nothing any more.
  bool any(bool PolicyEntry::*trait) const {
    return std::any_of(turns_.begin(), turns_.end(), [&](const std::vector<size_t>& rows) {
      return std::any_of(rows.begin(), rows.end(),
                         [&](size_t row) { return result_.rows[row].policy.entry->*trait; });
    });
  }

  void learn() {
    const bool uses = any(&PolicyEntry::needs_future_uses);
    const uint64_t bytes =
        uses ? future_uses_bytes(header_.shape.neuron_count(), result_.step_count) : 0;
    if (bytes > memory_limit(options_)) {
      throw bad_usage(fmt::format(
          "an oracle that looks up single uses needs {} of memory for {} steps, of {} that it may "
          "take; leave 'belady' out, or cut the trace: thermocline trace cut --steps",
          format_bytes(bytes), result_.step_count, format_bytes(memory_limit(options_))));
    }
    for (const NeuronPool& pool : pools_) {
      Knowledge knowledge;
      if (profile_ != nullptr) {
        knowledge.profile =
            grouped(profile_of(*profile_, pool, 0, profile_->step_count()), options_.group);
      }
      if (any(&PolicyEntry::needs_future)) {
        knowledge.future =
            grouped(profile_of(trace_, pool, 0, trace_.step_count()), options_.group);
      }
      if (uses) {
        knowledge.uses = future_uses(trace_, pool, options_.thread_count);
        if (options_.group > 1) knowledge.uses = grouped(knowledge.uses, options_.group);
      }
      knowledge_.push_back(std::move(knowledge));
    }
  }

  bool three_tiers() const { return !options_.host_budgets.empty(); }

  uint64_t bundles_of(const HotBudget& budget, size_t pool) const {
    const uint64_t bundle = header_.bundle_bytes();
    if (options_.pools == Pools::model) {
      return bundles_of_pool(budget.bytes, bundle, pools_[pool], header_.shape.neuron_count());
    }
    const uint32_t rank = ranks_[pool];
    return bundles_of_rank(budget, rank, bundle, pools_[pool], header_.pools[rank].total(),
                           header_.shape.neuron_count());
  }

  // What the policy of a row knows in a pool, with room for `hot_max` bundles.
  PolicyContext context_of(const ReplayStats& stats, uint32_t pool, uint64_t hot_max) const {
    const Knowledge& knowledge = knowledge_[pool];
    const PolicyEntry& entry = *stats.policy.entry;
    const uint64_t bundle = header_.bundle_bytes();
    return {pools_[pool],
            profile_ != nullptr ? &knowledge.profile : nullptr,
            entry.needs_future ? &knowledge.future : nullptr,
            hot_max,
            bundles_of_pool(options_.migration_bytes, bundle, pools_[pool],
                            header_.shape.neuron_count()),
            entry.needs_future_uses ? &knowledge.uses : nullptr,
            bundle,
            options_.cost != nullptr ? options_.cost->rates(ranks_[pool]) : TierRates()};
  }

  void add_lanes(const std::vector<size_t>& rows) {
    lanes_.clear();
    for (const size_t row : rows) {
      ReplayStats& stats = result_.rows[row];
      stats.account.tasks.resize(task_count_);
      stats.account.ttft_ms.resize(task_count_);
      if (options_.keep_steps) stats.steps.resize(result_.step_count * pools_.size());
      for (uint32_t i = 0; i < pools_.size(); ++i) {
        lanes_.push_back(ReplayLane{.row = row, .pool_index = i, .pool = pools_[i]});
        const size_t budget = row % options_.budgets.size();
        stats.hot_max[ranks_[i]] += bundles_of(options_.budgets[budget], i);
        if (!three_tiers()) continue;
        stats.host->hot_max[ranks_[i]] += bundles_of(options_.host_budgets[budget], i);
      }
    }
    // Policies choose their first sets: a sort of all neurons each.
    for_each_parallel(lanes_.size(), options_.thread_count,
                      [&](size_t i) { start_lane(lanes_[i]); });
  }

  void start_lane(ReplayLane& lane) const {
    const ReplayStats& stats = result_.rows[lane.row];
    const size_t budget = lane.row % options_.budgets.size();
    const auto driver = [&](const HotBudget& of_tier) {
      const uint64_t hot_max = bundles_of(of_tier, lane.pool_index);
      return std::make_unique<PolicyDriver>(
          stats.policy, context_of(stats, lane.pool_index, hot_max), options_.fill, options_.group);
    };
    lane.start(driver(options_.budgets[budget]),
               three_tiers() ? driver(options_.host_budgets[budget]) : nullptr);
  }

  void run_turn(size_t turn) {
    PassBlocks blocks(trace_, pools_, infos_);
    const LaneSteps steps{infos_, options_.warmup_steps, result_.watched_task};
    const uint64_t total = result_.step_count * turns_.size();
    while (blocks.next()) {
      if (interrupted()) {
        throw work_failed(fmt::format("interrupted after {} of {} steps", blocks.begin(), total));
      }
      for_each_parallel(lanes_.size(), options_.thread_count,
                        [&](size_t i) { lanes_[i].run(blocks, steps); });
      account(turn, blocks);
      if (options_.progress) {
        options_.progress(turn * result_.step_count + blocks.begin() + blocks.step_count(), total);
      }
    }
  }

  // Lanes stand in the order of rows, for each the pools.
  void account(size_t turn, const PassBlocks& blocks) {
    const std::vector<size_t>& rows = turns_[turn];
    for_each_parallel(rows.size(), options_.thread_count, [&](size_t i) {
      const std::span<const ReplayLane> lanes =
          std::span(lanes_).subspan(i * pools_.size(), pools_.size());
      Scratch scratch;
      for (size_t pass = 0; pass < blocks.passes().size(); ++pass) {
        account_pass(result_.rows[rows[i]], lanes, blocks, pass, scratch);
      }
    });
  }

  // Kept from pass to pass: there are many, and most are of one step.
  struct Scratch {
    std::vector<AccountStep> steps;
    std::vector<RankLoad> loads;
  };

  void account_pass(ReplayStats& row, std::span<const ReplayLane> lanes, const PassBlocks& blocks,
                    size_t pass, Scratch& scratch) const {
    const PassRange& range = blocks.passes()[pass];
    scratch.steps.assign(range.count, {});
    scratch.loads.assign(rank_count_, RankLoad{});
    for (const ReplayLane& lane : lanes) {
      for (uint32_t i = 0; i < range.count; ++i) {
        const StepCounts& counts = lane.steps[range.begin + i - blocks.begin()];
        scratch.steps[i].counts.needed += counts.needed;
        scratch.steps[i].counts.hits += counts.hits;
        if (!options_.keep_steps) continue;
        row.steps[(range.begin + i) * pools_.size() + lane.pool_index] = counts;
      }
    }
    if (range.begin < options_.warmup_steps) return;
    for (uint32_t i = 0; i < range.count; ++i) {
      const StepInfo& info = infos_[range.begin + i];
      scratch.steps[i].phase = info.phase;
      scratch.steps[i].tasks = options_.tasks_of ? options_.tasks_of(range.begin + i)
                                                 : std::span<const uint32_t>(&info.task, 1);
    }
    PassTime time;
    if (options_.cost != nullptr) {
      for (const ReplayLane& lane : lanes) add_load(scratch, lane, blocks, pass);
      time = options_.cost->pass_time(scratch.loads, row.hot_max, positions_of(range));
    }
    add_pass(row.account, scratch.steps, time, options_.cost != nullptr);
  }

  void add_load(Scratch& scratch, const ReplayLane& lane, const PassBlocks& blocks,
                size_t pass) const {
    const PassRange& range = blocks.passes()[pass];
    RankLoad& load = scratch.loads[ranks_[lane.pool_index]];
    load.needed += lane.passes[pass].needed;
    load.hits += lane.passes[pass].hits;
    load.admitted += lane.passes[pass].admitted;
    for (uint32_t i = 0; i < range.count; ++i) {
      const StepCounts& counts = lane.steps[range.begin + i - blocks.begin()];
      const double work = work_of(range.begin + i, scratch.steps[i].counts.needed);
      load.work_hot += work * counts.hits;
      load.work_cold += work * (counts.needed - counts.hits);
      if (lane.host) add_host_step(load, lane, range.begin + i - blocks.begin(), work);
    }
    if (lane.host) add_host_pass(load, lane, pass);
  }

  // The layers of a rank that a lane's pool has.
  std::span<LayerLoad> layers_of(RankLoad& load, const ReplayLane& lane) const {
    const NeuronPool& pool = lane.pool;
    const bool whole = options_.pools == Pools::model;
    const NeuronPool& rank = whole ? pool : header_.pools[ranks_[lane.pool_index]];
    load.layers.resize(rank.layer_count);
    return std::span(load.layers).subspan(pool.layer_begin - rank.layer_begin, pool.layer_count);
  }

  void add_host_step(RankLoad& load, const ReplayLane& lane, uint64_t step, double work) const {
    const std::span<LayerLoad> layers = layers_of(load, lane);
    for (size_t layer = 0; layer < layers.size(); ++layer) {
      const LayerNeeds& needs = lane.host->steps[step * layers.size() + layer];
      layers[layer].work_device += work * needs.device;
      layers[layer].work_host += work * needs.host;
      layers[layer].work_disk += work * needs.disk;
    }
    load.host_admitted += lane.host->admitted[step];
    load.passed += lane.host->passed[step];
  }

  void add_host_pass(RankLoad& load, const ReplayLane& lane, size_t pass) const {
    const std::span<LayerLoad> layers = layers_of(load, lane);
    for (size_t layer = 0; layer < layers.size(); ++layer) {
      const LayerNeeds& needs = lane.host->passes[pass * layers.size() + layer];
      layers[layer].device += needs.device;
      layers[layer].host += needs.host;
      layers[layer].disk += needs.disk;
      layers[layer].on_device += needs.on_device;
    }
  }

  // Active neurons of a step's requests over those of their union.
  double work_of(uint64_t step, uint32_t needed) const {
    if (!options_.shape_of || needed == 0) return 1.0;
    return static_cast<double>(options_.shape_of(step).active_sum) / needed;
  }

  uint32_t positions_of(const PassRange& range) const {
    if (!options_.shape_of) return range.count;
    uint32_t count = 0;
    for (uint32_t i = 0; i < range.count; ++i) {
      count += options_.shape_of(range.begin + i).position_count;
    }
    return count;
  }

  void collect(const std::vector<size_t>& rows) {
    for (size_t i = 0; i < rows.size(); ++i) {
      ReplayStats& row = result_.rows[rows[i]];
      const std::span<ReplayLane> lanes =
          std::span(lanes_).subspan(i * pools_.size(), pools_.size());
      for (const ReplayLane& lane : lanes) {
        row.by_pool.push_back(since(lane.driver->stats(), lane.before));
        add_pool(row.total, row.by_pool.back());
        if (lane.host) collect_host(*row.host, *lane.host);
      }
      row.hot_by_layer = layer_shares(lanes, row.total.step_count);
      row.threshold = mean_threshold(lanes);
      row.watched_threshold = mean_watched(lanes);
    }
    lanes_.clear();
    if (options_.rows_done) options_.rows_done(rows, result_.rows);
  }

  static void collect_host(HostHotSet& host, const HostLane& lane) {
    host.by_pool.push_back(since(lane.driver->stats(), lane.before));
    add_pool(host.total, host.by_pool.back());
    host.needs.add(lane.needs);
  }

  std::vector<double> layer_shares(std::span<const ReplayLane> lanes, uint64_t step_count) const {
    std::vector<double> shares(header_.shape.layer_count);
    for (const ReplayLane& lane : lanes) {
      const std::vector<uint64_t>& sums = lane.driver->hot_sum_by_layer();
      for (size_t layer = 0; layer < sums.size(); ++layer) {
        shares[lane.pool.layer_begin + layer] +=
            static_cast<double>(sums[layer] - lane.layers_before[layer]);
      }
    }
    const double whole = static_cast<double>(header_.shape.ffn_dim) *
                         static_cast<double>(std::max<uint64_t>(step_count, 1));
    for (double& share : shares) share /= whole;
    return shares;
  }

  static std::optional<ThresholdRange> mean_threshold(std::span<const ReplayLane> lanes) {
    ThresholdRange sum;
    double count = 0;
    for (const ReplayLane& lane : lanes) {
      if (!lane.threshold.has_value()) continue;
      ++count;
      sum.first += lane.threshold->first;
      sum.last += lane.threshold->last;
      sum.lowest += lane.threshold->lowest;
      sum.highest += lane.threshold->highest;
    }
    if (count == 0) return std::nullopt;
    return ThresholdRange{sum.first / count, sum.last / count, sum.lowest / count,
                          sum.highest / count};
  }

  static std::vector<std::optional<double>> mean_watched(std::span<const ReplayLane> lanes) {
    std::vector<std::optional<double>> means;
    for (size_t step = 0; step < lanes[0].watched.size(); ++step) {
      double sum = 0, count = 0;
      for (const ReplayLane& lane : lanes) {
        if (!lane.watched[step].has_value()) continue;
        sum += *lane.watched[step];
        ++count;
      }
      means.push_back(count > 0 ? std::optional(sum / count) : std::nullopt);
    }
    return means;
  }

  const TraceReader& trace_;
  const TraceReader* profile_;
  const ReplayOptions& options_;
  const TraceHeader& header_;
  std::vector<NeuronPool> pools_;
  std::vector<uint32_t> ranks_;  // of each pool
  uint32_t rank_count_;
  std::vector<StepInfo> infos_;
  size_t task_count_;
  std::vector<std::vector<size_t>> turns_;  // rows that share a pass over the trace
  std::vector<Knowledge> knowledge_;        // by pool
  ReplayResult result_;
  std::vector<ReplayLane> lanes_;  // of this turn: rows in order, for each the pools
};

}  // namespace

StepCounts ReplayStats::counts(uint64_t step) const {
  StepCounts sum;
  for (size_t pool = 0; pool < by_pool.size(); ++pool) {
    const StepCounts& counts = steps[step * by_pool.size() + pool];
    sum.needed += counts.needed;
    sum.hits += counts.hits;
    sum.admitted += counts.admitted;
  }
  return sum;
}

size_t task_count_of(const TraceReader& trace, std::span<const StepInfo> infos) {
  size_t count = trace.tasks().size();
  for (const StepInfo& info : infos) count = std::max<size_t>(count, info.task + size_t{1});
  return count;
}

ReplayResult empty_result(const TraceReader& trace, const ReplayOptions& options) {
  ReplayResult result;
  result.step_count = trace.step_count();
  result.pool_count = static_cast<uint32_t>(pools_of(trace.header(), options.pools).size());
  result.watched_task = median_task(trace.tasks());
  const size_t rank_count = options.pools == Pools::model ? 1 : trace.header().pools.size();
  const size_t budget_count = options.budgets.size();
  TC_CHECK(options.host_budgets.empty() || options.host_budgets.size() == budget_count,
           "a host budget for each budget");
  for (const PolicySpec& policy : options.policies) {
    if (options.fill == Fill::demand && policy.entry->make_request == nullptr) {
      throw bad_usage("policy '" + policy.label() + "' has no form for --fill demand; " +
                      "--list says which have");
    }
    for (const HotBudget& budget : options.budgets) {
      ReplayStats row;
      row.policy = policy;
      row.budget_bytes = budget.bytes;
      row.hot_max.resize(rank_count);
      result.rows.push_back(std::move(row));
      if (options.host_budgets.empty()) continue;
      HostHotSet& host = result.rows.back().host.emplace();
      host.budget_bytes = options.host_budgets[(result.rows.size() - 1) % budget_count].bytes;
      host.hot_max.resize(rank_count);
    }
  }
  return result;
}

ReplayResult replay(const TraceReader& trace, const TraceReader* profile,
                    const ReplayOptions& options) {
  return Replayer(trace, profile, options).run();
}

TraceHeader joined_pools(const TraceHeader& header) {
  TraceHeader joined = header;
  joined.pools = {whole_model(header)};
  return joined;
}

RecordingConfig joined_ranks(const RecordingConfig& config) {
  RecordingConfig joined;
  joined.dense_bytes = {
      std::accumulate(config.dense_bytes.begin(), config.dense_bytes.end(), uint64_t{0})};
  joined.rank_stage = {0};
  return joined;
}

}  // namespace thermocline
