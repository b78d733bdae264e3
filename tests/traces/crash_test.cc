// A writer that dies, and a disk that is full: what was flushed is readable.
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <catch2/catch.hpp>
#include <filesystem>
#include <functional>
#include <new>
#include <random>

#include "models/error.h"
#include "tests/mounted_folder.h"
#include "tests/support.h"
#include "tests/traces/trace_fixture.h"
#include "traces/profile.h"
#include "traces/trace.h"

// Writes that are left before the process kills itself: OrderedFile's calls come here.
static uint64_t writes_left = ~uint64_t{0};

extern "C" ssize_t pwrite(int fd, const void* bytes, size_t size, off_t at) {
  if (writes_left-- == 0) ::kill(::getpid(), SIGKILL);
  return ::syscall(SYS_pwrite64, fd, bytes, size, at);
}

namespace thermocline::test {
namespace {

using Catch::Matchers::Contains;

// Memory that a forked child shares with its parent.
struct Shared {
  std::atomic<bool> created;
  std::atomic<uint64_t> appended;
  char message[512];
};

class SharedMemory {
 public:
  SharedMemory()
      : memory_(::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                       -1, 0)) {
    REQUIRE(memory_ != MAP_FAILED);
    shared_ = new (memory_) Shared{};
  }
  ~SharedMemory() { ::munmap(memory_, sizeof(Shared)); }
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;
  Shared* operator->() const { return shared_; }

 private:
  void* memory_;
  Shared* shared_;
};

// Runs `work` in a child that never returns to the tests; its exit code is what work returns.
pid_t start_child(const std::function<int()>& work) {
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) ::_exit(work());
  return child;
}

int wait_for(pid_t child) {
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  return status;
}

TraceHeader one_rank() { return fixture_header(5, 172, {{0, 5, 0, 172}}); }

// Appends until something stops it.
void append_forever(const std::string& path, const SharedMemory& shared) {
  const TraceHeader header = one_rank();
  const auto writer = create_shard(path, header, 0);
  shared->created = true;
  for (uint64_t step = 0;; ++step) {
    writer->append(fixture_step(step), fixture_times(step, 0),
                   {fixture_words(header.pools[0], step), {}, {}});
    if (step % 10 == 9) {
      writer->end_task(fixture_task(step / 10));
    }
    shared->appended = step + 1;
  }
}

// The partial trace is what was appended, up to the steps it has; returns how many.
uint64_t check_survivor(const std::string& path) {
  const auto trace = open_trace(path, {.allow_partial = true});
  const uint64_t steps = trace->step_count();
  const TraceHeader header = one_rank();
  uint64_t wrong = 0;
  for_each_block(*trace, header.pools[0], 0, steps, [&](const StepBlock& block) {
    for (uint64_t i = 0; i < block.step_count; ++i) {
      const auto words = block.step(i).words;
      const auto expected = fixture_words(header.pools[0], block.step_begin + i);
      wrong += !std::equal(words.begin(), words.end(), expected.begin(), expected.end());
    }
  });
  const auto infos = trace->steps();
  const auto times = trace->times(0);
  for (uint64_t step = 0; step < steps; ++step) {
    wrong += infos[step].token != fixture_step(step).token;
    wrong += times[step].compute_ns != fixture_times(step, 0).compute_ns;
  }
  CHECK(wrong == 0);
  CHECK(trace->tasks().size() <= steps / 10);
  CHECK(trace->tasks().size() + 1 >= steps / 10);
  const auto reports = check_trace(path);
  REQUIRE(reports.size() == 2);
  CHECK(!reports[0].good);
  CHECK_THAT(reports[0].line, Contains("unfinished, good so far"));
  return steps;
}

void kill_at_random_moments(int count) {
  std::mt19937 random(3);
  for (int i = 0; i < count; ++i) {
    const TempDir folder;
    const std::string path = folder / "t.h5";
    const SharedMemory shared;
    const pid_t child = start_child([&]() -> int {
      append_forever(path, shared);
      return 0;
    });
    while (!shared->created) ::usleep(100);
    ::usleep(random() % 40000);
    ::kill(child, SIGKILL);
    const int status = wait_for(child);
    REQUIRE(WIFSIGNALED(status));
    const uint64_t steps = check_survivor(path);
    CHECK(steps <= shared->appended + 1);
    // At most the queue (4 blocks), the block being written and the one being filled are lost.
    CHECK(steps + 6 * kBlockSteps + 1 >= shared->appended);
  }
}

TEST_CASE("a killed writer leaves every step that it flushed") { kill_at_random_moments(20); }
TEST_CASE("200 killed writers leave every step that they flushed", "[slow]") {
  kill_at_random_moments(200);
}

