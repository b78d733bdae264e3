// BitColumns: the bits of one shard as they are stored, turned around, ordered and compressed.
//
// A dataset is u64 (block, layer, place): bit t of a word is step 64 block + t of one neuron. Which
//   neuron stands at which place is the shard's NeuronOrder: those that fired most in its first 64
//   steps come first, so that neighbours behave alike and compress well. A chunk is one block of as
//   many layers as fit 256 KiB.
// Goals: 64 steps of a 70B layer decoded in a quarter of a millisecond; nothing that comes from a
//   file is trusted: an order that is none, a chunk that is not whole, are Errors.
// Non-goals: what the bits mean, and their popcounts (traces/shard.h).
// Thread-safety: a writer belongs to one thread; const methods may be called from several.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "models/neuron.h"
#include "traces/deflate.h"
#include "traces/hdf5.h"
#include "traces/trace.h"

namespace thermocline {

// Blocks that hold so many steps; the last may be partly filled.
constexpr uint64_t blocks_of(uint64_t steps) { return (steps + kBlockSteps - 1) / kBlockSteps; }

// The neuron (from 0 within the pool) at each place: (layer_count, neuron_count).
using NeuronOrder = std::vector<uint32_t>;
// Its inverse, the place of each neuron.
using NeuronPlaces = std::vector<uint32_t>;

// By activity in up to 64 steps; of equals the lower index first.
// rows: (step_count, layer_count, words_per_layer).
NeuronOrder order_by_activity(const NeuronPool& pool, std::span<const uint64_t> rows,
                              uint32_t step_count);
// In a file, neurons count from the model's first.
std::unique_ptr<Hdf5Dataset> create_order(Hdf5File& file, const NeuronPool& pool);
void write_order(Hdf5Dataset& dataset, const NeuronPool& pool, const NeuronOrder& order);
// Errors: another type or extent, a neuron that is missing or stands at two places.
NeuronPlaces read_places(const Hdf5File& file, const NeuronPool& pool);

// Layers that share a chunk of `row_bytes` a layer: the largest divisor of layer_count that keeps
// it at 256 KiB or less.
uint32_t layers_per_chunk(uint32_t layer_count, uint64_t row_bytes);

class BitColumnsWriter {
 public:
  BitColumnsWriter(Hdf5File& file, const char* name, const NeuronPool& pool);

  // Appends a block. rows: (step_count, layer_count, words_per_layer), step_count up to 64.
  void write(std::span<const uint64_t> rows, uint32_t step_count, const NeuronOrder& order);

 private:
  NeuronPool pool_;
  std::unique_ptr<Hdf5Dataset> dataset_;
  uint64_t block_count_ = 0;
  uint32_t chunk_layers_;
  std::vector<uint64_t> columns_;  // (64 words_per_layer) of one layer, in neuron order
  std::vector<uint64_t> chunk_;    // (chunk_layers, neuron_count), by place
  WordDeflater deflater_;
};

class BitColumns {
 public:
  // Errors: another type or layout, fewer blocks than `step_count` steps take. `exact`: nor more.
  BitColumns(const Hdf5File& file, const char* name, const NeuronPool& pool, uint64_t step_count,
             bool exact);

  // Where read() puts rows: row (step, layer) begins at data + step * step_stride +
  // layer * words_per_layer, step and layer from the first that is read.
  struct Target {
    uint64_t* data;
    uint64_t step_stride;
  };
  // Steps [begin, +count) of layers [layer_begin, +layer_count) of the pool, from 0.
  // Errors: a chunk that is missing or damaged.
  void read(uint64_t begin, uint64_t count, uint32_t layer_begin, uint32_t layer_count,
            const NeuronPlaces& places, const Target& target, uint32_t thread_count) const;

  uint64_t stored_bytes() const { return dataset_->stored_bytes(); }

 private:
  struct Part;
  void read_part(const Part& part, const NeuronPlaces& places, const Target& target) const;

  std::string path_, name_;
  NeuronPool pool_;
  std::unique_ptr<Hdf5Dataset> dataset_;
  uint32_t chunk_layers_ = 0;
};

}  // namespace thermocline
