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

enum class DType : uint8_t { f32, f16, bf16, q8_0, q4_0, q4_1, q5_0, q5_1, q4_k, q5_k, q6_k };

struct DTypeFacts {
  std::string_view name;
  uint32_t items_per_block;  // elements that share their scales
  uint32_t bytes_per_block;
  uint32_t ggml_id;  // enum ggml_type (ggml.h), as GGUF stores it
  std::string_view ggml_name;
};

// Blocks as ggml-common.h lays them out; d, m and dmin are f16, q is an element's code.
// Q8_0: d, int8 q[32]; value d*q. Q4_0: d, 16 bytes: low halves are elements 0..15, high halves
//   16..31; value d*(q-8). Q4_1: d, m, 16 bytes; d*q + m.
// Q5_0: d, u32 of fifth bits, 16 bytes; d*(q-16). Q5_1: d, m, u32, 16 bytes; d*q + m.
// Q4_K: d, dmin, 12 bytes of eight 6-bit pairs (s, m), 128 bytes; each 32 of them hold two
//   sub-blocks of 32 elements, one in the low halves, one in the high; (d*s)*q - dmin*m.
// Q5_K: d, dmin, 12 bytes, 32 bytes of fifth bits (bit k of byte i: element 32k + i), 128 bytes.
// Q6_K: 128 bytes of low halves, 64 of upper pairs of bits, int8 s[16] (one per 16 elements), d;
//   (d*s)*(q-32).
inline constexpr DTypeFacts kDTypeFacts[] = {
    {"f32", 1, 4, 0, "F32"},        {"f16", 1, 2, 1, "F16"},        {"bf16", 1, 2, 30, "BF16"},
    {"q8_0", 32, 34, 8, "Q8_0"},    {"q4_0", 32, 18, 2, "Q4_0"},    {"q4_1", 32, 20, 3, "Q4_1"},
    {"q5_0", 32, 22, 6, "Q5_0"},    {"q5_1", 32, 24, 7, "Q5_1"},    {"q4_k", 256, 144, 12, "Q4_K"},
    {"q5_k", 256, 176, 13, "Q5_K"}, {"q6_k", 256, 210, 14, "Q6_K"},
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
