// The figures of a trace's activity that say whether a hot threshold has anything to follow: what
// rows and tables call them, and what was published of each.
//
// Goals: one list and one table, which the command (traces/stat_command.h), the rows behind --json
//   and the report share.
// Non-goals: how they are counted (traces/statistics.h); bounds: these are other models on other
//   texts, to be read beside what was measured.
// Thread-safety: constants and pure functions.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "traces/statistics.h"

namespace thermocline {

struct ActivityFigure {
  std::string_view key;   // in rows
  std::string_view head;  // of a column
  std::string_view name;  // of a line: a share of neurons or of firings
};

inline constexpr std::array<ActivityFigure, 13> kActivityFigures = {{
    {"activity", "active", "active at a step"},
    {"share_80", "80 %", "neurons that give 80 % of the firings"},
    {"task_share_80", "in task", "the same within a task"},
    {"overlap_1", "next", "active neurons that are active at the next step"},
    {"overlap_10", "+10", "... 10 steps later"},
    {"overlap_25", "+25", "... 25 steps later"},
    {"union_5", "union", "active in at least one of 5 steps"},
    {"fresh_5", "fresh", "active and not so in the 5 steps before"},
    {"task_overlap", "task", "top fifth of a task that is so in the next task"},
    {"half_overlap", "halves", "top fifth of its even steps: so in its odd steps"},
    {"half_next_overlap", "apart", "... so in the next task's odd steps"},
    {"own_coverage", "own", "firings of a task in its own top fifth"},
    {"past_coverage", "past", "... in the top fifth of all earlier tasks"},
}};

// Of a predictor's bits; only where the trace has them.
struct PredictionFigure {
  std::string_view key, head, name;
  std::optional<double> ActivityStatistics::*share;
};

inline constexpr std::array<PredictionFigure, 4> kPredictionFigures = {{
    {"predicted", "pred", "predicted at a step", &ActivityStatistics::predicted},
    {"predictor_recall", "recall", "active neurons that were predicted",
     &ActivityStatistics::recall},
    {"predictor_precision", "precise", "predicted neurons that were active",
     &ActivityStatistics::precision},
    {"predictor_false_positives", "falsely", "neurons not active that were predicted",
     &ActivityStatistics::false_positives},
}};

// What to count for them, and besides; the first `skipped` positions of each task are left out.
// Lags and windows come out ascending, each once.
StatisticsOptions figure_options(uint32_t skipped, const StatisticsOptions& besides = {});
// In the order of kActivityFigures, of statistics that were counted with figure_options().
std::vector<std::optional<double>> figures_of(const ActivityStatistics& statistics,
                                              const StatisticsOptions& options);

struct PublishedFigure {
  std::string_view key;  // of an ActivityFigure
  double low, high;      // shares; the same where one was printed; high = 1: "over low"
  std::string_view of;   // the model
  std::string_view source;

  std::string text() const;  // "40 to 46.2 %"
};

// Sets of equal size that differ by this Jaccard distance share this much of each.
constexpr double overlap_of_distance(double jaccard_distance) {
  const double similarity = 1 - jaccard_distance;
  return 2 * similarity / (1 + similarity);
}

inline constexpr std::array<PublishedFigure, 12> kPublishedFigures = {{
    {"activity", 0.107, 0.121, "ProSparse-7B, 13B, MiniCPM-1B", "ProSparse"},
    {"activity", 0.284, 0.330, "ReluLLaMA-13B, 7B", "ProSparse"},
    {"share_80", 0.26, 0.26, "LLaMA2(ReGLU)-70B, whole model", "PowerInfer, figure 4"},
    {"share_80", 0.43, 0.43, "LLaMA2(ReGLU)-70B, one block", "PowerInfer, figure 4"},
    {"overlap_1", overlap_of_distance(0.75), overlap_of_distance(0.70), "ReluLLaMA",
     "DynamicInfer, Jaccard distance 0.70 to 0.75"},
    {"overlap_1", 0.90, 1, "LLaMA-13B (ReLU)", "Hermes, metric not defined"},
    {"overlap_10", 0.70, 0.70, "LLaMA-13B (ReLU)", "Hermes, metric not defined"},
    {"overlap_25", 0.70, 0.70, "LLaMA-13B (ReLU)", "Hermes, flat from there"},
    {"union_5", 0.24, 0.24, "OPT-6.7B", "LLM in a Flash, appendix C"},
    {"fresh_5", 0.024, 0.024, "OPT-6.7B", "LLM in a Flash, appendix C"},
    {"task_overlap", 0.90, 1, "OPT-30B, between task sets", "PowerInfer"},
    {"task_overlap", overlap_of_distance(0.57), overlap_of_distance(0.53),
     "ReluLLaMA, between sentences", "DynamicInfer, Jaccard distance 0.53 to 0.57"},
}};

std::vector<PublishedFigure> published_of(std::string_view key);

}  // namespace thermocline
