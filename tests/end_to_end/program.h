// Starting the program as a user does, alone or under mpirun, and reading what it wrote.
#pragma once

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "tests/support.h"

namespace thermocline::test {

inline std::string program() {
  const char* path = std::getenv("THERMOCLINE_PROGRAM");
  REQUIRE(path != nullptr);
  return path;
}

inline CommandResult thermocline_command(const std::string& arguments) {
  return run_command(program() + " " + arguments);
}

inline bool have_mpirun() {
  if (run_command("command -v mpirun").exit_code == 0) return true;
  WARN("skipped: no mpirun");
  return false;
}

inline CommandResult mpirun(int ranks, const std::string& arguments) {
  return run_command("mpirun -n " + std::to_string(ranks) + " " + program() + " " + arguments);
}

inline nlohmann::json load_json(const std::string& path) {
  std::ifstream in(path);
  INFO(path);
  REQUIRE(in.good());
  return nlohmann::json::parse(in);
}

// The rows of a result file whose "kind" is `kind`.
inline std::vector<nlohmann::json> rows_of(const std::string& path, const std::string& kind) {
  std::vector<nlohmann::json> rows;
  const nlohmann::json document = load_json(path);
  for (const auto& row : document["rows"]) {
    if (row["kind"] == kind) rows.push_back(row);
  }
  return rows;
}

inline bool exists(const std::string& path) { return std::filesystem::exists(path); }

}  // namespace thermocline::test
