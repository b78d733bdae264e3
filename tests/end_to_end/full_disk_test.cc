// A disk that is too small, or fills up: one error that names the file, the room and what to do;
// no partial file under a final name, nothing left beside it.
#include <sched.h>
#include <sys/mount.h>

#include <algorithm>
#include <fstream>

#include "tests/end_to_end/program.h"

namespace thermocline::test {
namespace {

using Catch::Matchers::Contains;

constexpr const char* kRun =
    "run --model preset:tiny --shots 0 --teacher-forced --threads 1 --limit 1 ";

// From here on this process and its children alone see what it mounts.
bool have_own_mounts() {
  return ::unshare(CLONE_NEWNS) == 0 &&
         ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
}

// A file system of 1 MiB of which `left` bytes are free; not mounted where that is not permitted.
class SmallDisk {
 public:
  explicit SmallDisk(size_t left) {
    mounted_ =
        have_own_mounts() && ::mount("tmpfs", folder_.path().c_str(), "tmpfs", 0, "size=1m") == 0;
    if (!mounted_) {
      WARN("skipped: a small file system cannot be mounted here");
      return;
    }
    std::ofstream(folder_ / "others") << std::string((size_t{1} << 20) - left, 'x');
  }
  ~SmallDisk() {
    if (mounted_) ::umount(folder_.path().c_str());
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;

  bool mounted() const { return mounted_; }
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
  TempDir folder_;
  bool mounted_ = false;
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

// Each has room as long as the other has not written: that is seen before either is half done.
TEST_CASE("ranks that share a disk do not count on the same room") {
  const SmallDisk disk(size_t{220} << 10);
  if (!disk.mounted()) return;
  const CommandResult result =
      thermocline_command(kRun + ("--local-ranks 2 --disk-tier " + disk / ""));
  fails_once(result, ".bundles: ", "free some room, or write to another disk");
  for (const std::string& name : disk.files()) CHECK_THAT(name, Catch::EndsWith(".bundles"));
  CHECK(disk.files().size() <= 1);  // one rank's may be whole, and the next run takes it
}

TEST_CASE("a trace that a disk has no room to begin: one error, and nothing is left") {
  const SmallDisk disk(size_t{8} << 10);
  if (!disk.mounted()) return;
  const CommandResult result = thermocline_command(kRun + ("--record " + disk / "t.h5"));
  fails_once(result, "t.rank0000.h5.partial: cannot write", "No space left on device");
  CHECK_THAT(result.output, !Contains("--resume"));
  CHECK(disk.files().empty());
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
