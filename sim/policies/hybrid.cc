// hybrid (P11): the most frequent neurons are pinned, a dynamic policy has the rest.
//
// round(rho B) of the budget B are the neurons that fired most often in the profile, ties by index;
// they never leave. Any dynamic policy (`inner`, with its default parameters) runs on what is left:
// it is shown the active neurons without the pinned ones, a profile in which they never fired, the
// rest of the budget and the unpinned hot neurons, and has the whole migration limit. PowerInfer-2
// (2024) pins a hot region and keeps the rest in an LRU cache: hybrid:inner=lru.
//
// To the inner policy a pinned neuron is one that never fires. Where it would admit one all the
// same, for want of others, nothing happens, and that place stays empty.
#include <algorithm>

#include "models/error.h"
#include "sim/policy.h"

namespace thermocline {
namespace {

// Dynamic policies whose files need not be there: what is not registered is refused when made.
const std::vector<std::string>& inner_names() {
  static const std::vector<std::string> names = {
      "ewma", "quantile", "aimd", "pid",    "window",  "hermes",       "lru",
      "fifo", "lfu",      "arc",  "s3fifo", "prefill", "dynamicinfer", "waterfill"};
  return names;
}

std::unique_ptr<Policy> made_inner(const std::string& name) {
  const PolicyEntry* entry = policies().by_name_or_null(name);
  if (entry == nullptr) {
    throw bad_usage("policy 'hybrid', parameter inner: policy '" + name + "' is not in this build");
  }
  PolicyValues values;
  for (const PolicyParameter& parameter : entry->parameters) {
    values[parameter.name] = parameter.value_default;
  }
  return entry->make(values);
}

class Hybrid final : public Policy {
 public:
  static constexpr bool needs_future = false;
  static std::vector<PolicyParameter> parameters() {
    return {{"rho", 0.7, 0, 1, "share of the budget that is pinned", false, {}, {0.5, 0.9}},
            {"inner",
             0,
             0,
             static_cast<double>(inner_names().size() - 1),
             "policy of the rest of the budget",
             true,
             inner_names(),
             {}}};
  }
  explicit Hybrid(const PolicyValues& values)
      : rho_(values.at("rho")),
        inner_(made_inner(inner_names().at(static_cast<size_t>(values.at("inner"))))) {}

  void start(const PolicyContext& context, HotSet& hot) override {
    const uint64_t budget = std::min(context.hot_count_max, context.pool.total());
    context_ = context;
    pinned_ = HotSet(context.pool);
    if (context.profile != nullptr) pin(*context.profile, budget);
    context_.hot_count_max = budget - pinned_.count();
    HotSet chosen(context.pool);
    inner_->start(context_, chosen);
    for_each_bit(context.pool, chosen.words(), [&hot](uint32_t flat) { hot.insert(flat); });
    for_each_bit(context.pool, pinned_.words(), [&hot](uint32_t flat) { hot.insert(flat); });
    unpinned_ = HotSet(context.pool);
    rest_.resize(context.pool.words_per_step());
    note_unpinned(hot);
  }

  void step(const ActiveStep& active, const HotSet& hot, Moves& moves) override {
    if (context_.hot_count_max == 0) return;
    // Moves that were refused leave another number of hot neurons than their moves would have.
    if (unpinned_.count() + pinned_.count() != hot.count()) note_unpinned(hot);
    for (size_t w = 0; w < rest_.size(); ++w) rest_[w] = active.words[w] & ~pinned_.words()[w];
    inner_->step({active.pool, rest_, active.task, active.prompt}, unpinned_, moves);
    const auto is_pinned = [this](uint32_t flat) { return pinned_.contains(flat); };
    std::erase_if(moves.evict, is_pinned);
    std::erase_if(moves.admit, is_pinned);
    for (const uint32_t flat : moves.evict) unpinned_.erase(flat);
    for (const uint32_t flat : moves.admit) unpinned_.insert(flat);
  }

  std::optional<double> hot_threshold() const override { return inner_->hot_threshold(); }

 private:
  void pin(const ActivationProfile& profile, uint64_t budget) {
    const double share = rho_ * static_cast<double>(budget);
    fill_hottest(profile, std::min(static_cast<uint64_t>(share + 0.5), budget), 0, pinned_);
    unpinned_profile_ = profile;
    for_each_bit(pinned_.pool(), pinned_.words(),
                 [this](uint32_t flat) { unpinned_profile_.counts[flat] = 0; });
    context_.profile = &unpinned_profile_;
  }

  void note_unpinned(const HotSet& hot) {
    for (size_t w = 0; w < rest_.size(); ++w) rest_[w] = hot.words()[w] & ~pinned_.words()[w];
    unpinned_.assign(rest_);
  }

  const double rho_;
  std::unique_ptr<Policy> inner_;
  PolicyContext context_;  // the inner policy's
  ActivationProfile unpinned_profile_;
  HotSet pinned_, unpinned_;
  std::vector<uint64_t> rest_;  // active neurons that are not pinned
};

}  // namespace

THERMOCLINE_POLICY(hybrid, "the most frequent neurons pinned, a dynamic policy on the rest",
                   Hybrid);

}  // namespace thermocline
