// A disk that is too small, or fills up: one error that names the file, the room and what to do;
// no partial file under a final name, nothing left beside it.
#include <algorithm>
#include <fstream>
#include <functional>

#include "tests/end_to_end/program.h"
#include "tests/mounted_folder.h"

namespace thermocline::test {
namespace {

using Catch::Matchers::Contains;

constexpr const char* kRun =
    "run --model preset:tiny --shots 0 --teacher-forced --threads 1 --limit 1 ";

// A file system of 1 MiB of which `left` bytes are free; not mounted where that is not permitted.
class SmallDisk {
 public:
  explicit SmallDisk(size_t left) {
    if (mounted()) std::ofstream(folder_ / "others") << std::string((size_t{1} << 20) - left, 'x');
  }

  bool mounted() const { return folder_.mounted(); }
  std::string operator/(const std::string& name) const { return folder_ / name; }
  // Of all files but the one that fills it.
  std::vector<std::string> files() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(folder_.path())) {
      if (entry.path().filename() != "others") names.push_back(entry.path().filename().string());
    }
    std::sort(names.begin(), names.end());
    return names;
  }
  void make_room() const { std::filesystem::remove(folder_ / "others"); }

 private:
  MountedFolder folder_;
};

using Names = std::vector<std::string>;

void fails_once(const CommandResult& result, const std::string& file, const std::string& reason) {
  INFO(result.output);
  CHECK(result.exit_code == 1);
  CHECK_THAT(result.output, Contains(file) && Contains(reason));
  const std::string error = "\nthermocline: ";
  const std::string output = "\n" + result.output;
  const size_t first = output.find(error);
  REQUIRE(first != std::string::npos);
  CHECK(output.find(error, first + 1) == std::string::npos);
}

}  // namespace

TEST_CASE("bundles that a disk has no room for: one error, and nothing is left") {
  const SmallDisk disk(size_t{100} << 10);
  if (!disk.mounted()) return;
  const CommandResult result = thermocline_command(kRun + ("--disk-tier " + disk / ""));
  fails_once(result, "-rank0.bundles: needs 292.00 KiB", ", of which the disk has 1");
  CHECK_THAT(result.output, Contains("KiB: free some room, or write to another disk"));
  CHECK(disk.files().empty());
}

// Each has room as long as the other has not written: that is seen before either packs a bundle.
TEST_CASE("ranks that share a disk do not count on the same room") {
  const SmallDisk disk(size_t{220} << 10);
  if (!disk.mounted()) return;
  const CommandResult result =
      thermocline_command(kRun + ("--local-ranks 2 --disk-tier " + disk / ""));
  fails_once(result, ".bundles: ", "free some room, or write to another disk");
  CHECK(disk.files().empty());
}

TEST_CASE("bundles that are whole stay where another file has no room, and the message says so") {
  const SmallDisk disk(size_t{308} << 10);
  if (!disk.mounted()) return;
  const std::string run =
      kRun + ("--local-ranks 2 --disk-tier " + disk / "" + " --record " + disk / "t.h5");
  const CommandResult result = thermocline_command(run);
  fails_once(result, ".h5.partial: cannot write",
             "the bundles of the weights stay in " + disk / "" + ", where the next run finds them");
  for (const std::string& name : disk.files()) CHECK_THAT(name, Catch::EndsWith(".bundles"));
  CHECK(disk.files().size() == 2);
  disk.make_room();
  const CommandResult next = thermocline_command(run);
  INFO(next.output);
  CHECK(next.exit_code == 0);
}

TEST_CASE("a trace that a disk has no room to begin: one error, and nothing is left") {
  const SmallDisk disk(size_t{8} << 10);
  if (!disk.mounted()) return;
  const CommandResult result = thermocline_command(kRun + ("--record " + disk / "t.h5"));
  fails_once(result, "t.rank0000.h5.partial: cannot write", "No space left on device");
  CHECK_THAT(result.output, !Contains("--resume"));
  CHECK(disk.files().empty());
}

namespace {

// From room for less than one rank's file to room for steps of both: what stays of a run that
// failed can be gone on with, or is not there.
void check_what_stays_of_two_ranks(const std::function<CommandResult(const std::string&)>& run) {
  int dropped = 0, kept = 0;
  for (const size_t left : {8, 24, 32, 56, 104, 136, 168, 200}) {
    const SmallDisk disk(left << 10);
    if (!disk.mounted()) return;
    const CommandResult result = run(kRun + ("--record " + disk / "t.h5"));
    INFO(left);
    fails_once(result, ".h5.partial: cannot write", "No space left on device");
    const bool resumes = result.output.find("--resume") != std::string::npos;
    ++(resumes ? kept : dropped);
    CHECK(disk.files() ==
          (resumes ? Names{"t.rank0000.h5.partial", "t.rank0001.h5.partial"} : Names{}));
    if (!resumes) continue;
    const CommandResult info = thermocline_command("trace info --allow-partial " + disk / "t.h5");
    INFO(info.output);
    CHECK(info.exit_code == 0);
  }
  CHECK(dropped > 0);
  CHECK(kept > 0);
}

}  // namespace

TEST_CASE("two ranks of which one cannot record leave no file of no use", "[long]") {
  check_what_stays_of_two_ranks([](const std::string& arguments) {
    return thermocline_command(arguments + " --local-ranks 2");
  });
}

TEST_CASE("two processes of which one cannot record leave no file of no use", "[mpi]") {
  if (!have_mpirun()) return;
  check_what_stays_of_two_ranks([](const std::string& arguments) { return mpirun(2, arguments); });
}

TEST_CASE("a recording that fills its disk goes on once there is room") {
  const SmallDisk disk(size_t{120} << 10);
  if (!disk.mounted()) return;
  const std::string run = kRun + ("--record " + disk / "t.h5");
  const CommandResult result = thermocline_command(run);
  fails_once(result, "t.rank0000.h5.partial: cannot write", "No space left on device");
  CHECK_THAT(result.output, Contains("the same command with --resume goes on"));
  CHECK(disk.files() == Names{"t.rank0000.h5.partial"});
  disk.make_room();
  const CommandResult resumed = thermocline_command(run + " --resume");
  INFO(resumed.output);
  CHECK(resumed.exit_code == 0);
  CHECK(disk.files() == Names{"t.h5", "t.rank0000.h5"});
  CHECK(thermocline_command("trace check " + disk / "t.h5").exit_code == 0);
}

TEST_CASE("a checkpoint that a disk has no room for: one error, and nothing is left") {
  const SmallDisk disk(size_t{100} << 10);
  if (!disk.mounted()) return;
  const auto fails = [&](const std::string& command) {
    fails_once(thermocline_command(command), "out.gguf: cannot reserve ", "free some room");
    CHECK(disk.files().empty());
  };
  fails("model synth --preset tiny --out " + disk / "out.gguf");
  const TempDir folder;
  REQUIRE(thermocline_command("model synth --preset tiny --out " + folder / "in.gguf").exit_code ==
          0);
  fails("model convert " + folder / "in.gguf" + " " + disk / "out.gguf" + " --type f32");
}

}  // namespace thermocline::test
