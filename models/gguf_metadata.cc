#include "models/gguf_metadata.h"

#include <fmt/format.h>

#include <cmath>
#include <cstring>
#include <optional>

namespace thermocline {
namespace {

enum GgufType : uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64 };

struct GgufTypeFacts {
  const char* name;
  uint32_t bytes;  // 0: has a length of its own
};

constexpr GgufTypeFacts kTypes[] = {
    {"u8", 1},   {"i8", 1},     {"u16", 2},   {"i16", 2}, {"u32", 4}, {"i32", 4}, {"f32", 4},
    {"bool", 1}, {"string", 0}, {"array", 0}, {"u64", 8}, {"i64", 8}, {"f64", 8}};
constexpr uint32_t kTypeCount = sizeof(kTypes) / sizeof(kTypes[0]);

constexpr int kDepthMax = 4;  // arrays of arrays: files in the wild do not nest at all
constexpr uint64_t kKeyBytesMax = 65535;
constexpr uint64_t kPairBytesMin = 8 + 1 + 4 + 1;  // key length, key, type, value
constexpr uint64_t kStringBytesMin = 8, kArrayBytesMin = 12;

template <class T>
T load(const std::byte* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof(T));
  return value;
}

uint32_t read_type(ByteReader& reader) {
  const uint64_t at = reader.offset();
  const auto type = reader.read<uint32_t>("value type");
  if (type < kTypeCount) return type;
  throw bad_input(fmt::format("{} at byte {}", reader.path(), at), "a GGUF value type from 0 to 12",
                  fmt::format("{}", type));
}

// Refuses a count that the file cannot hold, before anything is sized by it.
void check_count(const ByteReader& reader, uint64_t count, uint64_t bytes_min, const char* what) {
  if (count <= reader.left() / bytes_min) return;
  throw bad_input(fmt::format("{} at byte {}", reader.path(), reader.offset()),
                  fmt::format("at most {} {}, which fit into the {} bytes left",
                              reader.left() / bytes_min, what, reader.left()),
                  fmt::format("{}", count));
}

bool is_integer(uint32_t type) { return type <= i32 || type == u64 || type == i64; }
bool is_float(uint32_t type) { return type == f32 || type == f64; }
bool is_text(uint32_t type) { return type == string; }

// As two's complement, with the sign apart: an u64 does not fit into an i64.
struct Integer {
  bool negative;
  uint64_t magnitude;
};

Integer integer_of(uint32_t type, const std::byte* bytes) {
  const auto of_signed = [](int64_t value) {
    return Integer{value < 0, value < 0 ? uint64_t{0} - static_cast<uint64_t>(value)
                                        : static_cast<uint64_t>(value)};
  };
  switch (type) {
    case u8:
      return {false, load<uint8_t>(bytes)};
    case i8:
      return of_signed(load<int8_t>(bytes));
    case u16:
      return {false, load<uint16_t>(bytes)};
    case i16:
      return of_signed(load<int16_t>(bytes));
    case u32:
      return {false, load<uint32_t>(bytes)};
    case i32:
      return of_signed(load<int32_t>(bytes));
    case u64:
      return {false, load<uint64_t>(bytes)};
    default:
      return of_signed(load<int64_t>(bytes));
  }
}

}  // namespace

std::string_view read_gguf_text(ByteReader& reader, uint64_t length_max, const char* field) {
  const uint64_t at = reader.offset();
  const auto length = reader.read<uint64_t>(field);
  if (length <= length_max) return reader.text(length, field);
  throw bad_input(fmt::format("{} at byte {}", reader.path(), at),
                  fmt::format("a {} of at most {} bytes", field, length_max),
                  fmt::format("a length of {}", length));
}

