// What ptxas said about the device code of this build: registers, shared memory, stacks; and that
// no kernel that is to be fast spills. No GPU is needed.
#include <cxxabi.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "models/dtype.h"

using thermocline::DType;

namespace {

// One function of one architecture.
struct DeviceCode {
  std::string name, architecture;
  int registers = 0, shared_bytes = 0, stack_bytes = 0, spill_store_bytes = 0, spill_load_bytes = 0;
};

// The text between `before` and `after`; empty where there is none.
std::string between(const std::string& text, const std::string& before, const std::string& after) {
  const size_t begin = text.find(before);
  if (begin == std::string::npos) return "";
  const size_t end = text.find(after, begin + before.size());
  if (end == std::string::npos) return "";
  return text.substr(begin + before.size(), end - begin - before.size());
}

// The number before `unit`; 0 where there is none.
int number_before(const std::string& text, const std::string& unit) {
  const size_t end = text.find(unit);
  if (end == std::string::npos) return 0;
  size_t begin = end;
  while (begin > 0 && text[begin - 1] >= '0' && text[begin - 1] <= '9') --begin;
  return std::atoi(text.c_str() + begin);
}

// "void thermocline::(anonymous namespace)::f<(thermocline::DType)3, 4>(int)" -> "f<3, 4>".
std::string short_name(const std::string& mangled) {
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> demangled(
      abi::__cxa_demangle(mangled.c_str(), nullptr, nullptr, &status), std::free);
  std::string name = status == 0 ? demangled.get() : mangled;
  for (const char* noise : {"thermocline::", "(anonymous namespace)::", "(DType)", "void "})
    for (size_t at; (at = name.find(noise)) != std::string::npos;)
      name.erase(at, std::string(noise).size());
  return name.substr(0, name.find('('));
}

// What `ptxas -v` prints, a line or more a function.
std::vector<DeviceCode> parse_ptxas_report(std::istream& in) {
  std::vector<DeviceCode> found;
  std::string architecture;
  for (std::string line; std::getline(in, line);) {
    if (line.find("Compiling entry function") != std::string::npos)
      architecture = between(line, "for '", "'");
    const std::string properties = "Function properties for ";
    if (const size_t at = line.find(properties); at != std::string::npos) {
      found.push_back({line.substr(at + properties.size()), architecture});
    } else if (found.empty()) {
      continue;
    } else if (line.find("bytes stack frame") != std::string::npos) {
      found.back().stack_bytes = number_before(line, " bytes stack frame");
      found.back().spill_store_bytes = number_before(line, " bytes spill stores");
      found.back().spill_load_bytes = number_before(line, " bytes spill loads");
    } else if (line.find("Used ") != std::string::npos) {
      found.back().registers = number_before(line, " registers");
      found.back().shared_bytes = number_before(line, " bytes smem");
    }
  }
  return found;
}

// Whether it is one of the tuned set: all but those of types that are only to be right (f32, q4_1,
// q5_0, q5_1, q5_k) or of rows that do not lie at multiples of 16 bytes.
bool is_tuned(const std::string& name) {
  const std::string arguments = between(name + ">", "<", ">");  // "DTYPE, TOKENS, ALIGNED"
  if (arguments.empty()) return true;
  constexpr DType kTuned[] = {DType::f16,  DType::bf16, DType::q8_0,
                              DType::q4_0, DType::q4_k, DType::q6_k};
  const auto dtype = static_cast<DType>(std::atoi(arguments.c_str()));
  const bool aligned = arguments.find("false") == std::string::npos && !arguments.ends_with(", 0");
  return aligned && std::find(std::begin(kTuned), std::end(kTuned), dtype) != std::end(kTuned);
}

}  // namespace

TEST_CASE("the report of ptxas is understood, spills apart from arrays on the stack") {
  std::istringstream report(
      "ptxas info    : 0 bytes gmem\n"
      "ptxas info    : Compiling entry function '_Z1fi' for 'sm_80'\n"
      "ptxas info    : Function properties for _Z1fi\n"
      "    64 bytes stack frame, 12 bytes spill stores, 16 bytes spill loads\n"
      "ptxas info    : Used 255 registers, used 1 barriers, 4096 bytes smem, 420 bytes cmem[0]\n"
      "ptxas info    : Compiling entry function '_Z1gv' for 'sm_90'\n"
      "ptxas info    : Function properties for _Z1gv\n"
      "    32 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n"
      "ptxas info    : Used 40 registers, 32 bytes cumulative stack size, 400 bytes cmem[0]\n");
  const auto found = parse_ptxas_report(report);
  REQUIRE(found.size() == 2);
  CHECK(short_name(found[0].name) == "f");
  CHECK(found[0].architecture == "sm_80");
  CHECK(found[0].registers == 255);
  CHECK(found[0].shared_bytes == 4096);
  CHECK(found[0].stack_bytes == 64);
  CHECK(found[0].spill_store_bytes == 12);
  CHECK(found[0].spill_load_bytes == 16);
  CHECK(found[1].architecture == "sm_90");
  CHECK(found[1].registers == 40);
  CHECK(found[1].shared_bytes == 0);
  CHECK(found[1].stack_bytes == 32);
  CHECK(found[1].spill_store_bytes + found[1].spill_load_bytes == 0);
}

TEST_CASE("no CUDA kernel of the tuned set spills registers") {
#ifndef THERMOCLINE_KERNEL_OBJECTS
  WARN("skipped: built without nvcc, so there is no device code to look at");
#else
  std::vector<DeviceCode> all;
  std::istringstream objects(THERMOCLINE_KERNEL_OBJECTS);
  for (std::string object; std::getline(objects, object, ':');) {
    if (object.find(".cu.") == std::string::npos) continue;
    INFO("the report of keep_ptxas_report: " << object << ".ptxas");
    std::ifstream report(object + ".ptxas");
    REQUIRE(report.good());
    const auto found = parse_ptxas_report(report);
    all.insert(all.end(), found.begin(), found.end());
  }
  std::sort(all.begin(), all.end(), [](const DeviceCode& a, const DeviceCode& b) {
    const std::string left = short_name(a.name), right = short_name(b.name);
    return left != right ? left < right : a.architecture < b.architecture;
  });

  std::printf("%-56s %-6s %9s %7s %6s %12s\n", "kernel", "for", "registers", "shared", "stack",
              "spilled B");
  int tuned = 0;
  for (const DeviceCode& code : all) {
    std::printf("%-56s %-6s %9d %7d %6d %5d %6d\n", short_name(code.name).c_str(),
                code.architecture.c_str(), code.registers, code.shared_bytes, code.stack_bytes,
                code.spill_store_bytes, code.spill_load_bytes);
    INFO(short_name(code.name) << " for " << code.architecture);
    if (!is_tuned(short_name(code.name))) continue;
    ++tuned;
    CHECK(code.spill_store_bytes == 0);
    CHECK(code.spill_load_bytes == 0);
  }

  CHECK(tuned > 0);
  std::istringstream architectures(THERMOCLINE_CUDA_ARCHITECTURES);
  for (std::string wanted; std::getline(architectures, wanted, ':');) {
    const std::string sm = "sm_" + wanted.substr(0, wanted.find('-'));
    if (wanted.find_first_of("0123456789") != 0 || wanted.ends_with("-virtual")) continue;
    INFO("no kernel was compiled for " << sm);
    CHECK(std::any_of(all.begin(), all.end(),
                      [&](const DeviceCode& code) { return code.architecture == sm; }));
  }
#endif
}
