#include "traces/stat_plots.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "models/cli.h"
#include "models/error.h"
#include "traces/top_fifth.h"

namespace thermocline {
namespace {

using Shares = ActivityStatistics::Shares;

// `xs` and the shares at them, in percent; without those that the trace has no such pair for.
template <class Xs>
PlotLine line_of(const std::string& title, int style, const Xs& xs, const Shares& shares) {
  PlotLine line{title, {}, false, style};
  for (size_t i = 0; i < xs.size(); ++i) {
    if (shares[i]) line.points.emplace_back(xs[i], 100 * *shares[i]);
  }
  return line;
}

// A few layers from the first to the last.
std::set<size_t> some_layers(const TraceStatistics& statistics) {
  const size_t count = statistics.layers.size();
  if (count < 2) return {};
  return {0, count / 2, count - 1};
}

Plot with_lines(Plot plot, std::vector<PlotLine> lines) {
  for (PlotLine& line : lines) {
    if (!line.points.empty()) plot.lines.push_back(std::move(line));
  }
  return plot;
}

// The whole model and a few layers, each by what `shares` picks.
template <class Xs, class Pick>
std::vector<PlotLine> model_and_layers(const TraceStatistics& statistics, const Xs& xs,
                                       Pick shares) {
  std::vector<PlotLine> lines = {line_of("all layers", 0, xs, shares(statistics.whole))};
  for (const size_t layer : some_layers(statistics)) {
    lines.push_back(line_of(fmt::format("layer {}", layer), static_cast<int>(lines.size()), xs,
                            shares(statistics.layers[layer])));
  }
  return lines;
}

Plot activity_by_layer(const TraceStatistics& statistics) {
  std::vector<size_t> layers;
  Shares active, share_80, predicted;
  for (const ActivityStatistics& layer : statistics.layers) {
    layers.push_back(layers.size());
    active.push_back(layer.mean_activity);
    share_80.push_back(layer.share_80);
    predicted.push_back(layer.predicted);
  }
  return with_lines({"layer", "neurons, %", {}, Legend::above, true},
                    {line_of("give 80 % of the firings", 1, layers, share_80),
                     line_of("predicted at a step", 2, layers, predicted),
                     line_of("active at a step", 0, layers, active)});
}

Plot carried_by_share(const TraceStatistics& statistics) {
  std::vector<uint32_t> percent;
  for (uint32_t i = 0; i <= kCarriedPoints; ++i) percent.push_back(i);
  std::vector<PlotLine> lines =
      model_and_layers(statistics, percent, [](const ActivityStatistics& of) {
        Shares shares;
        if (!of.carried.empty()) shares.emplace_back(0.0);
        shares.insert(shares.end(), of.carried.begin(), of.carried.end());
        shares.resize(kCarriedPoints + 1);
        return shares;
      });
  for (PlotLine& line : lines) line.markers = false;
  return with_lines({"most active neurons, %", "firings they carry, %", {}, Legend::above, true},
                    lines);
}

Plot overlap_by_distance(const TraceStatistics& statistics) {
  return with_lines({"steps later", "active neurons still active, %", {}, Legend::above, true},
                    model_and_layers(statistics, statistics.options.lags,
                                     [](const ActivityStatistics& of) { return of.overlap; }));
}

Plot union_by_window(const TraceStatistics& statistics) {
  const auto& windows = statistics.options.windows;
  return with_lines(
      {"steps", "neurons, %", {}, Legend::above, true},
      {line_of("active in at least one of the steps", 0, windows, statistics.whole.unions),
       line_of("active, and in none of the steps before", 1, windows, statistics.whole.fresh)});
}

Plot drift_by_distance(const TraceStatistics& statistics) {
  const ActivityStatistics& whole = statistics.whole;
  PlotLine halves = line_of("of half of the steps", 1, kTaskDistances, whole.half_task_overlap);
  if (whole.half_overlap)
    halves.points.insert(halves.points.begin(), {0, 100 * *whole.half_overlap});
  PlotLine chance{"chance", {{0, 100 * kTopShare}, {kTaskDistances.back(), 100 * kTopShare}}, true};
  chance.markers = false;
  Plot plot = with_lines({"tasks later", "top fifth that is so then, %", {}, Legend::above, true},
                         {line_of("of all steps", 0, kTaskDistances, whole.task_overlap), halves});
  if (!plot.lines.empty()) plot.lines.push_back(chance);
  return plot;
}

std::string reason(const std::error_code& error) { return error.message(); }

}  // namespace

std::vector<StatPlot> stat_plots(const TraceStatistics& statistics) {
  std::vector<StatPlot> plots = {{"activity_by_layer", activity_by_layer(statistics)},
                                 {"carried_by_share", carried_by_share(statistics)},
                                 {"overlap_by_distance", overlap_by_distance(statistics)},
                                 {"union_by_window", union_by_window(statistics)},
                                 {"drift_by_distance", drift_by_distance(statistics)}};
  std::erase_if(plots, [](const StatPlot& plot) { return plot.plot.lines.empty(); });
  return plots;
}

WrittenPlots write_stat_plots(const TraceStatistics& statistics, const std::string& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) throw work_failed(folder + ": cannot create: " + reason(error));
  WrittenPlots written;
  for (const StatPlot& plot : stat_plots(statistics)) {
    const Drawing drawing = draw_document(plot.plot);
    if (drawing.svg.empty()) {
      written.problem = drawing.problem;
      break;
    }
    written.paths.push_back(folder + "/" + plot.name + ".svg");
    write_file(written.paths.back(), drawing.svg);
  }
  return written;
}

}  // namespace thermocline
