// A one-dimensional tensor of counts in a file of torch.save, as PowerInfer ships them.
//
// The archive holds NAME/data.pkl (what tensor it is), NAME/data/0 (its elements, little-endian),
//   NAME/version, and from torch 2.1 on NAME/byteorder.
// Goals: read without torch, and without running anything; written so that torch.load opens it.
// Non-goals: other tensors. Thread-safety: pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace thermocline {

// float, double, int32 or int64; each element a whole number from 0 to 2^32 - 1, else Error{input}.
std::vector<uint32_t> parse_count_tensor(std::span<const std::byte> bytes, const std::string& path);

// The bytes of a file: int64 elements; `name` is the archive's, by custom the file's stem.
std::string count_tensor(std::span<const uint32_t> counts, const std::string& name);

}  // namespace thermocline
