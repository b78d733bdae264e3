#include "sim/policies/parts/dense_scores.h"

#include <array>
#include <cstring>
#include <limits>
#include <type_traits>

#ifdef __x86_64__
#include <immintrin.h>
#endif

#define TC_INLINE [[gnu::always_inline]] inline

namespace thermocline {
namespace {

// The bodies, for any machine and, compiled for it, AVX2: on vectors of 16 and 32 bytes, which
// compilers know without names of instructions. Vectors are passed by reference alone, because how
// they are passed by value depends on the machine.

template <class Score>
constexpr uint32_t kBits = std::numeric_limits<Score>::digits;
template <class Score>
constexpr Score kMost = std::numeric_limits<Score>::max();

template <class Element, size_t kBytes>
struct VectorOf {
  using Type [[gnu::vector_size(kBytes)]] = Element;
};

template <class S, size_t kBytes>
struct Lanes {
  using Score = S;
  using V = typename VectorOf<Score, kBytes>::Type;
  using Halves = typename VectorOf<uint16_t, kBytes>::Type;
  using Eights = typename VectorOf<uint64_t, kBytes>::Type;
  using Wide = std::conditional_t<sizeof(Score) == 1, Halves,
                                  typename VectorOf<uint32_t, kBytes>::Type>;  // of products
  static constexpr uint32_t kCount = kBytes / sizeof(Score);
  // Bit i % kBits in lane i.
  static constexpr std::array<Score, kCount> kBitOfLane = [] {
    std::array<Score, kCount> bits{};
    for (uint32_t i = 0; i < kCount; ++i) bits[i] = static_cast<Score>(1u << i % kBits<Score>);
    return bits;
  }();
  // Where in a word the bits of the lanes in each 8 bytes begin.
  static constexpr std::array<uint64_t, kBytes / 8> kPieceOfEight = [] {
    std::array<uint64_t, kBytes / 8> places{};
    for (uint32_t i = 0; i < places.size(); ++i) {
      places[i] = i * 8 / sizeof(Score) / kBits<Score> * kBits<Score>;
    }
    return places;
  }();
};

// All ones in the lanes whose bits of `word` are set, from bit 0 on. Of each 8 bytes: the bits of
// their lanes to the bottom, then repeated in each lane.
template <class L>
TC_INLINE void spread(uint64_t word, typename L::V& on) {
  using Score = typename L::Score;
  typename L::Eights places, pieces = typename L::Eights{} + word;
  typename L::V bits;
  std::memcpy(&places, L::kPieceOfEight.data(), sizeof places);
  std::memcpy(&bits, L::kBitOfLane.data(), sizeof bits);
  pieces = pieces >> places & uint64_t{kMost<Score>};
  for (int by = kBits<Score>; by < 64; by *= 2) pieces |= pieces << by;
  on = reinterpret_cast<typename L::V>((reinterpret_cast<typename L::V>(pieces) & bits) == bits);
}

template <class V>
TC_INLINE void add(V& to, const V& more) {
  to += more;
  to |= reinterpret_cast<V>(to < more);
}

template <class V>
TC_INLINE void subtract(V& from, const V& less) {
  const V enough = reinterpret_cast<V>(from >= less);
  from = (from - less) & enough;
}

// Calls change(scores, all ones where active) for every vector of scores.
template <class L, class Score, class Change>
TC_INLINE void change_each(Score* scores, const uint64_t* active, size_t words,
                           const Change& change) {
  for (size_t i = 0; i < 64 * words; i += L::kCount) {
    typename L::V of_lanes, on;
    std::memcpy(&of_lanes, scores + i, sizeof of_lanes);
    spread<L>(active[i / 64] >> (i % 64), on);
    change(of_lanes, on);
    std::memcpy(scores + i, &of_lanes, sizeof of_lanes);
  }
}

template <class L, class Score>
TC_INLINE void age_add_body(Score* scores, const uint64_t* active, size_t words, uint32_t shift,
                            Score gain) {
  using V = typename L::V;
  const auto kept_of_lane = static_cast<Score>(kMost<Score> >> shift);
  const V kept = V{} + kept_of_lane;  // lanes of bytes shift in pairs
  change_each<L>(scores, active, words, [=](V& score, const V& on) {
    const auto shifted = reinterpret_cast<typename L::Halves>(score) >> static_cast<int>(shift);
    score = reinterpret_cast<V>(shifted) & kept;
    add<V>(score, on & gain);
  });
}

// Products of lanes at even places, then of those at odd ones.
template <class L, class Score>
TC_INLINE void decay_add_body(Score* scores, const uint64_t* active, size_t words, Score decay,
                              Score gain) {
  using V = typename L::V;
  using Wide = typename L::Wide;
  constexpr int kShift = kBits<Score>;
  change_each<L>(scores, active, words, [=](V& score, const V& on) {
    const Wide low = Wide{} + kMost<Score>, pairs = reinterpret_cast<Wide>(score);
    const Wide even = (pairs & low) * decay >> kShift, odd = (pairs >> kShift) * decay & ~low;
    score -= reinterpret_cast<V>(even | odd);
    add<V>(score, on & gain);
  });
}

template <class L, class Score>
TC_INLINE void set_body(Score* scores, const uint64_t* active, size_t words, Score value) {
  using V = typename L::V;
  change_each<L>(scores, active, words,
                 [=](V& score, const V& on) { score = (score & ~on) | (on & value); });
}

template <class L, class Score>
TC_INLINE void subtract_body(Score* scores, size_t words, Score amount) {
  using V = typename L::V;
  const V amounts = V{} + amount;
  for (size_t i = 0; i < 64 * words; i += L::kCount) {
    V of_lanes;
    std::memcpy(&of_lanes, scores + i, sizeof of_lanes);
    subtract(of_lanes, amounts);
    std::memcpy(scores + i, &of_lanes, sizeof of_lanes);
  }
}

template <class L, class Score>
TC_INLINE void up_down_body(Score* scores, const uint64_t* active, size_t words, Score up,
                            Score down, Score most) {
  using V = typename L::V;
  const V ups = V{} + up, downs = V{} + down, mosts = V{} + most;
  change_each<L>(scores, active, words, [=](V& score, const V& on) {
    V risen = score;
    add(risen, ups);
    const V over = reinterpret_cast<V>(risen > mosts);
    risen = (risen & ~over) | (mosts & over);
    subtract(score, downs);
    score = (score & ~on) | (risen & on);
  });
}

// The lanes of each 8 bytes hold different bits, so that their sum, which the product with ones
// has in its highest lane, has them all.
template <class L, class Score>
TC_INLINE void at_least_body(const Score* scores, size_t words, Score least, uint64_t* bits) {
  using V = typename L::V;
  constexpr uint64_t kOnes = ~uint64_t{0} / kMost<Score>;
  const V leasts = V{} + least;
  V of_lane;
  std::memcpy(&of_lane, L::kBitOfLane.data(), sizeof of_lane);
  std::fill_n(bits, words, uint64_t{0});
  for (size_t i = 0; i < 64 * words; i += L::kCount) {
    V of_lanes;
    std::memcpy(&of_lanes, scores + i, sizeof of_lanes);
    of_lanes = reinterpret_cast<V>(of_lanes >= leasts) & of_lane;
    std::array<uint64_t, sizeof(V) / 8> pieces;
    std::memcpy(pieces.data(), &of_lanes, sizeof of_lanes);
    for (uint32_t j = 0; j < pieces.size(); ++j) {
      const uint64_t piece = pieces[j] * kOnes >> (64 - kBits<Score>);
      bits[i / 64] |= piece << (i % 64 + L::kPieceOfEight[j]);
    }
  }
}

#ifdef __x86_64__
// AVX2 gathers the bits of a comparison of bytes.
[[gnu::target("avx2")]] inline uint64_t bits_at_least(const uint8_t* scores, uint8_t least) {
  const __m256i leasts = _mm256_set1_epi8(static_cast<int8_t>(least));
  const __m256i values = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(scores));
  const __m256i is = _mm256_cmpeq_epi8(_mm256_max_epu8(values, leasts), values);
  return static_cast<uint32_t>(_mm256_movemask_epi8(is));
}

[[gnu::target("avx2")]] inline uint64_t bits_at_least(const uint16_t* scores, uint16_t least) {
  const __m256i leasts = _mm256_set1_epi16(static_cast<int16_t>(least));
  const __m256i low = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(scores));
  const __m256i high = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(scores + 16));
  const __m256i low_is = _mm256_cmpeq_epi16(_mm256_max_epu16(low, leasts), low);
  const __m256i high_is = _mm256_cmpeq_epi16(_mm256_max_epu16(high, leasts), high);
  // Packing works in halves of vectors; the permutation puts these in order.
  const __m256i is = _mm256_permute4x64_epi64(_mm256_packs_epi16(low_is, high_is), 0xd8);
  return static_cast<uint32_t>(_mm256_movemask_epi8(is));
}