GgufMetadata::GgufMetadata(ByteReader& reader, uint64_t pair_count) : path_(reader.path()) {
  check_count(reader, pair_count, kPairBytesMin, "key-value pairs");
  for (uint64_t i = 0; i < pair_count; ++i) {
    const uint64_t at = reader.offset();
    const std::string key(read_gguf_text(reader, kKeyBytesMax, "key"));
    ByteReader start = reader;
    Value value = read_value(reader, read_type(reader), 0);
    value.typed = start.take(reader.offset() - start.offset(), "pair");
    if (!key.empty() && values_.emplace(key, value).second) continue;
    throw bad_input(fmt::format("{} at byte {}", path_, at), "a key that is new and not empty",
                    "'" + key + "'");
  }
}

GgufMetadata::Value GgufMetadata::read_value(ByteReader& reader, uint32_t type, int depth) {
  if (type == array) return read_array(reader, depth);
  if (type == string) {
    const auto text = read_gguf_text(reader, UINT64_MAX, "string");
    return {.type = type, .bytes = std::as_bytes(std::span(text))};
  }
  const uint64_t at = reader.offset();
  const Value value{.type = type, .bytes = reader.take(kTypes[type].bytes, kTypes[type].name)};
  if (type != boolean || load<uint8_t>(value.bytes.data()) <= 1) return value;
  throw bad_input(fmt::format("{} at byte {}", reader.path(), at), "a bool of 0 or 1",
                  fmt::format("{}", load<uint8_t>(value.bytes.data())));
}

GgufMetadata::Value GgufMetadata::read_array(ByteReader& reader, int depth) {
  if (depth == kDepthMax) {
    throw bad_input(fmt::format("{} at byte {}", reader.path(), reader.offset()),
                    fmt::format("arrays nested at most {} deep", kDepthMax), "a deeper one");
  }
  Value value{.type = array, .element_type = read_type(reader), .bytes = {}};
  value.element_count = reader.read<uint64_t>("array length");
  const uint32_t fixed_bytes = kTypes[value.element_type].bytes;
  const uint64_t bytes_min = fixed_bytes != 0               ? fixed_bytes
                             : value.element_type == string ? kStringBytesMin
                                                            : kArrayBytesMin;
  check_count(reader, value.element_count, bytes_min, "array elements");
  if (fixed_bytes != 0) {
    value.bytes = reader.take(value.element_count * fixed_bytes, "array");
    return value;
  }
  ByteReader start = reader;
  for (uint64_t i = 0; i < value.element_count; ++i) {
    read_value(reader, value.element_type, depth + 1);
  }
  value.bytes = start.take(reader.offset() - start.offset(), "array");
  return value;
}

const GgufMetadata::Value& GgufMetadata::value(std::string_view key) const {
  const auto found = values_.find(key);
  if (found != values_.end()) return found->second;
  throw bad_input(path_, fmt::format("the GGUF key {}", key), "no such key");
}

Error GgufMetadata::mistyped(std::string_view key, const char* expected, const Value& found) const {
  std::string type = kTypes[found.type].name;
  if (found.type == array) type += fmt::format(" of {}", kTypes[found.element_type].name);
  return bad_input(fmt::format("{}: key {}", path_, key), expected, type);
}

std::vector<std::pair<std::string, std::span<const std::byte>>> GgufMetadata::pairs() const {
  std::vector<std::pair<std::string, std::span<const std::byte>>> pairs;
  for (const auto& [key, value] : values_) pairs.emplace_back(key, value.typed);
  return pairs;
}

uint64_t GgufMetadata::count_up_to(std::string_view key, uint64_t max) const {
  const Value& found = value(key);
  if (!is_integer(found.type)) throw mistyped(key, "an integer", found);
  const Integer integer = integer_of(found.type, found.bytes.data());
  if (!integer.negative && integer.magnitude <= max) return integer.magnitude;
  throw bad_input(fmt::format("{}: key {}", path_, key),
                  fmt::format("an integer from 0 to {}", max),
                  fmt::format("{}{}", integer.negative ? "-" : "", integer.magnitude));
}

