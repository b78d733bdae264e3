// The little of HTTP/1.1 (RFC 9112) that serving a few pages takes: request heads, responses.
//
// A request is a head and no body; a response is a whole body with its length, after which the
//   connection is closed.
// Goals: pure functions of bytes; a head that is not one, or is too much, is told by a status.
// Non-goals: sockets (runtime/metrics_server.h), bodies of requests, connections that stay.
// Thread-safety: pure functions.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace thermocline {

inline constexpr size_t kHttpHeadMax = 8192;  // bytes, the empty line included

// What a head asks for; path and method only where the status is 200.
struct HttpRequest {
  int status = 200;    // else what it is answered with: 400, 405 or 413
  std::string method;  // "GET" or "HEAD"
  std::string path;    // "/metrics", without a query
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "text/plain; charset=utf-8";
  std::string body;
};

// Bytes of the head at the beginning of `bytes`, its empty line included; 0: it has not ended.
size_t http_head_size(std::string_view bytes);

// head: as http_head_size() cuts it off.
HttpRequest parse_http_head(std::string_view head);

// Status line, fields and, unless `head_only`, the body.
std::string http_text(const HttpResponse& response, bool head_only);

// A response that says no more than its status: "404 Not Found".
HttpResponse http_status(int status);

}  // namespace thermocline
