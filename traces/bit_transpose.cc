#include "traces/bit_transpose.h"

#include <cstring>

namespace thermocline {
namespace {

constexpr uint32_t kSide = 64;
constexpr uint32_t kLanes = 8;

// Eight rows of a square of 64 x 64 bits: a vector register where the machine has one so wide.
using Rows [[gnu::vector_size(kLanes * sizeof(uint64_t))]] = uint64_t;

// Exchanges the off-diagonal quarters of each 2 kHalf x 2 kHalf bits whose rows are in two places.
template <int kHalf>
[[gnu::always_inline]] inline void exchange(Rows& low, Rows& high, uint64_t mask) {
  const Rows swap = ((low >> kHalf) ^ high) & mask;
  low ^= swap << kHalf;
  high ^= swap;
}

// The same where both rows are lanes of one register.
template <int kHalf>
[[gnu::always_inline]] inline void exchange_lanes(Rows& rows, uint64_t mask) {
  const Rows lane = {0, 1, 2, 3, 4, 5, 6, 7};
  const Rows other = __builtin_shufflevector(rows, rows, 0 ^ kHalf, 1 ^ kHalf, 2 ^ kHalf, 3 ^ kHalf,
                                             4 ^ kHalf, 5 ^ kHalf, 6 ^ kHalf, 7 ^ kHalf);
  const Rows low = (rows & ~(mask << kHalf)) | ((other & mask) << kHalf);
  const Rows high = (rows & ~mask) | ((other >> kHalf) & mask);
  rows = (lane & kHalf) == 0 ? low : high;
}

// square: 64 rows of 64 bits.
[[gnu::always_inline]] inline void transpose(const uint64_t* from, uint64_t* to) {
  Rows rows[kLanes];
  std::memcpy(rows, from, sizeof rows);
  for (int i = 0; i < 4; ++i) exchange<32>(rows[i], rows[i + 4], 0x00000000ffffffffull);
  for (int i = 0; i < 8; i += i % 2 == 0 ? 1 : 3) {  // 0, 1, 4, 5
    exchange<16>(rows[i], rows[i + 2], 0x0000ffff0000ffffull);
  }
  for (int i = 0; i < 8; i += 2) exchange<8>(rows[i], rows[i + 1], 0x00ff00ff00ff00ffull);
  for (Rows& eight : rows) {
    exchange_lanes<4>(eight, 0x0f0f0f0f0f0f0f0full);
    exchange_lanes<2>(eight, 0x3333333333333333ull);
    exchange_lanes<1>(eight, 0x5555555555555555ull);
  }
  std::memcpy(to, rows, sizeof rows);
}

// The bodies, compiled anew for the instructions of each version below.

[[gnu::always_inline]] inline void columns_body(const uint64_t* rows, uint64_t stride,
                                                uint32_t row_count, uint32_t word_count,
                                                uint64_t* columns) {
  alignas(64) uint64_t square[kSide] = {};
  for (uint32_t word = 0; word < word_count; ++word) {
    for (uint32_t row = 0; row < row_count; ++row) square[row] = rows[row * stride + word];
    transpose(square, columns + uint64_t{word} * kSide);
  }
}

[[gnu::always_inline]] inline void rows_body(const uint64_t* columns, uint32_t word_count,
                                             uint32_t row_begin, uint32_t row_count, uint64_t* rows,
                                             uint64_t stride) {
  alignas(64) uint64_t square[kSide];
  for (uint32_t word = 0; word < word_count; ++word) {
    transpose(columns + uint64_t{word} * kSide, square);
    for (uint32_t row = 0; row < row_count; ++row) {
      rows[row * stride + word] = square[row_begin + row];
    }
  }
}

using ToColumns = void (*)(const uint64_t*, uint64_t, uint32_t, uint32_t, uint64_t*);
using ToRows = void (*)(const uint64_t*, uint32_t, uint32_t, uint32_t, uint64_t*, uint64_t);
struct Version {
  ToColumns to_columns;
  ToRows to_rows;
};

#define TC_VERSION(name, target)                                                            \
  target void columns_##name(const uint64_t* rows, uint64_t stride, uint32_t row_count,     \
                             uint32_t word_count, uint64_t* columns) {                      \
    columns_body(rows, stride, row_count, word_count, columns);                             \
  }                                                                                         \
  target void rows_##name(const uint64_t* columns, uint32_t word_count, uint32_t row_begin, \
                          uint32_t row_count, uint64_t* rows, uint64_t stride) {            \
    rows_body(columns, word_count, row_begin, row_count, rows, stride);                     \
  }                                                                                         \
  constexpr Version k_##name = {columns_##name, rows_##name}

TC_VERSION(plain, );
#if defined(__x86_64__)
TC_VERSION(avx2, [[gnu::target("avx2")]]);
TC_VERSION(avx512, [[gnu::target("avx2,avx512f")]]);
#endif

const Version& fastest() {
  static const Version& version = []() -> const Version& {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f")) return k_avx512;
    if (__builtin_cpu_supports("avx2")) return k_avx2;
#endif
    return k_plain;
  }();
  return version;
}

}  // namespace

void columns_of_rows(const uint64_t* rows, uint64_t stride, uint32_t row_count, uint32_t word_count,
                     uint64_t* columns) {
  fastest().to_columns(rows, stride, row_count, word_count, columns);
}

void rows_of_columns(const uint64_t* columns, uint32_t word_count, uint32_t row_begin,
                     uint32_t row_count, uint64_t* rows, uint64_t stride) {
  fastest().to_rows(columns, word_count, row_begin, row_count, rows, stride);
}

}  // namespace thermocline