template <class L, class Score>
[[gnu::target("avx2")]] void at_least_avx2(const Score* scores, size_t words, Score least,
                                           uint64_t* bits) {
  for (size_t w = 0; w < words; ++w) {
    const uint64_t low = bits_at_least(scores + 64 * w, least);
    bits[w] = low | bits_at_least(scores + 64 * w + 32, least) << 32;
  }
}
#endif

#define TC_DENSE_SCORES(version, target, bytes, at_least_of)                                       \
  template <class Score>                                                                           \
  struct version {                                                                                 \
    using L = Lanes<Score, bytes>;                                                                 \
    target static void age_add(Score* scores, const uint64_t* active, size_t words,                \
                               uint32_t shift, Score gain) {                                       \
      age_add_body<L>(scores, active, words, shift, gain);                                         \
    }                                                                                              \
    target static void decay_add(Score* scores, const uint64_t* active, size_t words, Score decay, \
                                 Score gain) {                                                     \
      decay_add_body<L>(scores, active, words, decay, gain);                                       \
    }                                                                                              \
    target static void set(Score* scores, const uint64_t* active, size_t words, Score value) {     \
      set_body<L>(scores, active, words, value);                                                   \
    }                                                                                              \
    target static void subtract(Score* scores, size_t words, Score amount) {                       \
      subtract_body<L>(scores, words, amount);                                                     \
    }                                                                                              \
    target static void up_down(Score* scores, const uint64_t* active, size_t words, Score up,      \
                               Score down, Score most) {                                           \
      up_down_body<L>(scores, active, words, up, down, most);                                      \
    }                                                                                              \
    target static void at_least(const Score* scores, size_t words, Score least, uint64_t* bits) {  \
      at_least_of<L>(scores, words, least, bits);                                                  \
    }                                                                                              \
  }

