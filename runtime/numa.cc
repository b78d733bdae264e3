#include "runtime/numa.h"

#include <sched.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <numeric>

#include "models/text.h"

namespace thermocline {
namespace {

// The largest kernels count 8192 cores; a cpu_set_t holds 1024.
constexpr int kCoreCountMax = 8192;
using CoreMask = std::array<cpu_set_t, kCoreCountMax / CPU_SETSIZE>;

// All of the text, decimal digits only.
std::optional<int> parse_digits(std::string_view text, int limit) {
  unsigned value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || stop != end || value >= static_cast<unsigned>(limit)) return {};
  return static_cast<int>(value);
}

// "3" or "0-3", behind the cores so far.
bool append_range(std::string_view part, CoreList& cores) {
  const size_t dash = part.find('-');
  const auto first = parse_digits(part.substr(0, dash), kCoreCountMax);
  const auto last =
      dash == std::string_view::npos ? first : parse_digits(part.substr(dash + 1), kCoreCountMax);
  if (!first.has_value() || !last.has_value() || *first > *last) return false;
  if (!cores.empty() && *first <= cores.back()) return false;
  for (int core = *first; core <= *last; ++core) cores.push_back(core);
  return true;
}

std::optional<CoreList> read_cpulist(const std::filesystem::path& path) {
  std::ifstream file(path);
  if (!file) return {};
  return parse_cpulist(std::string(std::istreambuf_iterator<char>(file), {}));
}

}  // namespace

std::optional<CoreList> parse_cpulist(std::string_view text) {
  if (text.ends_with('\n')) text.remove_suffix(1);
  CoreList cores;
  if (text.empty()) return cores;
  for (const std::string_view part : split(text, ',')) {
    if (!append_range(part, cores)) return {};
  }
  return cores;
}

std::vector<CoreList> read_numa_nodes(const std::string& folder) {
  constexpr std::string_view kPrefix = "node";
  std::map<int, std::filesystem::path> paths;
  std::error_code error;
  for (std::filesystem::directory_iterator it(folder, error), end; !error && it != end;
       it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (!name.starts_with(kPrefix)) continue;
    const auto number = parse_digits(name.substr(kPrefix.size()), kCoreCountMax);
    if (number.has_value()) paths[*number] = it->path() / "cpulist";
  }
  std::vector<CoreList> nodes;
  for (const auto& [number, path] : paths) {
    auto cores = read_cpulist(path);
    if (!cores.has_value()) return {};
    nodes.push_back(std::move(*cores));
  }
  return nodes;
}

std::vector<CoreList> nodes_within(const std::vector<CoreList>& nodes, const CoreList& allowed) {
  std::vector<CoreList> left;
  for (const CoreList& node : nodes) {
    CoreList both;
    std::set_intersection(node.begin(), node.end(), allowed.begin(), allowed.end(),
                          std::back_inserter(both));
    if (!both.empty()) left.push_back(std::move(both));
  }
  return left;
}

std::vector<CoreList> cores_of_threads(const std::vector<CoreList>& nodes, int thread_count,
                                       RankOnHost rank) {
  if (nodes.size() < 2) return {};
  const auto add = [](size_t sum, const CoreList& node) { return sum + node.size(); };
  const size_t core_count = std::accumulate(nodes.begin(), nodes.end(), size_t{0}, add);
  // The ranks' threads take turns: each rank by itself is spread in proportion, too.
  const auto slot_count = static_cast<size_t>(thread_count) * static_cast<size_t>(rank.count);
  std::vector<CoreList> bound;
  size_t node = 0, cores_so_far = nodes[0].size();
  for (auto slot = static_cast<size_t>(rank.index); slot < slot_count;
       slot += static_cast<size_t>(rank.count)) {
    while (slot * core_count >= slot_count * cores_so_far) cores_so_far += nodes[++node].size();
    bound.push_back(nodes[node]);
  }
  return bound;
}

CoreList cores_of_this_thread() {
  CoreMask mask{};
  CoreList cores;
  if (::sched_getaffinity(0, sizeof mask, mask.data()) != 0) return cores;
  for (int core = 0; core < kCoreCountMax; ++core) {
    if (CPU_ISSET_S(core, sizeof mask, mask.data())) cores.push_back(core);
  }
  return cores;
}

void bind_this_thread(const CoreList& cores) {
  CoreMask mask{};
  for (const int core : cores) CPU_SET_S(core, sizeof mask, mask.data());
  ::sched_setaffinity(0, sizeof mask, mask.data());
}

}  // namespace thermocline
