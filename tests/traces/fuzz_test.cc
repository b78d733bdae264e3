// Damaged files: an Error or the right data; no crash, no hang, no memory that the file cannot
// back.
//
// Each damaged file is opened in a child of its own, so that a crash counts as a failure.
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <filesystem>
#include <functional>
#include <random>

#include "models/cli.h"
#include "models/error.h"
#include "tests/support.h"
#include "tests/traces/trace_fixture.h"
#include "traces/profile.h"
#include "traces/schema.h"
#include "traces/trace.h"

namespace thermocline::test {
namespace {

constexpr uint64_t kSteps = 70;
constexpr long kMemoryKib = 512 << 10;
constexpr unsigned kSecondsMax = 20;

enum Outcome : int { refused = 10, correct = 11, wrong_bits = 12, wrong_but_good = 13 };

struct Child {
  int status;
  long memory_kib;
};

Child run_child(const std::function<int()>& work) {
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    ::alarm(kSecondsMax);
    ::_exit(work());
  }
  Child result{};
  rusage usage{};
  REQUIRE(::wait4(child, &result.status, 0, &usage) == child);
  result.memory_kib = usage.ru_maxrss;
  return result;
}

bool bits_are_right(const TraceReader& trace) {
  if (trace.step_count() != kSteps || trace.header().pools != three_ranks().pools) return false;
  const NeuronPool whole = whole_model(three_ranks());
  StepBlock block;
  trace.read(whole, 0, kSteps, block);
  for (uint64_t step = 0; step < kSteps; ++step) {
    const auto words = block.step(step).words;
    const auto expected = fixture_words(whole, step);
    if (!std::equal(words.begin(), words.end(), expected.begin(), expected.end())) return false;
  }
  return true;
}

bool rest_is_right(const TraceReader& trace) {
  if (!difference(trace.header(), three_ranks()).empty()) return false;
  const auto steps = trace.steps();
  for (uint64_t step = 0; step < kSteps; ++step) {
    if (steps[step] != fixture_step(step)) return false;
  }
  for (uint32_t rank = 0; rank < 3; ++rank) {
    const auto times = trace.times(rank);
    for (uint64_t step = 0; step < kSteps; ++step) {
      if (times[step] != fixture_times(step, rank)) return false;
    }
  }
  for (uint64_t task = 0; task < trace.tasks().size(); ++task) {
    if (trace.tasks()[task] != fixture_task(task)) return false;
  }
  return trace.tasks().size() == kSteps / 10;
}

bool checks_as_good(const std::string& path) {
  const auto reports = check_trace(path);
  return std::all_of(reports.begin(), reports.end(),
                     [](const ShardReport& report) { return report.good; });
}

// What a user of a damaged trace would meet.
int outcome(const std::string& path) {
  try {
    const bool good = checks_as_good(path);
    const auto trace = open_trace(path);
    if (!bits_are_right(*trace)) return wrong_bits;
    const bool right = rest_is_right(*trace);
    if (good && !right) return wrong_but_good;
    return good ? correct : refused;
  } catch (const Error&) {
    return refused;
  }
}

struct Tally {
  int refused = 0, correct = 0;
};

// Replaces `target` by `bytes` and counts what becomes of the trace.
void try_damage(const std::string& path, const std::string& target, const std::string& bytes,
                Tally& tally) {
  write_file(target, bytes);
  const Child child = run_child([&path] { return outcome(path); });
  REQUIRE(WIFEXITED(child.status));
  const int code = WEXITSTATUS(child.status);
  CHECK((code == refused || code == correct));
  CHECK(child.memory_kib < kMemoryKib);
  tally.refused += code == refused;
  tally.correct += code == correct;
}

void flip_bytes(int count, unsigned seed) {
  const TempDir folder;
  const std::string path = folder / "t.h5";
  write_fixture(path, three_ranks(), kSteps);
  std::mt19937 random(seed);
  for (const std::string& target : {shard_path(path, 1), path}) {
    const std::string whole = read_file(target);
    Tally tally;
    for (int i = 0; i < count; ++i) {
      std::string bytes = whole;
      const size_t at = random() % bytes.size();
      const auto mask = static_cast<char>(1 + random() % 255);
      bytes[at] = static_cast<char>(bytes[at] ^ mask);
      INFO(target << ", byte " << at << " of " << bytes.size() << " xor " << int{mask});
      try_damage(path, target, bytes, tally);
    }
    write_file(target, whole);
    CHECK(tally.refused > 0);
  }
}

void cut_short(int count) {
  const TempDir folder;
  const std::string path = folder / "t.h5";
  write_fixture(path, three_ranks(), kSteps);
  for (const std::string& target : {shard_path(path, 1), path}) {
    const std::string whole = read_file(target);
    Tally tally;
    for (int i = 0; i < count; ++i) {
      const size_t size = i + 1 == count ? whole.size() - 1 : whole.size() * i / count;
      INFO(target << ", first " << size << " of " << whole.size() << " bytes");
      try_damage(path, target, whole.substr(0, size), tally);
    }
    write_file(target, whole);
    CHECK(tally.correct == 0);
  }
}

TEST_CASE("a trace with a changed byte is refused or right", "[long]") { flip_bytes(40, 5); }
TEST_CASE("a trace with many changed bytes is refused or right", "[slow]") { flip_bytes(500, 6); }
TEST_CASE("a truncated file is always an Error") { cut_short(40); }
TEST_CASE("a file truncated at many places is always an Error", "[slow]") { cut_short(300); }

}  // namespace
}  // namespace thermocline::test
