// A device that is lost under mpirun: the job ends at once, names rank and device, and what was
// recorded can be gone on with. `thermocline run` itself, but for the GPUs, which are emulated.
#include <CLI/CLI.hpp>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <fstream>

#include "models/commands.h"
#include "models/gguf_writer.h"
#include "runtime/commands.h"
#include "tests/emulated/cuda.h"
#include "tests/runtime/random_weights.h"
#include "tests/support.h"
#include "traces/trace.h"

namespace thermocline::test {
namespace {

using Catch::Matchers::Contains;

constexpr int kLost = 1;  // the rank, and its device

// What a rank is started with.
constexpr const char* kArguments = "THERMOCLINE_TEST_ARGUMENTS";
constexpr const char* kCalls = "THERMOCLINE_TEST_CALLS";  // that device kLost answers

std::unique_ptr<Backend> make_emulated(const BackendOptions& options) {
  return make_emulated_cuda_backend_on(options.device);
}

// Small, since emulated GPUs are slow; its tokens are bytes.
constexpr ModelShape kShape = {.layer_count = 1,
                               .model_dim = 64,
                               .ffn_dim = 64,
                               .head_count = 4,
                               .kv_head_count = 2,
                               .head_dim = 16,
                               .vocab_size = 259,
                               .context_length = 512,
                               .activation = FfnActivation::relu};

// Two ranks under mpirun, each of them the hidden test case below.
CommandResult run_two_ranks(const std::string& arguments, int64_t calls) {
  const std::string itself = std::filesystem::read_symlink("/proc/self/exe").string();
  return run_command("timeout 300 env " + std::string(kCalls) + "=" + std::to_string(calls) + " " +
                     kArguments + "='run --backend emulated " + arguments + "' mpirun -n 2 " +
                     itself + " '[job]'");
}

std::string number_behind(const std::string& text, const std::string& before) {
  const size_t begin = text.find(before);
  REQUIRE(begin != std::string::npos);
  const size_t first = begin + before.size();
  return text.substr(first, text.find_first_not_of("0123456789", first) - first);
}

}  // namespace

TEST_CASE("one rank of thermocline run on emulated GPUs", "[.][job]") {
  const char* arguments = std::getenv(kArguments);
  const char* calls = std::getenv(kCalls);
  REQUIRE(arguments != nullptr);
  REQUIRE(calls != nullptr);
  backends().add({"emulated", "GPUs for tests", [] { return std::string(); }, make_emulated});
  const LostGpu lost(kLost, std::atoll(calls));
  CLI::App app;
  add_model_commands(app);
  add_runtime_commands(app);
  app.parse(arguments);
  const int64_t answered = std::atoll(calls) - lost.calls_left();
  if (answered > 0) std::printf("\ndevice %d answered %lld\n", kLost, (long long)answered);
}

TEST_CASE("a rank that loses its device ends the job at once, and the recording goes on",
          "[mpi][cuda]") {
  if (!kEmulatesCuda) return;
  const TempDir folder;
  std::ofstream prompts(folder / "p.jsonl");
  for (int id = 1; id <= 2; ++id) {
    prompts << R"({"task_id": )" << id << R"(, "text": "Add.", "code": "def f(a):\n  return a + )"
            << id << R"(", "test_list": ["assert f(1) == 2"]})"
            << "\n";
  }
  prompts.close();
  write_gguf(RandomWeights(kShape), folder / "m.gguf", {});
  const std::string run = "--model " + folder / "m.gguf" + " --layout tp2 --teacher-forced " +
                          "--shots 0 --threads 1 --split all --prompts " + folder / "p.jsonl" +
                          " --record ";
  const CommandResult whole = run_two_ranks(run + folder / "whole.h5", LostGpu::kNever);
  INFO(whole.output);
  REQUIRE(whole.exit_code == 0);
  const int64_t calls = std::stoll(number_behind(whole.output, "device 1 answered "));

  const CommandResult lost = run_two_ranks(run + folder / "t.h5", calls / 4 * 3);
  INFO(lost.output);
  CHECK(lost.exit_code == 1);
  CHECK_THAT(lost.output, Contains("thermocline: rank 1: cuda device 1: ") &&
                              Contains(": unspecified launch failure; the steps so far are in ") &&
                              Contains("--resume goes on from the last complete task"));
  const auto partial = open_trace(folder / "t.h5", {.allow_partial = true});
  CHECK(partial->missing().size() >= 2);
  CHECK(partial->step_count() > 0);

  const CommandResult last = run_two_ranks(run + folder / "t.h5 --resume", LostGpu::kNever);
  INFO(last.output);
  REQUIRE(last.exit_code == 0);
  CHECK_THAT(last.output, Contains("are taken over"));
  CHECK(open_trace(folder / "t.h5")->hash() == open_trace(folder / "whole.h5")->hash());
}

}  // namespace thermocline::test