template <template <class> class Version, class Score>
constexpr DenseScoreOps<Score> table_of(const char* name) {
  using Of = Version<Score>;
  return {name, Of::age_add, Of::decay_add, Of::set, Of::subtract, Of::up_down, Of::at_least};
}

TC_DENSE_SCORES(Plain, , 16, at_least_body);

#ifdef __x86_64__
TC_DENSE_SCORES(Avx2, [[gnu::target("avx2")]], 32, at_least_avx2);

// AVX-512BW takes the bits of a word as masks and gives comparisons as bits.
#define TC_AVX512 [[gnu::target("avx512f,avx512bw")]]
#define TC_MASKED [[gnu::target("avx512f,avx512bw"), gnu::always_inline]] static inline

template <class Score>
struct MaskedLanes;

template <>
struct MaskedLanes<uint16_t> {
  using Mask = __mmask32;
  static constexpr uint32_t kCount = 32;
  TC_MASKED __m512i all(uint16_t value) { return _mm512_set1_epi16(static_cast<int16_t>(value)); }
  TC_MASKED __m512i add(__m512i a, __m512i b) { return _mm512_adds_epu16(a, b); }
  TC_MASKED __m512i add(__m512i a, Mask where, __m512i b) {
    return _mm512_mask_adds_epu16(a, where, a, b);
  }
  TC_MASKED __m512i subtract(__m512i a, __m512i b) { return _mm512_subs_epu16(a, b); }
  TC_MASKED __m512i least(__m512i a, __m512i b) { return _mm512_min_epu16(a, b); }
  TC_MASKED __m512i choose(Mask where, __m512i yes, __m512i no) {
    return _mm512_mask_blend_epi16(where, no, yes);
  }
  TC_MASKED __m512i shift(__m512i a, uint32_t by) {
    return _mm512_srl_epi16(a, _mm_cvtsi32_si128(static_cast<int>(by)));
  }
  TC_MASKED __m512i product(__m512i a, __m512i b) { return _mm512_mulhi_epu16(a, b); }  // >> 16
  TC_MASKED uint64_t at_least(__m512i a, __m512i b) { return _mm512_cmpge_epu16_mask(a, b); }
};

template <>
struct MaskedLanes<uint8_t> {
  using Mask = __mmask64;
  static constexpr uint32_t kCount = 64;
  TC_MASKED __m512i all(uint8_t value) { return _mm512_set1_epi8(static_cast<int8_t>(value)); }
  TC_MASKED __m512i add(__m512i a, __m512i b) { return _mm512_adds_epu8(a, b); }
  TC_MASKED __m512i add(__m512i a, Mask where, __m512i b) {
    return _mm512_mask_adds_epu8(a, where, a, b);
  }
  TC_MASKED __m512i subtract(__m512i a, __m512i b) { return _mm512_subs_epu8(a, b); }
  TC_MASKED __m512i least(__m512i a, __m512i b) { return _mm512_min_epu8(a, b); }
  TC_MASKED __m512i choose(Mask where, __m512i yes, __m512i no) {
    return _mm512_mask_blend_epi8(where, no, yes);
  }
  // In pairs of lanes; what came from the neighbour is cut off.
  TC_MASKED __m512i shift(__m512i a, uint32_t by) {
    return _mm512_and_si512(MaskedLanes<uint16_t>::shift(a, by),
                            all(static_cast<uint8_t>(255u >> by)));
  }
  TC_MASKED __m512i product(__m512i a, __m512i b) {  // >> 8: of even lanes, then of odd ones
    const __m512i low = _mm512_set1_epi16(255);
    const __m512i even = _mm512_mullo_epi16(_mm512_and_si512(a, low), _mm512_and_si512(b, low));
    const __m512i odd = _mm512_mullo_epi16(_mm512_srli_epi16(a, 8), _mm512_srli_epi16(b, 8));
    return _mm512_mask_blend_epi8(0xaaaaaaaaaaaaaaaa, _mm512_srli_epi16(even, 8), odd);
  }
  TC_MASKED uint64_t at_least(__m512i a, __m512i b) { return _mm512_cmpge_epu8_mask(a, b); }
};

