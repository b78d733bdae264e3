// SideBySide: the FFN of a layer in two parts at the same time, hot neurons on a device, cold ones
// on the host.
//
// The device's queue gets, in this order: a copy of the FFN's input to pinned host memory, the hot
//   part, a copy of the cold part's sum, an addition. The host waits for the first of these alone,
//   and computes gate, up and sum of the cold neurons while the device does so of the hot ones:
//   each part finds out for itself which of its neurons are active. Bits of the cold ones join
//   those of the device once a pass, in end(). Where up and down rows of cold neurons lie in a file
//   too, those that are not in memory are read while the others are computed.
// Where the device's memory is the host's (both backends are cpu) the parts run one after the
//   other, and the sum over both is one, in the order of the rows: bits are those of one tier, to
//   the last. Otherwise two sums are added, and a neuron's gate is computed by one arithmetic or
//   the other: results agree within the tolerance between backends.
// Goals: one wait a layer, for the input. Non-goals: what is hot (tiers/device_tier.h).
// Thread-safety: one rank, one thread.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "runtime/backend.h"
#include "runtime/staged_rows.h"
#include "runtime/tiers/device_tier.h"

namespace thermocline {

// Over all passes and layers, ns. The device's are taken by its own clock.
struct SideBySideTimes {
  uint64_t device_ns = 0;  // hot parts
  uint64_t host_ns = 0;    // cold parts
  uint64_t larger_ns = 0;  // of the two, layer by layer
  uint64_t merge_ns = 0;   // copies of cold sums, and additions
  uint64_t both_ns = 0;    // from input to sum
  uint64_t pass_count = 0;

  // What is gained where it is near 1: the two parts ran at once.
  double both_over_larger() const {
    const uint64_t least = larger_ns + merge_ns;
    return least == 0 ? 0.0 : static_cast<double>(both_ns) / static_cast<double>(least);
  }
};

class SideBySide {
 public:
  // Both backends, the tier and `staged` outlive it. row_max: of a pass. staged: how the host gets
  // up and down rows; null: they all lie in its memory.
  SideBySide(Backend& device, DeviceTier& tier, const NeuronPool& pool, int model_dim, int row_max,
             StagedRows* staged = nullptr);

  // A pass over `rows`, which stay until end(); fixes who is hot in it.
  void begin(std::span<const TokenRow> rows);
  // partial (row, model_dim) = the sum over active neurons of act(gate x) * (up x) * down. The
  // call's gate and up are those of the tier; its `active` and `magnitudes` get the hot neurons'
  // alone. Returns the ns that the host waited for rows from a file.
  uint64_t ffn(uint32_t layer, const GateUpCall& call, float* partial);
  // (row, neurons): the cold neurons' magnitudes of the layer's last ffn(), if that wanted them.
  void add_cold_magnitudes(uint32_t layer, float* values) const;
  // words (row, words_per_step): of the hot active neurons; those of the cold ones join them. What
  // was queued is done.
  void end(std::span<uint64_t> words);

  const SideBySideTimes& times() const { return times_; }
  const DeviceTier& tier() const { return tier_; }

 private:
  enum Mark : uint32_t { kInputSent, kHotDone, kColdSent, kMerged, kMarkCount };

  void mark(uint32_t layer, Mark mark) { device_.mark(layer * kMarkCount + mark); }
  uint64_t ns_between(uint32_t layer, Mark first, Mark second) {
    return device_.ns_between(layer * kMarkCount + first, layer * kMarkCount + second);
  }
  void send_input(const GateUpCall& call);
  void run_hot(uint32_t layer, const GateUpCall& call, float* partial);
  uint64_t run_cold(uint32_t layer, const GateUpCall& call, float* partial);
  uint64_t gate_and_up_of_cold(uint32_t layer, const GateUpCall& cold);
  NeuronMask hot_candidates(uint32_t layer, const NeuronMask& candidates);
  NeuronMask cold_candidates(uint32_t layer, const NeuronMask& candidates);
  void add_cold_sum(float* partial);
  void sum_together(uint32_t layer, const GateUpCall& call, float* partial);
  WeightView down_rows_together(uint32_t layer, const NeuronMask& computed);
  void add_times();
  size_t row_count() const { return rows_.size(); }

  Backend& device_;
  Backend& host_;
  DeviceTier& tier_;
  StagedRows* staged_;
  NeuronPool pool_;
  size_t dim_;
  bool one_memory_;                                   // the device's is the host's
  std::span<const TokenRow> rows_;                    // the caller's
  std::shared_ptr<std::byte> cold_sum_on_device_;     // (row_max, model_dim) f32
  std::shared_ptr<std::byte> hot_candidates_;         // on the device: (row_max, words_per_layer)
  std::shared_ptr<std::byte> input_, cold_sum_;       // pinned: (row_max, model_dim) f32
  std::shared_ptr<std::byte> candidates_;             // pinned: (row_max, words_per_layer)
  std::vector<float> cold_hidden_, cold_magnitudes_;  // (row_max, neurons)
  std::vector<uint64_t> cold_words_;  // (row_max, words_per_step): cold active neurons
  std::vector<uint64_t> cold_candidates_, any_part_;  // (row_max, words_per_layer)
  std::vector<std::byte> down_rows_;                  // of both parts, where one memory has no
                                                      // view of both: (neurons, model_dim)
  std::vector<uint64_t> host_ns_;                     // of the pass, by layer
  SideBySideTimes times_;
};

}  // namespace thermocline
