// Element types of weights and what they cost in bytes.
//
// Goals: the facts of the formats as one table; nothing else, so that kernels may include it.
// Non-goals: conversion (models/quantize.h), arithmetic (runtime/kernels).
// Thread-safety: constants only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace thermocline {

enum class DType : uint8_t { f32, f16, bf16, q8_0, q4_0 };

struct DTypeFacts {
  std::string_view name;
  uint32_t items_per_block;  // elements that share one scale
  uint32_t bytes_per_block;
};

// Q8_0: f16 scale d, int8 q[32]; value d*q. Q4_0: f16 scale d, 16 bytes; element j is
// ((byte j & 15) - 8) * d, element j+16 is ((byte j >> 4) - 8) * d  (ggml-common.h).
inline constexpr DTypeFacts kDTypeFacts[] = {
    {"f32", 1, 4}, {"f16", 1, 2}, {"bf16", 1, 2}, {"q8_0", 32, 34}, {"q4_0", 32, 18},
};
inline constexpr int kDTypeCount = sizeof(kDTypeFacts) / sizeof(kDTypeFacts[0]);

inline constexpr const DTypeFacts& facts(DType dtype) {
  return kDTypeFacts[static_cast<int>(dtype)];
}

// Bytes of `count` elements; `count` must be a multiple of the block.
inline constexpr uint64_t bytes_of(DType dtype, uint64_t count) {
  return count / facts(dtype).items_per_block * facts(dtype).bytes_per_block;
}

}  // namespace thermocline
