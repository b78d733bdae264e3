#include "models/budget.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <string>

#include "models/error.h"
#include "models/text.h"
#include "models/units.h"

namespace thermocline {
namespace {

// Their sum must be a number of bytes, too.
std::vector<uint64_t> parse_parts(std::string_view text) {
  constexpr uint64_t kSumMax = uint64_t{1} << 60;
  std::vector<uint64_t> parts;
  uint64_t sum = 0;
  for (const std::string_view piece : split(text, '+')) {
    parts.push_back(parse_bytes(piece));
    sum += std::min(parts.back(), kSumMax + 1 - std::min(sum, kSumMax));
  }
  if (sum <= kSumMax) return parts;
  throw bad_usage(
      fmt::format("--budget {}: expected at most {} in all", text, format_bytes(kSumMax)));
}

// "24GiB+8GiB": bytes for each rank that has neurons, in the order that a trace has them; else for
// each rank of the job, or for each node of the cluster.
HotBudget unequal_budget(std::string_view text, const BudgetRanks& ranks) {
  const std::vector<uint64_t> parts = parse_parts(text);
  const bool of_used = parts.size() == ranks.neurons.size();
  const bool of_job = !of_used && !ranks.job_ranks.empty() && parts.size() == ranks.job_size;
  if (of_used || of_job) {
    std::vector<uint64_t> of_ranks;
    for (size_t rank = 0; rank < ranks.neurons.size(); ++rank) {
      of_ranks.push_back(std::min(parts[of_job ? ranks.job_ranks[rank] : rank],
                                  ranks.neurons[rank] * ranks.bundle_bytes));
    }
    return HotBudget(of_ranks);
  }
  if (parts.size() == ranks.fast_bytes.size()) return HotBudget(ranks.over_ranks(parts));
  throw bad_usage(fmt::format(
      "--budget {}: expected bytes for each of the {} ranks or each of the cluster's {} nodes, "
      "found {}",
      text, ranks.neurons.size(), ranks.fast_bytes.size(), parts.size()));
}

}  // namespace

HotBudget::HotBudget(std::vector<uint64_t> of_ranks)
    : bytes(std::accumulate(of_ranks.begin(), of_ranks.end(), uint64_t{0})),
      by_rank(std::move(of_ranks)) {}

std::vector<uint64_t> BudgetRanks::over_ranks(std::span<const uint64_t> by_node) const {
  std::vector<uint64_t> of_nodes(fast_bytes.size());
  for (size_t rank = 0; rank < neurons.size(); ++rank) of_nodes[nodes[rank]] += neurons[rank];
  std::vector<uint64_t> split;
  for (size_t rank = 0; rank < neurons.size(); ++rank) {
    const uint64_t own = neurons[rank];
    const double share = static_cast<double>(own) / static_cast<double>(of_nodes[nodes[rank]]);
    const double bytes = share * static_cast<double>(by_node[nodes[rank]]);
    split.push_back(std::min(static_cast<uint64_t>(bytes), own * bundle_bytes));
  }
  return split;
}

std::vector<uint64_t> BudgetRanks::room() const {
  std::vector<uint64_t> left = fast_bytes;
  for (size_t rank = 0; rank < neurons.size(); ++rank) {
    uint64_t& of_node = left[nodes[rank]];
    of_node -= std::min(of_node, dense_bytes[rank]);
  }
  return over_ranks(left);
}

std::vector<HotBudget> parse_hot_budgets(std::string_view text, uint64_t full_bytes,
                                         const BudgetRanks& ranks) {
  std::vector<HotBudget> budgets;
  std::string plain;
  for (const std::string_view piece : split(text, ',')) {
    if (piece == "cluster") {
      budgets.push_back(HotBudget(ranks.room()));
    } else if (piece.find('+') != std::string_view::npos) {
      budgets.push_back(unequal_budget(piece, ranks));
    } else {
      if (!plain.empty()) plain += ',';
      plain += piece;
    }
  }
  if (!plain.empty() || budgets.empty()) {
    for (const uint64_t bytes : parse_budgets(plain, full_bytes, ranks.bundle_bytes)) {
      budgets.emplace_back(bytes);
    }
  }
  std::stable_sort(budgets.begin(), budgets.end(),
                   [](const HotBudget& a, const HotBudget& b) { return a.bytes < b.bytes; });
  return budgets;
}

}  // namespace thermocline
