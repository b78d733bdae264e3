// The dot products of rows with tokens, by a thread block: the core of multiply and gate_and_up.
//
// A block stages T tokens of x in shared memory, tile by tile, in the order in which lanes take its
//   float4s; each warp takes R rows, whose weights are decoded once for T tokens. Lane l takes
//   units l, l + 32, ... of a row in ascending order and the lanes are added by warp_sum: a sum's
//   order follows from the type and the columns alone.
// Goals: many bytes in flight: the next unit of every row is asked for before this one is used.
// Thread-safety: device code of one thread block.
#pragma once

#include "runtime/kernels/cuda_launch.h"

namespace TC_CUDA_NAMESPACE {

// Columns of x in shared memory: 32 KiB for one token or four, 64 KiB for eight.
template <int T>
inline constexpr int kTileColumns = T == 1 ? 8192 : 2048;
template <DType D, int T>
inline constexpr int kTileUnits = kTileColumns<T> / kUnitColumns<D>;
// One more than a tile's units, so that the quads of a unit lie in different banks.
template <DType D, int T>
inline constexpr int kTileStride = kTileUnits<D, T> + 1;
template <DType D, int T>
inline constexpr uint64_t kTileBytes = uint64_t{16} * T* kQuads<D>* kTileStride<D, T>;

// Blocks of one token have two or three fellows on a multiprocessor, those of several tokens have
// its registers.
template <int T>
inline constexpr int kBlocksPerMultiprocessor = T == 1 ? 2 : 1;

struct Tokens {
  const float* x;  // (count, cols)
  int cols;
  int count;  // at most T
};

__device__ inline float4 four_columns(const float* x, int c, int cols) {
  if (cols % kQuad == 0) return *reinterpret_cast<const float4*>(x + c);
  return {x[c], c + 1 < cols ? x[c + 1] : 0, c + 2 < cols ? x[c + 2] : 0,
          c + 3 < cols ? x[c + 3] : 0};
}

// Puts the columns of units [unit_begin, unit_begin + kTileUnits) into block_memory; what lies
// beyond the last column or the last token is zero.
template <DType D, int T>
__device__ void stage(const Tokens& tokens, int unit_begin) {
  const int begin = unit_begin * kUnitColumns<D>;
  const int rest = unit_count<D>(tokens.cols) * kUnitColumns<D> - begin;
  const int quads = (rest < kTileColumns<T> ? rest : kTileColumns<T>) / kQuad;
#pragma unroll
  for (int t = 0; t < T; ++t) {
    const float* x = tokens.x + static_cast<size_t>(t) * tokens.cols;
    for (int i = threadIdx.x; i < quads; i += kThreads) {
      const int at = kQuad * i, c = begin + at;
      float4 value = {0, 0, 0, 0};
      if (t < tokens.count && c < tokens.cols) value = four_columns(x, c, tokens.cols);
      block_memory[(t * kQuads<D> + quad_of<D>(at)) * kTileStride<D, T> + unit_of<D>(at)] = value;
    }
  }
}

// Adds the products of unit `u` of R rows; x: its first quad in block_memory.
template <DType D, int R, int T>
__device__ inline void add_products(const Unit<D> (&units)[R], int u, const float4* x,
                                    float (&sums)[R][T]) {
  Scales<D> scales[R];
#pragma unroll
  for (int r = 0; r < R; ++r) scales[r] = scales_of<D>(units[r], u);
#pragma unroll
  for (int quad = 0; quad < kQuads<D>; ++quad) {
    float w[R][kQuad];
#pragma unroll
    for (int r = 0; r < R; ++r) decode_quad<D>(units[r], scales[r], u, quad, w[r]);
#pragma unroll
    for (int t = 0; t < T; ++t) {
      const float4 v = x[(t * kQuads<D> + quad) * kTileStride<D, T>];
#pragma unroll
      for (int r = 0; r < R; ++r) {
        sums[r][t] = fmaf(w[r][0], v.x, sums[r][t]);
        sums[r][t] = fmaf(w[r][1], v.y, sums[r][t]);
        sums[r][t] = fmaf(w[r][2], v.z, sums[r][t]);
        sums[r][t] = fmaf(w[r][3], v.w, sums[r][t]);
      }
    }
  }
}

// This lane's share of the sums. All warps of the block call it: it has barriers. `staged`: the
// whole of x lies in block_memory already. An idle warp only helps with staging.
template <DType D, int R, int T, bool kAligned>
__device__ inline void row_sums(const std::byte* const (&rows)[R], const Tokens& tokens,
                                bool staged, bool idle, float (&sums)[R][T]) {
  const int units = unit_count<D>(tokens.cols);
  int u = static_cast<int>(threadIdx.x) % kWarp;
  Unit<D> now[R];
#pragma unroll
  for (int r = 0; r < R; ++r)
    now[r] = load_unit<D, kAligned>(rows[r], tokens.cols, u < units ? u : units - 1);
  for (int begin = 0; begin < units; begin += kTileUnits<D, T>) {
    if (!staged) {
      __syncthreads();
      stage<D, T>(tokens, begin);
      __syncthreads();
    }
    const int tile_end = begin + kTileUnits<D, T> < units ? begin + kTileUnits<D, T> : units;
    for (; u < tile_end && !idle; u += kWarp) {
      Unit<D> next[R];
#pragma unroll
      for (int r = 0; r < R; ++r)
        next[r] =
            load_unit<D, kAligned>(rows[r], tokens.cols, u + kWarp < units ? u + kWarp : units - 1);
      add_products<D, R, T>(now, u, block_memory + (u - begin), sums);
#pragma unroll
      for (int r = 0; r < R; ++r) now[r] = next[r];
    }
  }
}

// store(i, t, sum) for the R rows of this warp among [begin, count): row i lies at row_at(i).
template <DType D, int R, int T, bool kAligned, class RowAt, class Store>
__device__ inline void warp_rows(const Tokens& tokens, bool staged, int begin, int count,
                                 RowAt row_at, Store store) {
  const int first = begin + static_cast<int>(threadIdx.x) / kWarp * R;
  const std::byte* rows[R];
  float sums[R][T];
#pragma unroll
  for (int r = 0; r < R; ++r) {
    rows[r] = row_at(first + r < count ? first + r : count - 1);
#pragma unroll
    for (int t = 0; t < T; ++t) sums[r][t] = 0;
  }
  row_sums<D, R, T, kAligned>(rows, tokens, staged, first >= count, sums);
#pragma unroll
  for (int r = 0; r < R; ++r) {
#pragma unroll
    for (int t = 0; t < T; ++t) {
      const float sum = warp_sum(sums[r][t]);
      if (threadIdx.x % kWarp == 0 && first + r < count && t < tokens.count)
        store(first + r, t, sum);
    }
  }
}

// A Q6_K unit has 64 columns: two rows of it have as many bytes in flight as four of other types,
// and four would not fit into registers.
template <DType D>
inline constexpr int kRowsPerWarpMax = D == DType::q6_k ? 2 : 4;

// `count` rows by the warps of this block, `per_warp` of them each where that many fit.
template <DType D, int T, bool kAligned, class RowAt, class Store>
__device__ inline void block_rows(const Tokens& tokens, bool staged, int count, int per_warp,
                                  RowAt row_at, Store store) {
  if (per_warp > 2 && kRowsPerWarpMax < D >> 2) {
    warp_rows<D, kRowsPerWarpMax<D>, T, kAligned>(tokens, staged, 0, count, row_at, store);
  } else if (T == 1 && per_warp == 1) {
    warp_rows<D, 1, T, kAligned>(tokens, staged, 0, count, row_at, store);
  } else {
    const bool one_tile = unit_count<D>(tokens.cols) <= kTileUnits<D, T>;
    for (int begin = 0; begin < count; begin += 2 * kWarps)
      warp_rows<D, 2, T, kAligned>(tokens, staged || (begin > 0 && one_tile), begin, count, row_at,
                                   store);
  }
}

// Calls with_tokens.operator()<T, kAligned>() for how many tokens a block takes at once.
template <class WithTokens>
CudaError for_token_count(int token_count, bool aligned, WithTokens with_tokens) {
  if (!aligned) return with_tokens.template operator()<4, false>();
  if (token_count == 1) return with_tokens.template operator()<1, true>();
  if (token_count <= 4) return with_tokens.template operator()<4, true>();
  return with_tokens.template operator()<8, true>();
}

}  // namespace TC_CUDA_NAMESPACE
