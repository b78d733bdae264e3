// Every trace command, and replay, over 20,000 steps of LLaMA-70B's width: right results in bounded
// memory.
//
// Each command is a child of its own, and the kernel says how much memory it had at most. All run
// once more over a tenth of the steps: what grows with steps would end a job over the normal trace,
// 100,000 steps of 80 layers. Layers are two, because memory may well grow with them.
#include <fcntl.h>
#include <fmt/format.h>
#include <malloc.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>

#include "models/cli.h"
#include "models/process.h"
#include "models/text.h"
#include "models/units.h"
#include "tests/support.h"
#include "traces/profile.h"
#include "traces/trace.h"

namespace thermocline::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr uint64_t kSteps = 20000, kFewSteps = 2000;
constexpr uint64_t kLayers = 2, kNeurons = 28672;
constexpr uint32_t kRanks = 4;
constexpr double kRecall = 0.95, kPrecision = 0.6;
constexpr double kPeakMebibytesMax = 1024;
// More than for a tenth of the steps. Measured: up to 35 for replay, of which 14 are its blocks of
// up to 32 MiB, which 2,000 steps do not fill, and up to 17 for all others: what steps are besides
// bits (tokens, times, counters), and blocks in flight. A command that held the bits of 18,000
// steps would need 123 more, one that held the records of oracle-general over 80.
constexpr double kGrowthMebibytesMax = 48;

struct Cost {
  std::string name;
  double seconds = 0, peak_mebibytes = 0;
};

// Runs the program in one folder and keeps what each command took.
class Commands {
 public:
  explicit Commands(std::string folder) : folder_(std::move(folder)) {}

  // `arguments`: separated by blanks, paths relative to the folder. Returns the rows.
  json run(const std::string& name, const std::string& arguments) {
    ::malloc_trim(0);  // what this process has counts as the child's, until it executes the program
    const auto begin = std::chrono::steady_clock::now();
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) start(arguments);
    int status = 0;
    rusage usage{};
    REQUIRE(::wait4(child, &status, 0, &usage) == child);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    INFO(arguments << "\n" << tail_of(folder_ + "/log", 20));
    REQUIRE(WIFEXITED(status));
    REQUIRE(WEXITSTATUS(status) == 0);
    costs_.push_back({name, seconds.count(), static_cast<double>(usage.ru_maxrss) / 1024});
    CHECK(costs_.back().peak_mebibytes < kPeakMebibytesMax);
    return json::parse(read_file(folder_ + "/rows.json")).at("rows");
  }

  // All files of a trace or conversion that is not needed any more: NAME.*
  void remove(const std::string& name) const {
    for (const auto& entry : fs::directory_iterator(folder_)) {
      if (entry.path().filename().string().starts_with(name + ".")) fs::remove(entry.path());
    }
  }
  std::string operator/(const std::string& name) const { return folder_ + "/" + name; }
  const std::vector<Cost>& costs() const { return costs_; }

 private:
  [[noreturn]] void start(const std::string& arguments) const {
    std::vector<std::string> words = {std::getenv("THERMOCLINE_PROGRAM")};
    for (const std::string_view word : split(arguments, ' ')) words.emplace_back(word);
    words.insert(words.end(), {"--json", "rows.json"});
    std::vector<char*> pointers;
    for (std::string& word : words) pointers.push_back(word.data());
    pointers.push_back(nullptr);
    const int log = ::open((folder_ + "/log").c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
    const bool ready = ::chdir(folder_.c_str()) == 0 && ::dup2(log, 1) == 1 && ::dup2(log, 2) == 2;
    if (ready) ::execv(pointers[0], pointers.data());
    ::_exit(127);
  }

  std::string folder_;
  std::vector<Cost> costs_;
};

// What the rest is held against: t.h5, as its header says and as it was counted here.
struct Original {
  uint64_t steps;
  std::string hash;
  std::vector<TaskRecord> tasks;
  std::vector<uint64_t> active;  // by layer

  uint64_t active_in_all() const { return std::accumulate(active.begin(), active.end(), 0ul); }
};

std::vector<uint64_t> active_by_layer(const std::string& path, uint64_t begin, uint64_t count) {
  const auto trace = open_trace(path);
  const uint64_t layers = trace->header().shape.layer_count;
  const std::vector<uint32_t> counts = trace->popcounts(begin, count);
  std::vector<uint64_t> sums(layers);
  for (size_t i = 0; i < counts.size(); ++i) sums[i % layers] += counts[i];
  return sums;
}

std::vector<uint64_t> active_by_layer(const std::string& path) {
  return active_by_layer(path, 0, open_trace(path)->step_count());
}

