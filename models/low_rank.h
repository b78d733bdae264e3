// The best approximation of a matrix by two thin ones, by a randomized singular value
// decomposition.
//
// Halko, Martinsson and Tropp, "Finding structure with randomness", SIAM Review 2011: the range is
//   sought with `rank` and a few more random directions, improved by two power iterations; the rest
//   is the decomposition of a small matrix.
// Goals: the same bits for any number of threads. Non-goals: speed on matrices that are not read a
//   few times at most.
// Memory: that of the matrix in f32, and of a few of (rows + cols) x rank.
// Thread-safety: pure function.
#pragma once

#include <cstdint>
#include <vector>

namespace thermocline {

// matrix ~ left right: left (rows, rank) has orthonormal columns, right (rank, cols) orthogonal
// rows by falling length.
struct LowRankFactors {
  std::vector<float> left, right;
  double energy = 0;  // share of the matrix' squares that they keep, from 0 to 1
};

// matrix: (rows, cols); rank: from 1 to the smaller of the two.
LowRankFactors low_rank_factors(const std::vector<float>& matrix, uint64_t rows, uint64_t cols,
                                uint64_t rank, uint64_t seed, uint32_t thread_count);

}  // namespace thermocline
