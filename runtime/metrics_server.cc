#include "runtime/metrics_server.h"

#include <fmt/format.h>

#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <charconv>
#include <exception>
#include <thread>

#include "models/error.h"

namespace thermocline {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using ErrorCode = boost::system::error_code;

Error not_an_address(std::string_view text, const std::string& why) {
  return bad_usage(
      fmt::format("--listen {}: {}; expected an address of this machine and a port, as "
                  "127.0.0.1:9100 or [::1]:9100, port 0 for any that is free",
                  text, why));
}

// "127.0.0.1" of "127.0.0.1:9100", "::1" of "[::1]:9100"; empty for anything else.
std::string host_of(std::string_view text, size_t colon) {
  std::string_view host = text.substr(0, colon);
  const bool brackets = host.starts_with('[') && host.ends_with(']');
  if (brackets) host = host.substr(1, host.size() - 2);
  return brackets == (host.find(':') != std::string_view::npos) ? std::string(host) : "";
}

uint16_t parse_port(std::string_view text, std::string_view port) {
  uint16_t number = 0;
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), number);
  if (error != std::errc() || end != port.data() + port.size()) {
    throw not_an_address(text, fmt::format("'{}' is no port from 0 to 65535", port));
  }
  return number;
}

// A client, from accepting it to its end. It lives as long as something of it is under way.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(tcp::socket socket, const MetricsServer::Page& page, std::function<void()> ended)
      : socket_(std::move(socket)),
        deadline_(socket_.get_executor()),
        page_(page),
        ended_(std::move(ended)) {}
  ~Connection() { ended_(); }

  void start(std::chrono::milliseconds timeout) {
    deadline_.expires_after(timeout);
    deadline_.async_wait([self = weak_from_this()](const ErrorCode& error) {
      if (const auto alive = self.lock(); alive && !error) alive->close();
    });
    read_head();
  }

 private:
  void close() {
    ErrorCode ignored;
    socket_.close(ignored);
    deadline_.cancel();
  }

  void read_head() {
    socket_.async_read_some(asio::buffer(room_),
                            [self = shared_from_this()](const ErrorCode& error, size_t count) {
                              if (error) return self->close();
                              self->head_.append(self->room_.data(), count);
                              self->look_at_head();
                            });
  }

  // What comes behind a head, or beyond its greatest size, is never looked at.
  void look_at_head() {
    const size_t size = http_head_size(std::string_view(head_).substr(0, kHttpHeadMax));
    if (size > 0) return answer(parse_http_head(std::string_view(head_).substr(0, size)));
    if (head_.size() >= kHttpHeadMax) return write(http_text(http_status(431), false));
    read_head();
  }

  void answer(const HttpRequest& request) {
    if (request.status != 200) return write(http_text(http_status(request.status), false));
    HttpResponse response;
    try {
      response = page_(request.path);
    } catch (const std::exception&) {
      response = http_status(500);
    }
    write(http_text(response, request.method == "HEAD"));
  }

  void write(std::string text) {
    text_ = std::move(text);
    asio::async_write(socket_, asio::buffer(text_),
                      [self = shared_from_this()](const ErrorCode& error, size_t) {
                        if (error) return self->close();
                        ErrorCode ignored;
                        self->socket_.shutdown(tcp::socket::shutdown_send, ignored);
                        self->drain();
                      });
  }

  // Closing a socket that has unread bytes resets the connection, and the client may lose the
  // response: they are read until it closes, its time is over, or it just goes on.
  void drain() {
    socket_.async_read_some(asio::buffer(room_),
                            [self = shared_from_this()](const ErrorCode& error, size_t count) {
                              self->drained_ += count;
                              if (error || self->drained_ > kDrainMax) return self->close();
                              self->drain();
                            });
  }

  static constexpr size_t kDrainMax = size_t{1} << 20;  // bytes

  tcp::socket socket_;
  asio::steady_timer deadline_;
  const MetricsServer::Page& page_;
  std::function<void()> ended_;
  std::array<char, 2048> room_;
  std::string head_, text_;
  size_t drained_ = 0;
};

}  // namespace

