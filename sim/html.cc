#include "sim/html.h"

#include <fmt/format.h>

#include "models/units.h"

namespace thermocline {
namespace {

// Okabe-Ito colours, which the colour-blind tell apart: see models/plot.cc for the plots.
constexpr std::string_view kStyle = R"css(
:root { --ink: #1c1f23; --soft: #5b636d; --rule: #d9dde2; --wash: #f6f7f9; --accent: #0072b2;
  --warn: #d55e00; --good: #00785a; --bad: #a84a00; }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: #fff; color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Liberation Sans",
  Arial, sans-serif; }
main { max-width: 1200px; margin: 0 auto; padding: 40px 32px 72px; }
header p { margin: 0; }
.kicker { color: var(--soft); font-size: 13px; letter-spacing: .04em; }
.kicker b { color: var(--accent); font-weight: 600; letter-spacing: .02em; }
h1 { margin: 10px 0 14px; color: var(--soft); font-size: 17px; font-weight: 500; line-height: 1.4; }
h2 { margin: 52px 0 4px; font: 600 24px/1.3 Charter, "Bitstream Charter", Georgia,
  "Liberation Serif", serif; }
h3 { margin: 30px 0 8px; font-size: 15px; font-weight: 600; }
.answer { margin: 0; font: 25px/1.42 Charter, "Bitstream Charter", Georgia, "Liberation Serif",
  serif; }
.also { margin: 14px 0 0; max-width: 100ch; }
.under { margin: 0 0 16px; color: var(--soft); max-width: 110ch; }
.caveat { margin: 24px 0 0; padding: 12px 16px; border-left: 4px solid var(--warn);
  background: #fdf6f0; max-width: 110ch; }
.caveat p { margin: 0 0 6px; } .caveat p:last-child { margin: 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(210px, 1fr)); gap: 0 28px;
  margin: 28px 0 0; }
.tile { border-top: 2px solid var(--ink); padding: 10px 0 14px; }
.tile b { display: block; font-size: 25px; font-weight: 600; line-height: 1.25;
  font-variant-numeric: tabular-nums; }
.tile b.bad { color: var(--warn); } .tile b.good { color: var(--good); }
.tile span { color: var(--soft); font-size: 13px; line-height: 1.4; display: block; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; min-width: 60%; font-size: 14px;
  font-variant-numeric: tabular-nums lining-nums; }
th { text-align: left; vertical-align: bottom; color: var(--soft); font-weight: 600;
  font-size: 12.5px; line-height: 1.35;
  border-bottom: 1.5px solid var(--ink); padding: 6px 9px; }
td { padding: 5px 9px; border-bottom: 1px solid var(--rule); vertical-align: top; }
th:first-child, td:first-child { padding-left: 0; }
td.policy, td.policy:first-child { padding-left: 9px; white-space: nowrap; }
td.lead { white-space: nowrap; }
tbody.group { border-bottom: 1.5px solid #aab1b9; }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 310px), 1fr));
  gap: 0 32px; margin: 8px 0 12px; font-size: 14px; }
dl div { border-bottom: 1px solid var(--rule); padding: 4px 0; display: flex; gap: 14px;
  justify-content: space-between; }
dt { color: var(--soft); white-space: nowrap; } dd { margin: 0; text-align: right;
  overflow-wrap: anywhere; }
.n { text-align: right; white-space: nowrap; }
th.n { white-space: normal; }
td strong { font-weight: 700; }
.sortable th button { all: unset; cursor: pointer; }
.sortable th button:hover { color: var(--accent); text-decoration: underline; }
.sortable th button:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
.sortable th[aria-sort] { color: var(--ink); }
.sortable th[aria-sort] button::after { content: "\25B2"; font-size: 9px; margin-left: 3px; }
.sortable th[aria-sort=descending] button::after { content: "\25BC"; }
td small { display: block; color: var(--soft); font-size: 12px; line-height: 1.3; }
td.better { color: var(--good); } td.worse { color: var(--bad); } td.even { color: var(--soft); }
details { margin: 14px 0 0; } summary { cursor: pointer; color: var(--accent); padding: 4px 0; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 22px; margin: 18px 0 0; padding: 0;
  list-style: none; font-size: 14px; }
.oracle { color: var(--soft); font-style: italic; }
.swatch { display: inline-block; width: 2.6em; margin-right: 6px; font-size: 11px;
  letter-spacing: -1px; white-space: nowrap; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr));
  gap: 8px 32px; margin: 22px 0 0; }
figure { margin: 0; break-inside: avoid; } figure.wide text { font: 12px system-ui, sans-serif;
  fill: var(--ink); }
figure svg { width: 100%; height: auto; display: block; }
figcaption { color: var(--soft); font-size: 13.5px; margin: 2px 0 8px; }
.noplot { border: 1px dashed var(--rule); padding: 40px 20px; text-align: center;
  color: var(--soft); background: var(--wash); }
code, pre { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "Liberation Mono", monospace;
  font-size: 12.5px; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: var(--wash); padding: 12px 14px;
  margin: 6px 0; border-radius: 3px; }
td code { overflow-wrap: anywhere; }
.tag { display: inline-block; padding: 0 8px; border-radius: 9px; font-size: 12px;
  border: 1px solid; white-space: nowrap; }
