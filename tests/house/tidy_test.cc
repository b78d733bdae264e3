// The house rules as a test: dependency table, lengths, prologues, registries, one list of
// packages.
#include <algorithm>
#include <catch2/catch.hpp>
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "models/checkpoint.h"
#include "models/text.h"
#include "sim/policy.h"
#include "tests/house/source_text.h"

namespace thermocline::test {
namespace {

constexpr size_t kColumnMax = 100;
constexpr int kFunctionLineMax = 70;

// A room: the paths that begin with `prefix` (the longest prefix wins), and what they may include.
struct Room {
  std::string prefix;
  std::vector<std::string> may_include;  // prefixes of project headers
};

const std::vector<Room>& dependency_table() {
  static const std::vector<Room> table = {
      {"models/", {"models/"}},
      {"traces/", {"models/", "traces/"}},
      {"sim/policy", {"models/", "sim/policy"}},  // policy.h and its driver
      {"sim/policies/", {"models/", "sim/policy.", "sim/policies/"}},
      {"sim/", {"models/", "traces/", "sim/"}},
      {"runtime/kernels/", {"models/dtype.h", "runtime/kernels/"}},
      {"runtime/", {"runtime/", "models/", "traces/", "sim/policy"}},
      {"runtime/main.cc", {"runtime/", "models/", "traces/", "sim/policy", "sim/commands.h"}},
      {"tests/", {""}},
  };
  return table;
}

// Headers of libraries that enter the project through these files only.
struct Gate {
  std::string header;  // a prefix of what is included
  std::vector<std::string> files;
};

const std::vector<Gate>& gates() {
  static const std::vector<Gate> table = {
      {"mpi.h", {"runtime/comm_mpi.cc"}},
      {"hdf5", {"traces/hdf5.cc", "traces/hdf5.h"}},
      {"H5", {"traces/hdf5.cc", "traces/hdf5.h"}},
      {"cuda", {"runtime/kernels/cuda_body.h", "runtime/kernels/cuda_launch.h"}},
      {"boost/asio", {"runtime/tiers/disk_reader.cc", "runtime/metrics_server.cc"}},
      {"pcre2", {"models/pre_tokenizer.cc"}},
  };
  return table;
}

const Room& room_of(const std::string& path) {
  const Room* best = nullptr;
  for (const Room& room : dependency_table()) {
    const bool longer = best == nullptr || room.prefix.size() > best->prefix.size();
    if (path.starts_with(room.prefix) && longer) best = &room;
  }
  INFO("every source file belongs to a room: " << path);
  REQUIRE(best != nullptr);
  return *best;
}

bool is_project_header(const std::string& name) {
  static const std::set<std::string> folders = {"models", "traces", "sim", "runtime", "tests"};
  return folders.contains(name.substr(0, name.find('/')));
}

bool allowed(const Room& room, const std::string& header) {
  for (const std::string& prefix : room.may_include) {
    if (header.starts_with(prefix)) return true;
  }
  return false;
}

std::set<std::string> stems(const std::string& folder) {
  std::set<std::string> names;
  const auto root = std::filesystem::path(THERMOCLINE_SOURCE_DIR) / folder;
  for (const auto& entry : std::filesystem::directory_iterator(root)) {
    if (entry.path().extension() == ".cc") names.insert(entry.path().stem().string());
  }
  return names;
}

TEST_CASE("the dependency table holds") {
  for (const SourceFile& file : source_files()) {
    const Room& room = room_of(file.path);
    for (const std::string& header : includes_of(file)) {
      if (!is_project_header(header)) continue;
      INFO(file.path << " includes " << header);
      CHECK(allowed(room, header));
    }
  }
}

TEST_CASE("each library enters through its own files") {
  for (const SourceFile& file : source_files()) {
    if (file.path.starts_with("tests/")) continue;
    for (const std::string& header : includes_of(file)) {
      for (const Gate& gate : gates()) {
        if (!header.starts_with(gate.header)) continue;
        INFO(file.path << " includes " << header);
        CHECK(std::count(gate.files.begin(), gate.files.end(), file.path) == 1);
      }
    }
  }
}

// Whether a header that is not the project's comes with a C++ compiler on Linux, or with nvcc.
bool is_everywhere(const std::string& header) {
  static const std::set<std::string> files = {
      "cuda_fp16.h", "cuda_runtime.h", "cxxabi.h", "immintrin.h",
      "sched.h",     "stdlib.h",       "unistd.h", "catch2/catch.hpp"};  // or its stand-in
  return header.find('.') == std::string::npos || header.starts_with("sys/") ||
         header.starts_with("linux/") || files.contains(header);
}

// With the test above, what keeps THERMOCLINE_KERNELS_ONLY building in a build without it: the
// programs kernels_test and backends_test, and some benchmarks, link nothing but these rooms.
TEST_CASE("the rooms that need no library, and their tests, include none") {
  std::map<std::string, SourceFile> files;
  for (SourceFile& file : source_files()) files.emplace(file.path, std::move(file));
  std::vector<std::string> reached = {"tests/catch_main.cc"};
  for (const auto path : split(THERMOCLINE_LIBRARY_FREE_FILES, ':')) reached.emplace_back(path);
  REQUIRE(reached.size() > 10);
  for (const auto& [path, file] : files)
    if (path.starts_with("tests/kernels/") || path.starts_with("tests/backends/"))
      reached.push_back(path);
  std::set<std::string> seen(reached.begin(), reached.end());
  for (size_t i = 0; i < reached.size(); ++i) {
    const auto found = files.find(reached[i]);
    if (found == files.end()) continue;
    for (const std::string& header : includes_of(found->second)) {
      INFO(reached[i] << " includes " << header);
      if (!is_project_header(header)) {
        CHECK(is_everywhere(header));
      } else if (seen.insert(header).second) {
        reached.push_back(header);
      }
    }
  }
}

TEST_CASE("lines are at most 100 columns, without tabs or trailing blanks") {
  for (const SourceFile& file : source_files()) {
    for (size_t i = 0; i < file.lines.size(); ++i) {
      const std::string& line = file.lines[i];
      INFO(file.path << ":" << i + 1);
      CHECK(line.size() <= kColumnMax);
      CHECK(line.find('\t') == std::string::npos);
      CHECK((line.empty() || line.back() != ' '));
    }
  }
}

TEST_CASE("functions are at most 70 lines") {
  for (const SourceFile& file : source_files()) {
    for (const FunctionSpan& function : functions_of(file)) {
      INFO(file.path << ":" << function.line_begin);
      CHECK(function.line_count <= kFunctionLineMax);
    }
  }
}

TEST_CASE("the length check sees functions, not namespaces or classes") {
  const SourceFile file{
      "x.cc",
      "namespace a {\nclass B {\n  int f() const {\n    return '{';\n  }\n};\n"
      "// g() {\nint g(int x) {\n  if (x) {\n    x = 1'000;\n  }\n  return x;\n}\n}\n",
      {}};
  const auto functions = functions_of(file);
  REQUIRE(functions.size() == 2);
  CHECK(functions[0].line_begin == 3);
  CHECK(functions[0].line_count == 3);
  CHECK(functions[1].line_begin == 8);
  CHECK(functions[1].line_count == 6);
}

TEST_CASE("headers begin with what they are for") {
  for (const SourceFile& file : source_files()) {
    if (!file.path.ends_with(".h")) continue;
    INFO(file.path);
    REQUIRE(!file.lines.empty());
    CHECK(file.lines[0].starts_with("// "));
    CHECK(file.text.find("#pragma once") != std::string::npos);
  }
}

TEST_CASE("nothing is left to be done later") {
  // Spelt in halves, so that this file does not find itself.
  const std::vector<std::string> banned = {std::string("TO") + "DO", std::string("FIX") + "ME",
                                           std::string("XX") + "X"};
  for (const SourceFile& file : text_files()) {
    if (file.path == "LICENSE") continue;
    // mkdtemp wants a pattern of six.
    const std::string text = replaced(file.text, std::string(6, 'X'), "");
    for (const std::string& word : banned) {
      INFO(file.path << " says " << word);
      CHECK(text.find(word) == std::string::npos);
    }
  }
}

TEST_CASE("every policy and every format registers itself from its own file") {
  std::set<std::string> policy_files;
  for (const std::string& stem : stems("sim/policies")) policy_files.insert(policy_name(stem));
  std::set<std::string> policy_entries;
  for (const std::string& name : policies().names()) policy_entries.insert(name);
  CHECK(policy_files == policy_entries);

  std::set<std::string> format_entries;
  for (const std::string& name : checkpoint_formats().names()) format_entries.insert(name);
  CHECK(stems("models/formats") == format_entries);
}

// The first string on the line, or, behind a TEST_CASE that ends its line, on the next one.
std::string test_name_at(const SourceFile& file, size_t line) {
  const std::string& text = file.lines[line];
  if (text.find("TEST_CASE(") == std::string::npos) return "";
  const bool is_next = text.ends_with("TEST_CASE(") && line + 1 < file.lines.size();
  const std::string& with_name = is_next ? file.lines[line + 1] : text;
  const size_t begin = with_name.find('"') + 1;
  return with_name.substr(begin, with_name.find('"', begin) - begin);
}

TEST_CASE("no test name has a sign at which CMake cuts lists, or joins what follows") {
  size_t count = 0;
  for (const SourceFile& file : source_files()) {
    for (size_t i = 0; i < file.lines.size(); ++i) {
      const std::string name = test_name_at(file, i);
      INFO(file.path << ":" << i + 1 << ": " << name);
      CHECK(name.find_first_of(";[]") == std::string::npos);
      count += name.empty() ? 0 : 1;
    }
  }
  CHECK(count > 500);
}

TEST_CASE("the README lists the policies that there are") {
  const SourceFile readme = [] {
    for (SourceFile& file : text_files()) {
      if (file.path == "README.md") return file;
    }
    return SourceFile{};
  }();
  for (const PolicyEntry* policy : policies().entries()) {
    const std::string row = "| `" + policy->name + "` | " + policy->summary + " |";
    INFO("README.md should have the row: " << row);
    CHECK(readme.text.find(row) != std::string::npos);
  }
}

TEST_CASE("every room has a README, and docker/packages.txt is the only list of packages") {
  const std::filesystem::path root = THERMOCLINE_SOURCE_DIR;
  for (const char* room : {"models", "traces", "sim", "runtime", "tests", "docker"}) {
    INFO(room);
    CHECK(std::filesystem::exists(root / room / "README.md"));
  }
  const std::string install = std::string("apt-get ") + "install";
  for (const SourceFile& file : text_files()) {
    if (file.path.starts_with("docker/setup") || file.path.starts_with("tests/house/")) continue;
    INFO(file.path << " installs packages");
    CHECK(file.text.find(install) == std::string::npos);
  }
}

}  // namespace
}  // namespace thermocline::test
