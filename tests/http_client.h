// The plainest HTTP client: a socket, bytes out, bytes in until the other side closes.
//
// Thread-safety: one object, one thread.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstdint>
#include <string>
#include <string_view>

namespace thermocline::test {

class Client {
 public:
  // On 127.0.0.1, or ::1. A read that takes longer than `seconds` ends as if the server had closed.
  explicit Client(uint16_t port, bool v6 = false, int seconds = 20) {
    socket_ = ::socket(v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const timeval limit{seconds, 0};
    ::setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    ::setsockopt(socket_, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    connected_ = v6 ? connect_v6(port) : connect_v4(port);
  }
  ~Client() { ::close(socket_); }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  bool connected() const { return connected_; }
  // How much of it went out before the server would have no more.
  size_t send(std::string_view bytes) const {
    size_t sent = 0;
    while (sent < bytes.size()) {
      const ssize_t n = ::send(socket_, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
      if (n <= 0) break;
      sent += static_cast<size_t>(n);
    }
    return sent;
  }
  void end_sending() const { ::shutdown(socket_, SHUT_WR); }
  // All that comes until the server closes.
  std::string receive_all() const {
    std::string text;
    char room[4096];
    for (ssize_t n; (n = ::recv(socket_, room, sizeof room, 0)) > 0;) {
      text.append(room, static_cast<size_t>(n));
    }
    return text;
  }

 private:
  bool connect_v4(uint16_t port) const {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return ::connect(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  }
  bool connect_v6(uint16_t port) const {
    sockaddr_in6 address{};
    address.sin6_family = AF_INET6;
    address.sin6_port = htons(port);
    address.sin6_addr = in6addr_loopback;
    return ::connect(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  }

  int socket_ = -1;
  bool connected_ = false;
};

// The whole response; empty where nobody listens.
inline std::string response_to(uint16_t port, const std::string& request) {
  const Client client(port);
  if (!client.connected()) return "";
  client.send(request);
  return client.receive_all();
}

inline std::string body_of(const std::string& response) {
  const size_t end = response.find("\r\n\r\n");
  return end == std::string::npos ? "" : response.substr(end + 4);
}

inline std::string body_at(uint16_t port, const std::string& path) {
  return body_of(response_to(port, "GET " + path + " HTTP/1.1\r\nHost: localhost\r\n\r\n"));
}

}  // namespace thermocline::test
