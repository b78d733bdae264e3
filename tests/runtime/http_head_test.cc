// Request heads: what is one, what is answered with which status, where a head ends.
#include "runtime/http_head.h"

#include <catch2/catch.hpp>

namespace thermocline::test {
namespace {

int status_of(const std::string& request_line, const std::string& fields = "") {
  return parse_http_head(request_line + "\r\n" + fields + "\r\n").status;
}

TEST_CASE("a head ends with an empty line, however lines end") {
  CHECK(http_head_size("") == 0);
  CHECK(http_head_size("GET / HTTP/1.1\r\nHost: x\r\n") == 0);
  CHECK(http_head_size("GET / HTTP/1.1\r\nHost: x\r\n\r") == 0);
  CHECK(http_head_size("GET / HTTP/1.1\r\nHost: x\r\n\r\nbody") == 27);
  CHECK(http_head_size("GET / HTTP/1.1\n\n\n") == 16);
  CHECK(http_head_size("GET / HTTP/1.1\n\r\n") == 17);
  CHECK(http_head_size(std::string(100000, 'x')) == 0);
}

TEST_CASE("GET and HEAD of a path are requests, in each form that HTTP has for a target") {
  const HttpRequest plain = parse_http_head("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
  CHECK(plain.status == 200);
  CHECK(plain.method == "GET");
  CHECK(plain.path == "/metrics");
  CHECK(parse_http_head("HEAD / HTTP/1.0\n\n").method == "HEAD");
  CHECK(parse_http_head("GET /a?b=/c HTTP/1.1\r\n\r\n").path == "/a");
  CHECK(parse_http_head("GET http://127.0.0.1:9100/metrics HTTP/1.1\r\n\r\n").path == "/metrics");
  CHECK(parse_http_head("GET HTTP://host/?q HTTP/1.1\r\n\r\n").path == "/");
}

TEST_CASE("what is no request line is a bad request, and another method is not allowed") {
  for (const char* line :
       {"", "GET", "GET /", "GET  HTTP/1.1", " GET / HTTP/1.1", "GET / HTTP/2", "GET / http/1.1",
        "GET / HTTP/1.1 ", "G(T / HTTP/1.1", "GET /a b HTTP/1.1", "GET /\x7f HTTP/1.1",
        "GET /\xc3\xa4 HTTP/1.1", "GET metrics HTTP/1.1", "GET * HTTP/1.1",
        "GET http://host HTTP/1.1", "GET\t/ HTTP/1.1"}) {
    INFO("'" << line << "'");
    CHECK(status_of(line) == 400);
  }
  CHECK(status_of(std::string("GET /\0 HTTP/1.1", 15)) == 400);
  for (const char* method : {"POST", "PUT", "DELETE", "OPTIONS", "get", "TRACE"}) {
    CHECK(status_of(std::string(method) + " /metrics HTTP/1.1") == 405);
  }
  CHECK(parse_http_head("POST / HTTP/1.1\r\n\r\n").path.empty());
  CHECK(parse_http_head("").status == 400);
}

TEST_CASE("fields are looked at as far as they announce a body or are none") {
  const std::string line = "GET / HTTP/1.1";
  CHECK(status_of(line, "Host: x\r\nX-Empty:\r\nAccept: */*;q=0.8\r\n") == 200);
  CHECK(status_of(line, "Content-Length: 0\r\n") == 200);
  CHECK(status_of(line, "content-LENGTH:  17 \r\n") == 413);
  CHECK(status_of(line, "Content-Length: 99999999999999999999999\r\n") == 413);
  CHECK(status_of(line, "Transfer-Encoding: chunked\r\n") == 413);
  CHECK(status_of(line, "Content-Length: -1\r\n") == 400);
  CHECK(status_of(line, "Content-Length:\r\n") == 400);
  CHECK(status_of(line, "no colon\r\n") == 400);
  CHECK(status_of(line, "Host : x\r\n") == 400);
  CHECK(status_of(line, "A: b\r\n folded: c\r\n") == 400);
  CHECK(status_of(line, ": x\r\n") == 400);
  CHECK(status_of(line, "A: b\x01\r\n") == 400);
  CHECK(status_of("POST / HTTP/1.1", "no colon\r\n") == 400);
  CHECK(status_of("POST / HTTP/1.1", "Content-Length: 3\r\n") == 405);
}

TEST_CASE("a response says how long it is and that the connection ends") {
  const HttpResponse response{200, "text/plain", "abc"};
  CHECK(http_text(response, false) ==
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n"
        "Cache-Control: no-store\r\nConnection: close\r\n\r\nabc");
  CHECK(http_text(response, true).ends_with("\r\n\r\n"));
  CHECK(http_text(response, true).find("Content-Length: 3\r\n") != std::string::npos);
  CHECK(http_text(http_status(405), false).find("\r\nAllow: GET, HEAD\r\n") != std::string::npos);
  CHECK(http_status(404).body == "404 Not Found\n");
}

}  // namespace
}  // namespace thermocline::test
