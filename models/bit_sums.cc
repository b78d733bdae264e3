#include "models/bit_sums.h"

#include <algorithm>
#include <bit>
#include <cstring>

#ifdef __x86_64__
#include <immintrin.h>
#endif

#define TC_INLINE [[gnu::always_inline]] inline

namespace thermocline {
namespace {

// The bodies. Each version below compiles them anew for its instructions.

TC_INLINE uint64_t count_body(const uint64_t* row, size_t size) {
  uint64_t sum = 0;
  for (size_t w = 0; w < size; ++w) sum += static_cast<uint64_t>(std::popcount(row[w]));
  return sum;
}

TC_INLINE uint64_t count_both_body(const uint64_t* a, const uint64_t* b, size_t size) {
  uint64_t sum = 0;
  for (size_t w = 0; w < size; ++w) sum += static_cast<uint64_t>(std::popcount(a[w] & b[w]));
  return sum;
}

TC_INLINE uint64_t widen_body(uint64_t* __restrict joined, const uint64_t* __restrict more,
                              size_t size) {
  uint64_t sum = 0;
  for (size_t w = 0; w < size; ++w) {
    joined[w] |= more[w];
    sum += static_cast<uint64_t>(std::popcount(joined[w]));
  }
  return sum;
}

// A ripple-carry adder, one neuron in each bit; plane by plane, because compilers do not see that
// planes never overlap.
TC_INLINE void add_body(uint64_t* planes, uint64_t* __restrict carry, uint32_t used, size_t size) {
  for (uint32_t p = 0; p < used; ++p) {
    uint64_t* __restrict plane = planes + p * size;
    for (size_t w = 0; w < size; ++w) {
      const uint64_t old = plane[w];
      plane[w] = old ^ carry[w];
      carry[w] &= old;
    }
  }
}

// Eight words, which compilers keep in one to four registers, whatever the machine has.
using Lanes [[gnu::vector_size(64)]] = uint64_t;

// a + b + c in each bit: the sum is left in `a`, the carry in `carry`.
template <class Words>
TC_INLINE void add_three(Words& a, const Words& b, const Words& c, Words& carry) {
  const Words differ = a ^ b;
  carry = (a & b) | (differ & c);
  a = differ ^ c;
}

// The bits of eight rows at one place: seven full adders leave one carry of weight 8, which ripples
// on. Everything is read before anything is written.
template <class Words>
TC_INLINE void add_rows_at(uint64_t* planes, const uint64_t* rows, size_t stride, size_t size) {
  Words row[kRowsAtOnce], plane[kBitPlanes];
  for (uint32_t i = 0; i < kRowsAtOnce; ++i) std::memcpy(&row[i], rows + i * stride, sizeof(Words));
  for (uint32_t p = 0; p < kBitPlanes; ++p) {
    std::memcpy(&plane[p], planes + p * size, sizeof(Words));
  }
  Words twos[2], fours[2], carry;
  for (uint32_t half = 0; half < 2; ++half) {
    add_three(plane[0], row[4 * half], row[4 * half + 1], twos[0]);
    add_three(plane[0], row[4 * half + 2], row[4 * half + 3], twos[1]);
    add_three(plane[1], twos[0], twos[1], fours[half]);
  }
  add_three(plane[2], fours[0], fours[1], carry);
  for (uint32_t p = 3; p < kBitPlanes; ++p) {
    const Words old = plane[p];
    plane[p] = old ^ carry;
    carry &= old;
  }
  for (uint32_t p = 0; p < kBitPlanes; ++p) {
    std::memcpy(planes + p * size, &plane[p], sizeof(Words));
  }
}

TC_INLINE void add_rows_body(uint64_t* planes, const uint64_t* rows, size_t stride, size_t size) {
  constexpr size_t kWords = sizeof(Lanes) / sizeof(uint64_t);
  size_t w = 0;
  for (; w + kWords <= size; w += kWords) {
    add_rows_at<Lanes>(planes + w, rows + w, stride, size);
  }
  for (; w < size; ++w) add_rows_at<uint64_t>(planes + w, rows + w, stride, size);
}

// In halves of words: lanes of 32 bits for counts of 32 bits.
TC_INLINE void flush_body(uint64_t* __restrict planes, uint32_t* __restrict counts, size_t size) {
  for (size_t w = 0; w < size; ++w) {
    for (uint32_t half = 0; half < 2; ++half) {
      uint32_t bits[kBitPlanes];
      for (uint32_t p = 0; p < kBitPlanes; ++p) {
        bits[p] = static_cast<uint32_t>(planes[p * size + w] >> (32 * half));
      }
      uint32_t* of_half = counts + 64 * w + 32 * half;
      for (uint32_t i = 0; i < 32; ++i) {
        uint32_t count = 0;
        for (uint32_t p = 0; p < kBitPlanes; ++p) count |= (bits[p] >> i & 1) << p;
        of_half[i] += count;
      }
    }
  }
  std::fill_n(planes, kBitPlanes * size, uint64_t{0});
}

#define TC_BIT_SUMS(version, target)                                                        \
  struct version {                                                                          \
    target static uint64_t count(const uint64_t* row, size_t size) {                        \
      return count_body(row, size);                                                         \
    }                                                                                       \
    target static uint64_t count_both(const uint64_t* a, const uint64_t* b, size_t size) {  \
      return count_both_body(a, b, size);                                                   \
    }                                                                                       \
    target static uint64_t widen(uint64_t* joined, const uint64_t* more, size_t size) {     \
      return widen_body(joined, more, size);                                                \
    }                                                                                       \
    target static void add(uint64_t* planes, uint64_t* carry, uint32_t used, size_t size) { \
      add_body(planes, carry, used, size);                                                  \
    }                                                                                       \
    target static void add_rows(uint64_t* planes, const uint64_t* rows, size_t stride,      \
                                size_t size) {                                              \
      add_rows_body(planes, rows, stride, size);                                            \
    }                                                                                       \
    target static void flush(uint64_t* planes, uint32_t* counts, size_t size) {             \
      flush_body(planes, counts, size);                                                     \
    }                                                                                       \
  }

template <class Version>
constexpr BitSums table_of(const char* name) {
  return {name,         Version::count,    Version::count_both, Version::widen,
          Version::add, Version::add_rows, Version::flush};
}

TC_BIT_SUMS(Plain, );

#if defined(__x86_64__)
TC_BIT_SUMS(Popcnt, [[gnu::target("popcnt")]]);
TC_BIT_SUMS(Avx2, [[gnu::target("popcnt,avx2")]]);
TC_BIT_SUMS(Avx512Lanes, [[gnu::target("popcnt,avx2,avx512f,avx512vpopcntdq")]]);

// A word of a plane is a mask over 64 counts in bytes.
struct Avx512 : Avx512Lanes {
  [[gnu::target("avx512f,avx512bw")]] static void flush(uint64_t* planes, uint32_t* counts,
                                                        size_t size) {
    static_assert(kBitPlanes <= 8);
    for (size_t w = 0; w < size; ++w) {
      __m512i bytes = _mm512_setzero_si512();
      for (uint32_t p = 0; p < kBitPlanes; ++p) {
        const __m512i weight = _mm512_set1_epi8(static_cast<char>(1u << p));
        bytes = _mm512_mask_add_epi8(bytes, planes[p * size + w], bytes, weight);
      }
      alignas(64) uint8_t more[64];
      _mm512_store_si512(more, bytes);
      uint32_t* of_word = counts + 64 * w;
      for (uint32_t i = 0; i < 64; i += 16) {
        const __m512i wide = _mm512_maskz_cvtepu8_epi32(
            0xffff, _mm_load_si128(reinterpret_cast<const __m128i*>(more + i)));
        _mm512_storeu_si512(of_word + i, _mm512_add_epi32(_mm512_loadu_si512(of_word + i), wide));
      }
    }
    std::fill_n(planes, kBitPlanes * size, uint64_t{0});
  }
};

// Slowest first: a machine that has one of them has those before it.
constexpr std::array<BitSums, 4> kVersions = {table_of<Plain>("plain"), table_of<Popcnt>("popcnt"),
                                              table_of<Avx2>("avx2"),
                                              table_of<Avx512>("avx512vpopcntdq")};

size_t version_count() {
  if (!__builtin_cpu_supports("popcnt")) return 1;
  if (!__builtin_cpu_supports("avx2")) return 2;
  const bool has_all = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                       __builtin_cpu_supports("avx512vpopcntdq");
  return has_all ? 4 : 3;
}
#else
constexpr std::array<BitSums, 1> kVersions = {table_of<Plain>("plain")};

size_t version_count() { return 1; }
#endif

}  // namespace

std::span<const BitSums> all_bit_sums() {
  static const size_t count = version_count();
  return std::span(kVersions).first(count);
}

const BitSums& bit_sums() { return all_bit_sums().back(); }

BitCounter::BitCounter(uint32_t neuron_count)
    : neuron_count_(neuron_count),
      words_((neuron_count + 63) / 64),
      planes_(uint64_t{kBitPlanes} * words_),
      rows_(uint64_t{kRowsAtOnce} * words_),
      counts_(uint64_t{64} * words_) {}

void BitCounter::add(const uint64_t* row) {
  std::copy_n(row, words_, rows_.begin() + static_cast<ptrdiff_t>(uint64_t{waiting_} * words_));
  if (++waiting_ < kRowsAtOnce) return;
  waiting_ = 0;
  add_at_once(rows_.data(), words_);
}

void BitCounter::add(const uint64_t* rows, size_t stride, size_t count) {
  const uint64_t* const end = rows + stride * count;
  for (; rows != end && waiting_ > 0; rows += stride) add(rows);
  for (; rows + stride * kRowsAtOnce <= end; rows += stride * kRowsAtOnce) {
    add_at_once(rows, stride);
  }
  for (; rows != end; rows += stride) add(rows);
}

void BitCounter::add_at_once(const uint64_t* rows, size_t stride) {
  if (in_planes_ + kRowsAtOnce > kBitPlaneSum) flush();
  bit_sums().add_rows(planes_.data(), rows, stride, words_);
  in_planes_ += kRowsAtOnce;
}

void BitCounter::flush() {
  if (in_planes_ > 0) bit_sums().flush(planes_.data(), counts_.data(), words_);
  in_planes_ = 0;
}

std::span<const uint32_t> BitCounter::counts() {
  if (in_planes_ + waiting_ > kBitPlaneSum) flush();
  for (uint32_t i = 0; i < waiting_; ++i) {
    ++in_planes_;
    bit_sums().add(planes_.data(), rows_.data() + uint64_t{i} * words_,
                   static_cast<uint32_t>(std::bit_width(in_planes_)), words_);
  }
  waiting_ = 0;
  flush();
  return std::span(counts_).first(neuron_count_);
}

void BitCounter::clear() {
  std::fill(planes_.begin(), planes_.end(), 0);
  std::fill(counts_.begin(), counts_.end(), 0);
  in_planes_ = waiting_ = 0;
}

uint64_t BitCounter::bytes_of(uint32_t neuron_count) {
  const uint64_t words = (uint64_t{neuron_count} + 63) / 64;
  return words * ((kBitPlanes + kRowsAtOnce) * sizeof(uint64_t) + 64 * sizeof(uint32_t));
}

}  // namespace thermocline
