// powerinfer: the placement of PowerInfer (Song et al., SOSP'24, section 6.3), never changed.
//
// Its integer program: neurons of a layer, sorted by phi_i (the share of the profile's steps in
// which neuron i fired), are cut into groups of `group`; choose for each layer l the number k_l of
// its first groups that are hot, to
//   maximise   sum over hot neurons of phi_i
//   such that  the hot neurons fit into the budget, and
//              per layer either none or at least C_l are hot,
//   C_l = T_sync / (M / BW_cpu - M / BW_gpu),
// M the bytes of a bundle: fewer neurons do not earn what joining the two tiers' results costs.
// floor=rates takes T_sync and the bandwidths from the context (unknown: no floor; a fast tier that
// is no faster: nothing is hot), floor=none leaves C_l out, as the released code does.
//
// The optimum is found, not approached. Without a floor, or where one group reaches it, taking
// groups by falling sum is optimal: a layer's groups fall in sum. Where the floor takes several
// groups, a layer's value is zero up to there and concave from there on, and
//   best_l(b) = max(best_{l-1}(b), max over k >= floor of best_{l-1}(b - k) + value_l(k))
// is exact; value_l is concave, so the best b - k never falls as b rises, and each layer costs
// b log b. A layer's last group may be smaller; it is charged as a whole one in this program, and
// what that saves is filled by falling sum afterwards. So where groups do not divide a layer, the
// result is worth at least the optimum of a budget smaller by a group per layer; where they do, it
// is the optimum. What is less than a group stays unused.
//
// Not reproduced: in the released code layers get each other's counts (files sorted by name, so
// that 10 follows 1), its bytes per neuron are 1.5 times too many for 70B, and its capacity is
// rounded to groups of 256 while the paper has 64.
#include <algorithm>

#include "sim/policy.h"

namespace thermocline {
namespace {

struct Group {
  uint64_t sum;  // of its neurons' counts
  uint32_t layer, index;
};
bool earlier(const Group& a, const Group& b) {
  if (a.sum != b.sum) return a.sum > b.sum;
  return a.layer != b.layer ? a.layer < b.layer : a.index < b.index;
}

// best(b) with one more layer, where k groups of it are worth value[k] and less than `floor` of
// them nothing. taken[b]: the k of an optimum.
class LayerStep {
 public:
  LayerStep(const std::vector<uint64_t>& before, const std::vector<uint64_t>& value, uint64_t floor,
            std::vector<uint64_t>& after, std::vector<uint32_t>& taken)
      : before_(before), value_(value), floor_(floor), after_(after), taken_(taken) {
    after_ = before_;
    taken_.assign(before_.size(), 0);
    const uint64_t size = before_.size();
    if (floor_ < value_.size() && floor_ < size) solve(floor_, size, 0, size - 1 - floor_);
  }

 private:
  // For b in [begin, end), whose best rest = b - k is known to lie in [low, high].
  void solve(uint64_t begin, uint64_t end, uint64_t low, uint64_t high) {
    if (begin >= end) return;
    const uint64_t b = begin + (end - begin) / 2, k_max = value_.size() - 1;
    uint64_t best_rest = std::max(low, b > k_max ? b - k_max : 0), best = 0;
    for (uint64_t rest = best_rest; rest <= std::min(high, b - floor_); ++rest) {
      const uint64_t total = before_[rest] + value_[b - rest];
      if (total > best) {
        best = total;
        best_rest = rest;
      }
    }
    if (best > after_[b]) {
      after_[b] = best;
      taken_[b] = static_cast<uint32_t>(b - best_rest);
    }
    solve(begin, b, low, best_rest);
    solve(b + 1, end, best_rest, high);
  }

  const std::vector<uint64_t>& before_;
  const std::vector<uint64_t>& value_;
  uint64_t floor_;
  std::vector<uint64_t>& after_;
  std::vector<uint32_t>& taken_;
};

class PowerInfer final : public Policy {
 public:
  static constexpr bool needs_future = false;
  static std::vector<PolicyParameter> parameters() {
    return {{"group", 64, 16, 1024, "neurons of a layer that are placed together", true, {}, {256}},
            {"floor",
             0,
             0,
             1,
             "fewest hot neurons of a layer: what T_sync asks for, or none",
             true,
             {"rates", "none"},
             {0, 1}}};
  }
  explicit PowerInfer(const PolicyValues& values)
      : group_(static_cast<uint32_t>(values.at("group"))), floored_(values.at("floor") == 0) {}

