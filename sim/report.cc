#include "sim/report.h"

#include <fmt/format.h>

#include "sim/html.h"
#include "sim/report_parts.h"

namespace thermocline {
namespace {

std::string kicker(const Results& results) {
  const std::string name =
      results.study.is_object() ? " · study " + results.study.value("name", "") : "";
  return "<p class=\"kicker\"><b>thermocline</b> report" + escape_html(name) + "</p>\n";
}

}  // namespace

std::string paragraph(const std::string& css, const std::string& text) {
  const std::string attribute = css.empty() ? "" : " class=\"" + css + "\"";
  return "<p" + attribute + ">" + escape_html(text) + "</p>\n";
}

std::string milliseconds(double ms) { return fmt::format("{:.{}f} ms", ms, ms < 10 ? 2 : 1); }

// Kinds of evidence have colours; a kind from data that is none of these goes without.
std::string tag(const std::string& name) {
  const bool known = name == "measured" || name == "modelled" || name == "synthetic";
  return "<span class=\"tag" + (known ? " " + name : "") + "\">" + escape_html(name) + "</span>";
}

Agreement agreement_of(const Results& results) {
  Agreement sum;
  for (const ModelResults& model : results.models) {
    const Agreement one = compare_live(model);
    sum.total += one.total;
    sum.equal += one.equal;
    sum.differences.insert(sum.differences.end(), one.differences.begin(), one.differences.end());
  }
  return sum;
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
