// In which order the bytes of a weight row lie on a GPU.
//
// A block's bytes are cut into planes (codes, further bits, scales); on a GPU a row holds the first
//   plane of all its blocks, then the second of all of them, and so on: its lanes load 16 bytes of
//   codes each, side by side. Types without blocks stay as they are. A row keeps its length.
// Thread-safety: constants and a pure function.
#pragma once

#include <cstddef>

#include "models/dtype.h"

namespace thermocline {

struct Plane {
  int from;   // the byte of a block of the file format with which it begins
  int bytes;  // of every block; 0: no such plane
};

inline constexpr int kPlanesMax = 4;

// In DType's order.
inline constexpr Plane kPlanes[kDTypeCount][kPlanesMax] = {
    {{0, 4}},                                    // f32
    {{0, 2}},                                    // f16
    {{0, 2}},                                    // bf16
    {{2, 32}, {0, 2}},                           // q8_0: codes, d
    {{2, 16}, {0, 2}},                           // q4_0: codes, d
    {{4, 16}, {0, 4}},                           // q4_1: codes, d m
    {{6, 16}, {2, 4}, {0, 2}},                   // q5_0: codes, fifths, d
    {{8, 16}, {4, 4}, {0, 4}},                   // q5_1: codes, fifths, d m
    {{16, 128}, {0, 16}},                        // q4_k: codes, d dmin and pairs
    {{48, 128}, {16, 32}, {0, 16}},              // q5_k: codes, fifths, d dmin and pairs
    {{0, 128}, {128, 64}, {192, 16}, {208, 2}},  // q6_k: low halves, upper pairs, s, d
};

constexpr const Plane& plane_of(DType dtype, int plane) {
  return kPlanes[static_cast<int>(dtype)][plane];
}

// Bytes of a block in the planes before `plane`.
constexpr int bytes_before(DType dtype, int plane) {
  int bytes = 0;
  for (int p = 0; p < plane; ++p) bytes += plane_of(dtype, p).bytes;
  return bytes;
}

// A row of `cols` elements from the file format's order to the GPU's; they may not overlap.
void cuda_pack_row(DType dtype, int cols, const std::byte* from, std::byte* to);

}  // namespace thermocline
