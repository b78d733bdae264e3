// PartLoader: reads a rank's parts of a checkpoint into a backend's memory.
//
// Goals: each part is read once, by the threads that will compute with it, and never whole: a
//   mebibyte at a time lies in between.
// check_finite: Error{input} that names layer, tensor, row and column of the first NaN or infinity
//   that a thread meets.
// Non-goals: which parts (weight_parts.h), whether they fit (weight_room.h).
// Thread-safety: const after construction; reads on the backend's threads.
#pragma once

#include <array>
#include <memory>
#include <vector>

#include "models/weights.h"
#include "runtime/backend.h"
#include "runtime/rank_weights.h"
#include "runtime/weight_parts.h"

namespace thermocline {

// Bytes that a thread reads at once.
inline constexpr uint64_t kStagingBytes = uint64_t{1} << 20;

class PartLoader {
 public:
  PartLoader(const WeightSource& source, Backend& backend, bool check_finite)
      : source_(source), backend_(backend), check_finite_(check_finite) {}

  bool checks_finite() const { return check_finite_; }

  WeightMatrix matrix(const WeightPart& part) const {
    const auto memory = allocate(part.byte_count());
    return place(part, memory, 0, part.row_bytes());
  }

  // Matrices of the same rows, those of a row side by side.
  template <size_t N>
  std::array<WeightMatrix, N> side_by_side(const std::array<WeightPart, N>& parts) const {
    uint64_t stride = 0, offset = 0;
    for (const WeightPart& part : parts) stride += part.row_bytes();
    const auto memory = allocate(stride * parts[0].rows.count);
    std::array<WeightMatrix, N> matrices;
    for (size_t i = 0; i < N; offset += parts[i++].row_bytes()) {
      matrices[i] = place(parts[i], memory, offset, stride);
    }
    return matrices;
  }

  // Rows [first, last) of the parts side by side in host memory, `stride` bytes a row.
  template <size_t N>
  void pack(const std::array<WeightPart, N>& parts, int first, int last, uint64_t stride,
            std::byte* to) const {
    std::vector<std::byte> rows;
    for (const WeightPart& part : parts) {
      read(part, first, last, rows);
      const WeightView view{part.dtype, last - first, static_cast<int>(part.cols.count), stride,
                            to};
      backend_.place_rows(view, 0, last - first, rows.data());
      to += part.row_bytes();
    }
  }

  WeightVector norm(NormVector vector, uint32_t layer) const;

 private:
  std::shared_ptr<std::byte> allocate(uint64_t bytes) const;

  // Reads the part; threads take parts of its rows, and touch what they will compute with.
  WeightMatrix place(const WeightPart& part, const std::shared_ptr<std::byte>& memory,
                     uint64_t offset, uint64_t stride) const;

  // Rows [first, last) of the part, as the file has them.
  void read(const WeightPart& part, int first, int last, std::vector<std::byte>& rows) const;

  static void check(const WeightPart& part, int first_row, const std::vector<std::byte>& rows);

  const WeightSource& source_;
  Backend& backend_;
  bool check_finite_;
};

}  // namespace thermocline
