#include "traces/activity_figures.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <set>

#include "models/error.h"

namespace thermocline {
namespace {

// To a tenth of a percent.
std::string percent_text(double share) {
  return fmt::format("{:.3g}", std::round(1000 * share) / 10);
}

std::vector<uint32_t> joined(std::set<uint32_t> values, const std::vector<uint32_t>& more) {
  values.insert(more.begin(), more.end());
  return {values.begin(), values.end()};
}

size_t place_of(uint32_t value, const std::vector<uint32_t>& values) {
  const auto found = std::find(values.begin(), values.end(), value);
  TC_CHECK(found != values.end(), "statistics of other options");
  return static_cast<size_t>(found - values.begin());
}

}  // namespace

StatisticsOptions figure_options(uint32_t skipped, const StatisticsOptions& besides) {
  StatisticsOptions options;
  options.position_min = skipped;
  options.lags = joined({1, 10, 25}, besides.lags);
  options.windows = joined({5}, besides.windows);
  return options;
}

std::vector<std::optional<double>> figures_of(const ActivityStatistics& of,
                                              const StatisticsOptions& options) {
  const auto overlap = [&](uint32_t lag) { return of.overlap[place_of(lag, options.lags)]; };
  const size_t five = place_of(5, options.windows);
  std::vector<std::optional<double>> figures = {
      of.mean_activity,    of.share_80,     of.sequence_share_80, overlap(1),
      overlap(10),         overlap(25),     of.unions[five],      of.fresh[five],
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
