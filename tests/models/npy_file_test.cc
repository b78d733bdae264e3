// .npy files: what the writer writes, and headers that others wrote.
#include "models/npy_file.h"

#include <catch2/catch.hpp>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "models/error.h"
#include "tests/models/failures.h"
#include "tests/support.h"

namespace thermocline::test {
namespace {

std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text));
}

// Version 1.0 with any text for a header.
std::string with_header(const std::string& text, char major = 1) {
  std::string bytes("\x93NUMPY", 6);
  bytes += {major, 0, static_cast<char>(text.size()), 0};
  if (major == 2) bytes += {0, 0};
  return bytes + text;
}

TEST_CASE(".npy files are NumPy's format 1.0, and appear only when whole") {
  const TempDir folder;
  const std::string path = folder / "x.npy";
  {
    NpyWriter abandoned(path, kNpyF32, {2});
    abandoned.append(std::vector<float>{1, 2});
  }
  CHECK(std::filesystem::is_empty(folder.path()));
  NpyWriter writer(path, kNpyF32, {3});
  writer.append(std::vector<float>{1, 2, 3});
  writer.append(std::vector<float>{4, 5, 6.5});
  CHECK(!std::filesystem::exists(path));
  writer.finish();
  std::ifstream in(path, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(in)), {});
  REQUIRE(bytes.size() == 128 + 6 * sizeof(float));
  CHECK(bytes.substr(0, 10) == std::string("\x93NUMPY\x01\x00\x76\x00", 10));
  CHECK(bytes.find("'shape': (2, 3)") != std::string::npos);
  CHECK(bytes[127] == '\n');
  float last = 0;
  std::memcpy(&last, bytes.data() + bytes.size() - sizeof last, sizeof last);
  CHECK(last == 6.5f);
  CHECK_THROWS_AS(NpyWriter(folder / "none/x.npy", kNpyF32, {3}), Error);
}

TEST_CASE("headers of NumPy are read in versions 1.0 and 2.0") {
  const std::string dict = "{'descr': '|u1', 'fortran_order': True, 'shape': (3, 4,), }  \n";
  for (const char major : {1, 2}) {
    const std::string bytes = with_header(dict, major);
    const NpyHeader header = parse_npy_header(bytes_of(bytes), "x.npy");
    CHECK(header.descr == "|u1");
    CHECK(header.fortran_order);
    CHECK(header.shape == std::vector<uint64_t>{3, 4});
    CHECK(header.data_offset == bytes.size());
  }
  const std::string ours = npy_header(kNpyF32, std::vector<uint64_t>{7});
  CHECK(parse_npy_header(bytes_of(ours), "x").shape == std::vector<uint64_t>{7});
  const std::string scalar = with_header("{\"shape\":(),'descr':'<f4','fortran_order':False}");
  CHECK(parse_npy_header(bytes_of(scalar), "x").shape.empty());
}

TEST_CASE("headers that NumPy does not write are Errors") {
  const std::vector<std::string> wrong = {
      "",
      "{}",
      "{'descr': '|u1', 'fortran_order': False}",
      "{'descr': '|u1', 'descr': '|u1', 'fortran_order': False, 'shape': (1,)}",
      "{'descr': [('a', '|u1')], 'fortran_order': False, 'shape': (1,)}",
      "{'descr': '|u1', 'fortran_order': 0, 'shape': (1,)}",
      "{'descr': '|u1', 'fortran_order': False, 'shape': (1}",
      "{'descr': '|u1', 'fortran_order': False, 'shape': (-1,)}",
      "{'descr': '|u1', 'fortran_order': False, 'shape': (18446744073709551616,)}",
      "{'descr': '|u1', 'fortran_order': False, 'shape': (1,)} x",
      "{'descr': '|u1', 'fortran_order': False, 'shape': (1,), 'more': (1,)}",
      "{'descr': '|u1, 'fortran_order': False, 'shape': (1,)}"};
  for (const std::string& text : wrong) {
    INFO(text);
    const std::string bytes = with_header(text);
    const Failure failure = failure_of([&] { parse_npy_header(bytes_of(bytes), "x.npy"); });
    CHECK(failure.kind == ErrorKind::input);
    CHECK_THAT(failure.message, Catch::Matchers::Contains("x.npy"));
  }
  const std::string good = with_header("{'descr': '|u1', 'fortran_order': False, 'shape': (1,)}");
  CHECK_THROWS_AS(parse_npy_header(bytes_of(with_header("{}", 3)), "x"), Error);
  for (size_t size = 0; size < good.size(); ++size) {
    CHECK_THROWS_AS(parse_npy_header(bytes_of(good.substr(0, size)), "x"), Error);
  }
}

}  // namespace
}  // namespace thermocline::test
