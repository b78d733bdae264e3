// MetricsServer: pages over HTTP for whoever is on this machine, on a thread of its own.
//
// Goals: a page is what a function makes of a path, when it is asked for; nothing that a client
//   sends, or leaves unsent, costs more than a connection for some seconds.
// Non-goals: other machines, which would want encryption and passwords; HTTP itself
//   (runtime/http_head.h); what the pages say (runtime/live_counters.h).
// Thread-safety: one owner thread; `page` is called on the server's.
// Usage: const MetricsServer server(parse_listen_address("127.0.0.1:0"), page);
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "runtime/http_head.h"

namespace thermocline {

struct ListenAddress {
  std::string host;   // "127.0.0.1" or "::1": a loopback address
  uint16_t port = 0;  // 0: any that is free

  std::string text() const;  // "127.0.0.1:9100", "[::1]:9100"
};

// "127.0.0.1:9100", "[::1]:0". Usage Error for anything else, names and other machines' addresses
// among them.
ListenAddress parse_listen_address(std::string_view text);

struct ServerLimits {
  size_t connection_max = 64;               // more of them wait until one has ended
  std::chrono::milliseconds timeout{5000};  // of a connection, from accepting it to its end
};

class MetricsServer {
 public:
  using Page = std::function<HttpResponse(const std::string& path)>;

  // Error where the address cannot be had, for one because another process has the port.
  MetricsServer(const ListenAddress& address, Page page, ServerLimits limits = {});
  ~MetricsServer();  // drops connections that are open

  const ListenAddress& address() const { return address_; }  // with the port that it has

 private:
  class Service;
  ListenAddress address_;
  std::unique_ptr<Service> service_;
};

}  // namespace thermocline