TEST_CASE("a kill between any two writes costs nothing that was flushed before", "[long]") {
  const TempDir folder;
  const std::string path = folder / "t.h5";
  const TraceHeader header = one_rank();
  // Enough steps for the chunk trees to split, more than once and at the root.
  uint64_t steps_last = 0;
  for (uint64_t writes = 80;; writes += 131) {
    const SharedMemory shared;
    const int status = wait_for(start_child([&] {
      writes_left = writes;
      const auto writer = create_shard(path, header, 0);
      append_fixture(*writer, header, 0, 9000);
      writer->finish();
      return 0;
    }));
    if (WIFEXITED(status)) break;
    REQUIRE(WTERMSIG(status) == SIGKILL);
    const uint64_t steps = check_survivor(path);
    CHECK(steps >= steps_last);
    steps_last = steps;
  }
  CHECK(steps_last > 8000);
}

// Appends until the disk refuses; the message is left in shared memory.
int append_until_error(const std::string& path, const SharedMemory& shared) {
  try {
    append_forever(path, shared);
  } catch (const Error& error) {
    std::snprintf(shared->message, sizeof shared->message, "%s", error.what());
    return error.exit_code();
  }
  return 0;
}

TEST_CASE("a file that may not grow is an Error, and what was flushed is readable") {
  const TempDir folder;
  const std::string path = folder / "t.h5";
  {
    const auto writer = create_shard(path, one_rank(), 0);
    append_fixture(*writer, one_rank(), 0, 2 * kBlockSteps);
  }
  // Limits from just above two blocks on: bits, columns or index are the last straw.
  const uint64_t smallest = std::filesystem::file_size(partial_path(path, 0)) + 4096;
  for (uint64_t limit = smallest; limit < smallest + 200000; limit += 8009) {
    const SharedMemory shared;
    const int status = wait_for(start_child([&]() -> int {
      ::signal(SIGXFSZ, SIG_IGN);
      const rlimit file_size = {limit, limit};
      if (::setrlimit(RLIMIT_FSIZE, &file_size) != 0) return 77;
      return append_until_error(path, shared);
    }));
    REQUIRE(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == static_cast<int>(ErrorKind::failed));
    CHECK_THAT(shared->message, Contains("t.rank0000.h5.partial") && Contains("File too large"));
    CHECK(check_survivor(path) > 0);
  }
}

TEST_CASE("a full disk is an Error, and what was flushed is readable") {
  const MountedFolder folder;
  if (!folder.mounted()) return;
  CHECK_FALSE(folder.seen_outside());
  const std::string path = folder / "t.h5";
  const SharedMemory shared;
  const int status = wait_for(start_child([&] { return append_until_error(path, shared); }));
  REQUIRE(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == static_cast<int>(ErrorKind::failed));
  CHECK_THAT(shared->message, Contains("No space left on device"));
  CHECK(check_survivor(path) > 0);
}

TEST_CASE("a folder that cannot be written to is an Error at once") {
  const TempDir folder;
  const std::string path = folder / "none/t.h5";
  CHECK_THROWS_WITH(create_shard(path, one_rank(), 0),
                    Contains("none/t.rank0000.h5.partial") && Contains("No such file"));
}

TEST_CASE("a read-only file system is an Error at once, and leaves nothing") {
  const MountedFolder folder(MS_RDONLY);
  if (!folder.mounted()) return;
  CHECK_FALSE(folder.seen_outside());
  CHECK_THROWS_WITH(create_shard(folder / "t.h5", one_rank(), 0),
                    Contains("t.h5") && Contains("Read-only file system"));
  CHECK(std::filesystem::is_empty(folder.path()));
}

TEST_CASE("a writer that is dropped without finish keeps its steps as a partial") {
  const TempDir folder;
  const std::string path = folder / "t.h5";
  {
    const auto writer = create_shard(path, one_rank(), 0);
    append_fixture(*writer, one_rank(), 0, 5);
  }
  CHECK(check_survivor(path) == 5);
}

TEST_CASE("a writer that is dropped before its first step leaves nothing") {
  const TempDir folder;
  create_shard(folder / "t.h5", one_rank(), 0);
  CHECK(std::filesystem::is_empty(folder.path()));
}

TEST_CASE("a disk that is full when shards are joined keeps them, and no half of a master") {
  const MountedFolder folder;
  if (!folder.mounted()) return;
  const std::string path = folder / "t.h5";
  {
    const auto writer = create_shard(path, one_rank(), 0);
    append_fixture(*writer, one_rank(), 0, 2 * kBlockSteps);
    writer->finish();
  }
  std::ofstream(folder / "others") << std::string(size_t{1} << 20, 'x');
  CHECK_THROWS_WITH(write_master(path), Contains("No space left on device"));
  CHECK(std::filesystem::exists(shard_path(path, 0)));
  CHECK_FALSE(std::filesystem::exists(path + ".partial"));
  std::filesystem::remove(folder / "others");
  write_master(path);
  CHECK(open_trace(path)->step_count() == 2 * kBlockSteps);
}

}  // namespace
}  // namespace thermocline::test
