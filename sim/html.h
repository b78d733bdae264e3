// HTML: what a self-contained page needs, well formed as XML too.
//
// Goals: every string that comes from data passes escape_html; nothing is fetched from anywhere;
//   the one script only sorts tables, and the page allows no other by its hash.
// Non-goals: a template language.
// Thread-safety: pure functions.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace thermocline {

// & < > " ' become entities; control characters, which XML forbids, become U+FFFD.
std::string escape_html(std::string_view text);

// A cell of a table: `html` is markup already.
struct HtmlCell {
  std::string html;
  std::string css;  // a class of the style sheet: "n" aligns numbers, "lead" begins a group of rows
  int row_span = 1;
  std::string sort = {};  // what a sortable table sorts by, as a number if it is one; else the text
};
HtmlCell text_cell(std::string_view text);
HtmlCell number_cell(std::string_view text, bool strong = false);
// A number that sorts by its value; `css`: a class beside "n".
HtmlCell value_cell(double value, const std::string& html, const std::string& css = "");
HtmlCell bytes_cell(const std::optional<double>& bytes);  // "1.50 GiB"; empty where there are none

std::string html_row(const std::vector<HtmlCell>& cells);
// A table in a box that scrolls sideways where the screen is narrow. `rows` come from html_row.
std::string html_table(const std::vector<HtmlCell>& head, const std::vector<std::string>& rows);
// A table that a click on a head sorts, where scripts run; rows have a cell for each head.
std::string html_sortable_table(const std::vector<HtmlCell>& head,
                                const std::vector<std::string>& rows);
// What a click unfolds; `summary` is text.
std::string html_details(std::string_view summary, const std::string& body);
// Names and values, as many beside each other as fit; both are text.
std::string html_facts(const std::vector<std::pair<std::string, std::string>>& facts);
// A whole page, with the one script that it allows; `title` is text, `body` is markup.
std::string html_page(std::string_view title, const std::string& body);

}  // namespace thermocline
