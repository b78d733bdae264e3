// Weighted sums of quantised rows.
//
// Of each row a sum takes code (less the code of zero) times the product of a and the scale, in
//   f32. Minimums, times a, have sums of their own, one a block, which are added at the end.
// A group of 128 columns is 8 positions of 16 lanes (cpu_layout.h): position p has byte p / 2 of
//   each lane, of the firsts where p is even, of the seconds where it is odd. Sums are kept in that
//   order meanwhile. Bytes are taken from where they are in the lane's 32 bits, so that some come
//   out times a power of two, by which the factor is divided.
// V::value<D, p>(codes) are the values of a position, V::half_bytes or V::codes<D> the codes.
// Internal linkage: see cpu_rows.h. Thread-safety: pure functions of their arguments.
#pragma once

#include "runtime/kernels/cpu_columns.h"

namespace thermocline {
namespace {

constexpr int kPositions = 8;
constexpr int kSumStripe = 1 << 15;  // columns whose minimums' sums are kept together

// By which power of two V::value is too large.
constexpr int position_shift(DType dtype, int p) {
  return code_bits(dtype) == 4 ? 0 : 8 * (p / 2 % 2);
}

// The column of a group that lane l of position p has.
constexpr int column_of(int p, int lane) {
  return kBlock * (lane / 4) + 16 * (p % 2) + 4 * (lane % 4) + p / 2;
}

template <class V, DType D>
struct FixedSum {
  static constexpr int kTileRows = 4;
  static constexpr bool kHalfBytes = code_bits(D) == 4;
  using Codes = std::conditional_t<kHalfBytes, typename V::HalfBytes, typename V::Bytes>;
  static constexpr int kN = V::kSumPositions;  // positions whose sums are in registers together

  [[gnu::always_inline]] static Codes codes_of(const std::byte* row, const RowPlanes& planes,
                                               int cols, int group) {
    if constexpr (kHalfBytes) {
      const auto half_bytes =
          [](const std::byte* codes, const std::byte*) __attribute__((always_inline)) {
        return V::half_bytes(codes);
      };
      return decode_group<D>(row, planes, cols, group, half_bytes);
    } else {
      return codes_of_group<V, D>(row, planes, cols, group);
    }
  }

  // What the values of a group are multiplied by: those of the right size, and too large ones.
  struct Factors {
    V of[scale_sets(D)][2];

    // factors: of the chunk, a times its scales; half: the group's.
    [[gnu::always_inline]] Factors(const float* factors, int half) {
      for (int set = 0; set < scale_sets(D); ++set) {
        of[set][0] = V::spread(factors + kChunkBlocks * set, half);
        of[set][1] = V::mul(of[set][0], V::broadcast(1.0f / 256));
      }
    }
    template <int p>
    [[gnu::always_inline]] V add(V value, V sum) const {
      return V::fma(value, of[p % 2 % scale_sets(D)][position_shift(D, p) != 0], sum);
    }
  };

  static constexpr int kFactors = kChunkBlocks * scale_sets(D);  // of a chunk

  // Factors from a chunk's scales; adds its minimums to their sums.
  [[gnu::always_inline]] static void multiply(const float* scales, float a, float* factors,
                                              float* minimums) {
    for (int i = 0; i < kFactors; i += 8)
      V::store(factors + i, V::mul(V::load_eight(scales + i), V::eight(a)));
    if constexpr (has_minimum(D))
      V::store(minimums,
               V::fma(V::load_eight(scales + kFactors), V::eight(a), V::load_eight(minimums)));
  }

  // Calls visit.operator()<p>() for positions [kFirst, kFirst + kN).
  template <int kFirst, class Visit>
  [[gnu::always_inline]] static void for_positions(const Visit& visit) {
    [&]<int... p>(std::integer_sequence<int, p...>) __attribute__((always_inline)) {
      (visit.template operator()<kFirst + p>(), ...);
    }
    (std::make_integer_sequence<int, kN>{});
  }
  // Calls visit.operator()<kFirst>() for every part of the positions.
  template <class Visit>
  [[gnu::always_inline]] static void for_parts(const Visit& visit) {
    [&]<int... part>(std::integer_sequence<int, part...>) __attribute__((always_inline)) {
      (visit.template operator()<kN * part>(), ...);
    }
    (std::make_integer_sequence<int, kPositions / kN>{});
  }

