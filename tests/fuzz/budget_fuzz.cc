// --budget: what is accepted is a budget of every rank, or of the whole model.
#include "models/budget.h"

#include "models/error.h"
#include "tests/fuzz/fuzz.h"

namespace thermocline::fuzz {

std::vector<std::string> seeds() {
  return {"24GiB+8GiB", "10%,cluster", "4KiB..40KiB/4KiB", "1kB+2kB+0B", "auto"};
}

}  // namespace thermocline::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace thermocline;
  BudgetRanks ranks;
  ranks.neurons = {1000, 3000, 2000};
  ranks.dense_bytes = {50, 50, 70};
  ranks.nodes = {0, 0, 1};
  ranks.fast_bytes = {1100, 5000};
  ranks.bundle_bytes = 10;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    for (const HotBudget& budget : parse_hot_budgets(text, 60'000, ranks)) {
      TC_CHECK(budget.by_rank.empty() || budget.by_rank.size() == 3, "bytes of each rank");
      uint64_t sum = 0;
      for (const uint64_t bytes : budget.by_rank) sum += bytes;
      TC_CHECK(budget.by_rank.empty() || sum == budget.bytes, "the sum of its ranks");
    }
  } catch (const Error&) {
  }
  return 0;
}
