// GgufOutput: a GGUF version 3 file that is being written: keys, tensor infos, then data in order.
//
// Goals: data streams through; nothing is kept but the header. The file appears under its name only
//   when finish() has put it whole on the disk; until then it is PATH.tmp, which goes away with the
//   object. Non-goals: what keys mean (models/gguf_writer.h), other versions.
// Errors: work_failed with path and reason (no space, read-only folder, disk error).
// Thread-safety: one object, one thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "models/gguf_file.h"

namespace thermocline {

class GgufOutput {
 public:
  explicit GgufOutput(std::string path, uint32_t alignment = kGgufAlignmentDefault);
  ~GgufOutput();
  GgufOutput(const GgufOutput&) = delete;
  GgufOutput& operator=(const GgufOutput&) = delete;

  // Keys. One that is set a second time keeps its first value, so that what must be so is set
  // first and the rest of another file may follow.
  void set_count(std::string_view key, uint32_t value);
  void set_number(std::string_view key, float value);
  void set_flag(std::string_view key, bool value);
  void set_text(std::string_view key, std::string_view value);
  void set_texts(std::string_view key, const std::vector<std::string>& values);
  void set_numbers(std::string_view key, const std::vector<float>& values);
  void set_integers(std::string_view key, const std::vector<int32_t>& values);
  void set_raw(std::string_view key, std::span<const std::byte> typed_value);  // u32 type, value

  // `dimensions`: 1 to 4, the fastest first. Errors: a name that GGUF has no room for.
  void add_tensor(std::string_view name, uint32_t ggml_type,
                  const std::vector<uint64_t>& dimensions, uint64_t byte_count);

  // Writes the header and reserves the space of the whole file; no keys or tensors after it.
  void begin();
  // The next bytes of the tensors, in the order in which they were added; a call stays within one
  // tensor.
  void append(std::span<const std::byte> bytes);
  // All bytes are there: to the disk and under the final name.
  void finish();

  const std::string& path() const { return path_; }
  uint64_t byte_count() const { return data_begin_ + data_bytes_; }  // of the file, after begin()

 private:
  struct Extent {
    uint64_t begin, end;  // from the beginning of the data
  };

  bool new_key(std::string_view key);
  void write(std::span<const std::byte> bytes);
  void pad_to(uint64_t offset);
  Error failure(const char* what) const;

  std::string path_, temporary_;
  int file_ = -1;
  bool begun_ = false;
  uint32_t alignment_;
  std::vector<std::string> keys_;
  std::string pairs_, infos_;  // encoded
  std::vector<Extent> extents_;
  uint64_t data_begin_ = 0, data_bytes_ = 0;
  uint64_t written_ = 0;  // bytes of the file
  size_t current_ = 0;    // the tensor that append() is in
};

}  // namespace thermocline
