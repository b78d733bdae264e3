// FNV-1a, 64 bit: names files, prompts and traces. Not cryptographic. Pure functions.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace thermocline {

class Fnv1a {
 public:
  void add(std::string_view bytes) {
    for (const char c : bytes) state_ = (state_ ^ static_cast<uint8_t>(c)) * 0x100000001b3ull;
  }
  template <class T>
  void add_value(const T& value) {
    add({reinterpret_cast<const char*>(&value), sizeof(T)});
  }
  uint64_t value() const { return state_; }
  std::string hex() const {
    std::string text(16, '0');
    for (int i = 0; i < 16; ++i) text[15 - i] = "0123456789abcdef"[state_ >> (4 * i) & 15];
    return text;
  }

 private:
  uint64_t state_ = 0xcbf29ce484222325ull;
};

}  // namespace thermocline
