// What tests of trace formats share: converting as the command line does, reading whole traces.
//
// Thread-safety: none needed.
#pragma once

#include <CLI/CLI.hpp>
#include <algorithm>
#include <catch2/catch.hpp>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "models/cli.h"
#include "tests/models/failures.h"
#include "tests/support.h"
#include "tests/traces/trace_fixture.h"
#include "traces/commands.h"
#include "traces/profile.h"
#include "traces/trace_format.h"

namespace thermocline::test {

constexpr uint64_t kConvertedSteps = 150;  // three stored blocks, the last one not full

// Runs "thermocline trace convert ..." and returns its row.
inline nlohmann::json convert(const TempDir& folder, std::vector<std::string> arguments) {
  CLI::App app;
  add_trace_commands(app);
  const std::string json = folder / "row.json";
  arguments.insert(arguments.begin(), {"trace", "convert"});
  arguments.insert(arguments.end(), {"--json", json});
  std::reverse(arguments.begin(), arguments.end());
  std::fflush(stdout);
  app.parse(arguments);
  const nlohmann::json row = nlohmann::json::parse(read_file(json)).at("rows").at(0);
  std::filesystem::remove(json);
  return row;
}

inline std::vector<uint64_t> words_of(const TraceReader& trace) {
  StepBlock block;
  trace.read(whole_model(trace.header()), 0, trace.step_count(), block);
  return block.words;
}

inline std::vector<uint32_t> counts_of(const TraceReader& trace) {
  return profile_of(trace, whole_model(trace.header()), 0, trace.step_count()).counts;
}

// What a source hands over, as one list.
struct SourceSteps {
  std::vector<StepInfo> infos;
  std::vector<uint64_t> words;
};

inline SourceSteps steps_of(const TraceSource& source) {
  SourceSteps steps;
  source.read([&steps](const StepInfo& info, std::span<const uint64_t> words) {
    steps.infos.push_back(info);
    steps.words.insert(steps.words.end(), words.begin(), words.end());
  });
  return steps;
}

// Bytes as a file that nothing backs.
inline MappedFile in_memory(const std::string& bytes) {
  return {nullptr, std::as_bytes(std::span(bytes))};
}

inline std::set<std::string> names_in(const std::string& folder) {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    names.insert(entry.path().filename().string());
  }
  return names;
}

// Where a path of this format ends, so that no --format is needed.
inline std::string path_of(const TempDir& folder, const TraceFormat& format) {
  return folder / ("converted" + format.extensions.at(0));
}

}  // namespace thermocline::test
