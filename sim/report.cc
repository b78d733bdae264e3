#include "sim/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>

#include "sim/html.h"
#include "sim/report_parts.h"

namespace thermocline {
namespace {

std::string kicker(const Results& results) {
  const std::string name = results.study_name.empty() ? "" : " · study " + results.study_name;
  return "<p class=\"kicker\"><b>thermocline</b> report" + escape_html(name) + "</p>\n";
}

// Keeps a number and its unit on one line.
std::string with_units_kept(const std::string& text) {
  static const std::vector<std::string> units = {"%",   "ms",  "µs",  "GB/s",
                                                 "GiB", "MiB", "KiB", "points"};
  std::string kept;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool after_digit = i > 0 && std::isdigit(static_cast<unsigned char>(text[i - 1])) != 0;
    const bool keep = text[i] == ' ' && after_digit &&
                      std::any_of(units.begin(), units.end(), [&](const std::string& unit) {
                        return text.compare(i + 1, unit.size(), unit) == 0;
                      });
    kept += keep ? std::string("\u00a0") : std::string(1, text[i]);
  }
  return kept;
}

}  // namespace

std::string paragraph(const std::string& css, const std::string& text) {
  const std::string attribute = css.empty() ? "" : " class=\"" + css + "\"";
  return "<p" + attribute + ">" + escape_html(with_units_kept(text)) + "</p>\n";
}

std::string milliseconds(double ms) {
  if (ms > 0 && ms < 0.1) return fmt::format("{:.3g} µs", 1000 * ms);
  return fmt::format("{:.{}f} ms", ms, ms < 10 ? 2 : 1);
}

// Kinds of evidence have colours; a kind from data that is none of these goes without.
std::string tag(const std::string& name) {
  const bool known = name == "measured" || name == "modelled" || name == "synthetic" ||
                     name == "trained-demo" || name == "real";
  return "<span class=\"tag" + (known ? " " + name : "") + "\">" + escape_html(name) + "</span>";
}

Report make_report(const Results& results) {
  Report report;
  std::string body = "<header>\n" + kicker(results) + answer_section(results) + "</header>\n";
  for (size_t i = 0; i < results.models.size(); ++i) {
    body += model_section(results.models[i], i, report.problems);
  }
  body += evidence_section(results) + making_section(results);
  body += "<footer>thermocline " + escape_html(results.version) +
          ". This page holds all it shows and fetches nothing.</footer>\n";
  report.html = html_page("thermocline report", body);
  return report;
}

}  // namespace thermocline
