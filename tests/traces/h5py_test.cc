// Another reader sees what we wrote: plain h5py, on the master and on every shard.
#include <catch2/catch.hpp>
#include <filesystem>

#include "tests/support.h"
#include "tests/traces/trace_fixture.h"
#include "traces/trace.h"

namespace thermocline::test {
namespace {

const std::string kPython = "/usr/bin/python3";

bool have_h5py() {
  if (run_command(kPython + " -c 'import h5py, numpy'").exit_code == 0) return true;
  WARN("skipped: " << kPython << " has no h5py");
  return false;
}

std::string read_with_h5py(const std::string& master, uint64_t steps) {
  const std::string root = THERMOCLINE_SOURCE_DIR;
  return run_command(kPython + " " + root + "/tests/traces/read_with_h5py.py " + master + " " +
                     root + "/traces/README.md " + std::to_string(steps))
      .output;
}

TEST_CASE("plain h5py reads the master and the shards, and the README's example runs") {
  if (!have_h5py()) return;
  const TempDir folder;
  const std::string path = folder / "t.h5";
  write_fixture(path, three_ranks(), 150);
  CHECK_THAT(read_with_h5py(path, 150),
             Catch::Matchers::EndsWith("ok\n") && Catch::Matchers::Contains("preset:tiny"));
}

TEST_CASE("a lost shard does not read as zeros with h5py, and the README's example finds it") {
  if (!have_h5py()) return;
  const TempDir folder;
  const std::string path = folder / "t.h5";
  write_fixture(path, three_ranks(), 150);
  std::filesystem::remove(shard_path(path, 1));
  const std::string program =
      "import h5py, sys; f = h5py.File(sys.argv[1], 'r'); print(f['active'][1, 2, 70], "
      "f['times/wait_ns'][3, 1])";
  CHECK(run_command(kPython + " -c \"" + program + "\" " + path).output ==
        "18446744073709551615 18446744073709551615\n");
  CHECK_THAT(read_with_h5py(path, 150), Catch::Matchers::Contains("spare steps"));
}

}  // namespace
}  // namespace thermocline::test
