#include "models/transpose.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "models/quantize.h"

namespace thermocline {
namespace {

// Neurons of one pass: a cache line of a quantised row of ffn_down, and a tile of (128, 8192) f32
// in 4 MiB.
constexpr uint64_t kTileNeurons = 128;

// Rows of a tile lie this many elements further apart than they are long. Rows of a power of two
// bytes would share the sets of a cache, and each column written would drive out the last.
constexpr uint64_t kTilePadding = 16;

// `decode` turns the bytes of `count` neurons of one output into elements, `encode` the elements of
// one neuron into the bytes of its row.
template <class Element, class Decode, class Encode>
void transpose_tiles(const TensorView& stored, const MatrixSlice& slice, std::byte* out,
                     uint64_t out_stride, Decode decode, Encode encode) {
  const uint64_t block = facts(stored.dtype).items_per_block;
  const uint64_t tile_neurons = std::max(kTileNeurons, block);
  const uint64_t width = slice.col_end - slice.col_begin;
  std::vector<Element> tile(tile_neurons * (width + kTilePadding));
  std::vector<Element> column(tile_neurons);
  const auto row = [&](uint64_t neuron) { return tile.data() + neuron * (width + kTilePadding); };
  for (uint64_t begin = slice.row_begin / block * block; begin < slice.row_end;
       begin += tile_neurons) {
    const uint64_t count = std::min(tile_neurons, stored.cols - begin);
    const uint64_t skipped = bytes_of(stored.dtype, begin);
    for (uint64_t col = 0; col < width; ++col) {
      decode(stored.row(slice.col_begin + col) + skipped, count, column.data());
      for (uint64_t neuron = 0; neuron < count; ++neuron) row(neuron)[col] = column[neuron];
    }
    const uint64_t first = std::max(begin, slice.row_begin);
    const uint64_t last = std::min(begin + count, slice.row_end);
    for (uint64_t neuron = first; neuron < last; ++neuron, out += out_stride) {
      encode(neuron, row(neuron - begin), out);
    }
  }
}

template <class Element>
void transpose_bits(const TensorView& stored, const MatrixSlice& slice, std::byte* out,
                    uint64_t out_stride) {
  const uint64_t width = slice.col_end - slice.col_begin;
  const auto decode = [](const std::byte* from, uint64_t count, Element* to) {
    std::memcpy(to, from, count * sizeof(Element));
  };
  const auto encode = [width](uint64_t, const Element* from, std::byte* to) {
    std::memcpy(to, from, width * sizeof(Element));
  };
  transpose_tiles<Element>(stored, slice, out, out_stride, decode, encode);
}

void transpose_values(const TensorView& stored, const MatrixSlice& slice, DType delivered,
                      std::byte* out, uint64_t out_stride, const CheckNeuron& check) {
  const uint64_t width = slice.col_end - slice.col_begin;
  const auto decode = [&stored](const std::byte* from, uint64_t count, float* to) {
    dequantize(stored.dtype, from, count, to);
  };
  const auto encode = [&](uint64_t neuron, const float* from, std::byte* to) {
    if (check) check(neuron, {from, width});
    quantize(delivered, from, width, to);
  };
  transpose_tiles<float>(stored, slice, out, out_stride, decode, encode);
}

}  // namespace

void transpose(const TensorView& stored, const MatrixSlice& slice, DType delivered, std::byte* out,
               uint64_t out_stride, const CheckNeuron& check) {
  const DTypeFacts& type = facts(stored.dtype);
  if (out_stride == 0) out_stride = bytes_of(delivered, slice.col_end - slice.col_begin);
  const bool same_bits = delivered == stored.dtype && type.items_per_block == 1 && !check;
  if (!same_bits) return transpose_values(stored, slice, delivered, out, out_stride, check);
  if (type.bytes_per_block == sizeof(uint32_t)) {
    return transpose_bits<uint32_t>(stored, slice, out, out_stride);
  }
  return transpose_bits<uint16_t>(stored, slice, out, out_stride);
}

}  // namespace thermocline
