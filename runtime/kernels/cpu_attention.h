// attend: the query heads of a group over the keys and values that they share, f32.
//
// Goal: keys and values come from memory once for all heads of a pass, and as fast as it gives
//   them: one walk over the keys leaves scores in scratch, one over the values sums their rows.
// Four heads share a vector, a quarter each. A score is the sum of four lanes, lane i that of
//   columns i, i + 4, ... in ascending order; a column of the result takes position after position.
//   Each term is one fused multiply-add, and a lane never meets those of another head: so a head's
//   result is the same in every group.
// Internal linkage: see cpu_rows.h. Thread-safety: pure functions of their arguments.
#pragma once

#include <cstring>
#include <limits>

#include "runtime/kernels/cpu_rows.h"

namespace thermocline {
namespace {

constexpr int kFour = 4;            // heads, or positions, whose scores fill a vector
constexpr int kAheadFloats = 5120;  // from a read to its prefetch: beyond a block of 128 columns

template <class V>
struct Attention {
  static constexpr bool kWide = V::kAccumulators >= 16;
  static constexpr int kScoreFours = kWide ? 2 : 1;  // of heads, in a tile of scores
  static constexpr int kSumHeads = kWide ? 8 : 4;    // of a tile of sums
  // Of columns, likewise, where there are H heads: as many sums as registers hold.
  template <int H>
  static constexpr int kSumVectors = V::kAccumulators / H < 8 ? V::kAccumulators / H : 8;
  static constexpr int kValueRows =
      kWide ? 32 : 16;  // positions whose values are summed in registers
  static constexpr int kFoursMax = kAttendedHeads / kFour;

  // One pass. Heads that are missing in the last four are there as zeros.
  struct Pass {
    const float *keys, *values;
    int head_count, position_count, kv_stride, head_dim;
    float* queries;  // (head_dim / 4, fours of heads, 4, 4 columns), at a cache line
    float* scores;   // (position_count / 4, fours of heads, 4, 4 positions), likewise
    float* out;      // (head_count, head_dim)
    int rows_ahead;  // from a read to its prefetch

    int fours() const { return (head_count + kFour - 1) / kFour; }
    int width() const { return fours() * kLanes; }  // floats of four columns or positions
    const float* key(int p) const { return keys + static_cast<size_t>(p) * kv_stride; }
    const float* value(int p) const { return values + static_cast<size_t>(p) * kv_stride; }
    float* scores_at(int p) const { return scores + static_cast<size_t>(p / kFour) * width(); }
  };

  // Cache lines that will be wanted, one after the other. The hardware, which sees other reads
  // between those of the rows, fetches them late. Each is asked for twice: see kAskedAgain. The
  // cache matters: one Zen 5 core takes 90 % of what `largest` reads where lines go into the first,
  // 73 where into the second; a Zen 4 wants the second.
  struct Lines {
    const float* next;
    int step;
    int later;  // floats from the one that is asked for again, or of what lies before

    [[gnu::always_inline]] void prefetch() {
      __builtin_prefetch(next, 0, V::kRequests.cache);
      __builtin_prefetch(next - later, 0, V::kRequests.cache);
      next += step;
    }
  };

  static Lines no_lines(const Pass& pass) { return {pass.queries, 0, 0}; }

  // What follows row p of `rows` at some distance; past the last row, from the first one of `then`.
  static Lines lines_after(const Pass& pass, const float* rows, const float* then, int p) {
    int ahead = p + pass.rows_ahead;
    if (ahead >= pass.position_count) {
      ahead -= pass.position_count;
      rows = then;
    }
    const bool gapless = pass.kv_stride == pass.head_dim;
    if (!gapless || rows == nullptr || ahead >= pass.position_count) return no_lines(pass);
    return {rows + static_cast<size_t>(ahead) * pass.head_dim, kLanes, kAheadFloats / 2};
  }

  // The keys that no row lies ahead of, in one go: they cover the time until the first one is read.
  static void prefetch_first(const Pass& pass) {
    if (pass.kv_stride != pass.head_dim) return;
    const int64_t all = static_cast<int64_t>(pass.position_count) * pass.head_dim;
    const int64_t count = all < kAheadFloats ? all : kAheadFloats;
    for (Lines lines{pass.keys, kLanes, 0}; lines.next < pass.keys + count;) lines.prefetch();
  }

