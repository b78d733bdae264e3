// Which share of each layer was hot: a map of policies and layers.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "sim/answer.h"
#include "sim/html.h"
#include "sim/report_parts.h"

namespace thermocline {
namespace {

// Of one hue and of falling lightness, so that print and every eye keep the order: ColorBrewer's
// "Blues" (Brewer, 2003), interpolated.
constexpr std::array<std::array<double, 3>, 5> kBlues = {
    {{247, 251, 255}, {198, 219, 239}, {107, 174, 214}, {33, 113, 181}, {8, 48, 107}}};
constexpr int kLevels = 32;
constexpr int kNameWidth = 190, kMapWidth = 880, kRowHeight = 17, kTop = 6;

std::string colour_of(int level) {
  const double place = static_cast<double>(level) / (kLevels - 1) * (kBlues.size() - 1);
  const auto below = std::min(static_cast<size_t>(place), kBlues.size() - 2);
  std::string text = "#";
  for (size_t k = 0; k < 3; ++k) {
    const double part = place - static_cast<double>(below);
    const double value = (1 - part) * kBlues[below][k] + part * kBlues[below + 1][k];
    text += fmt::format("{:02x}", static_cast<int>(value + 0.5));
  }
  return text;
}

// What the palest and the darkest colour stand for, in tenths.
struct Scale {
  double low = 1, high = 0;

  void cover(const std::vector<double>& shares) {
    for (const double share : shares) {
      low = std::min(low, std::floor(10 * share + 1e-9) / 10);
      high = std::max(high, std::ceil(10 * share - 1e-9) / 10);
    }
  }
  int level(double share) const {
    const double part = high > low ? (share - low) / (high - low) : 0;
    return std::clamp(static_cast<int>(part * kLevels), 0, kLevels - 1);
  }
};

std::string rectangle(double x, double y, double width, double height, int level) {
  return fmt::format(
      "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" fill=\"{}\" />", x, y,
      width, height, colour_of(level));
}

std::string label(double x, double y, const char* anchor, const std::string& text) {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\">{}</text>\n", x, y, anchor,
                     escape_html(text));
}

// Neighbours of one colour are one rectangle.
std::string map_row(const std::vector<double>& shares, const Scale& scale, double y) {
  const double width = static_cast<double>(kMapWidth) / static_cast<double>(shares.size());
  std::string svg;
  for (size_t begin = 0, end = 0; begin < shares.size(); begin = end) {
    const int level = scale.level(shares[begin]);
    while (end < shares.size() && scale.level(shares[end]) == level) ++end;
    svg += rectangle(kNameWidth + static_cast<double>(begin) * width, y,
                     static_cast<double>(end - begin) * width, kRowHeight - 1, level);
  }
  return svg + "\n";
}

std::string layer_axis(size_t layer_count, double y) {
  const double width = static_cast<double>(kMapWidth) / static_cast<double>(layer_count);
  const size_t step = std::max<size_t>(1, (layer_count + 15) / 16);
  std::string svg;
  for (size_t layer = 0; layer < layer_count; layer += step) {
    svg += label(kNameWidth + (static_cast<double>(layer) + 0.5) * width, y, "middle",
                 std::to_string(layer));
  }
  return svg + label(kNameWidth - 8, y, "end", "layer");
}

std::string scale_bar(const Scale& scale, double y) {
  constexpr int kWidth = 6;
  std::string svg = label(kNameWidth - 8, y + 11, "end", percent(scale.low, 0) + " hot");
  for (int level = 0; level < kLevels; ++level) {
    svg += rectangle(kNameWidth + level * kWidth, y, kWidth, 14, level);
  }
  return svg + "\n" +
         label(kNameWidth + kLevels * kWidth + 8, y + 11, "start", percent(scale.high, 0));
}

}  // namespace

std::string layers_part(const std::vector<Curve>& curves) {
  std::vector<std::pair<const Curve*, const PolicyRow*>> shown;
  Scale scale;
  for (const Curve& curve : curves) {
    const PolicyRow* row = row_at(curve, middle_budget(curves));
    if (row == nullptr || row->hot_by_layer.empty()) continue;
    shown.emplace_back(&curve, row);
    scale.cover(row->hot_by_layer);
  }
  if (shown.empty()) return "";
  std::string svg;
  double y = kTop;
  size_t layer_count = 0;
  for (const auto& [curve, row] : shown) {
    svg += label(kNameWidth - 8, y + 12, "end", curve->name);
    svg += map_row(row->hot_by_layer, scale, y);
    layer_count = std::max(layer_count, row->hot_by_layer.size());
    y += kRowHeight;
  }
  svg += layer_axis(layer_count, y + 14) + scale_bar(scale, y + 30);
  const double percent_of_ffn = shown.front().second->budget_percent;
  return fmt::format(
      "<h3>Where the budget goes: share of each layer that was hot, at {:.3g} % of the FFN</h3>\n"
      "<figure class=\"wide\">\n<svg viewBox=\"0 0 {} {:.0f}\" role=\"img\" "
      "aria-label=\"mean share of each layer in fast memory, by policy\" "
      "xmlns=\"http://www.w3.org/2000/svg\">\n{}</svg>\n<figcaption>Mean over steps; darker is "
      "hotter.</figcaption>\n</figure>\n",
      percent_of_ffn, kNameWidth + kMapWidth + 10, y + 52, svg);
}

}  // namespace thermocline