.tag.measured { color: #00604a; border-color: #00785a; } .tag.modelled { color: #005a8d; }
.tag.synthetic { color: #a84a00; border-color: #d55e00; }
.tag.trained-demo { color: #7a4a6b; border-color: #a0688d; }
.tag.real { color: var(--ink); }
footer { margin-top: 56px; padding-top: 12px; border-top: 1px solid var(--rule);
  color: var(--soft); font-size: 13px; }
@media (max-width: 640px) { main { padding: 24px 18px 48px; } .answer { font-size: 20px; }
  h2 { font-size: 21px; } td, th { padding-left: 8px; padding-right: 8px; } }
@media print { body { font-size: 11pt; } main { max-width: none; padding: 0; }
  .tile, tr { break-inside: avoid; } h2, h3 { break-after: avoid; } .scroll { overflow: visible; }
  .sortable th button::after { display: none; } table { font-size: 9.5pt; }
  td, th { padding: 3px 6px; }
  body { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  .caveat, pre, .noplot { background: none; border: 1px solid var(--rule); } }
)css";

// Without < and &, which are markup in XML. Cells without a value come last either way.
constexpr std::string_view kScript = R"js(
document.querySelectorAll("table.sortable").forEach(table => {
  const body = table.tBodies[0], heads = Array.from(table.tHead.rows[0].cells);
  const key = (row, column) => {
    const cell = row.cells[column], value = cell.getAttribute("data-sort");
    if (value === null) return cell.textContent.trim();
    return isNaN(value) ? value : Number(value);
  };
  const order = (a, b) => {
    if (a === "") return b === "" ? 0 : 1;
    if (b === "") return -1;
    return typeof a === "number" ? a - b : a.localeCompare(b);
  };
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = Array.from(body.rows).map(row => ({row, key: key(row, column)}));
      rows.sort((a, b) => {
        const empty = a.key === "" || b.key === "";
        return down ? (empty ? order(a.key, b.key) : order(b.key, a.key)) : order(a.key, b.key);
      });
      body.append(...rows.map(one => one.row));
    });
  });
});
)js";
// SHA-256 of kScript, in base 64: a test computes it anew.
constexpr std::string_view kScriptHash = "pyyBBTCYCffF9vcjvDGyWFOX08nDyI2H6zgJFxzjYo4=";

std::string cell(const char* tag, const HtmlCell& cell) {
  const std::string css = cell.css.empty() ? "" : " class=\"" + cell.css + "\"";
  const std::string span = cell.row_span > 1 ? fmt::format(" rowspan=\"{}\"", cell.row_span) : "";
  const std::string sort =
      cell.sort.empty() ? "" : fmt::format(" data-sort=\"{}\"", escape_html(cell.sort));
  return fmt::format("<{0}{1}{2}{3}>{4}</{0}>", tag, css, span, sort, cell.html);
}

}  // namespace

std::string escape_html(std::string_view text) {
  std::string html;
  for (const char c : text) {
    switch (c) {
      case '&':
        html += "&amp;";
        break;
      case '<':
        html += "&lt;";
        break;
      case '>':
        html += "&gt;";
        break;
      case '"':
        html += "&quot;";
        break;
      case '\'':
        html += "&#39;";
        break;
      default:
        if (static_cast<unsigned char>(c) < 32 && c != '\n' && c != '\t') {
          html += "\xEF\xBF\xBD";
        } else {
          html += c;
        }
    }
  }
  return html;
}

HtmlCell text_cell(std::string_view text) { return {escape_html(text), "", 1}; }
HtmlCell number_cell(std::string_view text, bool strong) {
  const std::string html = escape_html(text);
  return {strong ? "<strong>" + html + "</strong>" : html, "n", 1};
}

HtmlCell value_cell(double value, const std::string& html, const std::string& css) {
  return {html, css.empty() ? "n" : "n " + css, 1, fmt::format("{:.9g}", value)};
}

HtmlCell bytes_cell(const std::optional<double>& bytes) {
  if (!bytes) return number_cell("");
  return value_cell(*bytes, escape_html(format_bytes(static_cast<uint64_t>(*bytes + 0.5))));
}

std::string html_row(const std::vector<HtmlCell>& cells) {
  std::string html = "<tr>";
  for (const HtmlCell& one : cells) html += cell("td", one);
  return html + "</tr>\n";
}

namespace {

std::string table(const char* attributes, const std::vector<HtmlCell>& head,
                  const std::vector<std::string>& rows) {
  std::string html = fmt::format("<div class=\"scroll\"><table{}>\n<thead><tr>", attributes);
  for (const HtmlCell& one : head) html += cell("th", one);
  html += "</tr></thead>\n<tbody>\n";
  for (const std::string& row : rows) html += row;
  return html + "</tbody>\n</table></div>\n";
}

}  // namespace

std::string html_table(const std::vector<HtmlCell>& head, const std::vector<std::string>& rows) {
  return table("", head, rows);
}

std::string html_sortable_table(const std::vector<HtmlCell>& head,
                                const std::vector<std::string>& rows) {
  return table(" class=\"sortable\"", head, rows);
}

std::string html_details(std::string_view summary, const std::string& body) {
  return "<details>\n<summary>" + escape_html(summary) + "</summary>\n" + body + "</details>\n";
}

std::string html_facts(const std::vector<std::pair<std::string, std::string>>& facts) {
  std::string html = "<dl>\n";
  for (const auto& [name, value] : facts) {
    html +=
        fmt::format("<div><dt>{}</dt><dd>{}</dd></div>\n", escape_html(name), escape_html(value));
  }
  return html + "</dl>\n";
}

std::string html_page(std::string_view title, const std::string& body) {
  return fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\" />\n"
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; "
      "style-src 'unsafe-inline'; script-src 'sha256-{}'\" />\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\" />\n"
      "<title>{}</title>\n<style>{}</style>\n</head>\n<body>\n<main>\n{}</main>\n"
      "<script>{}</script>\n</body>\n</html>\n",
      kScriptHash, escape_html(title), kStyle, body, kScript);
}

}  // namespace thermocline
