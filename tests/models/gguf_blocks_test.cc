// Every element type against the conversions of the `gguf` Python package: its committed answers
// (tests/oracles/make_gguf_blocks.py), and fresh ones where the package is installed.
#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <vector>

#include "models/quantize.h"
#include "tests/support.h"

namespace thermocline::test {
namespace {

template <class T>
std::vector<T> read_file(const std::string& folder, const std::string& name) {
  const std::string path = folder + "/" + name;
  std::ifstream file(path, std::ios::binary);
  INFO(path);
  REQUIRE(file.good());
  std::vector<T> values(std::filesystem::file_size(path) / sizeof(T));
  file.read(reinterpret_cast<char*>(values.data()),
            static_cast<std::streamsize>(values.size() * sizeof(T)));
  REQUIRE(file.good());
  return values;
}

// Same bits, or both NaN.
bool same(float a, float b) {
  return std::memcmp(&a, &b, sizeof a) == 0 || (std::isnan(a) && std::isnan(b));
}

void check_values(const std::string& folder, DType dtype) {
  const std::string name(facts(dtype).name);
  const auto bytes = read_file<std::byte>(folder, name + ".bytes");
  const auto expected = read_file<float>(folder, name + ".f32");
  REQUIRE(bytes.size() == bytes_of(dtype, expected.size()));
  std::vector<float> found(expected.size());
  dequantize(dtype, bytes.data(), found.size(), found.data());
  size_t different = 0, numbers = 0;
  for (size_t i = 0; i < found.size(); ++i) {
    different += !same(found[i], expected[i]);
    numbers += std::isfinite(expected[i]);
  }
  CHECK(different == 0);
  CHECK(numbers > found.size() / 4);
}

void check_bytes(const std::string& folder, DType dtype) {
  const auto rows = read_file<float>(folder, "rows.f32");
  const auto expected = read_file<std::byte>(folder, std::string(facts(dtype).name) + ".quantized");
  REQUIRE(expected.size() == bytes_of(dtype, rows.size()));
  REQUIRE(first_non_finite(rows.data(), rows.size()) == rows.size());
  std::vector<std::byte> found(expected.size());
  quantize(dtype, rows.data(), rows.size(), found.data());
  size_t different = 0;
  for (size_t i = 0; i < found.size(); ++i) different += found[i] != expected[i];
  CHECK(different == 0);
}

void check_folder(const std::string& folder) {
  for (int i = 0; i < kDTypeCount; ++i) {
    const auto dtype = static_cast<DType>(i);
    INFO(facts(dtype).name);
    if (dtype == DType::f32) continue;
    check_values(folder, dtype);
    // gguf's quantiser has no K-quants, and ours is another than ggml's.
    if (facts(dtype).items_per_block < 256) check_bytes(folder, dtype);
  }
}

TEST_CASE("every type has the values and bytes that gguf gave it") {
  check_folder(std::string(THERMOCLINE_SOURCE_DIR) + "/tests/oracles/gguf_blocks");
}

TEST_CASE("every type has the values and bytes that gguf gives hundreds of fresh rows") {
  const std::string python = oracle_python();
  if (python.empty()) return;
  const TempDir folder;
  const std::string script =
      std::string(THERMOCLINE_SOURCE_DIR) + "/tests/oracles/make_gguf_blocks.py";
  const CommandResult made = run_command(python + " " + script + " " + folder.path() + " 2 800");
  INFO(made.output);
  REQUIRE(made.exit_code == 0);
  check_folder(folder.path());
}

}  // namespace
}  // namespace thermocline::test
