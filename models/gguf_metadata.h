// GgufMetadata: the key-value pairs at the head of a GGUF file.
//
// Format: ggml docs/gguf.md, versions 2 and 3, little-endian. A value stays where it lies in the
//   file until it is asked for; arrays may nest.
// Goals: counts and lengths are checked against the bytes left before anything is allocated; a key
//   that is missing or of another type is an input Error that names it.
// Non-goals: what the keys mean (models/formats/gguf.cc).
// Thread-safety: const after construction. Views point into the file's bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "models/byte_reader.h"

namespace thermocline {

// The lengths of keys, strings and tensor names are u64.
std::string_view read_gguf_text(ByteReader& reader, uint64_t length_max, const char* field);

class GgufMetadata {
 public:
  // Reads `pair_count` pairs from where `reader` stands.
  GgufMetadata(ByteReader& reader, uint64_t pair_count);

  bool has(std::string_view key) const { return values_.contains(key); }

  // All pairs as they lie in the file: the key, and its type (u32) and value.
  std::vector<std::pair<std::string, std::span<const std::byte>>> pairs() const;

  // Whatever the width and sign in the file: writers disagree with the specification. Errors:
  // another type, negative, above 2^32 - 1; the first also where the key is missing.
  uint32_t count(std::string_view key) const;
  uint32_t count_or(std::string_view key, uint32_t fallback) const;
  uint64_t large_count(std::string_view key) const;  // up to 2^64 - 1
  double number(std::string_view key) const;         // finite
  double number_or(std::string_view key, double fallback) const;
  bool flag_or(std::string_view key, bool fallback) const;
  std::string_view text(std::string_view key) const;
  std::string_view text_or(std::string_view key, std::string_view fallback) const;

  // Arrays; empty where the key is missing.
  std::vector<std::string> texts(std::string_view key) const;
  std::vector<float> numbers(std::string_view key) const;
  std::vector<int32_t> integers(std::string_view key) const;

 private:
  struct Value {
    uint32_t type;
    uint32_t element_type = 0;              // of an array
    uint64_t element_count = 0;             // of an array
    std::span<const std::byte> bytes;       // of a string or array: what follows its length
    std::span<const std::byte> typed = {};  // type and value as they lie there
  };

  static Value read_value(ByteReader& reader, uint32_t type, int depth);
  static Value read_array(ByteReader& reader, int depth);
  const Value& value(std::string_view key) const;
  uint64_t count_up_to(std::string_view key, uint64_t max) const;
  const Value* find_array(std::string_view key, const char* expected,
                          bool (*fits)(uint32_t element_type)) const;
  Error mistyped(std::string_view key, const char* expected, const Value& found) const;

  std::string path_;
  std::map<std::string, Value, std::less<>> values_;
};

}  // namespace thermocline
