// What a fuzz target is: a parser of bytes, and small valid inputs to start from.
//
// libFuzzer and standalone_main.cc call the same function: any Error is fine, everything else (a
//   crash, another exception, memory without bound) ends the process.
// Thread-safety: none needed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace thermocline::fuzz {

// Made in code, so that no binary corpus is committed. Each target defines it.
std::vector<std::string> seeds();

inline std::span<const std::byte> as_bytes(const uint8_t* data, size_t size) {
  return std::as_bytes(std::span(data, size));
}

}  // namespace thermocline::fuzz
