// What tests share: the test data's folder, a temporary folder, running a command.
//
// Thread-safety: none needed; each test runs in its own process.
#pragma once

#include <stdlib.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

namespace thermocline::test {

// A file of ../shared/data (or of the folder that THERMOCLINE_DATA names); empty where it is
// missing, after a warning: the caller then returns.
inline std::string data_file(const std::string& name) {
  const char* folder = std::getenv("THERMOCLINE_DATA");
  const std::filesystem::path root =
      folder != nullptr ? std::filesystem::path(folder)
                        : std::filesystem::path(THERMOCLINE_SOURCE_DIR) / ".." / "shared" / "data";
  const auto path = root / name;
  if (std::filesystem::exists(path)) return path.string();
  WARN("skipped: no " << name << " in " << root.string() << "; set THERMOCLINE_DATA");
  return "";
}

struct CommandResult {
  int exit_code;
  std::string output;  // stdout and stderr together
};

inline CommandResult run_command(const std::string& command) {
  std::FILE* pipe = ::popen((command + " 2>&1").c_str(), "r");
  REQUIRE(pipe != nullptr);
  std::string output;
  char buffer[4096];
  for (size_t n; (n = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;) output.append(buffer, n);
  const int status = ::pclose(pipe);
  return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), output};
}

// What of this process is in memory now.
inline uint64_t resident_bytes() {
  uint64_t size = 0, pages = 0;
  std::ifstream("/proc/self/statm") >> size >> pages;
  return pages * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
}

// What may be in memory beside `bytes` that are held: huge pages and small things; what a sanitizer
// notes of them (the thread sanitizer up to three times as much).
inline uint64_t resident_slack([[maybe_unused]] uint64_t bytes) {
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
  return 3 * bytes + (uint64_t{64} << 20);
#endif
#endif
#ifdef THERMOCLINE_SANITIZED
  return uint64_t{64} << 20;
#else
  return uint64_t{16} << 20;
#endif
}

// A Python with the packages of tests/oracles/requirements.txt: THERMOCLINE_ORACLE_PYTHON, or what
// docker/oracles made; empty where there is none, after a warning: the caller then returns.
inline std::string oracle_python(
    const std::string& packages = "cachetools, gguf, numpy, safetensors, tokenizers") {
  const char* named = std::getenv("THERMOCLINE_ORACLE_PYTHON");
  const auto made =
      std::filesystem::path(THERMOCLINE_SOURCE_DIR) / "build" / "oracle" / "bin" / "python";
  const std::string python = named != nullptr ? named : made.string();
  if (run_command(python + " -c 'import " + packages + "'").exit_code == 0) return python;
  WARN("skipped: no oracle packages for " << python << "; run docker/oracles");
  return "";
}

// A fresh folder, removed with all it holds at the end of the scope.
class TempDir {
 public:
  TempDir() {
    std::string pattern = (std::filesystem::temp_directory_path() / "thermocline-XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }
  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

}  // namespace thermocline::test
