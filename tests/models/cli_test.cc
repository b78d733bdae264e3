// What every subcommand shares: files that appear whole, JSON, progress, interruption.
#include "models/cli.h"

#include <fcntl.h>
#include <pty.h>
#include <signal.h>
#include <sys/stat.h>

#include <catch2/catch.hpp>
#include <fstream>
#include <thread>

#include "models/mapped_file.h"
#include "tests/models/failures.h"
#include "tests/support.h"

namespace thermocline::test {
namespace {

using Catch::Contains;
using nlohmann::ordered_json;

size_t entries_in(const TempDir& folder) {
  size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder.path())) {
    count += !entry.path().empty();
  }
  return count;
}

TEST_CASE("a file is written whole, replaces the old one and leaves nothing beside it") {
  const TempDir folder;
  const std::string path = folder / "out.json";
  write_file(path, "old");
  const std::string bytes = std::string("new\0", 4) + std::string(300'000, 'x');
  write_file(path, bytes);
  CHECK(read_file(path) == bytes);
  write_file(path, "");
  CHECK(read_file(path).empty());
  CHECK(entries_in(folder) == 1);
}

TEST_CASE("a file that cannot be written is a failure with the system's reason") {
  const TempDir folder;
  const auto write_failure = [](const std::string& path) {
    return failure_of([&path] { write_file(path, "x"); });
  };
  const Failure missing = write_failure(folder / "no/such/file");
  CHECK(missing.kind == ErrorKind::failed);
  CHECK_THAT(missing.message, Contains("no/such/file") && Contains("No such file or directory"));
  std::filesystem::create_directory(folder / "taken");
  CHECK_THAT(write_failure(folder / "taken").message, Contains("directory"));
  CHECK(entries_in(folder) == 1);  // no taken.tmp
  CHECK_THAT(write_failure("/dev/full").message, Contains("No space left on device"));
}

TEST_CASE("a read-only folder is a failure with the system's reason") {
  const TempDir folder;
  REQUIRE(::chmod(folder.path().c_str(), 0555) == 0);
  const int outcome = outcome_in_child([&folder] {
    if (::geteuid() == 0 && ::seteuid(65534) != 0) return 98;  // root may write anywhere
    try {
      write_file(folder / "x", "x");
    } catch (const Error& error) {
      const std::string message = error.what();
      return message.find("Permission denied") != std::string::npos ? 42 : 43;
    }
    return 0;
  });
  CHECK(outcome == 42);
  REQUIRE(::chmod(folder.path().c_str(), 0755) == 0);
  CHECK(entries_in(folder) == 0);
}

TEST_CASE("a write that fails half way leaves the old file and no other") {
  const TempDir folder;
  const std::string path = folder / "out";
  write_file(path, "the old text");
  const int outcome = outcome_in_child([&path] {
    ::signal(SIGXFSZ, SIG_IGN);  // the write then fails with "File too large"
    const rlimit small = {8192, 8192};
    ::setrlimit(RLIMIT_FSIZE, &small);
    try {
      write_file(path, std::string(100'000, 'x'));
    } catch (const Error& error) {
      return error.exit_code() == 1 ? 42 : 43;
    }
    return 0;
  });
  CHECK(outcome == 42);
  CHECK(read_file(path) == "the old text");
  CHECK(entries_in(folder) == 1);
}

TEST_CASE("a device is written as it is, never replaced") {
  write_file("/dev/null", "x");
  struct stat facts;
  REQUIRE(::stat("/dev/null", &facts) == 0);
  CHECK(S_ISCHR(facts.st_mode));
  CHECK_FALSE(std::filesystem::exists("/dev/null.tmp"));
}

TEST_CASE("a file that cannot be read is an input error that names it") {
  const TempDir folder;
  const Failure missing = failure_of([&folder] { read_file(folder / "none"); });
  CHECK(missing.kind == ErrorKind::input);
  CHECK_THAT(missing.message, Contains(folder / "none") && Contains("No such file"));
  CHECK(failure_of([&folder] { read_file(folder.path()); }).kind == ErrorKind::input);
}

TEST_CASE("a mapped file is its bytes, outlives its name and ends with its last owner") {
  const TempDir folder;
  const std::string path = folder / "mapped";
  write_file(path, "some bytes");
  MappedFile file = map_file(path);
  const std::shared_ptr<const void> second_owner = file.owner;
  file.owner.reset();
  std::filesystem::remove(path);
  REQUIRE(file.bytes.size() == 10);
  CHECK(static_cast<char>(file.bytes[5]) == 'b');
  write_file(path, "");
  CHECK(map_file(path).bytes.empty());
}

TEST_CASE("what cannot be mapped is an input error") {
  const TempDir folder;
  CHECK_THAT(failure_of([&folder] { map_file(folder / "none"); }).message,
             Contains("none: expected a readable file, found No such file"));
  CHECK_THAT(failure_of([&folder] { map_file(folder.path()); }).message,
             Contains("expected a regular file, found a folder"));
  CHECK_THAT(failure_of([] { map_file("/dev/null"); }).message, Contains("found a device"));
}

TEST_CASE("the machine's facts are those of this process") {
  const ordered_json facts = machine_facts();
  CHECK_FALSE(facts["host"].get<std::string>().empty());
  CHECK_FALSE(facts["cpu"].get<std::string>().empty());
  CHECK(facts["memory_bytes"] > (uint64_t{1} << 26));
  cpu_set_t cores;
  REQUIRE(::sched_getaffinity(0, sizeof cores, &cores) == 0);
  CHECK(facts["cores"] == CPU_COUNT(&cores));
  const int narrowed = outcome_in_child([&cores] {
    int first = 0;
    while (!CPU_ISSET(first, &cores)) ++first;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    ::sched_setaffinity(0, sizeof one, &one);
    return machine_facts()["cores"].get<int>();
  });
  CHECK(narrowed == 1);
}

TEST_CASE("a JSON file holds command, version, machine and rows, in that order") {
  const TempDir folder;
  const ordered_json rows = {{{"kind", "run"}, {"value", 1.5}}, {{"kind", "rank"}}};
  write_json(folder / "run.json", "run", rows);
  const auto whole = ordered_json::parse(read_file(folder / "run.json"));
  std::vector<std::string> keys;
  for (const auto& [key, value] : whole.items()) keys.push_back(key);
  CHECK(keys == std::vector<std::string>{"command", "version", "machine", "rows"});
  CHECK(whole["command"] == "run");
  CHECK(whole["version"] == kVersion);
  CHECK(whole["machine"] == machine_facts());
  CHECK(whole["rows"] == rows);
}

TEST_CASE("text that is not UTF-8 still makes valid JSON") {
  const TempDir folder;
  write_json(folder / "x.json", "run", {{{"text", "a\xff z"}}});
  const auto whole = ordered_json::parse(read_file(folder / "x.json"));
  CHECK_THAT(whole["rows"][0]["text"].get<std::string>(), Contains("a") && Contains(" z"));
}

int write_json_to_stdout(const std::string& target) {
  if (std::freopen(target.c_str(), "w", stdout) == nullptr) return 98;
  try {
    write_json("-", "trace info", {{{"a", 1}}});
  } catch (const Error& error) {
    return error.exit_code();
  }
  return 0;
}

TEST_CASE("the path - is standard output, and a full one is a failure") {
  const TempDir folder;
  const std::string path = folder / "stdout";
  CHECK(outcome_in_child([&path] { return write_json_to_stdout(path); }) == 0);
  CHECK(ordered_json::parse(read_file(path))["rows"][0]["a"] == 1);
  CHECK(outcome_in_child([] { return write_json_to_stdout("/dev/full"); }) == 1);
}

TEST_CASE("the first signal sets a flag, a later one ends the process") {
  CHECK_FALSE(interrupted());
  for (const int signal : {SIGINT, SIGTERM}) {
    const int first = outcome_in_child([signal] {
      install_interrupt_handler();
      if (interrupted()) return 1;
      ::raise(signal);
      return interrupted() ? 42 : 2;
    });
    CHECK(first == 42);
    const int second = outcome_in_child([signal] {
      install_interrupt_handler();
      ::raise(SIGINT);
      ::usleep(350'000);
      ::raise(signal);
      return 3;
    });
    CHECK(second == 128 + signal);
    const int at_once = outcome_in_child([signal] {  // as timeout(1) does: process, then group
      install_interrupt_handler();
      ::raise(signal);
      ::raise(signal);
      return 42;
    });
    CHECK(at_once == 42);
  }
}

TEST_CASE("progress tells what, how far, how fast and how long still") {
  CHECK(progress_text("recording", 12, 40, "steps", 4) ==
        "recording: 12 of 40 steps, 3 steps/s, 9 s left");
  CHECK(progress_text("recording", 40, 40, "steps", 4) == "recording: 40 of 40 steps, 10 steps/s");
  CHECK(progress_text("reading", 7, 0, "prompts", 2) == "reading: 7 prompts, 3.5 prompts/s");
  CHECK(progress_text("x", 0, 10, "steps", 0) == "x: 0 of 10 steps, 0 steps/s");
  CHECK_THAT(progress_text("x", 1, 101, "steps", 1), Contains("1 min 40 s left"));
  CHECK_THAT(progress_text("x", 1, 7321, "steps", 1), Contains("2 h 02 min left"));
}

// Everything that a child which reports progress for `seconds` writes to its standard error.
std::string progress_output(bool terminal, double seconds) {
  int reader = -1, writer = -1;
  if (terminal) {
    REQUIRE(::openpty(&reader, &writer, nullptr, nullptr, nullptr) == 0);
  } else {
    int ends[2];
    REQUIRE(::pipe(ends) == 0);
    reader = ends[0], writer = ends[1];
  }
  const int outcome = outcome_in_child([=] {
    ::dup2(writer, STDERR_FILENO);
    {
      Progress progress("replaying", 100, "steps");
      const auto pause = std::chrono::duration<double>(seconds / 100);
      for (uint64_t done = 1; done <= 100; ++done) {
        std::this_thread::sleep_for(pause);
        progress.update(done);
      }
    }
    std::fputs("end", stderr);
    std::fflush(stderr);
    return 0;
  });
  CHECK(outcome == 0);
  char buffer[65536];
  const ssize_t count = ::read(reader, buffer, sizeof buffer);
  ::close(reader);
  ::close(writer);
  return {buffer, count > 0 ? static_cast<size_t>(count) : 0};
}

TEST_CASE("a short job shows no progress, and a log hears of it once a minute") {
  CHECK(progress_output(true, 0.2) == "end");
  CHECK(progress_output(false, 0.2) == "end");
}

TEST_CASE("a terminal sees a bar after two seconds, and the end of it") {
  const std::string output = progress_output(true, 2.4);
  CHECK_THAT(output, Contains("[###") && Contains("..] replaying: ") && Contains("s left"));
  CHECK_THAT(output, Contains("replaying: 100 of 100 steps") && Contains("\nend"));
}

}  // namespace
}  // namespace thermocline::test
