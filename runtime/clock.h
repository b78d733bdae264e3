// The clock that all times of a run are taken by.
//
// Thread-safety: pure functions.
#pragma once

#include <chrono>
#include <cstdint>

namespace thermocline {

// Steady, since some moment of the machine's.
inline uint64_t now_ns() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(now).count());
}

}  // namespace thermocline
