// Policy: proposes which neurons are hot. PolicyDriver: the one place that disposes.
//
// A policy sees what an online policy may see: the profile, the budget, what was active up to now.
// It proposes moves; the driver owns the HotSet, counts, applies the moves and enforces budget and
// migration limit. Replay and the live runtime run the same driver, so their counters are equal.
// Order within a step: count hits against the HotSet as it stands; show the step to the policy;
//   apply its moves, which take effect from the next step.
// Goals: integers only; deterministic; the same object in replay and live.
// Non-goals: time and bytes (sim/cost.h), files.
// Thread-safety: one driver, one thread.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "models/neuron.h"
#include "models/registry.h"

namespace thermocline {

struct PolicyContext {
  NeuronPool pool;
  const ActivationProfile* profile = nullptr;  // firing counts on the profile split
  const ActivationProfile* future = nullptr;   // of the replayed trace; null unless needs_future
  uint64_t hot_count_max = 0;                  // budget, in bundles
  uint64_t admit_count_max = 0;                // migration limit, in bundles per step
};

// Flat indices (see models/neuron.h). Evictions are applied before admissions.
struct Moves {
  std::vector<uint32_t> evict;
  std::vector<uint32_t> admit;
};

class Policy {
 public:
  virtual ~Policy() = default;
  // Before the first step: fill `hot` with at most context.hot_count_max neurons. The context
  // outlives the policy.
  virtual void start(const PolicyContext& context, HotSet& hot) = 0;
  // After each step: append moves. `hot` is the set that the step ran with. A static policy
  // leaves it.
  virtual void step(const ActiveStep& /*active*/, const HotSet& /*hot*/, Moves& /*moves*/) {}
  // The score above which a neuron is hot now; nothing where the policy has no such number.
  virtual std::optional<double> hot_threshold() const { return std::nullopt; }
};

// One parameter of a policy, as --policy NAME:key=value sets it.
struct PolicyParameter {
  std::string name;
  double value_default;
  double value_min;
  double value_max;
  std::string meaning;  // with its unit
  bool whole = false;   // only whole numbers
};

using PolicyValues = std::map<std::string, double>;  // every declared parameter, set or default

struct PolicyEntry {
  std::string name;
  std::string summary;
  bool needs_future;  // an oracle: gets the future, and is labelled wherever it is printed
  std::vector<PolicyParameter> parameters;
  std::unique_ptr<Policy> (*make)(const PolicyValues& values);
};

Registry<PolicyEntry>& policies();

// Class has: static std::vector<PolicyParameter> parameters(); static constexpr bool needs_future;
// and a constructor from PolicyValues.
#define THERMOCLINE_POLICY(id, summary, Class)                                                   \
  const bool registered_policy_##id = ::thermocline::policies().add(                             \
      {::thermocline::policy_name(#id), summary, Class::needs_future, Class::parameters(),       \
       [](const ::thermocline::PolicyValues& values) -> std::unique_ptr<::thermocline::Policy> { \
         return std::make_unique<Class>(values);                                                 \
       }})

std::string policy_name(std::string_view id);  // "oracle_static" -> "oracle-static"

// "ewma:halflife=32,cap=200": a registered policy with all its parameters resolved.
struct PolicySpec {
  const PolicyEntry* entry = nullptr;
  PolicyValues values;

  std::string label() const;     // "ewma:halflife=32": only what differs from the defaults
  std::string resolved() const;  // every parameter
  // "halflife=32,gamma=0.5": every parameter without the name, as result rows carry it.
  std::string parameters() const;
  std::unique_ptr<Policy> make() const { return entry->make(values); }
};

// A comma list of specs; a comma followed by key=value belongs to the policy before it.
// Errors: unknown policy or parameter (with the valid names), a value out of range.
std::vector<PolicySpec> parse_policies(std::string_view text);

// What a run over a pool added up to.
struct HotSetStats {
  uint64_t step_count = 0;
  uint64_t needed = 0;    // active neurons, summed over steps
  uint64_t hits = 0;      // of these, hot when needed
  uint64_t admitted = 0;  // bundles moved into the fast tier after the start
  uint64_t evicted = 0;
  uint64_t refused = 0;  // admissions that budget or migration limit did not allow
  uint64_t loaded = 0;   // bundles loaded at the start
  uint64_t hot_count_peak = 0;
  bool operator==(const HotSetStats&) const = default;
};

// Calls visit(name, count) for each counter, by the name that result rows give it.
template <class Visit>
void for_each_counter(const HotSetStats& stats, Visit visit) {
  visit("step_count", stats.step_count);
  visit("needed", stats.needed);
  visit("hits", stats.hits);
  visit("admitted", stats.admitted);
  visit("evicted", stats.evicted);
  visit("refused", stats.refused);
  visit("loaded", stats.loaded);
  visit("hot_count_peak", stats.hot_count_peak);
}

double hit_ratio(const HotSetStats& stats);  // of 1; 1 where nothing was needed
double moved_bytes_per_token(const HotSetStats& stats, uint64_t bundle_bytes);

// Adds the stats of a pool to a sum over the pools of a model, which all go through the same steps
// (step_count is theirs, not added) and hold their sets at the same time (peaks add).
void add_pool(HotSetStats& sum, const HotSetStats& pool);

struct StepCounts {
  uint32_t needed = 0;
  uint32_t hits = 0;
  uint32_t admitted = 0;
};

class PolicyDriver {
 public:
  PolicyDriver(const PolicySpec& spec, const PolicyContext& context);

  StepCounts step(const ActiveStep& active);
  const HotSetStats& stats() const { return stats_; }
  const HotSet& hot() const { return hot_; }
  std::optional<double> hot_threshold() const { return policy_->hot_threshold(); }

 private:
  uint32_t apply();

  PolicyContext context_;
  std::unique_ptr<Policy> policy_;
  HotSet hot_;
  Moves moves_;
  HotSetStats stats_;
};

// The start of a static set: the `count_max` neurons of the profile that fired most often, ties by
// index, none of which fired less than `count_min` times.
void fill_hottest(const ActivationProfile& profile, uint64_t count_max, uint64_t count_min,
                  HotSet& hot);

// Bundles of one pool under a whole-model budget: in proportion to its neurons, rounded down.
uint64_t bundles_of_pool(uint64_t budget_bytes, uint64_t bundle_bytes, const NeuronPool& pool,
                         uint64_t model_neuron_count);

}  // namespace thermocline