// Steps [begin, begin + count) of one trace and those from `other_begin` of another have the same
// bits, active and, where both have them, predicted.
bool same_bits(const std::string& path, uint64_t begin, const std::string& other,
               uint64_t other_begin, uint64_t count) {
  constexpr uint64_t kAtATime = 4 * kBlockSteps;  // 2 MiB a trace
  const auto one = open_trace(path), two = open_trace(other);
  const NeuronPool whole = whole_model(one->header());
  const bool predicted = one->header().has_predicted && two->header().has_predicted;
  StepBlock a, b;
  for (uint64_t at = 0; at < count; at += kAtATime) {
    const uint64_t n = std::min(kAtATime, count - at);
    one->read(whole, begin + at, n, a);
    two->read(whole, other_begin + at, n, b);
    if (a.words != b.words) return false;
    if (!predicted) continue;
    one->read_predicted(whole, begin + at, n, a);
    two->read_predicted(whole, other_begin + at, n, b);
    if (a.words != b.words) return false;
  }
  return true;
}

Original synthesise(Commands& commands, uint64_t steps) {
  const json rows = commands.run(
      "synth", fmt::format("trace synth --preset preset:relullama-70b,layers={},drift=0.5 "
                           "--steps {} --ranks {} --predictor recall={},precision={} --out t.h5",
                           kLayers, steps, kRanks, kRecall, kPrecision));
  CHECK(rows[0].at("raw_bytes") == steps * kLayers * kNeurons / 8);
  Original original = {steps, rows[0].at("trace_hash"), open_trace(commands / "t.h5")->tasks(),
                       active_by_layer(commands / "t.h5")};
  REQUIRE(original.tasks.size() == rows[0].at("task_count"));
  REQUIRE(original.tasks.size() > 4);
  return original;
}

void look_and_count(Commands& commands, const Original& original) {
  const json info = commands.run("info", "trace info t.h5");
  CHECK(info[0].at("step_count") == original.steps);
  CHECK(info[0].at("task_count") == original.tasks.size());
  CHECK(info[0].at("trace_hash") == original.hash);
  for (uint64_t layer = 0; layer < kLayers; ++layer) {
    CHECK(info[1 + layer].at("active") == original.active[layer]);
  }
  const json check = commands.run("check", "trace check t.h5");
  CHECK(check.size() == kRanks + 1);
  for (const json& file : check) CHECK(file.at("good") == true);
  const json stat = commands.run("stat", "trace stat t.h5 --threads 2 --plots plots");
  CHECK(stat[0].at("step_count") == original.steps);
  CHECK(stat[0].at("trace_hash") == original.hash);
  CHECK(stat[0].at("activity").get<double>() ==
        Approx(info[0].at("active_share").get<double>()).epsilon(1e-12));
  CHECK(std::abs(stat[0].at("predictor_recall").get<double>() - kRecall) < 0.01);
  CHECK(std::abs(stat[0].at("predictor_precision").get<double>() - kPrecision) < 0.01);
  const bool drawn = fs::exists(commands / "plots" + "/overlap_by_distance.svg");
  CHECK(drawn == !find_program("gnuplot").empty());
}

// Two halves by tasks make the whole again; steps and layers alone are those of the whole.
void cut_and_merge(Commands& commands, const Original& original) {
  const size_t half = original.tasks.size() / 2;
  const auto id = [&original](size_t i) { return original.tasks.at(i).task_id; };
  const json a = commands.run(
      "cut --tasks", fmt::format("trace cut t.h5 --tasks {}..{} --out a.h5", id(0), id(half - 1)));
  const json b =
      commands.run("cut --tasks, rest", fmt::format("trace cut t.h5 --tasks {}..{} --out b.h5",
                                                    id(half), id(original.tasks.size() - 1)));
  const uint64_t seam = original.tasks[half].step_begin;
  CHECK(a[0].at("step_count") == seam);
  CHECK(b[0].at("step_count") == original.steps - seam);
  const json merged = commands.run("merge", "trace merge a.h5 b.h5 --out m.h5");
  CHECK(merged[0].at("trace_hash") == original.hash);
  CHECK(same_bits(commands / "t.h5", seam - 100, commands / "m.h5", seam - 100, 200));

  const uint64_t first = original.steps / 10 + 7, last = original.steps / 2 + 3;
  const json steps = commands.run(
      "cut --steps", fmt::format("trace cut t.h5 --steps {}..{} --out s.h5", first, last));
  CHECK(steps[0].at("step_count") == last - first + 1);
  CHECK(active_by_layer(commands / "s.h5") ==
        active_by_layer(commands / "t.h5", first, last - first + 1));
  CHECK(same_bits(commands / "t.h5", last - 99, commands / "s.h5", last - first - 99, 100));

  commands.run("cut --layers", "trace cut t.h5 --layers 1..1 --out l.h5");
  CHECK(active_by_layer(commands / "l.h5") == std::vector<uint64_t>{original.active[1]});
  for (const char* name : {"a", "b", "m", "s", "l"}) commands.remove(name);
}