  // ---- Scores.

  static void pack_queries(const float* q, const Pass& pass) {
    const int rest = pass.head_dim % kFour, whole = pass.head_dim - rest;
    const int steps = (pass.head_dim + kFour - 1) / kFour;
    std::memset(pass.queries, 0, static_cast<size_t>(steps) * pass.width() * sizeof(float));
    for (int h = 0; h < pass.head_count; ++h, q += pass.head_dim) {
      float* to = pass.queries + h * kFour;
      for (int c = 0; c < whole; c += kFour, to += pass.width())
        std::memcpy(to, q + c, kFour * sizeof(float));
      std::memcpy(to, q + whole, rest * sizeof(float));
    }
  }

  // The sums of four lanes each: lane r of a quarter is the sum of that quarter of rows[r].
  [[gnu::always_inline]] static V sums_of_quarters(const V (&rows)[kFour]) {
    const V even = V::add(V::zip_first(rows[0], rows[2]), V::zip_last(rows[0], rows[2]));
    const V odd = V::add(V::zip_first(rows[1], rows[3]), V::zip_last(rows[1], rows[3]));
    return V::add(V::zip_first(even, odd), V::zip_last(even, odd));
  }

  // sums[f][r] += queries[f] * a key's four columns, read_key(r), for F fours of heads.
  template <int F, class ReadKey>
  [[gnu::always_inline]] static void add_columns(const float* queries, ReadKey read_key,
                                                 V (&sums)[F][kFour]) {
    V query[F];
#pragma GCC unroll 2
    for (int f = 0; f < F; ++f) query[f] = V::load(queries + f * kLanes);
#pragma GCC unroll 4
    for (int r = 0; r < kFour; ++r) {
      const V key = read_key(r);
#pragma GCC unroll 2
      for (int f = 0; f < F; ++f) sums[f][r] = V::fma(key, query[f], sums[f][r]);
    }
  }

  // scores[f] = queries[f] . keys for F fours of heads and four keys.
  template <int F>
  [[gnu::always_inline]] static void score_tile(const Pass& pass, const float* queries,
                                                const float* const (&keys)[kFour], Lines lines,
                                                float* scores) {
    const float* const key[] = {keys[0], keys[1], keys[2], keys[3]};
    V sums[F][kFour];
#pragma GCC unroll 2
    for (int f = 0; f < F; ++f)
#pragma GCC unroll 4
      for (int r = 0; r < kFour; ++r) sums[f][r] = V::zero();
    int c = 0;
    for (; c + kFour <= pass.head_dim; c += kFour, queries += pass.width()) {
      lines.prefetch();
      add_columns(
          queries, [&](int r) __attribute__((always_inline)) { return V::load_four(key[r] + c); },
          sums);
    }
    if (c < pass.head_dim) {
      const auto read_rest = [&](int r) {
        float padded[kFour] = {};
        std::memcpy(padded, key[r] + c, (pass.head_dim - c) * sizeof(float));
        return V::load_four(padded);
      };
      add_columns(queries, read_rest, sums);
    }
#pragma GCC unroll 2
    for (int f = 0; f < F; ++f) V::store(scores + f * kLanes, sums_of_quarters(sums[f]));
  }

  // Positions p to p + 3. Those past the last one score as it does: that changes no largest score.
  static void score_four(const Pass& pass, int p) {
    const float* keys[kFour];
    for (int r = 0; r < kFour; ++r)
      keys[r] = pass.key(p + r < pass.position_count ? p + r : pass.position_count - 1);
    Lines lines = lines_after(pass, pass.keys, pass.values, p);
    in_tiles<kScoreFours>(0, pass.fours(), [&]<int F>(int f) {
      score_tile<F>(pass, pass.queries + f * kLanes, keys, lines, pass.scores_at(p) + f * kLanes);
      lines = no_lines(pass);  // they have been asked for
    });
  }

