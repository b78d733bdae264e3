// What tiers on a device ask of a backend: on each that can be used here, and on CUDA's emulated on
// the host, against the definitions.
#include <algorithm>
#include <catch2/catch.hpp>
#include <random>
#include <vector>

#include "models/quantize.h"
#include "tests/backends/all_backends.h"

using namespace thermocline;
using namespace thermocline::test;

namespace {

std::vector<TokenRow> token_rows(int count) {
  std::vector<TokenRow> rows;
  for (int t = 0; t < count; ++t) rows.push_back({t, static_cast<uint32_t>(t), 0});
  return rows;
}

// Random rows of a type, as files have them.
std::vector<std::byte> random_rows(DType dtype, int rows, int cols, std::mt19937_64& random) {
  std::normal_distribution<float> normal(0.0f, 0.25f);
  const uint64_t row_bytes = bytes_of(dtype, static_cast<uint64_t>(cols));
  std::vector<std::byte> bytes(static_cast<uint64_t>(rows) * row_bytes);
  std::vector<float> values(static_cast<size_t>(cols));
  for (uint64_t at = 0; at < bytes.size(); at += row_bytes) {
    for (float& value : values) value = normal(random);
    quantize(dtype, values.data(), values.size(), bytes.data() + at);
  }
  return bytes;
}

// Rows placed in order, and the same by way of a mover in places of their own.
struct TwoWays {
  std::shared_ptr<std::byte> in_order, in_places;
  WeightView ordered, placed;

  TwoWays(Backend& backend, DType dtype, int rows, int cols, const Placed<uint32_t>& places,
          const std::vector<uint32_t>& host_places, int place_count, std::mt19937_64& random) {
    const auto file = random_rows(dtype, rows, cols, random);
    const uint64_t row_bytes = bytes_of(dtype, static_cast<uint64_t>(cols));
    in_order = backend.allocate(file.size());
    ordered = {dtype, rows, cols, row_bytes, in_order.get()};
    backend.place_rows(ordered, 0, rows, file.data());
    in_places = backend.allocate(static_cast<uint64_t>(place_count) * row_bytes);
    placed = {dtype, rows, cols, row_bytes, in_places.get(), places.data()};
    constexpr uint32_t kBatch = 7;
    const auto mover = backend.make_mover(row_bytes, kBatch);
    uint64_t batches = 0;
    for (size_t first = 0; first < host_places.size(); first += kBatch, ++batches) {
      const size_t count = std::min<size_t>(kBatch, host_places.size() - first);
      std::byte* staging = mover->staging();
      for (size_t i = 0; i < count; ++i)
        backend.pack_row(dtype, cols, file.data() + (first + i) * row_bytes,
                         staging + i * row_bytes);
      mover->start(in_places.get(), std::span(host_places).subspan(first, count));
      CHECK(mover->arrived() <= batches + 1);
    }
    mover->wait();
    CHECK(mover->arrived() == batches);
  }
};

void check_places(Backend& backend, DType dtype, int tokens, std::mt19937_64& random) {
  constexpr int kRows = 150, kCols = 256, kPlaces = 190;
  std::vector<uint32_t> host_places(kPlaces);
  for (uint32_t p = 0; p < kPlaces; ++p) host_places[p] = p;
  std::shuffle(host_places.begin(), host_places.end(), random);
  host_places.resize(kRows);
  const Placed<uint32_t> places(backend, host_places);
  const TwoWays gate(backend, dtype, kRows, kCols, places, host_places, kPlaces, random);
  const TwoWays up(backend, dtype, kRows, kCols, places, host_places, kPlaces, random);
  const TwoWays down(backend, dtype, kRows, kCols, places, host_places, kPlaces, random);
  std::vector<float> values(static_cast<size_t>(tokens) * kCols);
  for (float& value : values) value = std::normal_distribution<float>()(random);
  const Placed<float> x(backend, values);
  const Placed<uint64_t> candidates(backend, {random(), random(), random() & 0x3fffff});
  const auto rows = token_rows(tokens);
  backend.begin(rows);
  const auto run = [&](const WeightView& g, const WeightView& u, const WeightView& d) {
    const Placed<float> hidden(backend, std::vector<float>(static_cast<size_t>(tokens) * kRows));
    const Placed<uint64_t> active(backend, std::vector<uint64_t>(static_cast<size_t>(tokens) * 3));
    const Placed<float> y(backend, std::vector<float>(values.size()));
    backend.gate_and_up({g,
                         u,
                         FfnActivation::relu,
                         0.0f,
                         {candidates.data(), 0},
                         x.data(),
                         hidden.data(),
                         active.data(),
                         3,
                         nullptr});
    backend.sum_rows(d, {active.data(), 3}, hidden.data(), y.data());
    return std::pair(active.fetch(), y.fetch());
  };
  CHECK(run(gate.placed, up.placed, down.placed) == run(gate.ordered, up.ordered, down.ordered));
}

}  // namespace