// A rank's shard of the first `steps`, as a killed recording leaves it.
void record_partly(const std::string& from, const std::string& to, uint32_t rank, uint64_t steps) {
  const auto trace = open_trace(from);
  const auto writer = create_shard(to, trace->header(), rank);
  const std::vector<StepInfo> infos = trace->steps();
  const std::vector<StepTimes> times = trace->times(rank);
  auto task = trace->tasks().begin();
  for_each_predicted_block(*trace, trace->header().pools[rank], 0, steps,
                           [&](const StepBlock& active, const StepBlock& predicted) {
                             for (uint64_t i = 0; i < active.step_count; ++i) {
                               const uint64_t step = active.step_begin + i;
                               writer->append(infos[step], times[step],
                                              {active.step(i).words, predicted.step(i).words, {}});
                               if (step + 1 == task->step_begin + task->step_count)
                                 writer->end_task(*task++);
                             }
                           });
}

void flip_byte(const std::string& path, uint64_t at) {
  std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
  file.seekg(static_cast<std::streamoff>(at));
  const int byte = file.get();
  file.seekp(static_cast<std::streamoff>(at));
  file.put(static_cast<char>(byte ^ 16));
  REQUIRE(file.good());
}

uint64_t number_after(const std::string& text, const std::string& words) {
  const size_t at = text.find(words);
  INFO(text);
  REQUIRE(at != std::string::npos);
  return std::stoull(text.substr(at + words.size()));
}

const TaskRecord& task_of(const Original& original, int32_t id) {
  const auto task = std::find_if(original.tasks.begin(), original.tasks.end(),
                                 [id](const TaskRecord& each) { return each.task_id == id; });
  REQUIRE(task != original.tasks.end());
  return *task;
}

// One shard has a changed byte, another ends early. Exactly the tasks of that block and of that end
// are lost.
void repair(Commands& commands, const Original& original) {
  const std::string damaged = commands / "d.h5";
  for (uint32_t rank = 0; rank < 3; ++rank) {
    fs::copy_file(shard_path(commands / "t.h5", rank), shard_path(damaged, rank));
  }
  const uint64_t recorded = original.steps - original.steps / 10;
  record_partly(commands / "t.h5", damaged, 3, recorded);
  flip_byte(shard_path(damaged, 1), fs::file_size(shard_path(damaged, 1)) / 2);

  const json files = commands.run("check --repair", "trace check d.h5 --repair r.h5");
  CHECK(files[0].at("good") == true);
  REQUIRE(files[1].at("good") == false);
  CHECK(files[2].at("good") == true);
  CHECK(files[3].at("good") == false);
  const uint64_t bad = number_after(files[1].at("message"), "good to step ");
  REQUIRE(bad % kBlockSteps == 0);
  std::vector<TaskRecord> expected;
  uint64_t step = 0;
  for (TaskRecord task : original.tasks) {
    const uint64_t begin = task.step_begin, end = begin + task.step_count;
    if ((begin < bad + kBlockSteps && end > bad) || end > recorded) continue;
    task.step_begin = static_cast<uint32_t>(step);
    step += task.step_count;
    expected.push_back(task);
  }
  CHECK(expected.size() < original.tasks.size() - 1);
  CHECK(open_trace(commands / "r.h5")->tasks() == expected);
  // What stood before the bad block is where it was; what came after it has moved up.
  const auto moved = std::find_if(expected.begin(), expected.end(), [&](const TaskRecord& task) {
    return task_of(original, task.task_id).step_begin != task.step_begin;
  });
  REQUIRE(moved != expected.end());
  const uint64_t from = task_of(original, moved->task_id).step_begin, to = moved->step_begin;
  CHECK(same_bits(commands / "t.h5", 0, commands / "r.h5", 0, to));
  CHECK(same_bits(commands / "t.h5", from, commands / "r.h5", to, step - to));
  for (const ShardReport& report : check_trace(commands / "r.h5")) CHECK(report.good);
  commands.remove("d");
  commands.remove("r");
}

