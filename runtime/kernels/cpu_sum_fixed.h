// Weighted sums of quantised rows.
//
// A token's rows are added as integers, 16 at a time in its own order. The products of a and the
//   rows' scales, the factors, are in fixed point: of a block of 32 columns the 16 rows' share a
//   unit, the largest's size over kFixedMax. Codes and factors of two rows make one instruction's
//   pairs of products. The 16 rows' sums, less the code of zero times the factors, times the unit,
//   are added to y by one fused multiply-add. Minimums, times a, have sums of their own, one a
//   block, which are added at the end.
// A group of 128 columns is 8 positions of 16 lanes (cpu_layout.h): position p has byte
//   8 * (p / 4) + 2 * (l % 4) + p / 2 % 2 of the block of lane l, of its firsts where p is even, of
//   its seconds where it is odd. Sums are kept in that order meanwhile.
// V::words<p>(a, b, mask) are the codes of a position in two rows, V::dot_words adds their
// products. Internal linkage: see cpu_rows.h. Thread-safety: pure functions of their arguments.
#pragma once

#include "runtime/kernels/cpu_columns.h"
#include "runtime/kernels/cpu_fixed.h"

namespace thermocline {
namespace {

constexpr int kPositions = 8;
constexpr int kSegment = kScalesColumns;  // columns whose factors are made together
constexpr int kSumStripe = 1 << 15;       // columns whose minimums' sums are kept together

// By which power of two V::words of position p are too large: half bytes are taken where they are,
// but for those at the upper end of a word, where they would be signed.
constexpr int word_shift(DType dtype, int p) {
  return code_bits(dtype) == 4 && p % 4 != 3 ? 4 * (p % 4) : 0;
}

template <class V, DType D>
struct FixedSum {
  static constexpr int kRows = 16;  // 32 at most, or sums of 16 bits times 12 (word_shift) overflow
  using Block = RowBlockOf<kRows>;
  static constexpr bool kHalfBytes = code_bits(D) == 4;
  using Codes = std::conditional_t<kHalfBytes, typename V::HalfBytes, typename V::Bytes>;
  static constexpr int kN = V::kSumPositions;  // positions whose sums are in registers together
  static constexpr int kSets = scale_sets(D), kChunkFactors = kChunkBlocks * kSets;
  static constexpr int kFactors = kSegment / kChunk * kChunkFactors;

  // Of a block of rows and the blocks of a segment, chunk after chunk.
  struct Factors {
    alignas(64) float products[kRows][kFactors];     // a times scale
    alignas(64) int32_t pairs[kRows / 2][kFactors];  // two rows' factors, 16 bits each
    alignas(64) float unit[kFactors];
    alignas(64) int32_t zeros[kFactors];  // minus the code of zero times the factors' sum

    // Row r's products with a chunk's scales; adds its minimums to their sums.
    [[gnu::always_inline]] void multiply(const float* scales, int r, int chunk, float a,
                                         float* minimums) {
      float* to = products[r] + chunk * kChunkFactors;
      for (int i = 0; i < kChunkFactors; i += 8)
        V::store(to + i, V::mul(V::load_eight(scales + i), V::eight(a)));
      if constexpr (has_minimum(D))
        V::store(minimums, V::fma(V::load_eight(scales + kChunkFactors), V::eight(a),
                                  V::load_eight(minimums)));
    }
    // The same with all of a segment's, which are f16.
    [[gnu::always_inline]] void multiply_halves(const std::byte* scales, int r, float a) {
      static_assert(kFactors == 2 * kLanes || is_super_block(D));
      V first, second;
      V::template values<DType::f16>(scales, first, second);
      V::store(products[r], V::mul(first, V::broadcast(a)));
      V::store(products[r] + kLanes, V::mul(second, V::broadcast(a)));
    }

    // The products of `count` rows in fixed point.
    void fix(int count) {
      if (count % 2 != 0) std::memset(products[count], 0, sizeof products[count]);
      for (int i = 0; i < kFactors; i += kLanes) {
        alignas(64) uint32_t sums[kLanes];
        fix_lanes(i, count, find_units(i, count), sums);
        const uint32_t rounders = static_cast<uint32_t>((count + 1) / 2 * 2) * bits_of(kRounder);
        for (int l = 0; l < kLanes; ++l)
          zeros[i + l] = static_cast<int32_t>(-zero_code(D) * (sums[l] - rounders));
      }
    }
    // Units of lanes [i, i + kLanes); returns what their products are multiplied by.
    [[gnu::always_inline]] V find_units(int i, int count) {
      typename V::Ints largest = V::no_ints();
      for (int r = 0; r < count; ++r) largest = V::max_size(largest, V::load(products[r] + i));
      alignas(64) uint32_t sizes[kLanes];
      alignas(64) float factor[kLanes];
      V::store(sizes, largest);
      for (int l = 0; l < kLanes; ++l) {
        factor[l] = fixed_factor(sizes[l]);
        unit[i + l] = fixed_unit(sizes[l]);
      }
      return V::load(factor);
    }
    // Pairs of these lanes, and the sums of the factors and the rounders that are in them still.
    [[gnu::always_inline]] void fix_lanes(int i, int count, V factor, uint32_t (&sums)[kLanes]) {
      const V rounder = V::broadcast(kRounder);
      const auto fixed = [&](int r) __attribute__((always_inline)) {
        return V::bits(V::add(V::mul(V::load(products[r] + i), factor), rounder));
      };
      typename V::Ints sum = V::no_ints();
      for (int r = 0; r < count; r += 2) {
        const auto first = fixed(r), second = fixed(r + 1);
        V::store(reinterpret_cast<uint32_t*>(pairs[r / 2] + i), V::pair(first, second));
        sum = V::add(sum, V::add(first, second));
      }
      V::store(sums, sum);
    }
  };