  // Of each quarter the largest lane, in all of its lanes.
  static V largest_of_quarters(V lanes) {
    float all[kLanes];
    V::store(all, lanes);
    for (int h = 0; h < kLanes; h += kFour) {
      float largest = all[h];
      for (int i = 1; i < kFour; ++i) largest = all[h + i] > largest ? all[h + i] : largest;
      for (int i = 0; i < kFour; ++i) all[h + i] = largest;
    }
    return V::load(all);
  }

  // Scores as powers of two, and in `largest` each head's largest one; NaNs are skipped there.
  static void score(const Pass& pass, V (&largest)[kFoursMax]) {
    const V scale = V::broadcast(1.44269504f / __builtin_sqrtf(static_cast<float>(pass.head_dim)));
    for (V& of_four : largest) of_four = V::broadcast(-std::numeric_limits<float>::infinity());
    for (int p = 0; p < pass.position_count; p += kFour) {
      score_four(pass, p);
      float* scores = pass.scores_at(p);
      for (int f = 0; f < pass.fours(); ++f, scores += kLanes) {
        const V scaled = V::mul(V::load(scores), scale);
        V::store(scores, scaled);
        largest[f] = V::max(scaled, largest[f]);
      }
    }
    for (V& of_four : largest) of_four = largest_of_quarters(of_four);
  }

  // ---- Weights.

