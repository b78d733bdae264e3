// Plots: lines over one quantity, drawn by gnuplot as SVG: for embedding in a page, or as a file.
//
// Goals: readable in print and by the colour-blind (Okabe-Ito colours, a marker and a dash pattern
//   for each line); no identifier of one plot collides with another's in the same page; the same
//   plot gives the same bytes.
// Non-goals: interaction; any other kind of plot.
// Thread-safety: draw runs a child process and belongs to the main thread.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace thermocline {

struct PlotLine {
  std::string title;
  std::vector<std::pair<double, double>> points;  // (x, y); y NaN: a gap in the line
  bool bound = false;                             // an oracle: dashed and grey
  int style = 0;                                  // which colour and marker
  bool markers = true;                            // one for each point
  // The interval of each point (low, high): bars, or nothing where one is NaN. Empty: no intervals.
  std::vector<std::pair<double, double>> intervals = {};
  double aside = 0;  // drawn so far to the right of its points, beside other lines' intervals
};

// In the right corner of the lines at the bottom or the top, or above them, where it hides nothing.
// None: something beside the plot says which line is which.
enum class Legend { bottom, top, above, none };

struct Plot {
  std::string x_label, y_label;
  std::vector<PlotLine> lines;
  Legend legend = Legend::bottom;
  bool from_zero = false;  // the y axis begins at 0, as shares should be seen
  bool to_100 = false;     // the y axis ends at 100 or before, as percents do
  bool zero_line = false;  // a line at y = 0, between better and worse
};

struct Drawing {
  std::string svg;      // empty where it could not be drawn
  std::string problem;  // then why, in a sentence
};

// The hexadecimal colour of a style, for swatches beside names. Bounds are greys.
std::string plot_colour(int style, bool bound);
// Its marker as a character, for those who see or print no colours.
std::string plot_marker(int style, bool bound);
// The gnuplot script for a plot (the words and numbers of data are made harmless).
std::string plot_script(const Plot& plot);
// An <svg> element. `id` is unique in the page.
Drawing draw(const Plot& plot, const std::string& id);
// The same as a document of its own, on white.
Drawing draw_document(const Plot& plot);

}  // namespace thermocline
