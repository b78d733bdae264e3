// Cluster files: what they mean, and that every mistake is an error with file and line.
#include "models/node.h"

#include <catch2/catch.hpp>

#include "models/error.h"

using namespace thermocline;

namespace {

const std::string kPair = R"([cluster]
name = "pair"
source = "calibrated"
measured = true
overlap = true
[network]
bandwidth = "1.25GB/s"
latency = "30us"
[[node]]
name = "box"
count = 2
device = {memory = "24GB", bandwidth = "900GB/s"}
host = {memory = "64GiB", bandwidth = "42GB/s"}
migration = {bandwidth = "25GB/s", latency = "10us"}
[[node]]
name = "plain"
host = {memory = "8GB", bandwidth = "20GB/s"}
)";

std::string replaced(const std::string& from, const std::string& to) {
  std::string text = kPair;
  const size_t at = text.find(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

std::string message_of(const std::string& toml) {
  try {
    parse_cluster(toml, "c.toml");
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::input);
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("a cluster file says what it says") {
  const Cluster cluster = parse_cluster(kPair, "c.toml");
  CHECK(cluster.name == "pair");
  CHECK(cluster.measured);
  CHECK(cluster.overlap);
  REQUIRE(cluster.nodes.size() == 3);
  CHECK(cluster.network.bytes_per_second == 1.25e9);
  CHECK(cluster.network.latency_seconds == Approx(30e-6));
  const NodeProfile& box = cluster.nodes[1];
  CHECK(box.tiered());
  CHECK(box.fast().memory_bytes == 24'000'000'000);
  CHECK(box.slow().bytes_per_second == 42e9);
  CHECK(box.migration.seconds(25e9) == Approx(1.00001));
  const NodeProfile& plain = cluster.nodes[2];
  CHECK_FALSE(plain.tiered());
  CHECK(&plain.slow() == &plain.fast());
  CHECK(plain.migration.seconds(1e9) == 0.0);
}

TEST_CASE("the default cluster is the published desktop PC and says that it was not measured") {
  const Cluster cluster = default_cluster();
  REQUIRE(cluster.nodes.size() == 1);
  CHECK_FALSE(cluster.measured);
  CHECK_THAT(cluster.source, Catch::Contains("published"));
  CHECK(cluster.nodes[0].slow().bytes_per_second == 67.2e9);
}

TEST_CASE("ranks lie where the file says, else they are spread evenly") {
  using Nodes = std::vector<uint32_t>;
  const Cluster silent = parse_cluster(kPair, "c.toml");
  CHECK(ranks_wanted(silent) == 0);
  CHECK(nodes_of_ranks(silent, 3) == Nodes{0, 1, 2});
  CHECK(nodes_of_ranks(silent, 6) == Nodes{0, 0, 1, 1, 2, 2});
  CHECK(nodes_of_ranks(silent, 4) == Nodes{0, 0, 1, 2});
  CHECK(nodes_of_ranks(silent, 1) == Nodes{0});
  const Cluster said = parse_cluster(replaced("count = 2", "count = 2\nranks = 3"), "c.toml");
  CHECK(ranks_wanted(said) == 7);  // one on the node that does not say
  CHECK(nodes_of_ranks(said, 7) == Nodes{0, 0, 0, 1, 1, 1, 2});
  CHECK(nodes_of_ranks(said, 3) == Nodes{0, 1, 2});  // of another job: spread
}

TEST_CASE("mistakes in a cluster file are input errors with file and line") {
  using Catch::Matchers::Contains;
  CHECK_THAT(message_of(replaced("latency =", "latencie =")),
             Contains("c.toml:8") && Contains("did you mean 'latency'"));
  CHECK_THAT(message_of(replaced("overlap =", "overlop =")), Contains("c.toml:5"));
  CHECK_THAT(message_of(replaced("[network]", "[netwrk]")), Contains("'network'"));
  CHECK_THAT(message_of(replaced("memory = \"24GB\"", "memry = \"24GB\"")),
             Contains("c.toml:12") && Contains("'memory'"));
  CHECK_THAT(message_of(replaced("\"900GB/s\"", "\"900GB\"")), Contains("c.toml:12"));
  CHECK_THAT(message_of(replaced("\"900GB/s\"", "900")), Contains("a string"));
  CHECK_THAT(message_of(replaced("\"30us\"", "\"30 parsecs\"")), Contains("c.toml:8"));
  CHECK_THAT(message_of(replaced("\"30us\"", "\"30\"")), Contains("unit of time"));
  CHECK_THAT(message_of(replaced("\"30us\"", "\"us\"")), Contains("c.toml:8"));
  CHECK_THAT(message_of(replaced("\"30us\"", "\"11s\"")), Contains("from 0s to 10s"));
  CHECK_THAT(message_of(replaced("count = 2", "ranks = 0")),
             Contains("c.toml:11") && Contains("from 1 to 256"));
  CHECK_THAT(message_of(replaced("\"24GB\"", "\"1KiB\"")), Contains("from 1MiB"));
  CHECK_THAT(message_of(replaced("count = 2", "count = 0")), Contains("c.toml:11"));
  CHECK_THAT(message_of(replaced("count = 2", "count = 4096")), Contains("at most 4096 nodes"));
  CHECK_THAT(message_of(replaced("measured = true", "measured = 1")), Contains("c.toml:4"));
  CHECK_THAT(
      message_of(replaced("device = {memory = \"24GB\", bandwidth = \"900GB/s\"}", "device = 3")),
      Contains("'node.device' to be a table"));
}

TEST_CASE("what a cluster must have is asked for") {
  using Catch::Matchers::Contains;
  CHECK_THAT(message_of(""), Contains("[cluster]"));
  CHECK_THAT(message_of("[cluster]\nname = \"x\"\n"), Contains("[[node]]"));
  CHECK_THAT(message_of("[cluster]\nname = \"x\"\n[node]\nname = \"y\"\n"), Contains("[[node]]"));
  CHECK_THAT(message_of("cluster = 3\n"), Contains("to be a table"));
  CHECK_THAT(message_of("[cluster]\nname = \"x\"\n[[node]]\nname = \"y\"\n"),
             Contains("device, host or disk"));
  CHECK_THAT(message_of(replaced("name = \"pair\"\n", "")), Contains("'cluster.name'"));
  CHECK_THAT(message_of(replaced("migration = {bandwidth = \"25GB/s\", latency = \"10us\"}\n", "")),
             Contains("node.migration"));
  CHECK_THAT(message_of(replaced("[network]\nbandwidth = \"1.25GB/s\"\nlatency = \"30us\"\n", "")),
             Contains("[network]"));
}

TEST_CASE("a cluster file that ends anywhere is read or refused") {
  size_t refused = 0;
  for (size_t length = 0; length < kPair.size(); ++length) {
    refused += message_of(kPair.substr(0, length)).empty() ? 0 : 1;
  }
  CHECK(refused > kPair.size() / 2);
}

TEST_CASE("the help lists every key once") {
  const std::string keys = cluster_keys();
  for (const char* key :
       {"cluster.name:", "cluster.overlap:", "network.latency:", "node.count:", "node.ranks:",
        "node.device|host|disk.memory:", "node.migration.bandwidth:"}) {
    CHECK_THAT(keys, Catch::Contains(key));
  }
}
