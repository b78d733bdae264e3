#include "models/bit_sums.h"

#include <algorithm>
#include <bit>

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
    target static void flush(uint64_t* planes, uint32_t* counts, size_t size) {             \
      flush_body(planes, counts, size);                                                     \
    }                                                                                       \
  }

template <class Version>
constexpr BitSums table_of(const char* name) {
  return {name, Version::count, Version::count_both, Version::widen, Version::add, Version::flush};
}

TC_BIT_SUMS(Plain, );

#if defined(__x86_64__)
TC_BIT_SUMS(Popcnt, [[gnu::target("popcnt")]]);
TC_BIT_SUMS(Avx2, [[gnu::target("popcnt,avx2")]]);
TC_BIT_SUMS(Avx512, [[gnu::target("popcnt,avx2,avx512f,avx512vpopcntdq")]]);

// Slowest first: a machine that has one of them has those before it.
constexpr std::array<BitSums, 4> kVersions = {table_of<Plain>("plain"), table_of<Popcnt>("popcnt"),
                                              table_of<Avx2>("avx2"),
                                              table_of<Avx512>("avx512vpopcntdq")};

size_t version_count() {
  if (!__builtin_cpu_supports("popcnt")) return 1;
  if (!__builtin_cpu_supports("avx2")) return 2;
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vpopcntdq") ? 4 : 3;
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
      carry_(words_),
      counts_(uint64_t{64} * words_) {}

void BitCounter::add(const uint64_t* row) {
  std::copy_n(row, words_, carry_.begin());
  ++in_planes_;
  bit_sums().add(planes_.data(), carry_.data(), static_cast<uint32_t>(std::bit_width(in_planes_)),
                 words_);
  if (in_planes_ == kBitPlaneSum) counts();
}

std::span<const uint32_t> BitCounter::counts() {
  if (in_planes_ > 0) bit_sums().flush(planes_.data(), counts_.data(), words_);
  in_planes_ = 0;
  return std::span(counts_).first(neuron_count_);
}

void BitCounter::clear() {
  std::fill(planes_.begin(), planes_.end(), 0);
  std::fill(counts_.begin(), counts_.end(), 0);
  in_planes_ = 0;
}

uint64_t BitCounter::bytes_of(uint32_t neuron_count) {
  const uint64_t words = (uint64_t{neuron_count} + 63) / 64;
  return words * ((kBitPlanes + 1) * sizeof(uint64_t) + 64 * sizeof(uint32_t));
}

}  // namespace thermocline
