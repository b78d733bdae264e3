#include "models/low_rank.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "models/counter_random.h"
#include "models/error.h"
#include "models/parallel.h"

namespace thermocline {
namespace {

constexpr uint64_t kOversampling = 8;  // directions beyond the rank
constexpr int kPowerIterations = 2;
constexpr int kSweepsMax = 60;            // of Jacobi rotations; a handful is usual
constexpr uint64_t kRowsAtOnce = 16;      // that share a pass over the other factor
constexpr uint64_t kColumnsAtOnce = 128;  // whose sums stay in the cache

// Row-major.
struct Thin {
  uint64_t rows, cols;
  std::vector<float> values;

  Thin(uint64_t row_count, uint64_t col_count)
      : rows(row_count), cols(col_count), values(row_count * col_count) {}
  float* row(uint64_t r) { return values.data() + r * cols; }
  const float* row(uint64_t r) const { return values.data() + r * cols; }
};

class Decomposition {
 public:
  Decomposition(const std::vector<float>& matrix, uint64_t rows, uint64_t cols, uint64_t rank,
                uint64_t seed, uint32_t threads)
      : matrix_(matrix), rows_(rows), cols_(cols), rank_(rank), seed_(seed), threads_(threads) {}

  LowRankFactors run() const {
    const uint64_t width = std::min({rank_ + kOversampling, rows_, cols_});
    Thin basis = times(random_directions(width));
    orthonormalize(basis);
    for (int i = 0; i < kPowerIterations; ++i) {
      Thin other = transposed_times(basis);
      orthonormalize(other);
      basis = times(other);
      orthonormalize(basis);
    }
    return truncated(basis, transposed_times(basis));
  }

 private:
  // Of equal size, with random signs.
  Thin random_directions(uint64_t width) const {
    Thin directions(cols_, width);
    for (uint64_t i = 0; i < directions.values.size(); ++i) {
      const uint64_t bits = philox2x64({i / 64, 0}, seed_)[0];
      directions.values[i] = (bits >> i % 64 & 1) != 0 ? 1.0f : -1.0f;
    }
    return directions;
  }

  static void add_multiple(float* to, const float* from, float factor, uint64_t count) {
    for (uint64_t i = 0; i < count; ++i) to[i] += factor * from[i];
  }

  // matrix * other
  Thin times(const Thin& other) const {
    Thin out(rows_, other.cols);
    const uint64_t parts = (rows_ + kRowsAtOnce - 1) / kRowsAtOnce;
    for_each_parallel(parts, threads_, [&](size_t part) {
      const uint64_t begin = part * kRowsAtOnce, end = std::min(begin + kRowsAtOnce, rows_);
      for (uint64_t c = 0; c < cols_; ++c)
        for (uint64_t r = begin; r < end; ++r)
          add_multiple(out.row(r), other.row(c), matrix_[r * cols_ + c], other.cols);
    });
    return out;
  }

  // matrix^T * other
  Thin transposed_times(const Thin& other) const {
    Thin out(cols_, other.cols);
    const uint64_t parts = (cols_ + kColumnsAtOnce - 1) / kColumnsAtOnce;
    for_each_parallel(parts, threads_, [&](size_t part) {
      const uint64_t begin = part * kColumnsAtOnce, end = std::min(begin + kColumnsAtOnce, cols_);
      for (uint64_t r = 0; r < rows_; ++r)
        for (uint64_t c = begin; c < end; ++c)
          add_multiple(out.row(c), other.row(r), matrix_[r * cols_ + c], other.cols);
    });
    return out;
  }

  // Gram-Schmidt, twice each: once leaves what rounding lost. A column that is a sum of those
  // before it becomes zeros.
  static void orthonormalize(Thin& thin) {
    std::vector<std::vector<double>> columns(thin.cols, std::vector<double>(thin.rows));
    for (uint64_t r = 0; r < thin.rows; ++r)
      for (uint64_t k = 0; k < thin.cols; ++k) columns[k][r] = thin.row(r)[k];
    for (uint64_t k = 0; k < thin.cols; ++k) {
      std::vector<double>& column = columns[k];
      const double before = std::sqrt(dot(column, column));
      for (int pass = 0; pass < 2; ++pass)
        for (uint64_t j = 0; j < k; ++j) subtract(column, columns[j], dot(column, columns[j]));
      const double length = std::sqrt(dot(column, column));
      const double factor = length > 1e-7 * before ? 1 / length : 0;
      for (double& value : column) value *= factor;
    }
    for (uint64_t r = 0; r < thin.rows; ++r)
      for (uint64_t k = 0; k < thin.cols; ++k) thin.row(r)[k] = static_cast<float>(columns[k][r]);
  }

