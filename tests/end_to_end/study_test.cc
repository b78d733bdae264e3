// `thermocline study`: the demo's whole loop on the tiny model, and its resumption.
#include <fstream>

#include "tests/end_to_end/program.h"

namespace thermocline::test {
namespace {

constexpr const char* kStudy = R"(name = "small"
ranks = 2
threads = 1
policies = ["fixed", "ewma", "oracle-static"]
budgets = "10%..50%/20%"
migration = "64KiB"
teacher_forced = true

[prompts]
profile_split = "train"
test_split = "test"
profile_limit = 1
test_limit = 2

[execute]
tiers = ["host,disk"]
budgets = "20%,40%"

[[model]]
label = "tiny"
model = "preset:tiny"
)";

TEST_CASE("a study records, replays, compares and reports, and resumes for nothing", "[mpi]") {
  if (!have_mpirun()) return;
  const TempDir folder;
  std::ofstream(folder / "small.toml") << kStudy;
  const std::string study = "study " + folder / "small.toml" + " --out " + folder / "out";
  const CommandResult first = thermocline_command(study);
  INFO(first.output);
  REQUIRE(first.exit_code == 0);
  CHECK(first.output.find("live = replay: 6 of 6 equal; executed in tiers = replay: 6 of 6") !=
        std::string::npos);
  for (const char* name : {"report.html", "results.csv", "results.json"}) {
    CHECK(exists(folder / "out/" + name));
  }
  std::ifstream in(folder / "out/report.html");
  const std::string html((std::istreambuf_iterator<char>(in)), {});
  CHECK(html.find("synthetic") != std::string::npos);
  CHECK(html.find("<svg") != std::string::npos);
  CHECK(html.find("Executed in tiers") != std::string::npos);
  CHECK(html.find("src=\"http") == std::string::npos);

  const auto before = std::filesystem::last_write_time(folder / "out/tiny/test.h5");
  const CommandResult second = thermocline_command(study + " --resume");
  INFO(second.output);
  CHECK(second.exit_code == 0);
  CHECK(std::filesystem::last_write_time(folder / "out/tiny/test.h5") == before);
}

}  // namespace
}  // namespace thermocline::test
