#include "traces/activity_figures.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>

#include "models/error.h"

namespace thermocline {
namespace {

// To a tenth of a percent.
std::string percent_text(double share) {
  return fmt::format("{:.3g}", std::round(1000 * share) / 10);
}

}  // namespace

StatisticsOptions figure_options(uint32_t skipped) {
  StatisticsOptions options;
  options.position_min = skipped;
  options.lags = {1, 10, 25};
  options.windows = {5};
  return options;
}

std::vector<std::optional<double>> figures_of(const ActivityStatistics& of) {
  TC_CHECK(of.overlap.size() == 3 && of.unions.size() == 1, "statistics of other options");
  std::vector<std::optional<double>> figures = {
      of.mean_activity,    of.share_80,     of.sequence_share_80, of.overlap[0],
      of.overlap[1],       of.overlap[2],   of.unions[0],         of.fresh[0],
      of.sequence_overlap, of.half_overlap, of.half_next_overlap, of.own_coverage,
      of.past_coverage};
  TC_CHECK(figures.size() == kActivityFigures.size(), "a figure without a name");
  return figures;
}

std::string PublishedFigure::text() const {
  if (high == 1) return fmt::format("over {} %", percent_text(low));
  if (low == high) return fmt::format("{} %", percent_text(low));
  return fmt::format("{} to {} %", percent_text(low), percent_text(high));
}

std::vector<PublishedFigure> published_of(std::string_view key) {
  std::vector<PublishedFigure> found;
  std::copy_if(kPublishedFigures.begin(), kPublishedFigures.end(), std::back_inserter(found),
               [&](const PublishedFigure& figure) { return figure.key == key; });
  return found;
}

}  // namespace thermocline
