#include "models/plot.h"

#include <fmt/format.h>
#include <stdlib.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <filesystem>
#include <map>
#include <set>

#include "models/cli.h"
#include "models/error.h"
#include "models/process.h"

namespace thermocline {
namespace {

struct LineStyle {
  const char* colour;
  int point_type;  // gnuplot's number of a marker
  int dash_type;
  const char* marker;  // the same marker as a character
};

// Okabe and Ito, "Color Universal Design" (2008), the ones dark enough for a line on white.
constexpr std::array<LineStyle, 6> kStyles = {{{"#0072b2", 7, 1, "●"},     // blue
                                               {"#d55e00", 5, 1, "■"},     // vermillion
                                               {"#009e73", 9, 4, "▲"},     // green
                                               {"#cc79a7", 13, 5, "◆"},    // purple
                                               {"#e69f00", 11, 4, "▼"},    // orange
                                               {"#56b4e9", 15, 5, "⬟"}}};  // sky
// Greys, open markers, dashes.
constexpr std::array<LineStyle, 3> kBounds = {
    {{"#555555", 4, 2, "□"}, {"#222222", 6, 3, "○"}, {"#888888", 8, 2, "△"}}};

const LineStyle& style_of(int style, bool bound) {
  const auto index = static_cast<size_t>(style);
  return bound ? kBounds[index % kBounds.size()] : kStyles[index % kStyles.size()];
}

// A gnuplot string. Only letters, digits and harmless marks pass: quotes, backquotes and newlines
// mean something to gnuplot.
std::string gnuplot_string(std::string_view text) {
  std::string plain;
  for (const char c : text) {
    const bool harmless = std::isalnum(static_cast<unsigned char>(c)) != 0 ||
                          std::string_view(" -_.,:;=()%/+").find(c) != std::string::npos;
    plain += harmless ? c : '?';
  }
  return "\"" + plain + "\"";
}

std::string data_block(const PlotLine& line, size_t index) {
  std::string text = fmt::format("$line{} << END\n", index);
  for (size_t i = 0; i < line.points.size(); ++i) {
    const auto& [x, y] = line.points[i];
    // An empty line is a gap.
    text += std::isnan(y) ? "" : fmt::format("{:.9g} {:.9g}", x + line.aside, y);
    const bool interval = i < line.intervals.size() && !std::isnan(line.intervals[i].first) &&
                          !std::isnan(line.intervals[i].second);
    if (interval && !std::isnan(y)) {
      text += fmt::format(" {:.9g} {:.9g}", line.intervals[i].first, line.intervals[i].second);
    }
    text += "\n";
  }
  return text + "END\n";
}

// Two thirds of the way to white: still seen under a marker, and in print.
std::string pale(const std::string& colour) {
  std::string text = "#";
  for (size_t at = 1; at < 7; at += 2) {
    const int value = std::stoi(colour.substr(at, 2), nullptr, 16);
    text += fmt::format("{:02x}", 255 - (255 - value) / 3);
  }
  return text;
}

std::string line_clause(const PlotLine& line, size_t index) {
  const LineStyle& style = style_of(line.style, line.bound);
  const std::string points =
      line.markers ? fmt::format(" pointtype {} pointsize 0.7", style.point_type) : "";
  return fmt::format(
      "$line{} using 1:2 with {} linecolor rgb \"{}\" linewidth 2{} dashtype {} title {}", index,
      line.markers ? "linespoints" : "lines", style.colour, points, style.dash_type,
      gnuplot_string(line.title));
}

// Upright bars from low to high, under the line itself.
std::string interval_clause(const PlotLine& line, size_t index) {
  return fmt::format(
      "$line{} using 1:3:(0):($4-$3) with vectors nohead linecolor rgb \"{}\" linewidth 5 "
      "notitle, ",
      index, pale(style_of(line.style, line.bound).colour));
}

// gnuplot names the parts of every drawing alike; `id` sets them apart.
std::string with_own_names(std::string svg, const std::string& id) {
  for (const std::string name : {"gpDot", "gpPt", "gnuplot_plot_", "gnuplot_canvas"}) {
    for (size_t at = 0; (at = svg.find(name, at)) != std::string::npos;
         at += id.size() + 1 + name.size()) {
      svg.insert(at, id + "_");
    }
  }
  return svg;
}

// gnuplot's titles of parts name no data, and pages show them where the pointer is.
std::string without_titles(std::string svg) {
  size_t begin = 0;
  while ((begin = svg.find("<title>", begin)) != std::string::npos) {
    const size_t end = svg.find("</title>", begin);
    if (end == std::string::npos) break;
    svg.erase(begin, end + 8 - begin);
  }
  return svg;
}

// From <svg to </svg>: without the XML declaration, which a page cannot hold.
std::string svg_element(const std::string& document) {
  const size_t begin = document.find("<svg"), end = document.rfind("</svg>");
  if (begin == std::string::npos || end == std::string::npos || end < begin) return "";
  return document.substr(begin, end + 6 - begin);
}

// Marks on the x axis at the points themselves, where they are few.
std::string tics_clause(const Plot& plot) {
  std::set<double> marks;
  for (const PlotLine& line : plot.lines) {
    for (const auto& [x, y] : line.points) marks.insert(x);
  }
  if (marks.size() > 12) return "";
  std::string list;
  for (const double x : marks) list += (list.empty() ? "" : ", ") + fmt::format("{:.4g}", x);
  return "set xtics (" + list + ")\n";
}

// gnuplot gives up on a column that no line of the data has.
bool has_intervals(const PlotLine& line) {
  const size_t count = std::min(line.intervals.size(), line.points.size());
  for (size_t i = 0; i < count; ++i) {
    const auto& [low, high] = line.intervals[i];
    if (!std::isnan(low) && !std::isnan(high) && !std::isnan(line.points[i].second)) return true;
  }
  return false;
}

// Room around the lines for markers, and for a legend that stands among them.
std::string offsets_clause(const Plot& plot) {
  const bool markers = std::any_of(plot.lines.begin(), plot.lines.end(),
                                   [](const PlotLine& line) { return line.markers; });
  const bool outside = plot.legend == Legend::above || plot.legend == Legend::none;
  if (!markers && outside) return "";
  return fmt::format("set offsets graph 0.04, graph 0.04, graph {}, graph {}\n",
                     outside ? 0.06 : 0.12, plot.from_zero ? 0 : 0.06);
}

std::string key_clause(const Plot& plot) {
  if (plot.legend == Legend::none) return "unset key\n";
  const std::map<Legend, std::string> places = {{Legend::bottom, "bottom right"},
                                                {Legend::top, "top right"},
                                                {Legend::above, "tmargin center horizontal"}};
  return "set key " + places.at(plot.legend) + " reverse Left samplen 2.5 spacing 1.25\n";
}

class ScratchFolder {
 public:
  ScratchFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "thermocline-XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) throw work_failed(pattern + ": cannot create");
    path_ = pattern;
  }
  ~ScratchFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

}  // namespace

std::string plot_colour(int style, bool bound) { return style_of(style, bound).colour; }
std::string plot_marker(int style, bool bound) { return style_of(style, bound).marker; }

std::string plot_script(const Plot& plot) {
  std::string script =
      "set terminal svg size 540,360 dynamic noenhanced font \"Liberation Sans,Arial,Helvetica\" "
      "fontscale 1.12\n"
      "set encoding utf8\nset border 3 linecolor rgb \"#5b636d\"\nset tics nomirror out scale 0.6\n"
      "set grid ytics linecolor rgb \"#d9dde2\" linetype 1 linewidth 0.6\n";
  script += offsets_clause(plot) + key_clause(plot);
  script += "set xlabel " + gnuplot_string(plot.x_label) + "\nset ylabel " +
            gnuplot_string(plot.y_label) + "\n";
  script += tics_clause(plot);
  script +=
      fmt::format("set yrange [{}:{}]\n", plot.from_zero ? "0" : "*", plot.to_100 ? "*<100" : "*");
  if (plot.zero_line) script += "set xzeroaxis linecolor rgb \"#5b636d\" linetype 1 linewidth 1\n";
  std::string intervals, clauses;  // all intervals first: below every line
  for (size_t i = 0; i < plot.lines.size(); ++i) {
    script += data_block(plot.lines[i], i);
    if (has_intervals(plot.lines[i])) intervals += interval_clause(plot.lines[i], i);
    clauses += (i == 0 ? "" : ", ") + line_clause(plot.lines[i], i);
  }
  return script + "plot " + intervals + clauses + "\n";
}

Drawing draw(const Plot& plot, const std::string& id) {
  if (plot.lines.empty()) return {"", "There is nothing to draw: no row has these values."};
  if (find_program("gnuplot").empty()) {
    return {"",
            "gnuplot is not installed here, so this plot is missing; install gnuplot-nox and "
            "run the command again. The table holds all its numbers."};
  }
  const ScratchFolder folder;
  write_file(folder / "plot.gp", "set output '" + folder / "plot.svg" + "'\n" + plot_script(plot));
  const ChildResult result =
      run_child({"gnuplot", folder / "plot.gp"}, {"gnuplot", folder / "plot.log", {}});
  const std::string log = tail_of(folder / "plot.log", 1);
  const bool drawn = result.exit_code == 0 && std::filesystem::exists(folder / "plot.svg");
  const std::string svg = drawn ? svg_element(read_file(folder / "plot.svg")) : "";
  if (svg.empty()) {
    return {"", fmt::format("gnuplot failed with exit code {}: {}", result.exit_code, log)};
  }
  return {with_own_names(without_titles(svg), id), ""};
}

Drawing draw_document(const Plot& plot) {
  Drawing drawing = draw(plot, "plot");
  if (drawing.svg.empty()) return drawing;
  const size_t content = drawing.svg.find('>') + 1;
  drawing.svg.insert(content, "\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>");
  drawing.svg = "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n" + drawing.svg + "\n";
  return drawing;
}

}  // namespace thermocline
