// ByteReader: bounds-checked little-endian reads from a file's bytes. Every parser goes through it.
//
// Goals: a length from the file can never pass what is left; the Error names file, offset, field.
// Non-goals: big-endian files.
// Thread-safety: one reader, one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include "models/error.h"

namespace thermocline {

class ByteReader {
 public:
  ByteReader(std::span<const std::byte> bytes, std::string path)
      : bytes_(bytes), path_(std::move(path)) {}

  template <class T>
  T read(const char* field) {
    T value;
    std::memcpy(&value, take(sizeof(T), field).data(), sizeof(T));
    return value;
  }

  // The next `count` bytes, without copying.
  std::span<const std::byte> take(uint64_t count, const char* field) {
    if (count > left()) {
      throw bad_input(path_ + " at byte " + std::to_string(offset_),
                      std::to_string(count) + " bytes of " + field,
                      std::to_string(left()) + " bytes left in the file");
    }
    const auto taken = bytes_.subspan(offset_, count);
    offset_ += count;
    return taken;
  }

  std::string_view text(uint64_t count, const char* field) {
    const auto taken = take(count, field);
    return {reinterpret_cast<const char*>(taken.data()), taken.size()};
  }

  uint64_t offset() const { return offset_; }
  uint64_t left() const { return bytes_.size() - offset_; }
  const std::string& path() const { return path_; }

 private:
  std::span<const std::byte> bytes_;
  std::string path_;
  uint64_t offset_ = 0;
};

}  // namespace thermocline
