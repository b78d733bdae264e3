#include "sim/following.h"

#include <fmt/format.h>

#include <cmath>

#include "sim/answer.h"

namespace thermocline {
namespace {

// To a tenth of a percent, as it is shown: who subtracts what is printed gets what is printed.
std::optional<double> figure(const ModelResults& model, const std::string& key) {
  if (!model.activity) return std::nullopt;
  const auto found = model.activity->figures.find(key);
  if (found == model.activity->figures.end()) return std::nullopt;
  return std::round(1000 * found->second) / 1000;
}

// "3.2 points", of a difference that is not negative.
std::string points_of(double difference) { return fmt::format("{:.1f} points", 100 * difference); }

// What the weights of the trace cannot tell; empty for real ones.
std::string limit_of(const std::string& weights) {
  if (weights == "synthetic") {
    return " The weights are synthetic: which neurons fire together was not learnt.";
  }
  if (weights == "trained-demo") return " This is a small trained model, not LLaMA-70B.";
  return "";
}

}  // namespace

std::string overlap_sentence(const ModelResults& model) {
  const auto next = figure(model, "task_overlap");
  const auto within = figure(model, "half_overlap"), across = figure(model, "half_next_overlap");
  if (!next || !within || !across) return "";
  const std::string begin = fmt::format(
      "Of the fifth of each layer that fires most in a task, {} is in the next task's. Chance "
      "alone changes such a set: counted on half the steps, a task shares {} with its own other "
      "half and {} with half of the next task",
      percent(*next), percent(*within), percent(*across));
  if (*within - *across < kTieRatio) return begin + ": the tasks' hot sets do not differ.";
  return fmt::format("{}: at most {} come from the task.", begin, points_of(*within - *across));
}

std::string gain_sentence(const ModelResults& model) {
  const auto own = figure(model, "own_coverage"), past = figure(model, "past_coverage");
  if (!own || !past) return "";
  return fmt::format(
             "Chosen anew for each task, in hindsight, a fifth of each layer covers {} of the "
             "firings; the fifth that fired most in all earlier tasks covers {}. With memory for a "
             "fifth of each layer, a dynamic threshold can gain at most {} on this trace by "
             "following tasks; what it gains by following changes within a task is not in that.",
             percent(*own), percent(*past), points_of(*own - *past)) +
         limit_of(model.activity->weights);
}

std::string gain_in_short(const ModelResults& model) {
  const auto own = figure(model, "own_coverage"), past = figure(model, "past_coverage");
  if (!own || !past) return "";
  return fmt::format(
             "Is there anything to follow? With memory for a fifth of each layer, following tasks "
             "can gain at most {} on this trace: {} of the firings in hindsight, {} with a set "
             "profiled on all earlier tasks.",
             points_of(*own - *past), percent(*own), percent(*past)) +
         limit_of(model.activity->weights);
}

}  // namespace thermocline
