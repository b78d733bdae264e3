#include "traces/magnitude_codes.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "models/half.h"
#include "models/registry.h"

namespace thermocline {
namespace {

constexpr int kCodes = 256;
constexpr int kPerOctave = 10;
constexpr int kLowestOctave = -17;
constexpr std::array<std::string_view, 3> kFormatNames = {"none", "log8", "f16"};

struct Tables {
  std::array<float, kCodes> values{};   // by code
  std::array<float, kCodes> borders{};  // code c begins here; of code 0: 0
};

const Tables& tables() {
  static const Tables tables = [] {
    Tables made;
    for (int code = 1; code < kCodes; ++code) {
      const double octave = static_cast<double>(code - 1) / kPerOctave + kLowestOctave;
      made.values[static_cast<size_t>(code)] = static_cast<float>(std::exp2(octave));
      made.borders[static_cast<size_t>(code)] =
          static_cast<float>(std::exp2(octave - 0.5 / kPerOctave));
    }
    return made;
  }();
  return tables;
}

}  // namespace

uint8_t log8_of(float magnitude) {
  const auto& borders = tables().borders;
  if (!(magnitude >= borders[1])) return 0;
  // The exponent says the octave: its ten codes and one on either side are left to look at.
  const int exponent = static_cast<int>(std::bit_cast<uint32_t>(magnitude) >> 23) - 127;
  int code = std::clamp((exponent - kLowestOctave) * kPerOctave, 1, kCodes - 1);
  while (code + 1 < kCodes && borders[static_cast<size_t>(code + 1)] <= magnitude) ++code;
  return static_cast<uint8_t>(code);
}

float magnitude_of_log8(uint8_t code) { return tables().values[code]; }

float end_of_log8(uint8_t code) {
  if (code + 1 == kCodes) return std::numeric_limits<float>::infinity();
  return std::nextafter(tables().borders[static_cast<size_t>(code) + 1], 0.0f);
}

void encode(const float* magnitudes, uint64_t count, MagnitudeFormat format, std::byte* stored) {
  for (uint64_t i = 0; i < count; ++i) {
    if (format == MagnitudeFormat::log8) {
      stored[i] = std::byte{log8_of(magnitudes[i])};
    } else {
      const uint16_t half = f16_of(magnitudes[i]);
      std::memcpy(stored + 2 * i, &half, sizeof half);
    }
  }
}

void decode(const std::byte* stored, uint64_t count, MagnitudeFormat format, float* magnitudes) {
  for (uint64_t i = 0; i < count; ++i) {
    if (format == MagnitudeFormat::log8) {
      magnitudes[i] = magnitude_of_log8(static_cast<uint8_t>(stored[i]));
    } else {
      uint16_t half;
      std::memcpy(&half, stored + 2 * i, sizeof half);
      magnitudes[i] = of_f16(half);
    }
  }
}

std::string_view name_of(MagnitudeFormat format) {
  return kFormatNames[static_cast<size_t>(format)];
}

MagnitudeFormat magnitude_format_by_name(std::string_view name) {
  for (size_t i = 0; i < kFormatNames.size(); ++i) {
    if (kFormatNames[i] == name) return static_cast<MagnitudeFormat>(i);
  }
  throw unknown_name("magnitude format", name, {kFormatNames.begin(), kFormatNames.end()});
}

}  // namespace thermocline