uint32_t GgufMetadata::count(std::string_view key) const {
  return static_cast<uint32_t>(count_up_to(key, UINT32_MAX));
}

uint64_t GgufMetadata::large_count(std::string_view key) const {
  return count_up_to(key, UINT64_MAX);
}

uint32_t GgufMetadata::count_or(std::string_view key, uint32_t fallback) const {
  return has(key) ? count(key) : fallback;
}

double GgufMetadata::number(std::string_view key) const {
  const Value& found = value(key);
  if (!is_float(found.type)) throw mistyped(key, "a number", found);
  const std::byte* bytes = found.bytes.data();
  const double number = found.type == f32 ? load<float>(bytes) : load<double>(bytes);
  if (std::isfinite(number)) return number;
  throw bad_input(fmt::format("{}: key {}", path_, key), "a finite number",
                  fmt::format("{}", number));
}

double GgufMetadata::number_or(std::string_view key, double fallback) const {
  return has(key) ? number(key) : fallback;
}

bool GgufMetadata::flag_or(std::string_view key, bool fallback) const {
  if (!has(key)) return fallback;
  const Value& found = value(key);
  if (found.type != boolean) throw mistyped(key, "a bool", found);
  return load<uint8_t>(found.bytes.data()) != 0;
}

std::string_view GgufMetadata::text(std::string_view key) const {
  const Value& found = value(key);
  if (found.type != string) throw mistyped(key, "a string", found);
  return {reinterpret_cast<const char*>(found.bytes.data()), found.bytes.size()};
}

std::string_view GgufMetadata::text_or(std::string_view key, std::string_view fallback) const {
  return has(key) ? text(key) : fallback;
}

const GgufMetadata::Value* GgufMetadata::find_array(std::string_view key, const char* expected,
                                                    bool (*fits)(uint32_t element_type)) const {
  if (!has(key)) return nullptr;
  const Value& found = value(key);
  if (found.type == array && fits(found.element_type)) return &found;
  throw mistyped(key, expected, found);
}

std::vector<std::string> GgufMetadata::texts(std::string_view key) const {
  std::vector<std::string> texts;
  const Value* found = find_array(key, "an array of strings", is_text);
  if (found == nullptr) return texts;
  texts.reserve(found->element_count);
  ByteReader reader(found->bytes, path_);
  for (uint64_t i = 0; i < found->element_count; ++i) {
    texts.emplace_back(read_gguf_text(reader, UINT64_MAX, "string"));
  }
  return texts;
}

std::vector<float> GgufMetadata::numbers(std::string_view key) const {
  std::vector<float> numbers;
  const Value* found = find_array(key, "an array of numbers", is_float);
  if (found == nullptr) return numbers;
  const uint32_t size = kTypes[found->element_type].bytes;
  numbers.reserve(found->element_count);
  for (uint64_t i = 0; i < found->element_count; ++i) {
    const std::byte* at = found->bytes.data() + i * size;
    numbers.push_back(size == 4 ? load<float>(at) : static_cast<float>(load<double>(at)));
  }
  return numbers;
}

std::vector<int32_t> GgufMetadata::integers(std::string_view key) const {
  std::vector<int32_t> integers;
  const Value* found = find_array(key, "an array of integers", is_integer);
  if (found == nullptr) return integers;
  const uint32_t size = kTypes[found->element_type].bytes;
  integers.reserve(found->element_count);
  for (uint64_t i = 0; i < found->element_count; ++i) {
    const auto [negative, magnitude] =
        integer_of(found->element_type, found->bytes.data() + i * size);
    if (magnitude > INT32_MAX) {
      throw bad_input(fmt::format("{}: key {}", path_, key), "integers of 32 bits",
                      fmt::format("{}{} at {}", negative ? "-" : "", magnitude, i));
    }
    const auto value = static_cast<int32_t>(magnitude);
    integers.push_back(negative ? -value : value);
  }
  return integers;
}

}  // namespace thermocline
