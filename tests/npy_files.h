// Rows of f32 that numpy.save wrote.
//
// Thread-safety: none needed.
#pragma once

#include <catch2/catch.hpp>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

namespace thermocline::test {

// Of version 1 of the format: magic, version, u16 length of the header, header, data.
inline std::vector<float> load_npy(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  INFO(path);
  REQUIRE(in.good());
  const std::string bytes((std::istreambuf_iterator<char>(in)), {});
  const size_t begin = 10 + static_cast<uint8_t>(bytes[8]) + 256u * static_cast<uint8_t>(bytes[9]);
  std::vector<float> values((bytes.size() - begin) / sizeof(float));
  std::memcpy(values.data(), bytes.data() + begin, values.size() * sizeof(float));
  return values;
}

}  // namespace thermocline::test