  template <bool kWhole>
  [[gnu::always_inline]] static Codes codes_of(const std::byte* row, const RowPlanes& planes,
                                               int cols, int group) {
    if constexpr (kHalfBytes) {
      const auto half_bytes =
          [](const std::byte* codes, const std::byte*) __attribute__((always_inline)) {
        return V::half_bytes(codes);
      };
      return decode_group<D, kWhole>(row, planes, cols, group, half_bytes);
    } else {
      return codes_of_group<V, D, kWhole>(row, planes, cols, group);
    }
  }

  // Calls visit.operator()<p>() for positions [kFirst, kFirst + kN).
  template <int kFirst, class Visit>
  [[gnu::always_inline]] static void for_positions(const Visit& visit) {
    [&]<int... p>(std::integer_sequence<int, p...>) __attribute__((always_inline)) {
      (visit.template operator()<kFirst + p>(), ...);
    }
    (std::make_integer_sequence<int, kN>{});
  }

  // What is the same for all pairs of rows in a group whose first factor is at `at`: of positions
  // that lie alike in their words.
  static constexpr int kAlike = kHalfBytes ? 4 : 2;
  struct Group {
    typename V::Words masks[kAlike];  // of V::words
    typename V::Ints zeros[kAlike];
    V units[kAlike];

    [[gnu::always_inline]] Group(const Factors& factors, int at) {
      int32_t patterns[kAlike];
      for (int i = 0; i < kAlike; ++i)
        patterns[i] = (kHalfBytes ? 0x000f000f : 0x00ff00ff) << word_shift(D, i);
      keep_in_memory(patterns);  // or they are made anew for each pair
      [&]<int... i>(std::integer_sequence<int, i...>) __attribute__((always_inline)) {
        (make<i>(factors, at + i % kSets * kChunkBlocks, patterns[i]), ...);
      }
      (std::make_integer_sequence<int, kAlike>{});
    }
    template <int i>
    [[gnu::always_inline]] void make(const Factors& factors, int of_set, int32_t pattern) {
      constexpr int kShift = word_shift(D, i);
      masks[i] = V::all_words(pattern);
      zeros[i] = V::template shifted<kShift>(V::spread_ints(factors.zeros + of_set));
      units[i] = V::mul(V::spread_four(factors.unit + of_set), V::broadcast(1.0f / (1 << kShift)));
    }
  };

