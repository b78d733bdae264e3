// The thread pool: parts, errors, many short jobs on few cores, several pools at once.
#include "runtime/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <climits>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "models/error.h"

namespace thermocline::test {
namespace {

using Part = std::pair<int, int>;

// The part that each thread took.
std::map<std::thread::id, Part> parts_of(ThreadPool& pool, int count, int unit) {
  std::mutex mutex;
  std::map<std::thread::id, Part> parts;
  pool.run(count, unit, [&](int begin, int end) {
    const std::lock_guard lock(mutex);
    CHECK(parts.emplace(std::this_thread::get_id(), Part(begin, end)).second);
  });
  return parts;
}

int sum_of(ThreadPool& pool, int count) {
  std::atomic<int> sum = 0;
  pool.run(count, 1, [&](int begin, int end) { sum += end - begin; });
  return sum;
}

TEST_CASE("a pool covers every index once, in whole units") {
  const int threads = GENERATE(1, 2, 3, 8);
  const int count = GENERATE(0, 1, 5, 64, 1000);
  const int unit = GENERATE(1, 8, 64);
  ThreadPool pool(threads);
  std::vector<std::atomic<int>> visits(static_cast<size_t>(count));
  std::atomic<bool> aligned = true;
  for (int round = 0; round < 3; ++round) {
    pool.run(count, unit, [&](int begin, int end) {
      if (begin % unit != 0 || (end % unit != 0 && end != count)) aligned = false;
      for (int i = begin; i < end; ++i) ++visits[static_cast<size_t>(i)];
    });
  }
  CHECK(aligned);
  CHECK(std::all_of(visits.begin(), visits.end(), [](const auto& n) { return n == 3; }));
}

TEST_CASE("the same range has the same parts on the same threads, the first on the caller's") {
  ThreadPool pool(4);
  const auto parts = parts_of(pool, 1000, 8);
  REQUIRE(parts.size() == 4);
  CHECK(parts.at(std::this_thread::get_id()).first == 0);
  for (int round = 0; round < 50; ++round) {
    parts_of(pool, 17 + round, 1);  // another range in between
    CHECK(parts_of(pool, 1000, 8) == parts);
  }
}

TEST_CASE("a range may be as long as an int counts") {
  ThreadPool pool(3);
  std::atomic<int64_t> covered = 0;
  pool.run(INT_MAX, 1 << 20, [&](int begin, int end) { covered += end - begin; });
  CHECK(covered == INT_MAX);
}

TEST_CASE("an error in a part surfaces in run, and the pool works on") {
  const int threads = GENERATE(1, 2, 3);
  ThreadPool pool(threads);
  for (int round = 0; round < 20; ++round) {
    const auto fail_last = [](int, int end) {
      if (end == 30) throw work_failed("last part");
    };
    CHECK_THROWS_WITH(pool.run(30, 1, fail_last), "last part");
    CHECK(sum_of(pool, 30) == 30);
    const auto fail_first = [](int begin, int) {
      if (begin == 0) throw work_failed("first part");
    };
    CHECK_THROWS_WITH(pool.run(30, 1, fail_first), "first part");
    CHECK_THROWS_WITH(pool.run(30, 1, [](int, int) { throw work_failed("any"); }), "any");
    CHECK(sum_of(pool, 30) == 30);
  }
}

TEST_CASE("thousands of short jobs, on more threads than cores too") {
  const int threads = GENERATE(range(1, 10));
  ThreadPool pool(threads);
  int64_t total = 0;
  for (int round = 0; round < 3000; ++round) total += sum_of(pool, round % 40);
  CHECK(total == 75 * 780);
}

TEST_CASE("jobs come to threads that look for one and to threads that sleep") {
  ThreadPool pool(2);
  for (int round = 0; round < 200; ++round) {
    // Around the time that threads look before they sleep.
    std::this_thread::sleep_for(std::chrono::microseconds(round));
    CHECK(sum_of(pool, 10) == 10);
  }
}

TEST_CASE("a part sees what was written before, and run what a part wrote") {
  ThreadPool pool(3);
  std::vector<int> values(300, 0);
  for (int round = 0; round < 1000; ++round) {
    pool.run(300, 1, [&](int begin, int end) {
      for (int i = begin; i < end; ++i) ++values[static_cast<size_t>(i)];
    });
    std::reverse(values.begin(), values.end());
  }
  CHECK(values == std::vector<int>(300, 1000));
}

TEST_CASE("pools of several ranks work at once") {
  const int threads = GENERATE(1, 2, 4);
  constexpr int kRanks = 4;
  std::atomic<int> right = 0;
  std::vector<std::thread> ranks;
  for (int rank = 0; rank < kRanks; ++rank) {
    ranks.emplace_back([&, rank] {
      ThreadPool pool(threads, {rank, kRanks});
      for (int round = 0; round < 500; ++round) right += sum_of(pool, 64) == 64;
    });
  }
  for (std::thread& rank : ranks) rank.join();
  CHECK(right == kRanks * 500);
}

TEST_CASE("a pool ends at any time: unused, just done, long asleep") {
  const int threads = GENERATE(1, 2, 9);
  for (int round = 0; round < 50; ++round) {
    const ThreadPool unused(threads);
    ThreadPool done(threads);
    CHECK(sum_of(done, 100) == 100);
  }
  ThreadPool asleep(threads);
  CHECK(sum_of(asleep, 100) == 100);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
}

TEST_CASE("threads keep to their nodes, and the caller gets its cores back") {
  const CoreList before = cores_of_this_thread();
  if (before.size() < 2) return;
  // Two nodes, as if on a machine of many more cores.
  const std::vector<CoreList> nodes = {{before[0], 8000}, {before[1], 8001, 8002}};
  for (int round = 0; round < 20; ++round) {
    ThreadPool pool(4, {}, nodes);
    std::vector<CoreList> cores(4);
    pool.run(4, 1,
             [&](int begin, int) { cores[static_cast<size_t>(begin)] = cores_of_this_thread(); });
    const CoreList first = {before[0]}, second = {before[1]};
    CHECK(cores == std::vector<CoreList>{first, first, second, second});
  }
  CHECK(cores_of_this_thread() == before);
}

TEST_CASE("a pool on one node binds no thread") {
  const CoreList before = cores_of_this_thread();
  ThreadPool pool(2, {}, {before});
  std::atomic<int> bound = 0;
  pool.run(2, 1, [&](int, int) { bound += cores_of_this_thread() != before; });
  CHECK(bound == 0);
}

TEST_CASE("a pool has at least one thread") { CHECK(ThreadPool(0).size() == 1); }

}  // namespace
}  // namespace thermocline::test