  void start(const PolicyContext& context, HotSet& hot) override {
    pool_ = context.pool;
    if (pool_.total() == 0) return;
    groups_per_layer_ = (pool_.neuron_count + group_ - 1) / group_;
    rank_layers(context.profile->counts);
    const double floor = floored_ ? neurons_that_pay(context) : 0;
    if (floor > pool_.neuron_count) return;  // no layer has so many
    const uint64_t floor_groups = groups_reaching(floor);
    hot_groups_.assign(pool_.layer_count, 0);
    if (floor_groups > 1) place_with_floor(context.hot_count_max / group_, floor_groups);
    fill(context.hot_count_max, floor_groups);
    for (uint32_t layer = 0; layer < pool_.layer_count; ++layer) {
      const uint32_t* first = ranked_.data() + uint64_t{layer} * pool_.neuron_count;
      std::for_each_n(first, neurons_of(hot_groups_[layer]), [&](uint32_t i) { hot.insert(i); });
    }
  }

 private:
  // C_l; infinite where the fast tier is no faster.
  static double neurons_that_pay(const PolicyContext& context) {
    const TierRates& rates = context.rates;
    if (rates.fast_bytes_per_second <= 0 || rates.slow_bytes_per_second <= 0) return 0;
    const auto bundle = static_cast<double>(context.bundle_bytes);
    const double gain = bundle / rates.slow_bytes_per_second - bundle / rates.fast_bytes_per_second;
    return rates.sync_seconds <= 0 ? 0 : gain <= 0 ? 1e300 : rates.sync_seconds / gain;
  }

  uint64_t groups_reaching(double neurons) const {
    uint64_t count = 1;
    while (static_cast<double>(neurons_of(count)) < neurons) ++count;
    return count;
  }

  // The neurons in the first `count` groups of a layer.
  uint64_t neurons_of(uint64_t count) const {
    return std::min<uint64_t>(count * group_, pool_.neuron_count);
  }

  void rank_layers(const std::vector<uint32_t>& counts) {
    ranked_.resize(pool_.total());
    groups_.assign(uint64_t{pool_.layer_count} * groups_per_layer_, {});
    std::vector<uint32_t> seen(pool_.layer_count);
    for (const uint32_t flat : ranked_by_count(counts)) {
      const uint32_t layer = flat / pool_.neuron_count, place = seen[layer]++;
      ranked_[uint64_t{layer} * pool_.neuron_count + place] = flat;
      Group& group = groups_[uint64_t{layer} * groups_per_layer_ + place / group_];
      group = {group.sum + counts[flat], layer, place / group_};
    }
  }

  void place_with_floor(uint64_t budget, uint64_t floor) {
    budget = std::min<uint64_t>(budget, groups_.size());
    std::vector<uint64_t> best(budget + 1), after;
    std::vector<std::vector<uint32_t>> taken(pool_.layer_count);
    for (uint32_t layer = 0; layer < pool_.layer_count; ++layer) {
      std::vector<uint64_t> value(groups_per_layer_ + 1);
      for (uint32_t k = 0; k < groups_per_layer_; ++k) {
        value[k + 1] = value[k] + groups_[uint64_t{layer} * groups_per_layer_ + k].sum;
      }
      LayerStep(best, value, floor, after, taken[layer]);
      best.swap(after);
    }
    for (uint32_t layer = pool_.layer_count; layer-- > 0;) {
      hot_groups_[layer] = taken[layer][budget];
      budget -= hot_groups_[layer];
    }
  }

  // By falling sum, what still fits: all of it where one group reaches the floor, else groups of
  // the layers that are hot already.
  void fill(uint64_t budget, uint64_t floor_groups) {
    for (const uint32_t count : hot_groups_) budget -= neurons_of(count);
    std::vector<Group> order = groups_;
    std::sort(order.begin(), order.end(), earlier);
    for (const Group& group : order) {
      const uint64_t size = neurons_of(group.index + 1) - neurons_of(group.index);
      const bool next = hot_groups_[group.layer] == group.index;
      const bool open = floor_groups == 1 || hot_groups_[group.layer] > 0;
      if (!next || !open || size > budget) continue;
      ++hot_groups_[group.layer];
      budget -= size;
    }
  }

  uint32_t group_;
  bool floored_;
  NeuronPool pool_;
  uint32_t groups_per_layer_ = 0;
  std::vector<uint32_t> ranked_;      // flat indices, by layer, each by falling count
  std::vector<Group> groups_;         // (layer_count, groups_per_layer)
  std::vector<uint32_t> hot_groups_;  // k_l
};

}  // namespace

THERMOCLINE_POLICY(powerinfer, "PowerInfer's placement: groups by profile, a floor per layer",
                   PowerInfer);

}  // namespace thermocline