  // Positions [kFirst, kFirst + kN) of a group, whose first factor is at `at`, to `sums`
  // (kPositions, kLanes).
  template <int kFirst, bool kWhole>
  [[gnu::always_inline]] static void add_positions(const Block& block, const RowPlanes& planes,
                                                   int cols, int group, const Factors& factors,
                                                   int at, int count, float* sums) {
    const Group of_group(factors, at);
    const Asked<sum_requests<V, D>()> asked(block.rows, block.ahead, group, cols / kGroup);
    typename V::Ints sum[kN];
    for_positions<kFirst>([&]<int p>() __attribute__((always_inline)) {
      sum[p - kFirst] = of_group.zeros[p % kAlike];
    });
#pragma GCC unroll 8
    for (int r = 0; r < count; r += 2) {
      if constexpr (kFirst == 0) {
        for (int i = r; i < r + 2; ++i)
          asked.template of_row<prefetch_codes<V::kRequests.cache, D>>(i);
      }
      const Codes a = codes_of<kWhole>(block.rows[r], planes, cols, group),
                  b = codes_of<kWhole>(block.rows[r + 1], planes, cols, group);
      typename V::Words of[kSets];
#pragma GCC unroll 2
      for (int set = 0; set < kSets; ++set)
        of[set] = V::spread_words(factors.pairs[r / 2] + at + kChunkBlocks * set);
      for_positions<kFirst>([&]<int p>() __attribute__((always_inline)) {
        const auto words = V::template words<p>(a, b, of_group.masks[p % kAlike]);
        sum[p - kFirst] = V::dot_words(sum[p - kFirst], words, of[p % 2 % kSets]);
      });
    }
    for_positions<kFirst>([&]<int p>() __attribute__((always_inline)) {
      float* to = sums + p * kLanes;
      V::store(to, V::fma(V::of_ints(sum[p - kFirst]), of_group.units[p % kAlike], V::load(to)));
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

  // Of columns [begin, end), a segment at most.
  static void make_factors(const Block& block, const float* a, int cols, const RowPlanes& planes,
                           int begin, int end, Sums& sums, Factors& factors) {
    const bool whole = end - begin == kSegment;
    if (!whole) std::memset(factors.products, 0, sizeof factors.products);
    const Asked<V::kRequests.scales> asked(block.rows, block.ahead, begin / kSegment,
                                           places_of_scales(cols));
    for (int r = 0; r < block.count; ++r) {
      asked.template of_row<prefetch_rest<V::kRequests.cache, D, kSegment>>(r, planes);
      const float of_row = a[block.index[r]];
      if (!is_super_block(D) && !has_minimum(D) && whole) {
        factors.multiply_halves(block.rows[r] + planes.scales + begin / 16, r, of_row);
        continue;
      }
      for (int c = begin; c < end; c += kChunk) {
        alignas(64) float scales[scale_count(D)];
        read_scales<V, D>(block.rows[r], planes, c / kChunk, blocks_of_chunk(end, c), scales);
        factors.multiply(scales, r, (c - begin) / kChunk, of_row, sums.minimums_of(c / kChunk));
      }
    }
    factors.fix(block.count);
  }

  // sums (kPositions, kLanes) += a group's columns of a block's rows.
  static void add_group(const Block& block, const RowPlanes& planes, int cols, int group,
                        const Factors& factors, int at, float* sums) {
    const auto add = [&]<bool kWhole>(int count) __attribute__((always_inline)) {
      add_positions<0, kWhole>(block, planes, cols, group, factors, at, count, sums);
      if constexpr (kN == 4)
        add_positions<4, kWhole>(block, planes, cols, group, factors, at, count, sums);
    };
    const bool whole = is_super_block(D) || cols - group * kGroup >= kGroup;
    if (!V::kUnrolls || block.count < kRows || !whole) [[unlikely]]
      return add.template operator()<false>(block.count);
    add.template operator()<true>(kRows);
  }

  // sums += a^T W over a block's rows of `cols` columns.
  static void add_block(const Block& block, const float* a, int cols, Sums& sums) {
    const RowPlanes planes = planes_of(D, cols);
    Factors factors;
    for (int begin = sums.begin; begin < sums.end; begin += kSegment) {
      const int end = sums.end - begin < kSegment ? sums.end : begin + kSegment;
      make_factors(block, a, cols, planes, begin, end, sums, factors);
      for (int c = begin; c < end; c += kGroup) {
        const int at = (c - begin) / kChunk * kChunkFactors + c % kChunk / kBlock;
        add_group(block, planes, cols, c / kGroup, factors, at, sums.at(c));
      }
    }
  }

  // `width` <= kGroup columns between the order of columns and that of positions. Columns that are
  // not there are zeros.
  static void to_positions(const float* columns, int width, float* positions) {
    float padded[kGroup] = {};
    copy(columns, width, padded);
    for_pairs([&](int column, int place) {
      positions[place] = padded[column];
      positions[place + 2 * kLanes] = padded[column + 1];
    });
  }
  // Back, with the minimums of each block.
  static void from_positions(const float* positions, const float* minimums, int width,
                             float* columns) {
    float padded[kGroup];
    for_pairs([&](int column, int place) {
      padded[column] = positions[place];
      padded[column + 1] = positions[place + 2 * kLanes];
    });
    for (int c = 0; has_minimum(D) && c < kGroup; ++c) padded[c] += minimums[c / kBlock];
    copy(padded, width, columns);
  }
  // A copy of a length that is known is a few instructions.
  static void copy(const float* from, int width, float* to) {
    if (width == kGroup) [[likely]]
      std::memcpy(to, from, kGroup * sizeof(float));
    else
      std::memcpy(to, from, width * sizeof(float));
  }
  // visit(column, place) for even columns of a group and their places in the order of positions;
  // the column after it is two positions further.
  template <class Visit>
  [[gnu::always_inline]] static void for_pairs(const Visit& visit) {
    for (int block = 0; block < kGroupBlocks; ++block)
      for (int eight = 0; eight < 4; ++eight)
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i)
          visit(kBlock * block + 8 * eight + 2 * i,
                (eight / 2 + 4 * (eight % 2)) * kLanes + 4 * block + i);
  }
};

}  // namespace
}  // namespace thermocline
