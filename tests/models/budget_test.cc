// Budgets of ranks and nodes: what --budget says, in replay and live alike.
#include "models/budget.h"

#include <catch2/catch.hpp>

#include "models/error.h"

namespace thermocline::test {
namespace {

using Catch::Matchers::Contains;
using Bytes = std::vector<uint64_t>;

// Two ranks on the first node, one on the second; bundles of 10 bytes, 600 in all.
BudgetRanks three_ranks() {
  BudgetRanks ranks;
  ranks.neurons = {100, 300, 200};
  ranks.dense_bytes = {50, 50, 70};
  ranks.nodes = {0, 0, 1};
  ranks.fast_bytes = {1100, 5000};
  ranks.bundle_bytes = 10;
  return ranks;
}

std::vector<HotBudget> parse(std::string_view text, const BudgetRanks& ranks = three_ranks()) {
  return parse_hot_budgets(text, 6000, ranks);
}

TEST_CASE("a plain budget is the whole model's, a list is ascending") {
  const auto budgets = parse("50%,1000B,100B+200B+300B");
  REQUIRE(budgets.size() == 3);
  CHECK(budgets[0] == HotBudget(Bytes{100, 200, 300}));
  CHECK(budgets[0].bytes == 600);
  CHECK(budgets[1] == HotBudget(1000));
  CHECK(budgets[2] == HotBudget(3000));
  CHECK(parse("auto").size() == 5);
}

TEST_CASE("bytes of a node are split over its ranks by neurons, and what it has left likewise") {
  CHECK(parse("400B+500B").front() == HotBudget(Bytes{100, 300, 500}));
  CHECK(parse("400B+9000B").front() == HotBudget(Bytes{100, 300, 2000}));  // all its bundles
  CHECK(parse("cluster").front() == HotBudget(Bytes{250, 750, 2000}));
}

TEST_CASE("where a job leaves ranks out, a budget may name all of its ranks") {
  BudgetRanks ranks = three_ranks();
  ranks.job_ranks = {3, 0, 1};  // rank 2 is left out, 3 is first in the layout
  ranks.job_size = 4;
  CHECK(parse("1kB+2kB+3kB+400B", ranks).front() == HotBudget(Bytes{400, 1000, 2000}));
  CHECK(parse("1kB+2kB+3kB", ranks).front() == HotBudget(Bytes{1000, 2000, 2000}));
  ranks.job_ranks = {2, 0, 1};  // none is left out: ranks as the trace has them
  ranks.job_size = 3;
  CHECK(parse("400B+500B+600B", ranks).front() == HotBudget(Bytes{400, 500, 600}));
}

TEST_CASE("budgets that are none are usage errors") {
  for (const char* bad : {"", "1kB+", "+", "1kB+2kB+3kB+4kB", "1kB+x", "clutser", "-1+2",
                          "999999TB+999999TB", "9000000TiB+9000000TiB+9000000TiB"}) {
    INFO(bad);
    CHECK_THROWS_AS(parse(bad), Error);
  }
  CHECK_THROWS_WITH(parse("1kB+2kB+3kB+4kB"),
                    Contains("each of the 3 ranks or each of the cluster's 2 nodes, found 4"));
}

}  // namespace
}  // namespace thermocline::test
