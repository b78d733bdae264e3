// `thermocline run --listen`: what is served while it runs only grows, and in the end is what the
// result rows and a replay of the trace say.
#include "tests/end_to_end/child.h"
#include "tests/end_to_end/program.h"
#include "tests/exposition.h"
#include "tests/http_client.h"

namespace thermocline::test {
namespace {

using Catch::Matchers::Contains;
using Json = nlohmann::json;

constexpr const char* kModel = "--model preset:tiny --shots 0 --teacher-forced --threads 1 ";
constexpr double kSecondsMax = 600;  // for what takes a few on an idle machine

std::string launched(int ranks) {
  return ranks == 1 ? program() : "mpirun -n " + std::to_string(ranks) + " " + program();
}

// The port of "listen   http://127.0.0.1:PORT", which a run prints before it does anything.
uint16_t port_of(Child& run) {
  const std::string url = run.wait_for_line("listen   ", kSecondsMax);
  INFO(run.output());
  REQUIRE(url.starts_with("http://127.0.0.1:"));
  return static_cast<uint16_t>(std::stoi(url.substr(url.rfind(':') + 1)));
}

void record_profile(int ranks, const std::string& path) {
  const CommandResult result =
      run_command(launched(ranks) + " run " + kModel + "--split train --limit 1 --record " + path);
  INFO(result.output);
  REQUIRE(result.exit_code == 0);
}

// All of one pass: each policy has seen the steps that ran; what only grows has grown.
void check_scrape(const Exposition& now, const Exposition& before) {
  const double steps = now.value("thermocline_steps_total", "phase=\"prefill\"") +
                       now.value("thermocline_steps_total", "phase=\"decode\"");
  for (const auto& [sample, text] : now.samples) {
    INFO(sample);
    const double value = std::strtod(text.c_str(), nullptr);
    if (sample.starts_with("thermocline_policy_step_count_total")) CHECK(value == steps);
    const auto earlier = before.samples.find(sample);
    if (earlier == before.samples.end()) continue;
    const std::string family = sample.substr(0, sample.find('{'));
    if (now.types.at(family) != "counter") continue;
    CHECK(value >= std::strtod(earlier->second.c_str(), nullptr));
  }
}

void check_json_scrape(const Json& now, const Json& before) {
  for (const char* phase : {"prefill", "decode"}) {
    if (!before.is_null()) CHECK(now["steps"][phase] >= before["steps"][phase]);
    for (const Json& rank : now["ranks"]) {
      CHECK(rank[phase]["step_count"] == now["steps"][phase]);
    }
  }
  const uint64_t steps =
      now["steps"]["prefill"].get<uint64_t>() + now["steps"]["decode"].get<uint64_t>();
  for (const Json& policy : now["policies"]) CHECK(policy["counters"]["step_count"] == steps);
}

struct Scrapes {
  Exposition last;
  Json last_json;
  int midway = 0;  // of a run that had begun and not ended
};

Scrapes scrape_to_end(uint16_t port) {
  Scrapes scrapes;
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(kSecondsMax);
  for (bool ended = false; !ended;) {
    REQUIRE(std::chrono::steady_clock::now() < end);
    const Exposition now = read_exposition(body_at(port, "/metrics"));
    check_scrape(now, scrapes.last);
    scrapes.last = now;
    const Json json = Json::parse(body_at(port, "/counters.json"));
    check_json_scrape(json, scrapes.last_json);
    scrapes.last_json = json;
    ended = now.value("thermocline_run_ended") == 1;
    if (!ended && now.value("thermocline_steps_total", "phase=\"decode\"") > 0) ++scrapes.midway;
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  return scrapes;
}

// Both forms say what the policy rows of the run say, in their order.
void check_policies(const Scrapes& scrapes, const std::vector<Json>& rows) {
  REQUIRE(scrapes.last_json["policies"].size() == rows.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    const Json& row = rows[i];
    const Json& served = scrapes.last_json["policies"][i];
    INFO(served);
    for (const char* key : {"policy", "parameters", "budget_bytes", "counters", "hit_ratio"}) {
      CHECK(served[key] == row[key]);
    }
    for (const auto& [name, count] : row["counters"].items()) {
      const std::string family =
          "thermocline_policy_" + name + (name == "hot_count_peak" ? "" : "_total");
      const std::string labels = "policy=\"" + row["policy"].get<std::string>() +
                                 "\",budget_bytes=\"" + row["budget_bytes"].dump() + "\"";
      INFO(family << " " << labels);
      CHECK(scrapes.last.value(family, labels) == count.get<double>());
    }
  }
}

void check_links(const Scrapes& scrapes, const std::vector<Json>& rows, size_t ranks) {
  REQUIRE(rows.size() == ranks * (ranks - 1));
  REQUIRE(scrapes.last_json["links"].size() == rows.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    const Json& served = scrapes.last_json["links"][i];
    for (const char* key : {"from", "to", "run_bytes", "decode_bytes"}) {
      CHECK(served[key] == rows[i][key]);
    }
    const std::string labels =
        "from=\"" + rows[i]["from"].dump() + "\",to=\"" + rows[i]["to"].dump() + "\"";
    CHECK(scrapes.last.value("thermocline_link_bytes_total", labels) ==
          rows[i]["run_bytes"].get<double>());
    // 4 layers of two sums and one behind the embedding, of 128 floats; a ballot of 20 bytes.
    CHECK(rows[i]["decode_bytes_per_step"] == 9 * 128 * 4 + 20);
    CHECK(rows[i]["source"] == "measured");
  }
}

void check_ranks(const Scrapes& scrapes, const std::vector<Json>& rows) {
  REQUIRE(scrapes.last_json["ranks"].size() == rows.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    const Json& decode = scrapes.last_json["ranks"][i]["decode"];
    const double steps = decode["step_count"].get<double>();
    for (const char* part : {"compute", "transfer", "comm", "wait"}) {
      const double ms = rows[i][std::string(part) + "_ms"].get<double>();
      CHECK(decode[std::string(part) + "_seconds"].get<double>() == Approx(ms * steps * 1e-3));
    }
    CHECK(scrapes.last_json["ranks"][i]["weight_bytes"] == rows[i]["weight_bytes"]);
  }
}

TEST_CASE("live counters only grow, and end as the run's rows and the replay of its trace",
          "[mpi]") {
  if (!have_mpirun()) return;
  const int ranks = GENERATE(1, 2);
  const TempDir folder;
  record_profile(ranks, folder / "p.h5");
  const std::string policies = " --profile " + folder / "p.h5" +
                               " --policy fixed,ewma --budget 10%..50%/20% " +
                               "--migration 64KiB --json ";
  // One process is asked to end; mpirun would end others with a failure.
  const std::string split = ranks == 1 ? "all" : "test --limit 5";
  Child run(launched(ranks) + " run " + kModel + "--split " + split + " --record " +
                folder / "t.h5" + policies + folder / "run.json" +
                " --listen 127.0.0.1:0 --linger " + (ranks == 1 ? "3600" : "4"),
            folder / "run.txt");
  const Scrapes scrapes = scrape_to_end(port_of(run));
  CHECK(scrapes.midway > 0);
  if (ranks == 1) {
    run.wait_for_line("trace ", kSecondsMax);
    run.terminate();
  }
  CHECK(run.wait(kSecondsMax) == 0);
  INFO(run.output());

  check_policies(scrapes, rows_of(folder / "run.json", "policy"));
  check_links(scrapes, rows_of(folder / "run.json", "link"), static_cast<size_t>(ranks));
  check_ranks(scrapes, rows_of(folder / "run.json", "rank"));
  const Json summary = rows_of(folder / "run.json", "run").at(0);
  CHECK(scrapes.last_json["tasks"]["done"] == summary["task_count"]);
  CHECK(scrapes.last_json["decode_tokens_per_second"]["run"].get<double>() ==
        Approx(summary["decode_tokens_per_second"].get<double>()));

  const CommandResult replayed =
      thermocline_command("replay " + folder / "t.h5" + policies + folder / "replay.json");
  INFO(replayed.output);
  REQUIRE(replayed.exit_code == 0);
  const auto replay = rows_of(folder / "replay.json", "policy");
  REQUIRE(replay.size() == scrapes.last_json["policies"].size());
  for (size_t i = 0; i < replay.size(); ++i) {
    const Json& served = scrapes.last_json["policies"][i];
    CHECK(served["counters"] == replay[i]["counters"]);
    CHECK(served["hot_threshold"] == replay[i]["hot_threshold"]["last"]);
  }
}

TEST_CASE("with a disk tier, its bytes are served as the rows of the run have them") {
  const TempDir folder;
  const std::string ranks = "--local-ranks 2 ";
  REQUIRE(run_command(program() + " run " + kModel + ranks + "--split train --limit 1 --record " +
                      folder / "p.h5")
              .exit_code == 0);
  Child run(program() + " run " + kModel + ranks + "--split test --limit 2 --profile " +
                folder / "p.h5" + " --policy ewma --budget 30% --migration 64KiB --disk-tier " +
                folder / "" + " --json " + folder / "run.json" +
                " --listen 127.0.0.1:0 --linger 3600",
            folder / "run.txt");
  const Scrapes scrapes = scrape_to_end(port_of(run));
  run.wait_for_line("live policy", kSecondsMax);
  run.terminate();
  CHECK(run.wait(kSecondsMax) == 0);
  const auto tiers = rows_of(folder / "run.json", "tier");
  REQUIRE(tiers.size() == 2);
  for (size_t i = 0; i < tiers.size(); ++i) {
    const Json& tier = scrapes.last_json["ranks"][i]["tiers"].at(0);
    for (const char* key : {"tier", "hot_bytes", "staging_bytes", "needed", "in_memory",
                            "read_bytes", "read_count", "moved_bytes", "moved_count"}) {
      CHECK(tier[key] == tiers[i][key]);
    }
    CHECK(scrapes.last.value("thermocline_tier_read_bytes_total",
                             "rank=\"" + std::to_string(i) + "\",tier=\"host\"") ==
          tiers[i]["read_bytes"].get<double>());
  }
  CHECK(scrapes.last_json["policies"][0]["counters"] ==
        rows_of(folder / "run.json", "policy").at(0)["counters"]);
}

TEST_CASE("with three tiers, both hot sets are served, each under its tier's name") {
  const TempDir folder;
  const std::string run_model = program() + " run " + kModel;
  REQUIRE(
      run_command(run_model + "--split train --limit 1 --record " + folder / "p.h5").exit_code ==
      0);
  // Budgets of the same size: only the tier tells them apart.
  Child run(run_model + "--split test --limit 1 --profile " + folder / "p.h5" +
                " --policy ewma --budget 30% --host-budget 30% --migration 64KiB --backend cpu " +
                "--tiers device,host,disk --disk-tier " + folder / "" + " --json " +
                folder / "run.json" + " --listen 127.0.0.1:0 --linger 3600",
            folder / "run.txt");
  const Scrapes scrapes = scrape_to_end(port_of(run));
  run.wait_for_line("live policy", kSecondsMax);
  run.terminate();
  CHECK(run.wait(kSecondsMax) == 0);
  const auto rows = rows_of(folder / "run.json", "tier");
  const auto policies = rows_of(folder / "run.json", "policy");
  const Json& tiers = scrapes.last_json["ranks"][0]["tiers"];
  REQUIRE(tiers.size() == 2);
  REQUIRE(rows.size() == 2);
  for (size_t i = 0; i < 2; ++i) {
    for (const char* key : {"tier", "hot_bytes", "needed", "moved_bytes", "moved_count"}) {
      CHECK(tiers[i][key] == rows[i][key]);
    }
    const char* here = i == 0 ? "on_device" : "in_memory";
    CHECK(tiers[i].at(here) == rows[i].at(here));
    CHECK_FALSE(tiers[i].contains(i == 0 ? "in_memory" : "on_device"));
    const auto name = rows[i]["tier"].get<std::string>();
    CHECK(scrapes.last.value("thermocline_tier_moved_bytes_total",
                             "rank=\"0\",tier=\"" + name + "\"") ==
          rows[i]["moved_bytes"].get<double>());
    CHECK(scrapes.last_json["policies"][i]["tier"] == name);
    CHECK(policies[i]["tier"] == name);
    CHECK(scrapes.last_json["policies"][i]["counters"] == policies[i]["counters"]);
    CHECK(
        scrapes.last.samples.count("thermocline_policy_hits_total{policy=\"ewma\",budget_bytes=\"" +
                                   std::to_string(policies[i]["budget_bytes"].get<uint64_t>()) +
                                   "\",tier=\"" + name + "\"}") == 1);
  }
  CHECK(policies[0]["counters"] == policies[1]["counters"]);
}

TEST_CASE("serving changes no result, nor what is counted") {
  const TempDir folder;
  const auto run = [&](const std::string& name, const std::string& more) {
    const CommandResult result = thermocline_command(
        std::string("run ") + kModel + "--local-ranks 2 --layout pp2,tp1 --limit 2 --record " +
        folder / name + ".h5 --json " + folder / name + ".json" + more);
    INFO(result.output);
    REQUIRE(result.exit_code == 0);
  };
  run("alone", "");
  run("served", " --listen 127.0.0.1:0");
  CHECK(rows_of(folder / "alone.json", "run").at(0)["trace_hash"] ==
        rows_of(folder / "served.json", "run").at(0)["trace_hash"]);
  const auto links = rows_of(folder / "alone.json", "link");
  CHECK(links.size() == 2);
  CHECK(links == rows_of(folder / "served.json", "link"));
}

TEST_CASE("a port that is taken ends a run before it loads anything, and so does a wrong address") {
  const TempDir folder;
  Child first(program() + " run " + kModel + "--limit 1 --listen 127.0.0.1:0 --linger 3600",
              folder / "first.txt");
  const std::string taken = "127.0.0.1:" + std::to_string(port_of(first));
  const auto fails = [&](const std::string& arguments, int exit_code, const std::string& text) {
    const CommandResult result =
        thermocline_command(std::string("run ") + kModel + "--limit 1 " + arguments);
    INFO(result.output);
    CHECK(result.exit_code == exit_code);
    CHECK_THAT(result.output, Contains(text));
    CHECK(result.output.find("backend") == std::string::npos);
    CHECK(std::count(result.output.begin(), result.output.end(), '\n') == 1);
  };
  fails("--listen " + taken, 1, taken + ": another process has this port");
  fails("--listen " + taken + " --local-ranks 2", 1, "another process has this port");
  fails("--listen 0.0.0.0:9100", 2, "only this machine is served");
  fails("--listen localhost:9100", 2, "no IP address");
  fails("--linger 5", 2, "--listen HOST:PORT");
  fails("--listen 127.0.0.1:0 --linger -1", 2, "expected seconds from 0");
  first.wait_for_line("peak RSS", kSecondsMax);
  first.terminate();
  CHECK(first.wait(kSecondsMax) == 0);
}

TEST_CASE("a run that is interrupted does not linger") {
  const TempDir folder;
  Child run(program() + " run " + kModel + "--split all --listen 127.0.0.1:0 --linger 3600",
            folder / "run.txt");
  const uint16_t port = port_of(run);
  for (double steps = 0; steps == 0 && !run.wait(0.01).has_value();) {
    steps = read_exposition(body_at(port, "/metrics"))
                .value("thermocline_steps_total", "phase=\"prefill\"");
  }
  run.terminate();
  CHECK(run.wait(kSecondsMax) == 1);
  CHECK_THAT(run.output(), Contains("interrupted after"));
}

}  // namespace
}  // namespace thermocline::test