void convert_bits(Commands& commands, const Original& original) {
  const uint64_t first = 100, count = original.steps - 200;  // neither ends where a block does
  commands.run("to npy",
               fmt::format("trace convert t.h5 bits.npy --steps {}..{}", first, first + count - 1));
  const json back = commands.run("from npy", "trace convert bits.npy n.h5 --like t.h5 --ranks 4");
  CHECK(back[0].at("step_count") == count);
  CHECK(same_bits(commands / "t.h5", first, commands / "n.h5", 0, count));

  // A record is 24 bytes for each active neuron, here 70 times the bits: fewer steps.
  const uint64_t steps = original.steps / 50;
  const uint64_t active = active_by_layer(commands / "t.h5", first, steps)[0];
  const json records = commands.run("to oracle-general",
                                    fmt::format("trace convert t.h5 o.oracleGeneral --layers 0..0 "
                                                "--steps {}..{}",
                                                first, first + steps - 1));
  CHECK(records[0].at("file_bytes") == 24 * active);
  commands.run("from oracle-general", "trace convert o.oracleGeneral o.h5 --like t.h5");
  CHECK(active_by_layer(commands / "o.h5") == std::vector<uint64_t>{active, 0});
  for (const char* name : {"bits", "n", "o"}) commands.remove(name);
}

// Column `active_count` of "layer,neuron,active_count,step_count", summed by layer.
std::vector<uint64_t> sums_of_csv(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  std::vector<uint64_t> sums(kLayers);
  uint64_t lines = 0;
  for (; std::getline(file, line); ++lines) {
    const auto fields = split(line, ',');
    sums.at(parse_count(fields.at(0))) += parse_count(fields.at(2));
  }
  CHECK(lines == kLayers * kNeurons);
  return sums;
}

void convert_counts(Commands& commands, const Original& original) {
  commands.run("to counts-csv", "trace convert t.h5 counts.csv");
  CHECK(sums_of_csv(commands / "counts.csv") == original.active);
  commands.run("from counts-csv",
               fmt::format("trace convert counts.csv c.h5 --like t.h5 --profile-steps {}",
                           original.steps / 10));
  const auto scaled = active_by_layer(commands / "c.h5");
  for (uint64_t layer = 0; layer < kLayers; ++layer) {
    // Each count is rounded to the nearest.
    CHECK(std::abs(static_cast<double>(scaled[layer]) -
                   static_cast<double>(original.active[layer]) / 10) <= 0.5 * kNeurons);
  }
  commands.run("to powerinfer", "trace convert t.h5 counts/");
  commands.run("from powerinfer",
               fmt::format("trace convert counts/ p.h5 --like t.h5 --counted-steps {} --ranks 4",
                           original.steps));
  CHECK(active_by_layer(commands / "p.h5") == original.active);
}

// p.h5 has the trace's own counts: fixed knows from it what oracle-static is told.
void replay_policies(Commands& commands, const Original& original) {
  const json rows = commands.run("replay",
                                 "replay t.h5 --profile p.h5 --policy fixed,ewma,oracle-static "
                                 "--budget 10%,50%");
  std::map<std::string, std::vector<uint64_t>> hits;  // by policy, by budget
  for (const json& row : rows) {
    CHECK(row.at("trace_hash") == original.hash);
    CHECK(row.at("profile_hash") == open_trace(commands / "p.h5")->hash());
    if (row.at("kind") != "policy") continue;
    CHECK(row.at("counters").at("needed") == original.active_in_all());
    hits[row.at("policy")].push_back(row.at("counters").at("hits"));
  }
  REQUIRE(hits.size() == 3);
  CHECK(hits.at("fixed-topk") == hits.at("oracle-static"));
  for (const auto& [policy, by_budget] : hits) {
    INFO(policy);
    CHECK(std::is_sorted(by_budget.begin(), by_budget.end()));
    CHECK(by_budget.back() < original.active_in_all());
  }
}

std::vector<Cost> costs_of_all_commands(uint64_t steps) {
  const TempDir folder;
  Commands commands(folder.path());
  const Original original = synthesise(commands, steps);
  look_and_count(commands, original);
  cut_and_merge(commands, original);
  repair(commands, original);
  convert_bits(commands, original);
  convert_counts(commands, original);
  replay_policies(commands, original);
  return commands.costs();
}

TEST_CASE("20000 steps of 70B's width go through every trace command in bounded memory", "[slow]") {
  const std::vector<Cost> few = costs_of_all_commands(kFewSteps);
  const std::vector<Cost> many = costs_of_all_commands(kSteps);
  REQUIRE(few.size() == many.size());
  fmt::print("{:<20} {:>8} {:>10} {:>18}\n", "command", "seconds", "peak MiB",
             fmt::format("of {} steps", kFewSteps));
  for (size_t i = 0; i < many.size(); ++i) {
    const Cost& cost = many[i];
    fmt::print("{:<20} {:>8.2f} {:>10.1f} {:>18.1f}\n", cost.name, cost.seconds,
               cost.peak_mebibytes, few[i].peak_mebibytes);
    INFO(cost.name);
    CHECK(cost.peak_mebibytes < few[i].peak_mebibytes + kGrowthMebibytesMax);
  }
}

}  // namespace
}  // namespace thermocline::test
