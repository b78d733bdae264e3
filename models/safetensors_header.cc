#include "models/safetensors_header.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "models/byte_reader.h"
#include "models/json_reader.h"

namespace thermocline {
namespace {

constexpr uint64_t kHeaderBytesMax = 100'000'000;  // the library's own limit
constexpr const char* kMetadata = "__metadata__";

struct ElementType {
  std::string_view name;
  DType dtype;
};

constexpr ElementType kElementTypes[] = {
    {"F32", DType::f32}, {"F16", DType::f16}, {"BF16", DType::bf16}};

// Where a tensor's data lies in the buffer after the header.
struct Placed {
  SafetensorsEntry entry;
  uint64_t begin, end;
};

DType dtype_of(const JsonView& type) {
  std::string known;
  for (const ElementType& element : kElementTypes) {
    if (element.name == type.text()) return element.dtype;
    known += fmt::format("{}{}", known.empty() ? "" : ", ", element.name);
  }
  type.refuse("one of the types " + known);
}

std::vector<uint64_t> shape_of(const JsonView& dimensions) {
  std::vector<uint64_t> shape;
  for (size_t i = 0; i < dimensions.size(); ++i) shape.push_back(dimensions.at(i).count());
  return shape;
}

uint64_t byte_count_of(const SafetensorsEntry& entry, const JsonView& view) {
  uint64_t bytes = facts(entry.dtype).bytes_per_block;
  for (const uint64_t dimension : entry.shape) {
    if (!__builtin_mul_overflow(bytes, dimension, &bytes)) continue;
    throw bad_input(view.place(), "a shape whose bytes fit into 64 bits",
                    view.at("shape").value().dump());
  }
  return bytes;
}

void check_fields(const JsonView& view) {
  for (const auto& [key, value] : view.value().items()) {
    if (key == "dtype" || key == "shape" || key == "data_offsets") continue;
    throw bad_input(view.place(), "the fields dtype, shape and data_offsets alone", key);
  }
}

Placed read_entry(const std::string& name, const JsonView& view,
                  std::span<const std::byte> buffer) {
  Placed placed{{name, dtype_of(view.at("dtype")), shape_of(view.at("shape")), {}}, 0, 0};
  const JsonView offsets = view.at("data_offsets");
  if (offsets.size() != 2) offsets.refuse("two offsets");
  placed.begin = offsets.at(0).count();
  placed.end = offsets.at(1).count();
  check_fields(view);
  if (placed.begin > placed.end || placed.end > buffer.size()) {
    throw bad_input(offsets.place(), fmt::format("a part of the {} bytes of data", buffer.size()),
                    fmt::format("[{}, {})", placed.begin, placed.end));
  }
  const uint64_t expected = byte_count_of(placed.entry, view);
  if (placed.end - placed.begin != expected) {
    throw bad_input(offsets.place(), fmt::format("{} bytes, as shape and type say", expected),
                    fmt::format("{}", placed.end - placed.begin));
  }
  placed.entry.bytes = buffer.subspan(placed.begin, expected);
  return placed;
}

void check_metadata(const JsonView& metadata) {
  if (!metadata.value().is_object()) metadata.refuse("an object of texts");
  for (const auto& [key, value] : metadata.value().items()) {
    if (!value.is_string()) metadata.at(key).refuse("a text");
  }
}

// Each tensor begins where the one before it ends, and the last one ends with the file.
void check_cover(std::vector<Placed>& all, uint64_t data_bytes, const std::string& path) {
  std::sort(all.begin(), all.end(), [](const Placed& a, const Placed& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
  });
  uint64_t reached = 0;
  for (const Placed& placed : all) {
    if (placed.begin != reached) {
      throw bad_input(fmt::format("{}: tensor {}", path, placed.entry.name),
                      fmt::format("data from byte {} on, where the tensor before ends", reached),
                      fmt::format("byte {}", placed.begin));
    }
    reached = placed.end;
  }
  if (reached == data_bytes) return;
  throw bad_input(path, fmt::format("{} bytes of data, as the header says", reached),
                  fmt::format("{}", data_bytes));
}

nlohmann::json read_header(ByteReader& reader) {
  const auto length = reader.read<uint64_t>("header length");
  if (length > kHeaderBytesMax) {
    throw bad_input(reader.path(),
                    fmt::format("a safetensors header of at most {} bytes", kHeaderBytesMax),
                    fmt::format("{}", length));
  }
  const uint64_t offset = reader.offset();
  const auto text = reader.take(length, "header");
  if (text.empty() || text[0] != std::byte{'{'}) {
    throw bad_input(reader.path(), "a header that begins with '{'", "another byte or none");
  }
  return parse_json(text, reader.path(), offset);
}

}  // namespace

bool begins_as_safetensors(std::span<const std::byte> bytes) {
  uint64_t length = 0;
  if (bytes.size() <= sizeof length) return false;
  std::memcpy(&length, bytes.data(), sizeof length);
  return length <= kHeaderBytesMax && length <= bytes.size() - sizeof length &&
         bytes[sizeof length] == std::byte{'{'};
}

std::vector<SafetensorsEntry> parse_safetensors(std::span<const std::byte> bytes,
                                                const std::string& path) {
  ByteReader reader(bytes, path);
  const nlohmann::json header = read_header(reader);
  const auto buffer = reader.take(reader.left(), "data");
  std::vector<Placed> all;
  for (const auto& [name, value] : header.items()) {
    if (name == kMetadata) {
      check_metadata(JsonView(value, fmt::format("{}: {}", path, name)));
    } else {
      all.push_back(
          read_entry(name, JsonView(value, fmt::format("{}: tensor {}", path, name)), buffer));
    }
  }
  check_cover(all, buffer.size(), path);
  std::vector<SafetensorsEntry> entries;
  entries.reserve(all.size());
  for (Placed& placed : all) entries.push_back(std::move(placed.entry));
  return entries;
}

}  // namespace thermocline