  // 2^x for x <= 0 (below -126 as if -126): x = n + r with |r| <= 1/2, and e^(r ln2) by its Taylor
  // series to the seventh power, whose remainder is below 6e-9. NaN stays NaN.
  static V power_of_two(V x) {
    const V kRound = V::broadcast(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
    x = V::max(V::broadcast(-126.0f), x);
    const V n = V::sub(V::add(x, kRound), kRound);
    const V r = V::sub(x, n);
    V sum = V::broadcast(1.52527338e-5f);  // ln2^7 / 7!
    constexpr float kFactors[] = {1.54035304e-4f,
                                  1.33335581e-3f,
                                  9.61812911e-3f,
                                  5.55041087e-2f,
                                  2.40226507e-1f,
                                  6.93147181e-1f,
                                  1.0f};
    for (const float factor : kFactors) sum = V::fma(sum, r, V::broadcast(factor));
    return V::mul(sum, V::shifted_to_exponent(V::add(n, V::broadcast(12582912.0f + 127))));
  }

  // Scores of positions [p, p + count) become 2^(score - largest), those past them zero; `total`
  // takes them.
  static void find_weights(const Pass& pass, int p, int count, const V* largest, V* total) {
    for (float* weights = pass.scores_at(p); count > 0; count -= kFour)
      for (int f = 0; f < pass.fours(); ++f, weights += kLanes) {
        V::store(weights, power_of_two(V::sub(V::load(weights), largest[f])));
        for (int past = count; past < kFour; ++past)
          for (int h = 0; h < kFour; ++h) weights[h * kFour + past] = 0;
        total[f] = V::add(total[f], V::load(weights));
      }
  }

  // ---- Values.

  // out[h] += sum_p weights[h][p] * values[p] for H heads and N vectors of columns.
  template <int H, int N>
  [[gnu::always_inline]] static void sum_tile(const Pass& pass, const float* weights,
                                              const float* values, int count, Lines& lines,
                                              float* out) {
    V sums[H][N];
#pragma GCC unroll 8
    for (int h = 0; h < H; ++h)
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) sums[h][n] = V::load(out + h * pass.head_dim + n * kLanes);
    Lines ahead = lines;  // in registers
    const auto add_row = [&](int i) __attribute__((always_inline)) {
      V value[N];
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) {
        value[n] = V::load(values + n * kLanes);
        ahead.prefetch();
      }
      values += pass.kv_stride;
#pragma GCC unroll 8
      for (int h = 0; h < H; ++h) {
        const V weight = V::broadcast(weights[h * kFour + i]);
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n) sums[h][n] = V::fma(weight, value[n], sums[h][n]);
      }
    };
    for (; count >= kFour; count -= kFour, weights += pass.width())
#pragma GCC unroll 4
      for (int i = 0; i < kFour; ++i) add_row(i);
    for (int i = 0; i < count; ++i) add_row(i);
    lines = ahead;
#pragma GCC unroll 8
    for (int h = 0; h < H; ++h)
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) V::store(out + h * pass.head_dim + n * kLanes, sums[h][n]);
  }

  // One head's last columns, fewer than a vector's.
  static void sum_rest(const Pass& pass, const float* weights, const float* values, int count,
                       float* out) {
    const size_t rest = pass.head_dim % kLanes * sizeof(float);
    float padded[kLanes] = {};
    std::memcpy(padded, out, rest);
    V sum = V::load(padded);
    for (int p = 0; p < count; ++p, values += pass.kv_stride) {
      std::memcpy(padded, values, rest);
      const float weight = weights[p / kFour * pass.width() + p % kFour];
      sum = V::fma(V::broadcast(weight), V::load(padded), sum);
    }
    V::store(padded, sum);
    std::memcpy(out, padded, rest);
  }

  // Positions [p, p + count) of heads [h, h + H).
  template <int H>
  static void sum_block(const Pass& pass, int p, int count, int h, Lines lines) {
    const float* weights = pass.scores_at(p) + h * kFour;
    float* out = pass.out + h * pass.head_dim;
    const int vectors = pass.head_dim / kLanes, whole = vectors * kLanes;
    in_tiles<kSumVectors<H>>(0, vectors, [&]<int N>(int n) {
      sum_tile<H, N>(pass, weights, pass.value(p) + n * kLanes, count, lines, out + n * kLanes);
    });
    for (int i = 0; whole < pass.head_dim && i < H; ++i)
      sum_rest(pass, weights + i * kFour, pass.value(p) + whole, count,
               out + i * pass.head_dim + whole);
  }

  static void divide_by(const V* total, const Pass& pass) {
    for (int h = 0; h < pass.head_count; ++h) {
      float all[kLanes];
      V::store(all, total[h / kFour]);
      const float* of_head = all + h % kFour * kFour;
      const float sum = (of_head[0] + of_head[2]) + (of_head[1] + of_head[3]);
      for (int c = 0; c < pass.head_dim; ++c) pass.out[h * pass.head_dim + c] /= sum;
    }
  }

  static void sum_values(const Pass& pass, const V* largest) {
    V total[kFoursMax];
    for (V& of_four : total) of_four = V::zero();
    std::memset(pass.out, 0, static_cast<size_t>(pass.head_count) * pass.head_dim * sizeof(float));
    for (int p = 0; p < pass.position_count; p += kValueRows) {
      const int left = pass.position_count - p;
      const int count = left < kValueRows ? left : kValueRows;
      find_weights(pass, p, count, largest, total);
      Lines lines = lines_after(pass, pass.values, nullptr, p);
      in_tiles<kSumHeads>(0, pass.head_count, [&]<int H>(int h) {
        sum_block<H>(pass, p, count, h, lines);
        lines = no_lines(pass);  // they have been asked for
      });
    }
    divide_by(total, pass);
  }

  static void attend(const float* q, int head_count, const float* keys, const float* values,
                     int position_count, int kv_stride, int head_dim, float* scratch, float* out) {
    const auto past_line = reinterpret_cast<uintptr_t>(scratch) / sizeof(float) % kLanes;
    scratch += (kLanes - past_line) % kLanes;
    for (int h = 0; h < head_count; h += kAttendedHeads) {
      const int left = head_count - h;
      Pass pass{keys,
                values,
                left < kAttendedHeads ? left : kAttendedHeads,
                position_count,
                kv_stride,
                head_dim,
                scratch,
                nullptr,
                out + h * head_dim,
                kAheadFloats / head_dim};
      pass.scores = scratch + static_cast<size_t>((head_dim + kFour - 1) / kFour) * pass.width();
      V largest[kFoursMax];
      prefetch_first(pass);
      pack_queries(q + h * head_dim, pass);
      score(pass, largest);
      sum_values(pass, largest);
    }
  }
};

}  // namespace
}  // namespace thermocline
