// NUMA nodes: the kernel's lists of cores, what a mask leaves of them, threads on nodes.
#include "runtime/numa.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <map>
#include <numeric>
#include <thread>

#include "tests/support.h"

namespace thermocline::test {
namespace {

CoreList cores(int begin, int end) {
  CoreList list(static_cast<size_t>(end - begin));
  std::iota(list.begin(), list.end(), begin);
  return list;
}

// Nodes of so many cores each, numbered through.
std::vector<CoreList> nodes_of(const std::vector<int>& sizes) {
  std::vector<CoreList> nodes;
  int begin = 0;
  for (const int size : sizes) {
    nodes.push_back(cores(begin, begin + size));
    begin += size;
  }
  return nodes;
}

// The first core of each thread's node, by which nodes_of's nodes are told apart.
std::vector<int> places(const std::vector<int>& sizes, int threads, RankOnHost rank = {}) {
  std::vector<int> firsts;
  for (const CoreList& bound : cores_of_threads(nodes_of(sizes), threads, rank)) {
    firsts.push_back(bound.front());
  }
  return firsts;
}

TEST_CASE("lists of cores are parsed") {
  CHECK(parse_cpulist("0-3,8,10-11\n") == CoreList{0, 1, 2, 3, 8, 10, 11});
  CHECK(parse_cpulist("0") == CoreList{0});
  CHECK(parse_cpulist("5-5") == CoreList{5});
  CHECK(parse_cpulist("8191\n") == CoreList{8191});
  CHECK(parse_cpulist("") == CoreList{});  // a node of memory only
  CHECK(parse_cpulist("\n") == CoreList{});
}

TEST_CASE("what is no list of cores is refused") {
  for (const char* bad : {",",
                          "0,",
                          ",0",
                          "0,,1",
                          "-",
                          "0-",
                          "-3",
                          "3-0",
                          "0--3",
                          "0-1-2",
                          "a",
                          "0x1",
                          "1 ",
                          " 1",
                          "1\n\n",
                          "+1",
                          "0-3,2",
                          "4,4",
                          "9,3",
                          "8192",
                          "0-4294967295",
                          "0-18446744073709551616",
                          "99999999999999999999",
                          "0-3:1/2",
                          "1;2",
                          "0-3,8,10-11,"}) {
    INFO(bad);
    CHECK_FALSE(parse_cpulist(bad).has_value());
  }
  CHECK_FALSE(parse_cpulist(std::string_view("1\0002", 3)).has_value());
}

TEST_CASE("nodes are read in the order of their numbers") {
  const TempDir folder;
  const auto add = [&](const std::string& name, const std::string& text) {
    std::filesystem::create_directory(folder / name);
    std::ofstream(folder / name + "/cpulist") << text;
  };
  add("node10", "4-5\n");
  add("node2", "2-3\n");
  add("node0", "0-1\n");
  add("node3", "\n");
  std::ofstream(folder / "online") << "0,2-3,10\n";
  std::filesystem::create_directory(folder / "nodes");
  CHECK(read_numa_nodes(folder.path()) == std::vector<CoreList>{{0, 1}, {2, 3}, {}, {4, 5}});
  add("node4", "junk");
  CHECK(read_numa_nodes(folder.path()).empty());
  CHECK(read_numa_nodes(folder / "missing").empty());
}

TEST_CASE("a mask leaves parts of nodes") {
  const auto nodes = nodes_of({4, 4, 0, 4});
  CHECK(nodes_within(nodes, cores(0, 12)) == nodes_of({4, 4, 4}));
  CHECK(nodes_within(nodes, {2, 3, 4}) == std::vector<CoreList>{{2, 3}, {4}});
  CHECK(nodes_within(nodes, {5, 6}) == std::vector<CoreList>{{5, 6}});
  CHECK(nodes_within(nodes, {}).empty());
}

TEST_CASE("on one node nothing is bound") {
  CHECK(cores_of_threads({}, 4, {}).empty());
  CHECK(cores_of_threads(nodes_of({16}), 4, {}).empty());
}

TEST_CASE("threads fill the nodes in order, in proportion to their cores") {
  CHECK(places({4, 4}, 8) == std::vector<int>{0, 0, 0, 0, 4, 4, 4, 4});
  CHECK(places({4, 4}, 4) == std::vector<int>{0, 0, 4, 4});
  CHECK(places({4, 4}, 3) == std::vector<int>{0, 0, 4});
  CHECK(places({4, 4}, 1) == std::vector<int>{0});
  CHECK(places({2, 2, 2, 2}, 8) == std::vector<int>{0, 0, 2, 2, 4, 4, 6, 6});
  CHECK(places({2, 2, 2, 2}, 2) == std::vector<int>{0, 4});
  CHECK(places({6, 2}, 8) == std::vector<int>{0, 0, 0, 0, 0, 0, 6, 6});
  CHECK(places({6, 2}, 4) == std::vector<int>{0, 0, 0, 6});
  CHECK(places({1, 3}, 8) == std::vector<int>{0, 0, 1, 1, 1, 1, 1, 1});  // more threads than cores
}

TEST_CASE("ranks that share a machine fill its nodes together") {
  CHECK(places({4, 4}, 1, {0, 2}) == std::vector<int>{0});
  CHECK(places({4, 4}, 1, {1, 2}) == std::vector<int>{4});
  CHECK(places({4, 4}, 4, {1, 2}) == std::vector<int>{0, 0, 4, 4});
}

TEST_CASE("no node gets more threads than cores while there are enough") {
  const auto sizes =
      GENERATE(std::vector<int>{8, 8}, std::vector<int>{5, 3, 8}, std::vector<int>{1, 7},
               std::vector<int>{4, 4, 4, 4}, std::vector<int>{2, 9, 1, 3});
  const int ranks = GENERATE(1, 2, 3, 5);
  const auto nodes = nodes_of(sizes);
  const int core_count = std::accumulate(sizes.begin(), sizes.end(), 0);
  for (int threads = 1; threads <= core_count; ++threads) {
    std::map<CoreList, size_t> of_all;
    for (int rank = 0; rank < ranks; ++rank) {
      const auto bound = cores_of_threads(nodes, threads, {rank, ranks});
      REQUIRE(bound.size() == static_cast<size_t>(threads));
      CHECK(std::is_sorted(bound.begin(), bound.end()));
      for (const CoreList& node : nodes) {  // as if these cores were the rank's own
        CHECK(std::count(bound.begin(), bound.end(), node) <= static_cast<int>(node.size()));
      }
      for (const CoreList& node : bound) ++of_all[node];
    }
    if (threads * ranks > core_count) continue;  // they cannot share these cores
    for (const auto& [node, count] : of_all) CHECK(count <= node.size());
  }
}

TEST_CASE("a thread is bound to cores and asked for them") {
  std::thread([] {
    const CoreList all = cores_of_this_thread();
    REQUIRE(!all.empty());
    bind_this_thread({all.back()});
    CHECK(cores_of_this_thread() == CoreList{all.back()});
    bind_this_thread({});  // refused
    CHECK(cores_of_this_thread() == CoreList{all.back()});
    bind_this_thread(all);
    CHECK(cores_of_this_thread() == all);
  }).join();
}

}  // namespace
}  // namespace thermocline::test
