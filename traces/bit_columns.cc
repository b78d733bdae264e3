#include "traces/bit_columns.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <numeric>

#include "models/error.h"
#include "models/parallel.h"
#include "traces/bit_transpose.h"
#include "traces/schema.h"

namespace thermocline {
namespace {

static_assert(std::endian::native == std::endian::little, "words are read as bytes");

constexpr uint64_t kChunkBytesMax = uint64_t{256} << 10;
constexpr uint64_t kColumnBytes = sizeof(uint64_t);
// Numbers that differ from one another compress by less, even in ascending order.
constexpr uint64_t kOrderCompressionMax = 16;

// Rows of a step lie as far apart as steps are long: 280 KiB at 70B, a multiple of 4 KiB, so that
// one word of 64 rows is 64 lines of one cache set. Squares go through a buffer, in which they are
// neighbours, and rows are touched once for so many words.
constexpr uint32_t kStripWords = 32;

void load_columns(const uint64_t* rows, uint64_t stride, uint32_t row_count, uint32_t word_count,
                  uint64_t* columns) {
  alignas(64) std::array<uint64_t, kBlockSteps * kStripWords> strip;
  for (uint32_t word = 0; word < word_count; word += kStripWords) {
    const uint32_t count = std::min(kStripWords, word_count - word);
    for (uint32_t row = 0; row < row_count; ++row) {
      std::copy_n(rows + row * stride + word, count, strip.data() + row * kStripWords);
    }
    columns_of_rows(strip.data(), kStripWords, row_count, count, columns + uint64_t{word} * 64);
  }
}

// What of a block's 64 rows is wanted, and where the first goes.
struct WantedRows {
  uint32_t begin, count;
  uint64_t* rows;
  uint64_t stride;
};

// One layer. `ordered`: (neuron_count) by place; `places`: of its neurons.
void store_rows(const uint64_t* ordered, std::span<const uint32_t> places,
                const WantedRows& wanted) {
  alignas(64) std::array<uint64_t, kBlockSteps * kStripWords> columns, strip;
  for (size_t begin = 0; begin < places.size(); begin += columns.size()) {
    const auto here = places.subspan(begin, std::min(columns.size(), places.size() - begin));
    const auto words = static_cast<uint32_t>((here.size() + 63) / 64);
    for (size_t i = 0; i < here.size(); ++i) columns[i] = ordered[here[i]];
    std::fill(columns.begin() + here.size(), columns.begin() + uint64_t{words} * 64, 0);
    rows_of_columns(columns.data(), words, wanted.begin, wanted.count, strip.data(), kStripWords);
    for (uint32_t row = 0; row < wanted.count; ++row) {
      std::copy_n(strip.data() + row * kStripWords, words,
                  wanted.rows + row * wanted.stride + begin / 64);
    }
  }
}

// Counting sort of places 0..64, most active first.
void order_layer(std::span<const uint64_t> columns, uint32_t* order) {
  std::array<uint32_t, kBlockSteps + 2> begin{};
  const auto rank = [](uint64_t column) {
    return kBlockSteps - static_cast<uint32_t>(std::popcount(column));
  };
  for (const uint64_t column : columns) ++begin[rank(column) + 1];
  std::partial_sum(begin.begin(), begin.end(), begin.begin());
  for (uint32_t neuron = 0; neuron < columns.size(); ++neuron) {
    order[begin[rank(columns[neuron])]++] = neuron;
  }
}

}  // namespace

NeuronOrder order_by_activity(const NeuronPool& pool, std::span<const uint64_t> rows,
                              uint32_t step_count) {
  const uint32_t words = pool.words_per_layer();
  std::vector<uint64_t> columns(uint64_t{words} * 64);
  NeuronOrder order(pool.total());
  for (uint32_t layer = 0; layer < pool.layer_count; ++layer) {
    if (step_count > 0) {
      columns_of_rows(rows.data() + uint64_t{layer} * words, pool.words_per_step(), step_count,
                      words, columns.data());
    }
    order_layer(std::span(columns).first(pool.neuron_count),
                order.data() + uint64_t{layer} * pool.neuron_count);
  }
  return order;
}

std::unique_ptr<Hdf5Dataset> create_order(Hdf5File& file, const NeuronPool& pool) {
  const uint64_t layers = pool.layer_count, neurons = pool.neuron_count;
  return file.create({dataset::kOrder, Element::u32, {layers, neurons}, {1, neurons}, true});
}

void write_order(Hdf5Dataset& dataset, const NeuronPool& pool, const NeuronOrder& order) {
  std::vector<uint32_t> of_model(order);
  for (uint32_t& neuron : of_model) neuron += pool.neuron_begin;
  const uint64_t neurons = pool.neuron_count;
  for (uint64_t layer = 0; layer < pool.layer_count; ++layer) {
    const auto of_layer = std::span(of_model).subspan(layer * neurons, neurons);
    dataset.write_chunk({layer, 0}, deflate_bytes(std::as_bytes(of_layer)));
  }
}

NeuronPlaces read_places(const Hdf5File& file, const NeuronPool& pool) {
  const auto dataset = file.open(dataset::kOrder);
  const Extent extent = {pool.layer_count, pool.neuron_count};
  const bool plain = dataset->element() == Element::u32 && dataset->extent() == extent;
  const uint64_t bytes = pool.total() * sizeof(uint32_t);
  if (!plain || bytes / kOrderCompressionMax > dataset->stored_bytes()) {
    throw bad_input(file.path(), "dataset neuron_order as the schema has it",
                    "another type, extent or size");
  }
  NeuronOrder order(pool.total());
  dataset->read<uint32_t>({0, 0}, extent, order);
  constexpr uint32_t kNowhere = UINT32_MAX;
  NeuronPlaces places(pool.total(), kNowhere);
  for (uint64_t place = 0; place < order.size(); ++place) {
    order[place] -= pool.neuron_begin;  // wraps if below
    const uint64_t layer = place / pool.neuron_count;
    const uint64_t at = layer * pool.neuron_count + order[place];
    if (order[place] >= pool.neuron_count || places[at] != kNowhere) {
      throw bad_input(
          file.path(),
          fmt::format("each neuron of layer {} at one place", pool.layer_begin + layer),
          fmt::format("neuron {} at place {}", uint64_t{pool.neuron_begin} + order[place],
                      place % pool.neuron_count));
    }
    places[at] = static_cast<uint32_t>(place % pool.neuron_count);
  }
  return places;
}

uint32_t layers_per_chunk(uint32_t layer_count, uint64_t row_bytes) {
  auto layers =
      static_cast<uint32_t>(std::clamp<uint64_t>(kChunkBytesMax / row_bytes, 1, layer_count));
  while (layer_count % layers != 0) --layers;
  return layers;
}

BitColumnsWriter::BitColumnsWriter(Hdf5File& file, const char* name, const NeuronPool& pool)
    : pool_(pool),
      chunk_layers_(layers_per_chunk(pool.layer_count, pool.neuron_count * kColumnBytes)),
      columns_(uint64_t{pool.words_per_layer()} * 64),
      chunk_(uint64_t{chunk_layers_} * pool.neuron_count) {
  dataset_ = file.create({name,
                          Element::u64,
                          {0, pool.layer_count, pool.neuron_count},
                          {1, chunk_layers_, pool.neuron_count},
                          true});
}

void BitColumnsWriter::write(std::span<const uint64_t> rows, uint32_t step_count,
                             const NeuronOrder& order) {
  TC_CHECK(step_count <= kBlockSteps && rows.size() == step_count * pool_.words_per_step(),
           "a block of the pool's steps");
  const uint64_t words = pool_.words_per_layer(), neurons = pool_.neuron_count;
  dataset_->extend(block_count_ + 1);
  for (uint32_t layer = 0; layer < pool_.layer_count; ++layer) {
    load_columns(rows.data() + layer * words, pool_.words_per_step(), step_count,
                 static_cast<uint32_t>(words), columns_.data());
    const uint32_t* place = order.data() + layer * neurons;
    uint64_t* ordered = chunk_.data() + layer % chunk_layers_ * neurons;
    for (uint64_t i = 0; i < neurons; ++i) ordered[i] = columns_[place[i]];
    if ((layer + 1) % chunk_layers_ != 0) continue;
    dataset_->write_chunk({block_count_, layer + 1 - chunk_layers_, 0}, deflater_.deflate(chunk_));
  }
  ++block_count_;
}

BitColumns::BitColumns(const Hdf5File& file, const char* name, const NeuronPool& pool,
                       uint64_t step_count, bool exact)
    : path_(file.path()), name_(name), pool_(pool), dataset_(file.open(name)) {
  const Extent& extent = dataset_->extent();
  const Extent& chunk = dataset_->chunk();
  const bool fits = dataset_->element() == Element::u64 && dataset_->deflated() &&
                    extent.size() == 3 && extent[1] == pool.layer_count &&
                    extent[2] == pool.neuron_count && chunk[0] == 1 && chunk[1] <= extent[1] &&
                    chunk[2] == extent[2];
  if (!fits) {
    throw bad_input(path_, fmt::format("dataset {} as the schema has it", name),
                    "another type, extent, chunk or filter");
  }
  const uint64_t blocks = blocks_of(step_count);
  if (extent[0] < blocks || (exact && extent[0] > blocks)) {
    throw bad_input(path_, fmt::format("{} blocks in dataset {}", blocks, name),
                    fmt::format("{}", extent[0]));
  }
  chunk_layers_ = static_cast<uint32_t>(chunk[1]);
}

// A chunk, and what of it is wanted.
struct BitColumns::Part {
  uint64_t block;
  uint32_t chunk_layer;             // the chunk's first
  uint32_t layer_begin, layer_end;  // wanted, in the pool
  uint32_t target_layer;            // layer_begin in the target
  uint32_t row_begin, row_count;    // of the block's 64 steps
  uint64_t target_step;             // row_begin in the target
};

void BitColumns::read_part(const Part& part, const NeuronPlaces& places,
                           const Target& target) const {
  const uint64_t neurons = pool_.neuron_count, words = pool_.words_per_layer();
  thread_local std::vector<std::byte> stored;
  thread_local std::vector<uint64_t> chunk;
  dataset_->read_chunk({part.block, part.chunk_layer, 0}, stored);
  chunk.resize(chunk_layers_ * neurons);
  if (!inflate(stored, std::as_writable_bytes(std::span(chunk)))) {
    throw bad_input(path_,
                    fmt::format("dataset {} at steps {} to {}, layers {} to {} as it was written",
                                name_, part.block * kBlockSteps, (part.block + 1) * kBlockSteps - 1,
                                pool_.layer_begin + part.chunk_layer,
                                pool_.layer_begin + part.chunk_layer + chunk_layers_ - 1),
                    "a damaged chunk");
  }
  for (uint32_t layer = part.layer_begin; layer < part.layer_end; ++layer) {
    uint64_t* rows = target.data + part.target_step * target.step_stride +
                     (part.target_layer + layer - part.layer_begin) * words;
    store_rows(chunk.data() + (layer - part.chunk_layer) * neurons,
               std::span(places).subspan(layer * neurons, neurons),
               {part.row_begin, part.row_count, rows, target.step_stride});
  }
}

void BitColumns::read(uint64_t begin, uint64_t count, uint32_t layer_begin, uint32_t layer_count,
                      const NeuronPlaces& places, const Target& target,
                      uint32_t thread_count) const {
  if (count == 0 || layer_count == 0) return;
  std::vector<Part> parts;
  const uint64_t end = begin + count;
  const uint32_t layer_end = layer_begin + layer_count;
  for (uint64_t block = begin / kBlockSteps; block < blocks_of(end); ++block) {
    const uint64_t first = std::max(begin, block * kBlockSteps);
    const uint64_t last = std::min(end, (block + 1) * kBlockSteps);
    for (uint32_t chunk = layer_begin / chunk_layers_ * chunk_layers_; chunk < layer_end;
         chunk += chunk_layers_) {
      const uint32_t from = std::max(layer_begin, chunk);
      parts.push_back({block, chunk, from, std::min(layer_end, chunk + chunk_layers_),
                       from - layer_begin, static_cast<uint32_t>(first % kBlockSteps),
                       static_cast<uint32_t>(last - first), first - begin});
    }
  }
  for_each_parallel(parts.size(), thread_count,
                    [&](size_t i) { read_part(parts[i], places, target); });
}

}  // namespace thermocline
