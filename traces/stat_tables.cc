#include "traces/stat_tables.h"

#include <fmt/format.h>

#include <algorithm>

#include "traces/activity_figures.h"
#include "traces/top_fifth.h"

namespace thermocline {
namespace {

std::string percent_text(const std::optional<double>& share) {
  return share ? fmt::format("{:.1f}", 100 * *share) : "-";
}

// A figure that was published more than once has a line for each.
std::string whole_table(const TraceStatistics& found) {
  std::string text = fmt::format("{:<48} {:>6}   {:<15} {}\n", "all layers: share in percent",
                                 "here", "published", "of, by");
  const auto figures = figures_of(found.whole, found.options);
  for (size_t i = 0; i < figures.size(); ++i) {
    std::string name(kActivityFigures[i].name), here = percent_text(figures[i]);
    const auto published = published_of(kActivityFigures[i].key);
    if (published.empty()) text += fmt::format("{:<48} {:>6}\n", name, here);
    for (const PublishedFigure& figure : published) {
      text += fmt::format("{:<48} {:>6}   {:<15} {} ({})\n", name, here, figure.text(), figure.of,
                          figure.source);
      name = here = "";
    }
  }
  return text;
}

// The layers with the smallest and the largest share, where any has one.
template <class Pick>
std::string extremes_text(const TraceStatistics& found, Pick share) {
  std::optional<double> least, most;
  for (const ActivityStatistics& layer : found.layers) {
    const std::optional<double> value = share(layer);
    if (!value) continue;
    least = std::min(least.value_or(*value), *value);
    most = std::max(most.value_or(*value), *value);
  }
  return fmt::format("{:>10} {:>10}", percent_text(least), percent_text(most));
}

std::string overlap_table(const TraceStatistics& found) {
  std::string text = fmt::format("\n{:<14} {:>12} {:>10} {:>10}\n", "steps later", "still active",
                                 "least in", "most in");
  text += fmt::format("{:<14} {:>12} {:>10} {:>10}\n", "", "", "a layer", "a layer");
  for (size_t i = 0; i < found.options.lags.size(); ++i) {
    const auto share = [i](const ActivityStatistics& of) { return of.overlap[i]; };
    text += fmt::format("{:>14} {:>12} {}\n", found.options.lags[i],
                        percent_text(share(found.whole)), extremes_text(found, share));
  }
  return text;
}

std::string window_table(const TraceStatistics& found) {
  std::string text = fmt::format("\n{:<14} {:>12} {:>21}\n", "steps", "in any", "active, in none");
  text += fmt::format("{:<14} {:>12} {:>21}\n", "", "of them", "of the so many before");
  for (size_t i = 0; i < found.options.windows.size(); ++i) {
    text += fmt::format("{:>14} {:>12} {:>21}\n", found.options.windows[i],
                        percent_text(found.whole.unions[i]), percent_text(found.whole.fresh[i]));
  }
  return text;
}

// The first line is what sampling leaves within one task.
std::string drift_table(const TraceStatistics& found) {
  const ActivityStatistics& whole = found.whole;
  std::string text = fmt::format("\n{:<14} {:>12} {:>21}\n", "tasks later", "top fifth", "of half");
  text += fmt::format("{:<14} {:>12} {:>21}\n", "", "still so", "the steps each");
  const auto line = [](const std::string& distance, const std::string& all,
                       const std::optional<double>& half) {
    return fmt::format("{:>14} {:>12} {:>21}\n", distance, all, percent_text(half));
  };
  text += line("the same task", "", whole.half_overlap);
  for (size_t i = 0; i < kTaskDistances.size(); ++i) {
    text += line(fmt::format("{}", kTaskDistances[i]), percent_text(whole.task_overlap[i]),
                 whole.half_task_overlap[i]);
  }
  return text + line("by chance", percent_text(kTopShare), kTopShare);
}

std::string prediction_table(const TraceStatistics& found) {
  if (!found.has_predicted) return "";
  std::string text = fmt::format("\n{:<48} {:>6} {:>10} {:>10}\n", "predictor: share in percent",
                                 "here", "least in", "most in");
  for (const PredictionFigure& figure : kPredictionFigures) {
    const auto share = [&figure](const ActivityStatistics& of) { return of.*figure.share; };
    text += fmt::format("{:<48} {:>6} {}\n", figure.name, percent_text(share(found.whole)),
                        extremes_text(found, share));
  }
  return text;
}

std::string layer_table(const TraceStatistics& found) {
  std::string text = fmt::format("\n{:>5}", "layer");
  for (const ActivityFigure& figure : kActivityFigures) text += fmt::format(" {:>7}", figure.head);
  for (size_t i = 0; found.has_predicted && i < kPredictionFigures.size(); ++i) {
    text += fmt::format(" {:>7}", kPredictionFigures[i].head);
  }
  text += "\n";
  for (size_t layer = 0; layer < found.layers.size(); ++layer) {
    text += fmt::format("{:>5}", layer);
    for (const auto& figure : figures_of(found.layers[layer], found.options)) {
      text += fmt::format(" {:>7}", percent_text(figure));
    }
    for (size_t i = 0; found.has_predicted && i < kPredictionFigures.size(); ++i) {
      text += fmt::format(" {:>7}", percent_text(found.layers[layer].*kPredictionFigures[i].share));
    }
    text += "\n";
  }
  return text;
}

}  // namespace

std::string stat_tables(const TraceStatistics& statistics) {
  return whole_table(statistics) + prediction_table(statistics) + overlap_table(statistics) +
         window_table(statistics) + drift_table(statistics) + layer_table(statistics);
}

}  // namespace thermocline
