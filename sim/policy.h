// Policy: proposes which neurons are hot. PolicyDriver (sim/policy_driver.h) disposes.
//
// A policy sees what an online policy may see: the profile, the budget, what was active up to now.
// Only one that declares needs_future gets the future, and is labelled an oracle wherever printed.
// Three shapes, from which a policy's class derives:
//   RankedPolicy: one ranking, fixed at the start; hot are its first neurons, as many as fit. Its
//     hot sets at all budgets are nested, so one pass over a trace gives them all (sim/curve.h).
//   Policy: proposes moves after each step, under a budget and a migration limit.
//   RequestPolicy, beside one of these: the classical cache, one neuron at a time (--fill demand).
// Goals: deterministic; integers, or floating-point products and sums alone; the same object in
//   replay and live. Non-goals: counting, enforcing, time and bytes, files.
// Thread-safety: one policy, one thread; what a context points to may be shared by many.
#pragma once

#include <concepts>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "models/budget.h"
#include "models/neuron.h"
#include "models/node.h"
#include "models/registry.h"
#include "sim/policy_future.h"

namespace thermocline {

// Rates of a node's fast and slow tier, for policies that weigh them; 0: not known.
struct TierRates {
  double fast_bytes_per_second = 0;
  double slow_bytes_per_second = 0;
  double sync_seconds = 0;  // of joining what both computed, once a layer
};
// Of a node with two tiers; joining takes the latency of a transfer between them. A node with one
// tier has no rates.
TierRates tier_rates(const NodeProfile& node);

struct PolicyContext {
  NeuronPool pool;
  const ActivationProfile* profile = nullptr;  // firing counts on the profile split; may be null
  const ActivationProfile* future = nullptr;   // of the replayed trace; null unless needs_future
  uint64_t hot_count_max = 0;                  // budget, in bundles
  uint64_t admit_count_max = 0;                // migration limit, in bundles per step
  const FutureUses* future_uses = nullptr;     // null unless needs_future_uses
  uint64_t bundle_bytes = 0;
  TierRates rates = {};
};

// Flat indices (see models/neuron.h). Evictions are applied before admissions.
struct Moves {
  std::vector<uint32_t> evict;
  std::vector<uint32_t> admit;
};

class Policy {
 public:
  virtual ~Policy() = default;
  // Before the first step: fill `hot`, which is empty, with at most context.hot_count_max neurons.
  // The context outlives the policy.
  virtual void start(const PolicyContext& context, HotSet& hot) = 0;
  // After each step: append moves. `hot` is the set that the step ran with. What goes beyond budget
  // or migration limit after the evictions is refused, in the order of `admit`. A static policy
  // leaves it.
  virtual void step(const ActiveStep& /*active*/, const HotSet& /*hot*/, Moves& /*moves*/) {}
  // The score above which a neuron is hot now; nothing where the policy has no such number.
  virtual std::optional<double> hot_threshold() const { return std::nullopt; }
};

// A set that is chosen once: at every budget, the first neurons of one ranking.
class RankedPolicy : public Policy {
 public:
  // Flat indices, the hottest first, each at most once; those left out are never hot. Depends on
  // pool, profile, future, bundle_bytes and rates alone, not on the budget.
  virtual std::vector<uint32_t> ranking(const PolicyContext& context) = 0;
  void start(const PolicyContext& context, HotSet& hot) override;
};

// The classical form: every active neuron is a request, in (step, layer, neuron) order; the cache
// starts cold and a miss is admitted at once. The driver keeps the set; it is never above budget.
class RequestPolicy {
 public:
  virtual ~RequestPolicy() = default;
  virtual void start(const PolicyContext& /*context*/) {}
  virtual void begin_step(const ActiveStep& /*active*/) {}
  virtual void hit(uint32_t flat) = 0;
  // Before `incoming` is admitted to a full cache (hot_count_max > 0): the neuron that leaves, or
  // `incoming` itself, which then is not admitted.
  virtual uint32_t evict(uint32_t incoming) = 0;
  virtual void admit(uint32_t flat) = 0;
};

// One parameter of a policy, as --policy NAME:key=value sets it.
struct PolicyParameter {
  std::string name;
  double value_default;
  double value_min;
  double value_max;
  std::string meaning;  // with its unit
  bool whole = false;   // only whole numbers
  // Words instead of numbers: the value is an index into them, from 0 to their number less one.
  std::vector<std::string> choices = {};
  // What --tune tries, the default aside; empty: nothing.
  std::vector<double> tune = {};
};

using PolicyValues = std::map<std::string, double>;  // every declared parameter, set or default

struct PolicyEntry {
  std::string name;
  std::string summary;
  bool needs_future;  // an oracle: gets the future, and is labelled wherever it is printed
  std::vector<PolicyParameter> parameters;
  std::unique_ptr<Policy> (*make)(const PolicyValues& values);
  std::unique_ptr<RequestPolicy> (*make_request)(const PolicyValues& values) = nullptr;
  bool ranked = false;             // a RankedPolicy
  bool needs_future_uses = false;  // an oracle that looks up single uses
};

Registry<PolicyEntry>& policies();

// Makes Class::Request, the classical form; null where Class has none.
template <class Class>
constexpr auto request_maker() -> std::unique_ptr<RequestPolicy> (*)(const PolicyValues&) {
  if constexpr (requires { typename Class::Request; }) {
    return [](const PolicyValues& values) -> std::unique_ptr<RequestPolicy> {
      return std::make_unique<typename Class::Request>(values);
    };
  } else {
    return nullptr;
  }
}

template <class Class>
constexpr bool looks_up_future_uses() {
  if constexpr (requires { Class::needs_future_uses; }) {
    return Class::needs_future_uses;
  } else {
    return false;
  }
}

// Class has: static std::vector<PolicyParameter> parameters(); static constexpr bool needs_future;
// a constructor from PolicyValues; where it wants them, static constexpr bool needs_future_uses and
// a nested class Request with the same constructor.
#define THERMOCLINE_POLICY(id, summary, Class)                                                   \
  const bool registered_policy_##id = ::thermocline::policies().add(                             \
      {::thermocline::policy_name(#id), summary, Class::needs_future, Class::parameters(),       \
       [](const ::thermocline::PolicyValues& values) -> std::unique_ptr<::thermocline::Policy> { \
         return std::make_unique<Class>(values);                                                 \
       },                                                                                        \
       ::thermocline::request_maker<Class>(),                                                    \
       std::derived_from<Class, ::thermocline::RankedPolicy>,                                    \
       ::thermocline::looks_up_future_uses<Class>()})

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

// A comma list of specs; a comma followed by key=value belongs to the policy before it. "fixed" is
// short for "fixed-topk", "all" for every policy.
// Errors: unknown policy or parameter (with the valid names), a value out of range.
std::vector<PolicySpec> parse_policies(std::string_view text);

// "32", or the word of a parameter that has choices.
std::string value_text(const PolicyParameter& parameter, double value);

// The start of a static set: the `count_max` neurons of the profile that fired most often, ties by
// index, none of which fired less than `count_min` times.
void fill_hottest(const ActivationProfile& profile, uint64_t count_max, uint64_t count_min,
                  HotSet& hot);
// The same order as a ranking of all neurons: by falling count, ties by index.
std::vector<uint32_t> ranked_by_count(const std::vector<uint32_t>& counts);

// Bundles of one pool under a whole-model budget: in proportion to its neurons, rounded down.
uint64_t bundles_of_pool(uint64_t budget_bytes, uint64_t bundle_bytes, const NeuronPool& pool,
                         uint64_t model_neuron_count);
// Bundles of a pool of a rank, all of whose pools have `rank_neuron_count` neurons: of the rank's
// own budget where it has one, else of the whole model's.
uint64_t bundles_of_rank(const HotBudget& budget, size_t rank, uint64_t bundle_bytes,
                         const NeuronPool& pool, uint64_t rank_neuron_count,
                         uint64_t model_neuron_count);

}  // namespace thermocline
