// Reading a trace in pieces that fit into memory, and what it adds up to.
//
// Goals: bounded memory whatever the length of the trace.
// Thread-safety: pure functions over a reader.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "models/bit_sums.h"
#include "models/neuron.h"
#include "traces/trace.h"

namespace thermocline {

// So many steps that blocks of the trace are read whole, at least one of them.
constexpr uint64_t whole_blocks(uint64_t steps) {
  return steps < kBlockSteps ? kBlockSteps : steps / kBlockSteps * kBlockSteps;
}

// Calls visit with consecutive blocks of steps [step_begin, step_begin + step_count) of `pool`: as
// many of the trace's own blocks as make about 8 MiB, at least one. The next is read by a thread
// of its own meanwhile.
void for_each_block(const TraceReader& reader, const NeuronPool& pool, uint64_t step_begin,
                    uint64_t step_count, const std::function<void(const StepBlock&)>& visit);

// The same with the predicted bits of these steps beside them; `predicted` has no words where the
// trace has no predictions.
using PredictedVisit = std::function<void(const StepBlock& active, const StepBlock& predicted)>;
void for_each_predicted_block(const TraceReader& reader, const NeuronPool& pool,
                              uint64_t step_begin, uint64_t step_count,
                              const PredictedVisit& visit);

// Firing counts of a pool with a BitCounter for each layer: many times as fast as
// ActivationProfile::add(), for 6 bytes a neuron more. Belongs to one thread.
class ProfileCounter {
 public:
  explicit ProfileCounter(const NeuronPool& pool, uint32_t thread_count = 1);
  void add(const ActiveStep& active);  // of the pool
  void add(const StepBlock& block);    // the same, faster; its layers on several threads
  ActivationProfile profile();

 private:
  NeuronPool pool_;
  uint32_t thread_count_;
  uint64_t step_count_ = 0;
  std::vector<BitCounter> layers_;
};

// How often each neuron of `pool` fired in steps [step_begin, step_begin + step_count).
ActivationProfile profile_of(const TraceReader& reader, const NeuronPool& pool, uint64_t step_begin,
                             uint64_t step_count, uint32_t thread_count = 1);

// Throws Error{input} unless the profile was recorded on a model of this size and these weights.
// `whose`: "model" or "trace", for the message.
void check_profile(const TraceHeader& profile, const std::string& path, const ModelShape& shape,
                   const std::string& weight_hash, const std::string& whose);

// The pool of all neurons of the model.
NeuronPool whole_model(const TraceHeader& header);

}  // namespace thermocline
