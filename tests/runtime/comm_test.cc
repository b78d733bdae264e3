// Ranks as threads: collectives, sums in rank order, errors that all ranks share.
#include <atomic>
#include <catch2/catch.hpp>
#include <cstddef>
#include <functional>
#include <numeric>

#include "runtime/comm.h"
#include "runtime/used_ranks.h"

namespace thermocline::test {
namespace {

TEST_CASE("collectives give every rank's block in rank order") {
  const int size = GENERATE(1, 2, 3, 4, 7);
  run_local_ranks(size, [&](Comm& comm) {
    const int mine = 10 * comm.rank();
    std::vector<int> all(static_cast<size_t>(size));
    comm.all_gather(&mine, sizeof mine, all.data());
    std::vector<int> blocks(static_cast<size_t>(size));
    for (int to = 0; to < size; ++to) blocks[static_cast<size_t>(to)] = 100 * comm.rank() + to;
    std::vector<int> received(static_cast<size_t>(size));
    comm.all_to_all(blocks.data(), sizeof(int), received.data());
    for (int from = 0; from < size; ++from) {
      // Catch2's assertions are not for several threads; a failure is an Error.
      if (all[static_cast<size_t>(from)] != 10 * from ||
          received[static_cast<size_t>(from)] != 100 * from + comm.rank()) {
        throw work_failed("wrong block");
      }
    }
  });
}

// Adding in another order gives other bits.
float awkward(int rank, size_t i) {
  return (rank % 2 == 0 ? 1.0f : -1.0f) * (1e8f + static_cast<float>(i)) / (1.0f + rank) + 0.1f * i;
}

TEST_CASE("sums are added in rank order, the same bits on every rank, for every length") {
  const int size = GENERATE(1, 2, 3, 4, 5);
  const size_t count = GENERATE(1, 2, 5, 1000, 16384, 16385, 50001);
  std::vector<float> expected(count);
  for (size_t i = 0; i < count; ++i) {
    expected[i] = awkward(0, i);
    for (int rank = 1; rank < size; ++rank) expected[i] += awkward(rank, i);
  }
  std::atomic<int> equal = 0;
  run_local_ranks(size, [&](Comm& comm) {
    std::vector<float> values(count), scratch;
    for (size_t i = 0; i < count; ++i) values[i] = awkward(comm.rank(), i);
    sum_in_rank_order(comm, values.data(), count, scratch);
    equal += values == expected;
  });
  CHECK(equal == size);
}

TEST_CASE("splitting makes groups that do not hear each other") {
  std::atomic<int> right = 0;
  run_local_ranks(6, [&](Comm& comm) {
    const auto by_parity = comm.split(comm.rank() % 2);
    const auto halves = comm.split(comm.rank() / 3);
    const int mine = comm.rank();
    std::vector<int> all(3), low(3);
    by_parity->all_gather(&mine, sizeof mine, all.data());
    halves->all_gather(&mine, sizeof mine, low.data());
    const int first = comm.rank() / 3 * 3;
    right += all == std::vector<int>{mine % 2, mine % 2 + 2, mine % 2 + 4} &&
             low == std::vector<int>{first, first + 1, first + 2} &&
             by_parity->rank() == mine / 2 && halves->size() == 3;
  });
  CHECK(right == 6);
}

using Table = std::vector<std::vector<uint64_t>>;  // bytes by rank that sent, rank that received

// What each of `size` ranks has sent when `body` is done.
Table sent_in(int size, const std::function<void(Comm&)>& body) {
  Table table(static_cast<size_t>(size));
  run_local_ranks(size, [&](Comm& comm) {
    body(comm);
    table[static_cast<size_t>(comm.rank())] = comm.sent_bytes();
  });
  return table;
}

TEST_CASE("payload is counted by who it is for, once, and by nobody for itself") {
  const auto gather = [](Comm& comm) {
    std::vector<std::byte> mine(10), all(30);
    comm.all_gather(mine.data(), 10, all.data());
    comm.barrier();
  };
  CHECK(sent_in(3, gather) == Table{{0, 10, 10}, {10, 0, 10}, {10, 10, 0}});
  const auto exchange = [](Comm& comm) {
    std::vector<std::byte> mine(21), all(21);
    comm.all_to_all(mine.data(), 7, all.data());
  };
  CHECK(sent_in(3, exchange) == Table{{0, 7, 7}, {7, 0, 7}, {7, 7, 0}});
  const auto around = [](Comm& comm) {
    std::vector<std::byte> message(100);
    const size_t bytes = 100 - static_cast<size_t>(comm.rank());
    comm.send((comm.rank() + 1) % 3, message.data(), bytes);
    const int from = (comm.rank() + 2) % 3;
    comm.receive(from, message.data(), 100 - static_cast<size_t>(from));
    comm.send(comm.rank(), message.data(), 5);
    comm.receive(comm.rank(), message.data(), 5);
  };
  CHECK(sent_in(3, around) == Table{{0, 100, 0}, {0, 0, 99}, {98, 0, 0}});
}

TEST_CASE("parts of a job count into the table of the whole") {
  const auto body = [](Comm& comm) {
    const auto parity = comm.split(comm.rank() % 2);  // 0 2, 1 3
    const auto alone = parity->split(parity->rank());
    const auto back = comm.split(comm.rank() / 2);  // 0 1, 2 3
    std::vector<float> values(3), scratch;
    sum_in_rank_order(*parity, values.data(), 3, scratch);
    sum_in_rank_order(*alone, values.data(), 3, scratch);
    const int64_t mine = 0;
    std::vector<int64_t> all(2);
    back->all_gather(&mine, sizeof mine, all.data());
  };
  CHECK(sent_in(4, body) == Table{{0, 8, 12, 0}, {8, 0, 0, 12}, {12, 0, 0, 8}, {0, 12, 8, 0}});
}

TEST_CASE("a part that counts as the job has a table of its own ranks") {
  Table table(2);
  run_local_ranks(3, [&](Comm& comm) {
    const auto part = comm.split(comm.rank() == 1 ? 1 : 0, -comm.rank());  // 2 0, 1
    part->count_as_job();
    const int64_t mine = 0;
    std::vector<int64_t> all(2);
    part->all_gather(&mine, sizeof mine, all.data());
    if (part->size() == 2) table[static_cast<size_t>(part->rank())] = part->sent_bytes();
    if (comm.sent_bytes() != std::vector<uint64_t>(3)) throw work_failed("counted twice");
  });
  CHECK(table == Table{{0, 8}, {8, 0}});
}

TEST_CASE("a sum over many numbers sends each rank's slice twice") {
  const auto body = [](Comm& comm) {
    std::vector<float> values(20000), scratch;
    sum_in_rank_order(comm, values.data(), values.size(), scratch);
  };
  const uint64_t bytes = 2 * 6667 * sizeof(float);
  CHECK(sent_in(3, body) == Table{{0, bytes, bytes}, {bytes, 0, bytes}, {bytes, bytes, 0}});
}

TEST_CASE("what only a report asks for is not counted") {
  const auto body = [](Comm& comm) {
    std::vector<std::byte> mine(8), all(16);
    {
      const UncountedExchange quiet(comm);
      { const UncountedExchange within(comm); }
      comm.all_gather(mine.data(), 8, all.data());
      comm.split(0)->all_gather(mine.data(), 8, all.data());
    }
    comm.all_gather(mine.data(), 3, all.data());
  };
  CHECK(sent_in(2, body) == Table{{0, 3}, {3, 0}});
}

TEST_CASE("a group is in the order of its keys, ranks of one key in rank order") {
  std::atomic<int> right = 0;
  run_local_ranks(5, [&](Comm& comm) {
    const int keys[] = {2, 0, 1, 0, 7};
    const auto group = comm.split(comm.rank() == 2 ? 1 : 0, keys[comm.rank()]);
    const int mine = comm.rank();
    std::vector<int> all(static_cast<size_t>(group->size()));
    group->all_gather(&mine, sizeof mine, all.data());
    right += all == (mine == 2 ? std::vector<int>{2} : std::vector<int>{1, 3, 0, 4}) &&
             all[static_cast<size_t>(group->rank())] == mine;
  });
  CHECK(right == 5);
}

TEST_CASE("ranks that are left out wait for the end of the others, and end as they do") {
  const std::vector<uint32_t> used = {3, 0};
  std::atomic<int> ran = 0, ended = 0;
  run_local_ranks(4, [&](Comm& comm) {
    with_used_ranks(comm, used, [&](Comm& part) {
      const int expected = comm.rank() == 3 ? 0 : 1;
      if (part.size() != 2 || part.rank() != expected) throw work_failed("another place");
      part.barrier();
      ++ran;
    });
    ++ended;
  });
  CHECK(ran == 2);
  CHECK(ended == 4);
  std::atomic<int> agreed = 0;
  const auto failing = [&](Comm& comm) {
    try {
      with_used_ranks(comm, used, [&](Comm& part) {
        together(part, [&] {
          if (part.rank() == 1) throw bad_input("weights", "a model", "nothing");
        });
      });
    } catch (const AgreedError& error) {
      agreed += error.kind() == ErrorKind::input;
      throw;
    }
  };
  CHECK_THROWS_WITH(run_local_ranks(4, failing), "weights: expected a model, found nothing");
  CHECK(agreed == 4);
  const auto alone = [&](Comm& comm) {
    with_used_ranks(comm, used, [&](Comm& part) {
      if (part.rank() == 0) throw work_failed("no space left");
      part.barrier();
    });
  };
  CHECK_THROWS_WITH(run_local_ranks(4, alone), "no space left");
}

TEST_CASE("an error on one rank becomes an error of all, said once") {
  std::atomic<int> silent = 0, loud = 0;
  const auto body = [&](Comm& comm) {
    try {
      together(comm, [&] {
        if (comm.rank() >= 1) {
          throw bad_input("file" + std::to_string(comm.rank()), "a model", "nothing");
        }
      });
    } catch (const AgreedError& error) {
      ++(*error.what() == '\0' ? silent : loud);
      throw;
    }
  };
  try {
    run_local_ranks(4, body);
    FAIL("no error");
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::input);
    CHECK(std::string(error.what()) == "file1: expected a model, found nothing");
  }
  CHECK(silent == 3);
  CHECK(loud == 1);
}

TEST_CASE("a rank that fails alone wakes those that wait for it") {
  const auto body = [](Comm& comm) {
    if (comm.rank() == 2) throw work_failed("no space left");
    std::vector<int> all(3);
    const int mine = 0;
    comm.all_gather(&mine, sizeof mine, all.data());
    comm.barrier();
  };
  CHECK_THROWS_WITH(run_local_ranks(3, body), "no space left");
}

TEST_CASE("ranks of one process are on one host, each at its own place") {
  run_local_ranks(3, [](Comm& comm) {
    const RankOnHost place = rank_on_this_host(comm);
    if (place.index != comm.rank() || place.count != 3) throw work_failed("another place");
  });
}

TEST_CASE("without a launcher there is one rank, which MPI need not know of") {
  int ranks = 0;
  run_launched_rank([&](Comm& comm) { ranks = comm.size() + rank_on_this_host(comm).count; });
  CHECK(ranks == 2);
}

}  // namespace
}  // namespace thermocline::test
