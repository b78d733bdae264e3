// Four floats at a time, in one order on every machine: what the quantisers scan rows with.
//
// Goals: the same bits whatever the compiler makes of it. Non-goals: speed beyond a baseline x86
//   (runtime/kernels). Thread-safety: pure functions.
#pragma once

#include <algorithm>
#include <cstring>

namespace thermocline {

using Lanes [[gnu::vector_size(16)]] = float;
inline constexpr int kLaneCount = sizeof(Lanes) / sizeof(float);

inline Lanes load_lanes(const float* from) {
  Lanes lanes;
  std::memcpy(&lanes, from, sizeof lanes);
  return lanes;
}

struct Extremes {
  float low, high;
};

// The smallest and the largest of `kCount` values and of `first`. NaN is passed over.
template <int kCount>
Extremes extremes(const float* values, Extremes first) {
  Lanes low = Lanes{} + first.low, high = Lanes{} + first.high;
  for (int i = 0; i < kCount; i += kLaneCount) {
    const Lanes value = load_lanes(values + i);
    low = value < low ? value : low;
    high = value > high ? value : high;
  }
  Extremes all{low[0], high[0]};
  for (int lane = 1; lane < kLaneCount; ++lane) {
    all.low = std::min(all.low, low[lane]);
    all.high = std::max(all.high, high[lane]);
  }
  return all;
}

}  // namespace thermocline