TEST_CASE("rows in places give the bits of rows in order, wherever a mover brought them",
          "[cuda]") {
  std::mt19937_64 random(11);
  for (auto& [name, backend] : all_backends(2))
    for (const DType dtype :
         {DType::f32, DType::bf16, DType::q8_0, DType::q4_0, DType::q5_1, DType::q4_k, DType::q6_k})
      for (const int tokens : {1, 3}) {
        INFO(name << ", " << facts(dtype).name << ", " << tokens << " tokens");
        check_places(*backend, dtype, tokens, random);
      }
}

TEST_CASE("rows whose bytes are no multiple of 16 move whole", "[cuda]") {
  std::mt19937_64 random(12);
  for (auto& [name, backend] : all_backends(1)) {
    INFO(name);
    const std::vector<uint32_t> places = {3, 0, 4};
    const Placed<uint32_t> on_device(*backend, places);
    const TwoWays rows(*backend, DType::q4_0, 3, 96, on_device, places, 5, random);  // 54 bytes
    std::vector<std::byte> memory(5 * 54), ordered(3 * 54);
    backend->download(memory.data(), rows.in_places.get(), memory.size());
    backend->download(ordered.data(), rows.in_order.get(), ordered.size());
    bool right = true;
    for (size_t i = 0; i < 3; ++i)
      right &= std::equal(ordered.data() + i * 54, ordered.data() + (i + 1) * 54,
                          memory.data() + places[i] * 54);
    CHECK(right);
    CHECK(std::all_of(memory.data() + 54, memory.data() + 3 * 54,
                      [](std::byte byte) { return byte == std::byte{}; }));
  }
}

TEST_CASE("masks intersect, queued copies and marks keep the queue's order", "[cuda]") {
  std::mt19937_64 random(13);
  for (auto& [name, backend] : all_backends(2)) {
    INFO(name);
    constexpr uint32_t kWords = 300;  // of several blocks of threads
    const uint64_t stride = kWords + 5;
    const auto rows = token_rows(3);
    backend->begin(rows);
    std::vector<uint64_t> mask(3 * stride), words(kWords);
    for (uint64_t& word : mask) word = random();
    for (uint64_t& word : words) word = random();
    const Placed<uint64_t> placed_mask(*backend, mask), placed_words(*backend, words);
    const Placed<uint64_t> out(*backend, std::vector<uint64_t>(3 * kWords));
    const auto pinned = backend->allocate_host(3 * kWords * sizeof(uint64_t));
    auto* fetched = reinterpret_cast<uint64_t*>(pinned.get());
    CHECK(reinterpret_cast<uintptr_t>(fetched) % 64 == 0);
    CHECK(std::all_of(fetched, fetched + 3 * kWords, [](uint64_t word) { return word == 0; }));
    backend->mark(0);
    backend->intersect({placed_mask.data(), stride}, placed_words.data(), kWords, out.data());
    backend->queue_copy(fetched, out.data(), 3 * kWords * sizeof(uint64_t));
    backend->mark(1);
    backend->wait_for(1);
    bool right = true;
    for (size_t i = 0; i < 3 * kWords; ++i)
      right &= fetched[i] == (mask[i / kWords * stride + i % kWords] & words[i % kWords]);
    CHECK(right);
    backend->queue_copy(out.data(), words.data(), 0);  // nothing
    std::fill_n(fetched, kWords, 5);
    backend->queue_copy(out.data(), fetched, kWords * sizeof(uint64_t));
    backend->mark(2);
    backend->wait();
    CHECK(out.fetch()[kWords - 1] == 5);
    CHECK(backend->ns_between(0, 2) >= backend->ns_between(0, 1));
    CHECK(backend->ns_between(0, 2) < uint64_t{60'000'000'000});
  }
}
