// The header of a safetensors file: which tensors it holds, and where.
//
// Format (huggingface/safetensors README): u64 length N | N bytes of JSON, {name: {dtype, shape,
//   data_offsets}} with an optional __metadata__ of texts | data, which the tensors cover without
//   holes or overlaps. Little-endian, rows first.
// Goals: no offset or product is believed; of the data nothing is touched.
// Non-goals: what the tensors mean (models/formats/safetensors.cc); element types that we do not
//   read, which are refused by name.
// Thread-safety: pure functions.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "models/dtype.h"

namespace thermocline {

struct SafetensorsEntry {
  std::string name;
  DType dtype;
  std::vector<uint64_t> shape;       // slowest first; empty for a scalar
  std::span<const std::byte> bytes;  // as many as shape and type say
};

// In the order of their data. `path` is for messages.
std::vector<SafetensorsEntry> parse_safetensors(std::span<const std::byte> bytes,
                                                const std::string& path);

// True where the bytes begin as a safetensors file does: a length that fits, then an object.
bool begins_as_safetensors(std::span<const std::byte> bytes);

}  // namespace thermocline