class MetricsServer::Service {
 public:
  Service(const ListenAddress& address, Page page, ServerLimits limits)
      : page_(std::move(page)), limits_(limits), acceptor_(context_), pause_(context_) {
    const tcp::endpoint endpoint(asio::ip::make_address(address.host), address.port);
    try {
      acceptor_.open(endpoint.protocol());
      acceptor_.set_option(tcp::acceptor::reuse_address(true));  // of a run that has just ended
      acceptor_.bind(endpoint);
      acceptor_.listen();
      port_ = acceptor_.local_endpoint().port();
    } catch (const boost::system::system_error& error) {
      throw unusable(address, error.code());
    }
    accept();
    thread_ = std::thread([this] { serve(); });
  }
  ~Service() {
    context_.stop();
    thread_.join();
  }
  Service(const Service&) = delete;
  Service& operator=(const Service&) = delete;

  uint16_t port() const { return port_; }

 private:
  static Error unusable(const ListenAddress& address, const ErrorCode& why) {
    if (why != asio::error::address_in_use) {
      return work_failed(fmt::format("--listen {}: {}", address.text(), why.message()));
    }
    return work_failed(
        fmt::format("--listen {}: another process has this port; take another one, or 0 for any "
                    "that is free",
                    address.text()));
  }

  // Where memory runs out, a connection ends, and not the run.
  void serve() {
    for (;;) {
      try {
        context_.run();
        return;
      } catch (const std::exception&) {
      }
    }
  }

  void accept() {
    accepting_ = true;
    acceptor_.async_accept([this](const ErrorCode& error, tcp::socket socket) {
      accepting_ = false;
      if (error) return accept_later();
      ++connection_count_;
      std::make_shared<Connection>(std::move(socket), page_, [this] {
        end_connection();
      })->start(limits_.timeout);
      if (connection_count_ < limits_.connection_max) accept();
    });
  }

  // No descriptor was left: asking again at once would only take the time of the ranks.
  void accept_later() {
    accepting_ = true;
    pause_.expires_after(std::chrono::milliseconds(100));
    pause_.async_wait([this](const ErrorCode& error) {
      if (!error) accept();
    });
  }

  void end_connection() {
    --connection_count_;
    if (!accepting_ && !context_.stopped()) accept();
  }

  const Page page_;
  const ServerLimits limits_;
  uint16_t port_ = 0;
  // The rest is the thread's, once it runs. Connections that are left go with the context, which
  // goes last.
  size_t connection_count_ = 0;
  bool accepting_ = false;
  asio::io_context context_{1};
  tcp::acceptor acceptor_;
  asio::steady_timer pause_;
  std::thread thread_;
};

std::string ListenAddress::text() const {
  return host.find(':') == std::string::npos ? fmt::format("{}:{}", host, port)
                                             : fmt::format("[{}]:{}", host, port);
}

ListenAddress parse_listen_address(std::string_view text) {
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) throw not_an_address(text, "there is no port");
  ListenAddress address{host_of(text, colon), 0};
  ErrorCode error;
  const asio::ip::address ip = asio::ip::make_address(address.host, error);
  if (error) throw not_an_address(text, "its host is no IP address");
  if (!ip.is_loopback()) {
    throw not_an_address(text,
                         "only this machine is served, since nothing is encrypted and nobody is "
                         "asked for a password (from another one, ssh -L forwards the port)");
  }
  address.port = parse_port(text, text.substr(colon + 1));
  return address;
}

MetricsServer::MetricsServer(const ListenAddress& address, Page page, ServerLimits limits)
    : address_(address), service_(std::make_unique<Service>(address, std::move(page), limits)) {
  address_.port = service_->port();
}

MetricsServer::~MetricsServer() = default;

}  // namespace thermocline