template <class Score>
struct Avx512 {
  using L = MaskedLanes<Score>;
  using Mask = typename L::Mask;
  static constexpr uint32_t kParts = 64 / L::kCount;

  TC_MASKED __m512i load(const Score* scores) { return _mm512_loadu_si512(scores); }
  TC_MASKED void store(Score* scores, __m512i values) { _mm512_storeu_si512(scores, values); }
  // The bits of the vector that starts at score `i`.
  TC_MASKED Mask mask_at(const uint64_t* active, size_t i) {
    return static_cast<Mask>(active[i / 64] >> (i % 64));
  }

  TC_AVX512 static void age_add(Score* scores, const uint64_t* active, size_t words, uint32_t shift,
                                Score gain) {
    const __m512i gains = L::all(gain);
    for (size_t i = 0; i < 64 * words; i += L::kCount) {
      const __m512i aged = L::shift(load(scores + i), shift);
      store(scores + i, L::add(aged, mask_at(active, i), gains));
    }
  }

  TC_AVX512 static void decay_add(Score* scores, const uint64_t* active, size_t words, Score decay,
                                  Score gain) {
    const __m512i gains = L::all(gain), decays = L::all(decay);
    for (size_t i = 0; i < 64 * words; i += L::kCount) {
      const __m512i old = load(scores + i);
      const __m512i decayed = L::subtract(old, L::product(old, decays));
      store(scores + i, L::add(decayed, mask_at(active, i), gains));
    }
  }

  TC_AVX512 static void set(Score* scores, const uint64_t* active, size_t words, Score value) {
    const __m512i values = L::all(value);
    for (size_t i = 0; i < 64 * words; i += L::kCount) {
      store(scores + i, L::choose(mask_at(active, i), values, load(scores + i)));
    }
  }

  TC_AVX512 static void subtract(Score* scores, size_t words, Score amount) {
    const __m512i amounts = L::all(amount);
    for (size_t i = 0; i < 64 * words; i += L::kCount) {
      store(scores + i, L::subtract(load(scores + i), amounts));
    }
  }

  TC_AVX512 static void up_down(Score* scores, const uint64_t* active, size_t words, Score up,
                                Score down, Score most) {
    const __m512i ups = L::all(up), downs = L::all(down), mosts = L::all(most);
    for (size_t i = 0; i < 64 * words; i += L::kCount) {
      const __m512i old = load(scores + i);
      const __m512i risen = L::least(L::add(old, ups), mosts);
      store(scores + i, L::choose(mask_at(active, i), risen, L::subtract(old, downs)));
    }
  }

  TC_AVX512 static void at_least(const Score* scores, size_t words, Score least, uint64_t* bits) {
    const __m512i leasts = L::all(least);
    for (size_t w = 0; w < words; ++w) {
      uint64_t word = 0;
      for (uint32_t part = 0; part < kParts; ++part) {
        const __m512i values = load(scores + 64 * w + part * L::kCount);
        word |= L::at_least(values, leasts) << (part * L::kCount % 64);
      }
      bits[w] = word;
    }
  }
};

// Slowest first: a machine that has one of them has those before it.
template <class Score>
constexpr std::array<DenseScoreOps<Score>, 3> kVersions = {table_of<Plain, Score>("plain"),
                                                           table_of<Avx2, Score>("avx2"),
                                                           table_of<Avx512, Score>("avx512bw")};

size_t version_count() {
  if (!__builtin_cpu_supports("avx2")) return 1;
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") ? 3 : 2;
}
#else
template <class Score>
constexpr std::array<DenseScoreOps<Score>, 1> kVersions = {table_of<Plain, Score>("plain")};

size_t version_count() { return 1; }
#endif

}  // namespace

template <>
std::span<const DenseScoreOps<uint8_t>> all_dense_score_ops() {
  static const size_t count = version_count();
  return std::span(kVersions<uint8_t>).first(count);
}

template <>
std::span<const DenseScoreOps<uint16_t>> all_dense_score_ops() {
  static const size_t count = version_count();
  return std::span(kVersions<uint16_t>).first(count);
}

}  // namespace thermocline
