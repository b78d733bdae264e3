// Heads of HTTP requests: where they end, what they ask for.
#include <cstdlib>

#include "runtime/http_head.h"
#include "tests/fuzz/fuzz.h"

namespace thermocline::fuzz {

std::vector<std::string> seeds() {
  return {"GET /metrics HTTP/1.1\r\nHost: localhost:9100\r\nAccept: */*\r\n\r\n",
          "HEAD /counters.json?x=1 HTTP/1.0\n\n",
          "GET http://127.0.0.1:9100/metrics HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
          "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 12\r\n\r\n"};
}

}  // namespace thermocline::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace thermocline;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const size_t head_size = http_head_size(bytes);
  if (head_size > size) std::abort();
  // The same wherever the bytes behind it begin or end.
  if (head_size > 0 && http_head_size(bytes.substr(0, head_size)) != head_size) std::abort();
  if (head_size > 0 && http_head_size(bytes.substr(0, head_size - 1)) != 0) std::abort();
  const HttpRequest request = parse_http_head(bytes.substr(0, head_size));
  if (request.status == 200) {
    if (request.method != "GET" && request.method != "HEAD") std::abort();
    if (!request.path.starts_with('/')) std::abort();
    if (request.path.find_first_of("? \r\n") != std::string::npos) std::abort();
  } else if (!request.path.empty() || !request.method.empty()) {
    std::abort();
  }
  (void)http_text(http_status(request.status), request.method == "HEAD");
  return 0;
}
