#include "sim/replay.h"

#include <fmt/format.h>

#include <algorithm>

#include "models/cli.h"
#include "models/error.h"
#include "models/parallel.h"
#include "traces/profile.h"

namespace thermocline {
namespace {

constexpr uint64_t kBlockBytesMax = 32 << 20;  // of all pools' bits at a time
constexpr uint64_t kBlockStepsMax = 4096;

// One policy, one budget, one pool.
struct Lane {
  ReplayStats* row;
  uint32_t pool;
  std::unique_ptr<PolicyDriver> driver;
  std::optional<ThresholdRange> threshold;
};

// What the policies of one pool may know before the first step.
struct Knowledge {
  ActivationProfile profile, future;
};

void note_threshold(Lane& lane) {
  const std::optional<double> now = lane.driver->hot_threshold();
  if (!now.has_value()) return;
  if (!lane.threshold.has_value()) lane.threshold = ThresholdRange{*now, *now, *now, *now};
  lane.threshold->last = *now;
  lane.threshold->lowest = std::min(lane.threshold->lowest, *now);
  lane.threshold->highest = std::max(lane.threshold->highest, *now);
}

class Replayer {
 public:
  Replayer(const TraceReader& trace, const TraceReader* profile, const ReplayOptions& options)
      : trace_(trace), options_(options), pools_(trace.header().pools) {
    result_.step_count = trace.step_count();
    result_.pool_count = static_cast<uint32_t>(pools_.size());
    learn(profile);
    add_rows();
    add_lanes();
  }

  ReplayResult run() {
    std::vector<StepBlock> blocks(pools_.size());
    const uint64_t stride = block_steps();
    for (uint64_t begin = 0; begin < result_.step_count; begin += stride) {
      if (interrupted()) {
        throw work_failed(fmt::format("interrupted after {} of {} steps; nothing was written",
                                      begin, result_.step_count));
      }
      const uint64_t count = std::min(stride, result_.step_count - begin);
      for (size_t pool = 0; pool < pools_.size(); ++pool) {
        trace_.read(pools_[pool], begin, count, blocks[pool]);
      }
      for_each_parallel(lanes_.size(), options_.thread_count,
                        [&](size_t i) { run_lane(lanes_[i], blocks[lanes_[i].pool], begin); });
      if (options_.progress) options_.progress(begin + count);
    }
    collect();
    return std::move(result_);
  }

 private:
  void learn(const TraceReader* profile) {
    const bool oracles =
        std::any_of(options_.policies.begin(), options_.policies.end(),
                    [](const PolicySpec& spec) { return spec.entry->needs_future; });
    for (const NeuronPool& pool : pools_) {
      Knowledge knowledge;
      if (profile != nullptr)
        knowledge.profile = profile_of(*profile, pool, 0, profile->step_count());
      if (oracles) knowledge.future = profile_of(trace_, pool, 0, trace_.step_count());
      knowledge_.push_back(std::move(knowledge));
    }
    has_profile_ = profile != nullptr;
  }

  void add_rows() {
    for (const PolicySpec& policy : options_.policies) {
      TC_CHECK(has_profile_ || policy.entry->needs_future, policy.label() + " needs a profile");
      for (const uint64_t budget : options_.budgets) {
        ReplayStats row;
        row.policy = policy;
        row.budget_bytes = budget;
        row.steps.resize(result_.step_count * pools_.size());
        result_.rows.push_back(std::move(row));
      }
    }
  }

  void add_lanes() {
    const TraceHeader& header = trace_.header();
    const uint64_t neuron_count = header.shape.neuron_count();
    for (ReplayStats& row : result_.rows) {
      for (uint32_t i = 0; i < pools_.size(); ++i) {
        const auto bundles = [&](uint64_t bytes) {
          return bundles_of_pool(bytes, header.bundle_bytes(), pools_[i], neuron_count);
        };
        const PolicyContext context{
            pools_[i], has_profile_ ? &knowledge_[i].profile : nullptr,
            row.policy.entry->needs_future ? &knowledge_[i].future : nullptr,
            bundles(row.budget_bytes), bundles(options_.migration_bytes)};
        row.hot_max.push_back(context.hot_count_max);
        lanes_.push_back({&row, i, std::make_unique<PolicyDriver>(row.policy, context), {}});
      }
    }
  }

  uint64_t block_steps() const {
    uint64_t step_bytes = 1;
    for (const NeuronPool& pool : pools_) step_bytes += pool.words_per_step() * sizeof(uint64_t);
    const uint64_t steps = std::clamp<uint64_t>(kBlockBytesMax / step_bytes, 1, kBlockStepsMax);
    return whole_blocks(steps);
  }

  void run_lane(Lane& lane, const StepBlock& block, uint64_t begin) const {
    for (uint64_t i = 0; i < block.step_count; ++i) {
      lane.row->steps[(begin + i) * pools_.size() + lane.pool] = lane.driver->step(block.step(i));
      note_threshold(lane);
    }
  }

  void collect() {
    for (Lane& lane : lanes_) {
      ReplayStats& row = *lane.row;
      row.by_pool.push_back(lane.driver->stats());
      add_pool(row.total, lane.driver->stats());
    }
    for (ReplayStats& row : result_.rows) row.threshold = mean_threshold(row);
  }

  std::optional<ThresholdRange> mean_threshold(const ReplayStats& row) const {
    ThresholdRange sum;
    double count = 0;
    for (const Lane& lane : lanes_) {
      if (lane.row != &row || !lane.threshold.has_value()) continue;
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

  const TraceReader& trace_;
  const ReplayOptions& options_;
  const std::vector<NeuronPool>& pools_;
  bool has_profile_ = false;
  std::vector<Knowledge> knowledge_;  // by pool
  ReplayResult result_;
  std::vector<Lane> lanes_;  // rows in order, for each the pools
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

ReplayResult replay(const TraceReader& trace, const TraceReader* profile,
                    const ReplayOptions& options) {
  return Replayer(trace, profile, options).run();
}

}  // namespace thermocline
