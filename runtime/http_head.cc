#include "runtime/http_head.h"

#include <fmt/format.h>

#include <algorithm>

namespace thermocline {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// Of a method or a field's name: RFC 9110, 5.6.2.
bool is_token(std::string_view text) {
  constexpr std::string_view kMarks = "!#$%&'*+-.^_`|~";
  const auto fits = [&](char c) {
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           kMarks.find(c) != std::string_view::npos;
  };
  return !text.empty() && std::all_of(text.begin(), text.end(), fits);
}

bool is_visible(char c) { return c > ' ' && c < 127; }

// Field values may hold bytes above ASCII, but no controls.
bool is_value(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) {
    return c == '\t' || (static_cast<unsigned char>(c) >= ' ' && c != 127);
  });
}

bool same_name(std::string_view a, std::string_view b) {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [&](char x, char y) { return lower(x) == lower(y); });
}

std::string_view trimmed(std::string_view text) {
  const auto blank = [](char c) { return c == ' ' || c == '\t'; };
  while (!text.empty() && blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && blank(text.back())) text.remove_suffix(1);
  return text;
}

// Cuts off the first line, without its end.
std::string_view take_line(std::string_view& text) {
  const size_t end = std::min(text.find('\n'), text.size());
  std::string_view line = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
  return line;
}

// "/metrics?x=1" and "http://host/metrics" are "/metrics"; empty for what names no path.
std::string_view path_of(std::string_view target) {
  constexpr std::string_view kScheme = "http://";
  if (same_name(target.substr(0, kScheme.size()), kScheme)) {
    target.remove_prefix(std::min(target.find('/', kScheme.size()), target.size()));
  }
  if (!target.starts_with('/')) return {};
  return target.substr(0, target.find('?'));
}

int parse_request_line(std::string_view line, HttpRequest& request) {
  const size_t first = line.find(' '), last = line.rfind(' ');
  if (first == std::string_view::npos || first == last) return 400;
  const std::string_view method = line.substr(0, first), version = line.substr(last + 1);
  const std::string_view target = line.substr(first + 1, last - first - 1);
  if (!is_token(method) || !std::all_of(target.begin(), target.end(), is_visible)) return 400;
  if (version != "HTTP/1.1" && version != "HTTP/1.0") return 400;
  const std::string_view path = path_of(target);
  if (method != "GET" && method != "HEAD") return 405;
  if (path.empty()) return 400;
  request.method = method;
  request.path = path;
  return 200;
}

// 413 where it announces a body, which is not read.
int check_field(std::string_view line) {
  const size_t colon = line.find(':');
  if (colon == std::string_view::npos || !is_token(line.substr(0, colon))) return 400;
  const std::string_view name = line.substr(0, colon), value = trimmed(line.substr(colon + 1));
  if (!is_value(value)) return 400;
  if (same_name(name, "transfer-encoding")) return 413;
  if (!same_name(name, "content-length")) return 200;
  if (value.empty() || !std::all_of(value.begin(), value.end(), is_digit)) return 400;
  return value.find_first_not_of('0') == std::string_view::npos ? 200 : 413;
}

const char* reason_of(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 400:
      return "Bad Request";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 413:
      return "Content Too Large";
    case 431:
      return "Request Header Fields Too Large";
    default:
      return "Internal Server Error";
  }
}

}  // namespace

// A line may end in a bare line feed (RFC 9112, 2.2).
size_t http_head_size(std::string_view bytes) {
  for (size_t at = 0; (at = bytes.find('\n', at)) != std::string_view::npos;) {
    ++at;
    if (bytes.substr(at, 1) == "\n") return at + 1;
    if (bytes.substr(at, 2) == "\r\n") return at + 2;
  }
  return 0;
}

// Of several things that are wrong the first one counts, but a bad field makes a bad request.
HttpRequest parse_http_head(std::string_view head) {
  HttpRequest request;
  request.status = parse_request_line(take_line(head), request);
  for (std::string_view line; !(line = take_line(head)).empty();) {
    const int status = check_field(line);
    if (status == 400) return {400, "", ""};
    if (request.status == 200) request.status = status;
  }
  if (request.status != 200) return {request.status, "", ""};
  return request;
}

std::string http_text(const HttpResponse& response, bool head_only) {
  std::string text = fmt::format(
      "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n{}"
      "Connection: close\r\n\r\n",
      response.status, reason_of(response.status), response.content_type, response.body.size(),
      response.status == 405 ? "Allow: GET, HEAD\r\n" : "");
  if (!head_only) text += response.body;
  return text;
}

HttpResponse http_status(int status) {
  HttpResponse response;
  response.status = status;
  response.body = fmt::format("{} {}\n", status, reason_of(status));
  return response;
}

}  // namespace thermocline