  static double dot(const std::vector<double>& a, const std::vector<double>& b) {
    constexpr size_t kSums = 8;
    double sums[kSums] = {};
    size_t i = 0;
    for (; i + kSums <= a.size(); i += kSums)
      for (size_t k = 0; k < kSums; ++k) sums[k] += a[i + k] * b[i + k];
    for (; i < a.size(); ++i) sums[0] += a[i] * b[i];
    return std::accumulate(std::begin(sums), std::end(sums), 0.0);
  }
  static void subtract(std::vector<double>& from, const std::vector<double>& what, double factor) {
    for (size_t i = 0; i < from.size(); ++i) from[i] -= factor * what[i];
  }

  // matrix ~ basis weights^T. The eigenvectors of weights^T weights turn both so that the most
  // comes first.
  LowRankFactors truncated(const Thin& basis, const Thin& weights) const {
    const uint64_t width = basis.cols;
    std::vector<double> gram(width * width);
    for (uint64_t c = 0; c < cols_; ++c)
      for (uint64_t i = 0; i < width; ++i)
        for (uint64_t j = 0; j < width; ++j)
          gram[i * width + j] += double{weights.row(c)[i]} * weights.row(c)[j];
    const std::vector<double> vectors = eigenvectors(gram, width);
    std::vector<uint64_t> order(width);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](uint64_t a, uint64_t b) {
      return gram[a * width + a] > gram[b * width + b];
    });
    order.resize(rank_);
    LowRankFactors factors;
    factors.left = turned(basis, vectors, order);
    const std::vector<float> right = turned(weights, vectors, order);  // (cols, rank)
    factors.right.resize(right.size());
    for (uint64_t c = 0; c < cols_; ++c)
      for (uint64_t k = 0; k < rank_; ++k) factors.right[k * cols_ + c] = right[c * rank_ + k];
    double kept = 0, all = 0;
    for (const uint64_t k : order) kept += gram[k * width + k];
    for (const float value : matrix_) all += double{value} * value;
    factors.energy = all > 0 ? std::min(kept / all, 1.0) : 1.0;
    return factors;
  }

  // thin * (the chosen columns of `vectors`)
  static std::vector<float> turned(const Thin& thin, const std::vector<double>& vectors,
                                   const std::vector<uint64_t>& chosen) {
    std::vector<float> out(thin.rows * chosen.size());
    for (uint64_t r = 0; r < thin.rows; ++r)
      for (size_t k = 0; k < chosen.size(); ++k) {
        double sum = 0;
        for (uint64_t i = 0; i < thin.cols; ++i)
          sum += thin.row(r)[i] * vectors[i * thin.cols + chosen[k]];
        out[r * chosen.size() + k] = static_cast<float>(sum);
      }
    return out;
  }

  // Jacobi rotations until `a`, symmetric, is diagonal: its eigenvalues. Returns the eigenvectors,
  // as columns.
  static std::vector<double> eigenvectors(std::vector<double>& a, uint64_t n) {
    std::vector<double> vectors(n * n);
    double largest = 0;
    for (uint64_t i = 0; i < n; ++i) {
      vectors[i * n + i] = 1;
      largest = std::max(largest, a[i * n + i]);
    }
    for (int sweep = 0; sweep < kSweepsMax; ++sweep) {
      bool changed = false;
      for (uint64_t p = 0; p < n; ++p)
        for (uint64_t q = p + 1; q < n; ++q) {
          changed |= rotate(a, vectors, n, p, q, 1e-13 * largest);
        }
      if (!changed) break;
    }
    return vectors;
  }

  // Makes a[p][q] zero; false where it is already, as far as can be told.
  static bool rotate(std::vector<double>& a, std::vector<double>& vectors, uint64_t n, uint64_t p,
                     uint64_t q, double negligible) {
    const double off = a[p * n + q];
    if (std::fabs(off) <= negligible) return false;
    const double theta = (a[q * n + q] - a[p * n + p]) / (2 * off);
    const double t = (theta < 0 ? -1 : 1) / (std::fabs(theta) + std::sqrt(theta * theta + 1));
    const double c = 1 / std::sqrt(t * t + 1), s = t * c;
    const auto turn = [&](double& x, double& y) {
      const double first = x, second = y;
      x = c * first - s * second;
      y = s * first + c * second;
    };
    for (uint64_t i = 0; i < n; ++i) turn(a[i * n + p], a[i * n + q]);
    for (uint64_t i = 0; i < n; ++i) turn(a[p * n + i], a[q * n + i]);
    for (uint64_t i = 0; i < n; ++i) turn(vectors[i * n + p], vectors[i * n + q]);
    return true;
  }

  const std::vector<float>& matrix_;
  uint64_t rows_, cols_, rank_, seed_;
  uint32_t threads_;
};

}  // namespace

LowRankFactors low_rank_factors(const std::vector<float>& matrix, uint64_t rows, uint64_t cols,
                                uint64_t rank, uint64_t seed, uint32_t thread_count) {
  TC_CHECK(matrix.size() == rows * cols, "a matrix of rows x cols");
  TC_CHECK(rank >= 1 && rank <= std::min(rows, cols), "a rank that the matrix can have");
  return Decomposition(matrix, rows, cols, rank, seed, thread_count).run();
}

}  // namespace thermocline
