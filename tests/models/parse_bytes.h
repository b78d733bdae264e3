// Bytes as a checkpoint, and what is wrong with them.
//
// Goals: the bytes lie in a block of exactly their size, so that a sanitizer sees one byte too far.
// Thread-safety: none needed.
#pragma once

#include <catch2/catch.hpp>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "models/checkpoint.h"
#include "models/error.h"

namespace thermocline::test {

inline CheckpointFile file_of(std::string_view bytes, const std::string& path = "FILE") {
  const auto* begin = reinterpret_cast<const std::byte*>(bytes.data());
  const auto block = std::make_shared<std::vector<std::byte>>(begin, begin + bytes.size());
  return {path, block, *block};
}

// `beside`: the contents of the files beside it, by name; `path`: what the file itself is called.
inline std::unique_ptr<Checkpoint> parse_bytes(
    std::string_view format, std::string_view bytes,
    const std::map<std::string, std::string>& beside = {}, const std::string& path = "FILE") {
  const Neighbours neighbours = [&](const std::string& name) -> std::optional<CheckpointFile> {
    const auto found = beside.find(name);
    if (found == beside.end()) return {};
    return file_of(found->second, name);
  };
  return checkpoint_formats().by_name(format).parse(file_of(bytes, path), neighbours);
}

// The message of the input Error that `action` throws; any other outcome fails the test.
template <class Action>
std::string input_error(Action action) {
  try {
    action();
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::input);
    return error.what();
  }
  FAIL("no Error was thrown");
  return "";
}

// Every proper prefix of `bytes` is refused.
template <class Parse>
void check_truncations(const std::string& bytes, Parse parse) {
  for (size_t size = 0; size < bytes.size(); ++size) {
    INFO("cut to " << size << " of " << bytes.size() << " bytes");
    const std::string message = input_error([&] { parse(bytes.substr(0, size)); });
    REQUIRE(message.find("FILE") == 0);
  }
}

// Overwrites each 8 bytes in turn with lengths that lie: each result is read or refused.
template <class Parse>
void check_hostile_lengths(const std::string& bytes, size_t end, Parse parse) {
  const uint64_t lies[] = {UINT64_MAX,
                           UINT64_MAX - 7,
                           uint64_t{1} << 63,
                           (uint64_t{1} << 62) + 1,
                           uint64_t{1} << 32,
                           UINT64_MAX / 2,
                           0};
  int refused = 0;
  for (size_t at = 0; at + 8 <= end; ++at) {
    for (const uint64_t lie : lies) {
      std::string damaged = bytes;
      std::memcpy(damaged.data() + at, &lie, sizeof lie);
      try {
        parse(damaged);
      } catch (const Error& error) {
        REQUIRE(error.kind() == ErrorKind::input);
        ++refused;
      }
    }
  }
  CHECK(refused > 0);
}

}  // namespace thermocline::test
