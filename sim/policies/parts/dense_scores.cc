#include "sim/policies/parts/dense_scores.h"

#include <array>
#include <limits>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define TC_INLINE [[gnu::always_inline]] inline

namespace thermocline {
namespace {

// The bodies, for any machine and, compiled for it, AVX2: a word in pieces of as many bits as a
// Score has, so that one bit is tested in each lane.

template <class Score>
constexpr uint32_t kBits = std::numeric_limits<Score>::digits;

template <class Score>
constexpr std::array<Score, kBits<Score>> kBitOfLane = [] {
  std::array<Score, kBits<Score>> bits{};
  for (uint32_t i = 0; i < kBits<Score>; ++i) bits[i] = static_cast<Score>(1u << i);
  return bits;
}();

template <class Score>
TC_INLINE Score add(Score a, Score b) {
  const auto sum = static_cast<Score>(a + b);
  return sum < a ? std::numeric_limits<Score>::max() : sum;
}

template <class Score>
TC_INLINE Score subtract(Score a, Score b) {
  return a > b ? static_cast<Score>(a - b) : Score{0};
}

// Calls change(score, all ones where active, else zero) -> score for every score.
template <class Score, class Change>
TC_INLINE void change_each(Score* __restrict scores, const uint64_t* __restrict active,
                           size_t words, Change change) {
  constexpr uint32_t kLanes = kBits<Score>, kPieces = 64 / kLanes;
  for (size_t p = 0; p < words * kPieces; ++p) {
    const auto piece = static_cast<Score>(active[p / kPieces] >> (p % kPieces * kLanes));
    Score* of_piece = scores + p * kLanes;
    for (uint32_t i = 0; i < kLanes; ++i) {
      const Score on = (piece & kBitOfLane<Score>[i]) != 0 ? std::numeric_limits<Score>::max() : 0;
      of_piece[i] = change(of_piece[i], on);
    }
  }
}

template <class Score>
TC_INLINE void age_add_body(Score* scores, const uint64_t* active, size_t words, uint32_t shift,
                            Score gain) {
  change_each(scores, active, words, [=](Score score, Score on) {
    return add<Score>(static_cast<Score>(score >> shift), gain & on);
  });
}

template <class Score>
TC_INLINE void decay_add_body(Score* scores, const uint64_t* active, size_t words, Score decay,
                              Score gain) {
  change_each(scores, active, words, [=](Score score, Score on) {
    const uint32_t lost = uint32_t{score} * decay >> kBits<Score>;
    return add<Score>(static_cast<Score>(score - lost), gain & on);
  });
}

template <class Score>
TC_INLINE void set_body(Score* scores, const uint64_t* active, size_t words, Score value) {
  change_each(scores, active, words, [=](Score score, Score on) {
    return static_cast<Score>((score & ~on) | (value & on));
  });
}

template <class Score>
TC_INLINE void subtract_body(Score* scores, size_t words, Score amount) {
  for (size_t i = 0; i < 64 * words; ++i) scores[i] = subtract<Score>(scores[i], amount);
}

template <class Score>
TC_INLINE void up_down_body(Score* scores, const uint64_t* active, size_t words, Score up,
                            Score down, Score most) {
  change_each(scores, active, words, [=](Score score, Score on) {
    const Score risen = std::min(add<Score>(score, up), most);
    const Score fallen = subtract<Score>(score, down);
    return static_cast<Score>((risen & on) | (fallen & ~on));
  });
}

template <class Score>
TC_INLINE void at_least_body(const Score* scores, size_t words, Score least, uint64_t* bits) {
  constexpr uint32_t kLanes = kBits<Score>;
  for (size_t w = 0; w < words; ++w) {
    uint64_t word = 0;
    for (uint32_t first = 0; first < 64; first += kLanes) {
      const Score* of_piece = scores + 64 * w + first;
      Score piece = 0;
      for (uint32_t i = 0; i < kLanes; ++i) {
        piece |= of_piece[i] >= least ? kBitOfLane<Score>[i] : Score{0};
      }
      word |= uint64_t{piece} << first;
    }
    bits[w] = word;
  }
}

#define TC_DENSE_SCORES(version, target)                                                           \
  template <class Score>                                                                           \
  struct version {                                                                                 \
    target static void age_add(Score* scores, const uint64_t* active, size_t words,                \
                               uint32_t shift, Score gain) {                                       \
      age_add_body(scores, active, words, shift, gain);                                            \
    }                                                                                              \
    target static void decay_add(Score* scores, const uint64_t* active, size_t words, Score decay, \
                                 Score gain) {                                                     \
      decay_add_body(scores, active, words, decay, gain);                                          \
    }                                                                                              \
    target static void set(Score* scores, const uint64_t* active, size_t words, Score value) {     \
      set_body(scores, active, words, value);                                                      \
    }                                                                                              \
    target static void subtract(Score* scores, size_t words, Score amount) {                       \
      subtract_body(scores, words, amount);                                                        \
    }                                                                                              \
    target static void up_down(Score* scores, const uint64_t* active, size_t words, Score up,      \
                               Score down, Score most) {                                           \
      up_down_body(scores, active, words, up, down, most);                                         \
    }                                                                                              \
    target static void at_least(const Score* scores, size_t words, Score least, uint64_t* bits) {  \
      at_least_body(scores, words, least, bits);                                                   \
    }                                                                                              \
  }

template <template <class> class Version, class Score>
constexpr DenseScoreOps<Score> table_of(const char* name) {
  using Of = Version<Score>;
  return {name, Of::age_add, Of::decay_add, Of::set, Of::subtract, Of::up_down, Of::at_least};
}

TC_DENSE_SCORES(Plain, );

#if defined(__x86_64__)
TC_DENSE_SCORES(Avx2, [[gnu::target("avx2")]]);

// AVX-512BW takes the bits of a word as masks and gives comparisons as bits.
#define TC_AVX512 [[gnu::target("avx512f,avx512bw")]]
#define TC_LANES [[gnu::target("avx512f,avx512bw"), gnu::always_inline]] static inline

template <class Score>
struct Lanes;

template <>
struct Lanes<uint16_t> {
  using Mask = __mmask32;
  static constexpr uint32_t kCount = 32;
  TC_LANES __m512i all(uint16_t value) { return _mm512_set1_epi16(static_cast<int16_t>(value)); }
  TC_LANES __m512i add(__m512i a, __m512i b) { return _mm512_adds_epu16(a, b); }
  TC_LANES __m512i add(__m512i a, Mask where, __m512i b) {
    return _mm512_mask_adds_epu16(a, where, a, b);
  }
  TC_LANES __m512i subtract(__m512i a, __m512i b) { return _mm512_subs_epu16(a, b); }
  TC_LANES __m512i least(__m512i a, __m512i b) { return _mm512_min_epu16(a, b); }
  TC_LANES __m512i choose(Mask where, __m512i yes, __m512i no) {
    return _mm512_mask_blend_epi16(where, no, yes);
  }
  TC_LANES __m512i shift(__m512i a, uint32_t by) {
    return _mm512_srl_epi16(a, _mm_cvtsi32_si128(static_cast<int>(by)));
  }
  TC_LANES __m512i product(__m512i a, __m512i b) { return _mm512_mulhi_epu16(a, b); }  // >> 16
  TC_LANES uint64_t at_least(__m512i a, __m512i b) { return _mm512_cmpge_epu16_mask(a, b); }
};

template <>
struct Lanes<uint8_t> {
  using Mask = __mmask64;
  static constexpr uint32_t kCount = 64;
  TC_LANES __m512i all(uint8_t value) { return _mm512_set1_epi8(static_cast<int8_t>(value)); }
  TC_LANES __m512i add(__m512i a, __m512i b) { return _mm512_adds_epu8(a, b); }
  TC_LANES __m512i add(__m512i a, Mask where, __m512i b) {
    return _mm512_mask_adds_epu8(a, where, a, b);
  }
  TC_LANES __m512i subtract(__m512i a, __m512i b) { return _mm512_subs_epu8(a, b); }
  TC_LANES __m512i least(__m512i a, __m512i b) { return _mm512_min_epu8(a, b); }
  TC_LANES __m512i choose(Mask where, __m512i yes, __m512i no) {
    return _mm512_mask_blend_epi8(where, no, yes);
  }
  // In pairs of lanes; what came from the neighbour is cut off.
  TC_LANES __m512i shift(__m512i a, uint32_t by) {
    return _mm512_and_si512(Lanes<uint16_t>::shift(a, by), all(static_cast<uint8_t>(255u >> by)));
  }
  TC_LANES __m512i product(__m512i a, __m512i b) {  // >> 8: of even lanes, then of odd ones
    const __m512i low = _mm512_set1_epi16(255);
    const __m512i even = _mm512_mullo_epi16(_mm512_and_si512(a, low), _mm512_and_si512(b, low));
    const __m512i odd = _mm512_mullo_epi16(_mm512_srli_epi16(a, 8), _mm512_srli_epi16(b, 8));
    return _mm512_mask_blend_epi8(0xaaaaaaaaaaaaaaaa, _mm512_srli_epi16(even, 8), odd);
  }
  TC_LANES uint64_t at_least(__m512i a, __m512i b) { return _mm512_cmpge_epu8_mask(a, b); }
};

template <class Score>
struct Avx512 {
  using L = Lanes<Score>;
  using Mask = typename L::Mask;
  static constexpr uint32_t kParts = 64 / L::kCount;

  TC_LANES __m512i load(const Score* scores) { return _mm512_loadu_si512(scores); }
  TC_LANES void store(Score* scores, __m512i values) { _mm512_storeu_si512(scores, values); }
  // The bits of the vector that starts at score `i`.
  TC_LANES Mask mask_at(const uint64_t* active, size_t i) {
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
