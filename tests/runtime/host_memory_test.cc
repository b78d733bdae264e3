// Ranks of one host are held to its memory together, those of another to theirs.
#include "runtime/host_memory.h"

#include <catch2/catch.hpp>
#include <cstring>
#include <string>
#include <vector>

namespace thermocline::test {
namespace {

constexpr uint64_t kGiB = uint64_t{1} << 30;

RankMemory rank_on(const char* host, uint64_t needed, uint64_t free) {
  RankMemory memory{{}, needed * kGiB, free * kGiB};
  std::strcpy(memory.host.data(), host);
  return memory;
}

std::string lack(const std::vector<RankMemory>& ranks) { return lack_of_host_memory(ranks); }

}  // namespace

TEST_CASE("ranks that have room one by one may have none together") {
  CHECK(lack({rank_on("a", 4, 10), rank_on("a", 5, 10)}).empty());
  const std::string text = lack({rank_on("a", 9, 10), rank_on("b", 4, 10), rank_on("b", 3, 11),
                                 rank_on("a", 1, 10), rank_on("b", 4, 12)});
  CHECK(text ==
        "host b: its ranks 1, 2 and 4 take 11.00 GiB of its memory together, of which "
        "10.00 GiB are free");
}

TEST_CASE("a rank that is alone on its host has been asked already") {
  CHECK(lack({rank_on("a", 20, 10), rank_on("b", 4, 10)}).empty());
}

TEST_CASE("what is free may not be known") {
  RankMemory memory = rank_on("a", 20, 0);
  memory.free = ~uint64_t{0};
  CHECK(lack({memory, memory}).empty());
}

}  // namespace thermocline::test
