// TensorPickle: what the pickle inside a torch.save file says of one plain tensor.
//
// A pickle is a program for a stack machine (Python's pickletools.py documents every opcode). This
//   machine knows the opcodes that torch.save of a tensor takes and the five names that it calls
//   by, and never calls anything: it only writes down which tensor would be built.
// Goals: nothing in the file can run or grow: at most 4096 bytes, each making at most one value.
// Non-goals: parameters, modules, dictionaries of tensors, protocols other than 2.
// Thread-safety: pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace thermocline {

// One dimension, elements side by side.
struct TensorPickle {
  std::string storage;     // "LongStorage"
  std::string key;         // of the archive's entry NAME/data/KEY
  uint64_t storage_count;  // elements in the storage
  uint64_t offset, count;  // of the tensor's elements in it
};

// Error{input}: another opcode or name, anything but a one-dimensional contiguous tensor, an offset
// or a count that the storage does not have.
TensorPickle parse_tensor_pickle(std::string_view bytes, const std::string& path);

// The same as torch.save writes it for a whole storage "0" on the CPU.
std::string tensor_pickle(const std::string& storage, uint64_t count);

}  // namespace thermocline
