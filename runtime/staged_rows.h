// StagedRows: what is computed with the up and down rows of a layer that lie in a BundleStore.
//
// What is in memory is computed while the rest is read. hidden *= up x gives each neuron's value
//   the same bits, whichever half it is in.
// Goals: reads are under way before anything is computed. Non-goals: which neurons (decoder.h,
//   side_by_side.h), how they are read (tiers/bundle_store.h).
// Thread-safety: one rank, one thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/backend.h"
#include "runtime/tiers/bundle_store.h"

namespace thermocline {

// Neurons of a layer that have a bit in any of `row_count` rows: (words_per_layer).
std::vector<uint64_t> in_any_row(const NeuronPool& pool, const NeuronMask& mask, size_t row_count);

class StagedRows {
 public:
  // The backend computes in host memory; it and the store outlive the object.
  StagedRows(Backend& backend, BundleStore& store, const NeuronPool& pool)
      : backend_(backend), store_(store), pool_(pool) {}

  // Starts reads of what the layer will probably need: of a neuron of any of `row_count` rows that
  // is in `within`, (words_per_layer); empty: in any case.
  void read_ahead(uint32_t layer, const NeuronMask& likely, size_t row_count,
                  std::span<const uint64_t> within = {});
  // hidden[t][n] *= up[n] . x[t] for the neurons of `computed`, whose down rows are in memory, too,
  // until release(). up: the store's view. Returns the ns that it waited.
  uint64_t scale(uint32_t layer, const WeightView& up, const NeuronMask& computed, size_t row_count,
                 const float* x, float* hidden);
  void release() { store_.release(); }

 private:
  NeuronMask within(const NeuronMask& mask, size_t row_count, std::span<const uint64_t> words);

  Backend& backend_;
  BundleStore& store_;
  NeuronPool pool_;
  std::vector<uint64_t> part_;  // (row_count, words_per_layer)
};

}  // namespace thermocline
