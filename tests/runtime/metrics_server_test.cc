// The server: addresses, statuses, limits; clients that are slow, wrong, many or gone.
#include "runtime/metrics_server.h"

#include <atomic>
#include <catch2/catch.hpp>
#include <list>
#include <optional>
#include <random>
#include <thread>

#include "models/error.h"
#include "tests/http_client.h"

namespace thermocline::test {
namespace {

using Catch::Matchers::Contains;
using Catch::Matchers::StartsWith;

constexpr const char* kGet = "GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n";

HttpResponse page(const std::string& path) {
  if (path == "/page") return {200, "text/plain", "the page\n"};
  if (path == "/broken") throw work_failed("broken");
  return http_status(404);
}

MetricsServer serve(ServerLimits limits = {}) {
  return MetricsServer(parse_listen_address("127.0.0.1:0"), page, limits);
}

TEST_CASE("addresses of this machine are taken, others and names are refused") {
  CHECK(parse_listen_address("127.0.0.1:9100").text() == "127.0.0.1:9100");
  CHECK(parse_listen_address("127.1.2.3:0").text() == "127.1.2.3:0");
  CHECK(parse_listen_address("[::1]:65535").text() == "[::1]:65535");
  const auto refused = [](const char* text, const char* why) {
    INFO("'" << text << "'");
    CHECK_THROWS_WITH(parse_listen_address(text), Contains(why));
    try {
      parse_listen_address(text);
    } catch (const Error& error) {
      CHECK(error.kind() == ErrorKind::usage);
    }
  };
  for (const char* text :
       {"0.0.0.0:80", "192.168.1.1:80", "[::]:80", "[fe80::1]:80", "[::ffff:127.0.0.1]:80"}) {
    refused(text, "only this machine is served");
  }
  for (const char* text : {"localhost:80", ":80", "::1:80", "[127.0.0.1]:80", "[::1:80", "127.1:80",
                           "127.0.0.1 :80", "[]:80"}) {
    refused(text, "no IP address");
  }
  for (const char* text : {"127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1:80x",
                           "127.0.0.1: 80", "[::1]:+1"}) {
    refused(text, "no port from 0 to 65535");
  }
  refused("", "there is no port");
  refused("9100", "there is no port");
}

TEST_CASE("each request gets the response that it deserves") {
  const MetricsServer server = serve();
  const uint16_t port = server.address().port;
  REQUIRE(port != 0);
  CHECK_THAT(response_to(port, kGet), StartsWith("HTTP/1.1 200 OK\r\n"));
  CHECK(body_of(response_to(port, kGet)) == "the page\n");
  const std::string head = response_to(port, "HEAD /page HTTP/1.1\r\n\r\n");
  CHECK_THAT(head, Contains("Content-Length: 9\r\n"));
  CHECK(body_of(head).empty());
  CHECK_THAT(response_to(port, "GET /other HTTP/1.1\r\n\r\n"), StartsWith("HTTP/1.1 404 "));
  CHECK_THAT(response_to(port, "POST /page HTTP/1.1\r\n\r\n"), StartsWith("HTTP/1.1 405 "));
  CHECK_THAT(response_to(port, "nonsense\r\n\r\n"), StartsWith("HTTP/1.1 400 "));
  CHECK_THAT(response_to(port, "GET /broken HTTP/1.1\r\n\r\n"), StartsWith("HTTP/1.1 500 "));
  CHECK_THAT(response_to(port, "POST /page HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"),
             StartsWith("HTTP/1.1 405 "));
  CHECK_THAT(response_to(port, "GET /page HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"),
             StartsWith("HTTP/1.1 413 "));
  // A second request behind the first is not looked at.
  CHECK(body_of(response_to(port, std::string(kGet) + kGet)) == "the page\n");
}

TEST_CASE("a head may come byte by byte, and be as large as is allowed, and no larger") {
  const MetricsServer server = serve();
  const uint16_t port = server.address().port;
  const Client slow(port);
  for (const char c : std::string(kGet)) REQUIRE(slow.send({&c, 1}) == 1);
  CHECK(body_of(slow.receive_all()) == "the page\n");

  const std::string line = "GET /page HTTP/1.1\r\nA: ", end = "\r\n\r\n";
  const auto head_of = [&](size_t size) {
    return line + std::string(size - line.size() - end.size(), 'a') + end;
  };
  CHECK_THAT(response_to(port, head_of(kHttpHeadMax)), StartsWith("HTTP/1.1 200 "));
  CHECK_THAT(response_to(port, head_of(kHttpHeadMax + 1)), StartsWith("HTTP/1.1 431 "));
  CHECK_THAT(response_to(port, line + std::string(200'000, 'a')), StartsWith("HTTP/1.1 431 "));
  CHECK(body_of(response_to(port, kGet)) == "the page\n");
}

TEST_CASE("clients that say nothing, stop midway or leave cost no more than their time") {
  const MetricsServer server = serve({64, std::chrono::milliseconds(200)});
  const uint16_t port = server.address().port;
  const Client silent(port), midway(port), full(port);
  midway.send("GET /pa");
  { const Client gone(port); }
  {
    const Client gone_midway(port);
    gone_midway.send("GET /page HT");
  }
  {
    const Client half(port);
    half.send("GET /page HTTP/1.1\r\n");
    half.end_sending();
    CHECK(half.receive_all().empty());
  }
  CHECK(body_of(response_to(port, kGet)) == "the page\n");
  CHECK(silent.receive_all().empty());  // the server closes
  CHECK(midway.receive_all().empty());
}

TEST_CASE("beyond the greatest number of connections, clients wait for one to end") {
  const MetricsServer server = serve({3, std::chrono::milliseconds(400)});
  const uint16_t port = server.address().port;
  std::list<Client> idle;
  for (int i = 0; i < 8; ++i) {
    idle.emplace_back(port);
    REQUIRE(idle.back().connected());
  }
  // The last ones are served when those before them have had their time.
  CHECK(body_of(response_to(port, kGet)) == "the page\n");
  for (const Client& client : idle) CHECK(client.receive_all().empty());
  CHECK(body_of(response_to(port, kGet)) == "the page\n");
}

TEST_CASE("many clients at once all get the page") {
  const MetricsServer server = serve();
  const uint16_t port = server.address().port;
  std::atomic<int> right = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      for (int k = 0; k < 40; ++k) right += body_of(response_to(port, kGet)) == "the page\n";
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(right == 8 * 40);
}

TEST_CASE("garbage gets an error or nothing, and the next client its page") {
  const MetricsServer server = serve({64, std::chrono::milliseconds(100)});
  const uint16_t port = server.address().port;
  std::mt19937 random(7);
  for (int i = 0; i < 40; ++i) {
    std::string bytes(random() % 12'000, '\0');
    for (char& c : bytes) c = static_cast<char>(random());
    if (i % 3 == 0) bytes += "\r\n\r\n";
    const Client client(port);
    client.send(bytes);
    if (i % 2 == 0) client.end_sending();
    const std::string response = client.receive_all();
    CHECK((response.empty() || response.starts_with("HTTP/1.1 4")));
  }
  CHECK(body_of(response_to(port, kGet)) == "the page\n");
}

TEST_CASE("a port that is taken is an error that says so, and is free again afterwards") {
  std::optional<MetricsServer> first(std::in_place, parse_listen_address("127.0.0.1:0"), page);
  const ListenAddress address = first->address();
  CHECK_THROWS_WITH(MetricsServer(address, page),
                    Contains(address.text()) && Contains("another process has this port"));
  CHECK(body_of(response_to(address.port, kGet)) == "the page\n");
  const Client open(address.port);
  open.send("GET /pa");
  first.reset();  // though a client is connected
  CHECK(open.receive_all().empty());
  CHECK(response_to(address.port, kGet).empty());
  const MetricsServer second(address, page);
  CHECK(body_of(response_to(address.port, kGet)) == "the page\n");
}

TEST_CASE("::1 is served where the machine has it") {
  std::optional<MetricsServer> server;
  try {
    server.emplace(parse_listen_address("[::1]:0"), page);
  } catch (const Error& error) {
    WARN("skipped: " << error.what());
    return;
  }
  const Client client(server->address().port, true);
  REQUIRE(client.connected());
  client.send(kGet);
  CHECK(body_of(client.receive_all()) == "the page\n");
}

}  // namespace
}  // namespace thermocline::test