  // sums (kPositions, kLanes) += rows of codes times their factors.
  template <int R>
  [[gnu::always_inline]] static void add_group(const Codes (&codes)[R],
                                               const float (&factors)[R][kFactors], int half,
                                               float* sums) {
    for_parts([&]<int kFirst>() __attribute__((always_inline)) {
      V sum[kN];
#pragma GCC unroll 8
      for (int i = 0; i < kN; ++i) sum[i] = V::load(sums + (kFirst + i) * kLanes);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
        const Factors of_row(factors[r], half);
        for_positions<kFirst>([&]<int p>() __attribute__((always_inline)) {
          sum[p - kFirst] =
              of_row.template add<p>(V::template value<D, p>(codes[r]), sum[p - kFirst]);
        });
      }
#pragma GCC unroll 8
      for (int i = 0; i < kN; ++i) V::store(sums + (kFirst + i) * kLanes, sum[i]);
    });
  }

  // The sums of a token, in the order of positions while rows are added: whole groups where y is,
  // a part here; and those of the minimums.
  struct Sums {
    float* y;
    int begin, end;  // columns
    alignas(64) float part[kGroup];
    alignas(64) float minimums[has_minimum(D) ? kSumStripe / kBlock : kChunkBlocks];

    void begin_at(float* of_token, int first, int last) {
      y = of_token;
      begin = first;
      end = last;
      std::memset(minimums, 0, sizeof minimums);
      for_groups([&](int c, int width) { to_positions(y + c, width, at(c)); });
    }
    void finish() {
      for_groups([&](int c, int width) {
        from_positions(at(c), minimums_of(c / kChunk) + c % kChunk / kBlock, width, y + c);
      });
    }
    // Of the group that begins with column c.
    float* at(int c) { return end - c >= kGroup ? y + c : part; }
    float* minimums_of(int chunk) {
      return minimums + (has_minimum(D) ? chunk % (kSumStripe / kChunk) * kChunkBlocks : 0);
    }

   private:
    template <class Visit>
    void for_groups(const Visit& visit) {
      for (int c = begin; c < end; c += kGroup) visit(c, end - c < kGroup ? end - c : kGroup);
    }
  };

  // sums += a[r] * rows[r], r ascending, for R rows of `cols` columns.
  template <int R>
  static void add_tile(const std::byte* const* rows, const std::byte* const* ahead, const float* a,
                       int cols, Sums& sums) {
    const RowPlanes planes = planes_of(D, cols);
    for (int c = sums.begin; c < sums.end; c += kChunk) {
      const int chunk = c / kChunk, blocks = blocks_of_chunk(sums.end, c);
      alignas(64) float factors[R][kFactors];
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
        prefetch_chunk<D>(ahead[r], planes, chunk);
        alignas(64) float scales[scale_count(D)];
        read_scales<V, D>(rows[r], planes, chunk, blocks, scales);
        multiply(scales, a[r], factors[r], sums.minimums_of(chunk));
      }
      keep_in_memory(factors);
      for_each_group<V>(
          blocks, [&](int half) __attribute__((always_inline)) {
            const int group = 2 * chunk + half;
            Codes codes[R];
#pragma GCC unroll 4
            for (int r = 0; r < R; ++r) codes[r] = codes_of(rows[r], planes, cols, group);
            add_group<R>(codes, factors, half, sums.at(c + half * kGroup));
          });
    }
  }

  // `width` <= kGroup columns between the order of columns and that of positions. Columns that are
  // not there are zeros.
  static void to_positions(const float* columns, int width, float* positions) {
    float padded[kGroup] = {};
    std::memcpy(padded, columns, width * sizeof(float));
    for (int p = 0; p < kPositions; ++p)
      for (int l = 0; l < kLanes; ++l) positions[p * kLanes + l] = padded[column_of(p, l)];
  }
  // Back, with the minimums of each block.
  static void from_positions(const float* positions, const float* minimums, int width,
                             float* columns) {
    float padded[kGroup];
    for (int p = 0; p < kPositions; ++p)
      for (int l = 0; l < kLanes; ++l) padded[column_of(p, l)] = positions[p * kLanes + l];
    for (int c = 0; has_minimum(D) && c < kGroup; ++c) padded[c] += minimums[c / kBlock];
    std::memcpy(columns, padded, width * sizeof(float));
  }
};

}  // namespace
}  // namespace thermocline
