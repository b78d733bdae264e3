// NumPy's .npy files: rows streamed into one, and the header of one that somebody else wrote.
//
// Format 1.0 and 2.0 (NEP 1): "\x93NUMPY", version, length of the header, a Python dict literal
// with descr, fortran_order and shape, padding, then the elements.
// Goals: bounded memory; a file appears under its name only when whole; of a foreign header
//   nothing is believed that the file cannot back.
// Non-goals: pickled objects, structured types, reading elements (that is the caller's).
// Thread-safety: a writer belongs to one thread; the rest are pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "models/new_file.h"

namespace thermocline {

struct NpyType {
  std::string_view descr;
  uint32_t bytes;  // of an element
};
inline constexpr NpyType kNpyF32 = {"<f4", 4};
inline constexpr NpyType kNpyU8 = {"|u1", 1};

// The bytes in front of the elements of an array of that shape: 128, or more for a long shape.
std::string npy_header(const NpyType& type, std::span<const uint64_t> shape);

class NpyWriter {
 public:
  // Rows of `row_shape`; the file's shape is (rows, row_shape...).
  NpyWriter(const std::string& path, const NpyType& type, std::vector<uint64_t> row_shape);

  void append(std::span<const std::byte> rows);  // any number of whole rows
  void append(std::span<const float> rows) { append(std::as_bytes(rows)); }
  void finish();  // the shape is known now; renames

 private:
  std::string header() const;

  NewFile file_;
  NpyType type_;
  std::vector<uint64_t> row_shape_;
  uint64_t row_bytes_, row_count_ = 0;
};

struct NpyHeader {
  std::string descr;  // "|u1"
  bool fortran_order;
  std::vector<uint64_t> shape;
  uint64_t data_offset;  // of the first element in the file
};

// Error{input}: not a .npy of version 1.0 or 2.0, or a header that is no such dict.
NpyHeader parse_npy_header(std::span<const std::byte> bytes, const std::string& path);

}  // namespace thermocline
