// What a call of weighted_rows asks for.
//
// Internal linkage: see cpu_rows.h. Thread-safety: plain data.
#pragma once

#include "runtime/kernels/cpu_rows.h"

namespace thermocline {
namespace {

constexpr int kSumPanelCols = kChunk;  // columns of a panel, of any type

struct SumCall {
  const RowMemory memory;
  int rows, cols;  // of the matrix
  int begin, end;  // columns
  Masks masks;
  const float* a;  // (token_count, a_stride)
  int a_stride, token_count;
  float* y;  // (token_count, y_stride); column 0
  int y_stride;
};

// The sums of one of several tokens, columns in the order that a type's kernel wants; minimums: of
// blocks, added at the end.
struct SumsOfToken {
  alignas(64) float columns[kSumPanelCols];
  alignas(32) float minimums[kSumPanelCols / kBlock];
};

}  // namespace
}  // namespace thermocline
