// The bench of a backend: complete, plausible, and its bytes those that operations are asked for.
// No time is asserted.
#include "runtime/backend_bench.h"

#include <bit>
#include <catch2/catch.hpp>
#include <cstring>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "models/error.h"
#include "runtime/machine_bench.h"

namespace thermocline::test {
namespace {

BackendBenchOptions tiny() {
  BackendBenchOptions options;
  ModelShape& shape = options.shape;
  shape.model_dim = 256;
  shape.ffn_dim = 1024;
  shape.head_count = 8;
  shape.kv_head_count = 2;
  shape.head_dim = 32;
  options.prefill = 20;
  options.long_position_count = 40;
  options.seconds = 0;
  options.pass_bytes = 0;
  return options;
}

// Counts what its operations are asked to read instead of computing.
class CountingBackend final : public Backend {
 public:
  uint64_t free = ~uint64_t{0};
  uint64_t read = 0;                        // bytes
  std::vector<std::vector<uint64_t>> sets;  // of rows, where not all were asked for

  void forget() {
    read = 0;
    sets.clear();
  }

  std::string describe() const override { return "counting"; }
  bool uses_host_memory() const override { return false; }
  uint64_t free_bytes() const override { return free; }
  std::string refusal_of_matrix(DType dtype, int) const override {
    return dtype == DType::q6_k ? "not here" : "";
  }
  std::string refusal_of_attention(int, int) const override { return ""; }
  std::shared_ptr<std::byte> allocate(uint64_t bytes) override {
    std::shared_ptr<std::byte[]> memory(new std::byte[bytes]());
    return {memory, memory.get()};
  }
  void place_rows(const WeightView&, int, int, const std::byte*) override {}
  void upload(void* to, const void* host, uint64_t bytes) override { std::memcpy(to, host, bytes); }
  void download(void* host, const void* from, uint64_t bytes) override {
    std::memcpy(host, from, bytes);
  }
  void wait() override {}
  void run_on_host(int count, const std::function<void(int, int)>& work) override {
    work(0, count);
  }
  void begin(std::span<const TokenRow> rows) override {
    positions_.clear();
    for (const TokenRow& row : rows) positions_[row.slot] = row.position + 1;
  }
  void run_queued(uint64_t, const std::function<void()>& queue) override { queue(); }
  void embed(const WeightView&, uint32_t, float*) override {}
  void rms_norm(const float*, const float*, int, float, int, float*) override {}
  void multiply(std::span<const Product> products, const float*, int) override {
    for (const Product& one : products) read += bytes(one.w, one.w.rows);
  }
  void attend(const AttentionCall& call) override {
    for (const auto& [slot, positions] : positions_) {
      read +=
          2 * sizeof(float) * positions * static_cast<uint64_t>(call.kv_head_count * call.head_dim);
    }
  }
  void gate_and_up(const GateUpCall& call) override {
    for (const WeightView& w : {call.gate, call.up}) read += bytes(w, bits(w, call.candidates));
    CHECK(call.gate.data + bytes_of(call.gate.dtype, 256) == call.up.data);
    CHECK(call.gate.stride == 2 * bytes_of(call.gate.dtype, 256));
    CHECK(call.activation == FfnActivation::silu);
  }
  void sum_rows(const WeightView& w, const NeuronMask& mask, const float*, float*) override {
    read += bytes(w, bits(w, mask));
    CHECK(w.stride == bytes_of(w.dtype, 256));
  }
  std::shared_ptr<std::byte> allocate_host(uint64_t bytes) override { return allocate(bytes); }
  void queue_copy(void*, const void*, uint64_t) override {}
  void mark(uint32_t) override {}
  void wait_for(uint32_t) override {}
  uint64_t ns_between(uint32_t, uint32_t) override { return 0; }
  void intersect(const NeuronMask&, const uint64_t*, uint32_t, uint64_t*) override {}
  void pack_row(DType, int, const std::byte*, std::byte*) const override {}
  std::unique_ptr<RowMover> make_mover(uint64_t, uint32_t) override { return nullptr; }
  uint64_t mover_bytes(uint64_t, uint32_t) const override { return 0; }
  void add(float*, const float*, uint64_t) override {}
  void match_signs(const SignCall&) override {}
  void relu(float*, uint64_t) override {}
  void mark_reached(const float*, int, float, uint64_t*, uint64_t) override {}

 private:
  static uint64_t bytes(const WeightView& w, int rows) {
    return static_cast<uint64_t>(rows) * bytes_of(w.dtype, static_cast<uint64_t>(w.cols));
  }
  int bits(const WeightView& w, const NeuronMask& mask) {
    if (mask.words == nullptr) return w.rows;
    sets.emplace_back(mask.words, mask.words + w.rows / 64);
    int count = 0;
    for (const uint64_t word : sets.back()) count += std::popcount(word);
    return count;
  }

  std::map<uint32_t, uint64_t> positions_;  // by slot
};

const BackendFigure& find(const std::vector<BackendFigure>& figures, const std::string& name,
                          const std::string& format, int tokens, double percent = 100) {
  for (const BackendFigure& figure : figures) {
    if (figure.name == name && figure.format == format && figure.tokens == tokens &&
        figure.active_percent == percent) {
      return figure;
    }
  }
  throw std::runtime_error("no figure of " + name + " " + format);
}

void check_plausible(const BackendFigure& figure) {
  INFO(figure.name << " " << figure.format << " " << figure.tokens);
  CHECK(figure.bytes > 0);
  CHECK(figure.ms > 0);
  CHECK(figure.gb_per_s == Approx(static_cast<double>(figure.bytes) / figure.ms * 1e-6));
  CHECK(figure.share_of_limit > 0);
  CHECK((figure.share_of_peak > 0) == (figure.gflop_per_s > 0));
  CHECK(figure.tokens >= 1);
}

TEST_CASE("a bench has a figure of every format, activity and token count") {
  const BackendBenchOptions options = tiny();
  const auto backend = backends().by_name("cpu").make({});
  const auto figures = measure_backend(*backend, options);
  // attention matrices; gates; many tokens; FFNs; layers; a long attention
  CHECK(figures.size() == 6 + 6 + 3 * 2 + 3 * 3 + 4 + 1);
  for (const BackendFigure& figure : figures) check_plausible(figure);
  for (const char* format : {"f16", "bf16", "q8_0", "q4_0", "q4_k", "q6_k"}) {
    find(figures, "attention matrix", format, 1);
    find(figures, "gate matrix", format, 1);
  }
  for (const char* format : {"bf16", "q8_0", "q4_0"}) {
    for (const int tokens : {4, 20}) find(figures, "gate matrix", format, tokens);
    for (const double percent : {100, 28, 18}) find(figures, "ffn", format, 1, percent);
  }
  find(figures, "attention to 40", "f32", 1);
}

struct Counted {
  std::vector<BackendFigure> figures;
  std::vector<uint64_t> bytes;  // that were asked for, by figure
  std::vector<std::vector<std::vector<uint64_t>>> sets;
};

Counted measure_counted(CountingBackend& backend) {
  Counted counted;
  BackendBenchOptions options = tiny();
  options.matrix_types = {DType::q8_0, DType::q6_k};
  options.ffn_types = {DType::q4_0};
  options.sparse_percents = {25};
  options.on_figure = [&](size_t done, size_t total) {
    counted.bytes.push_back(backend.read);
    counted.sets.push_back(backend.sets);
    CHECK(done == counted.bytes.size());
    CHECK(total == 9);
    backend.forget();
  };
  counted.figures = measure_backend(backend, options);
  return counted;
}

TEST_CASE("a figure's bytes are those of the rows that its operations are asked for") {
  CountingBackend backend;
  const Counted counted = measure_counted(backend);
  const auto& figures = counted.figures;
  REQUIRE(figures.size() == 9);  // q6_k is refused
  for (size_t i = 0; i < figures.size(); ++i) {
    INFO(figures[i].name << " " << figures[i].active_percent);
    // Four passes, one of which warms up, of four sets where a quarter is active.
    CHECK(counted.bytes[i] == figures[i].bytes * (figures[i].active_percent == 25 ? 16 : 4));
  }
  // By hand: a row of 256 is 8 blocks, of 34 bytes as q8_0, of 18 as q4_0.
  constexpr uint64_t kQ8 = 8 * 34, kQ4 = 8 * 18, kNeuron = 3 * kQ4;
  constexpr uint64_t kAttention = (256 + 2 * 64 + 256) * kQ4;
  constexpr uint64_t kCache = 2 * 128 * 64 * 4;  // keys and values of 128 positions, f32
  const auto bytes = [&](const char* name, const char* format, int tokens, double percent) {
    return find(figures, name, format, tokens, percent).bytes;
  };
  CHECK(bytes("attention matrix", "q8_0", 1, 100) == 256 * kQ8);
  CHECK(bytes("gate matrix", "q8_0", 1, 100) == 1024 * kQ8);
  CHECK(bytes("ffn", "q4_0", 1, 100) == 1024 * kNeuron);
  CHECK(bytes("ffn", "q4_0", 1, 25) == 256 * kNeuron);
  CHECK(bytes("layer", "q4_0", 1, 100) == kAttention + kCache + 1024 * kNeuron);
  CHECK(bytes("layer", "q4_0", 1, 25) == kAttention + kCache + 256 * kNeuron);
  CHECK(bytes("layer, batch", "q4_0", 4, 100) == kAttention + 4 * kCache + 1024 * kNeuron);
  CHECK(bytes("layer, prefill", "q4_0", 20, 100) == kAttention + kCache + 1024 * kNeuron);
  CHECK(bytes("attention to 40", "f32", 1, 100) == 2 * 40 * 64 * 4);
}

TEST_CASE("candidates avoid those of the calls before until all neurons had their turn") {
  CountingBackend backend;
  const Counted counted = measure_counted(backend);
  REQUIRE(counted.figures[3].name == "ffn");
  REQUIRE(counted.figures[3].active_percent == 25);
  const auto& sets = counted.sets[3];  // thrice each: gate, up, down
  REQUIRE(sets.size() == 3 * 16);
  for (size_t word = 0; word < 16; ++word) {
    uint64_t all = 0;
    for (size_t call = 0; call < 4; ++call) {
      CHECK((all & sets[3 * call][word]) == 0);
      all |= sets[3 * call][word];
    }
    CHECK(all == ~uint64_t{0});
  }
}

TEST_CASE("where there is little memory a bench takes fewer rows and says so, or says why not") {
  CountingBackend backend;
  // Nine tenths are taken: 1000 bundles of 432 bytes, or 177 beside a layer's other 355,328 bytes,
  // in whole 64s.
  backend.free = 480'000;
  const Counted counted = measure_counted(backend);
  CHECK(find(counted.figures, "ffn, 960 neurons", "q4_0", 1).bytes == 960 * 432);
  CHECK(find(counted.figures, "layer, 128 neurons", "q4_0", 1).bytes > 128 * 432);
  CHECK(find(counted.figures, "gate matrix", "q8_0", 1).bytes == 1024 * 8 * 34);
  backend.free = 1000;
  CHECK_THROWS_AS(measure_counted(backend), Error);
}

TEST_CASE("rows of a bench carry their fields, and the threads that they scale over") {
  RunOptions run;
  run.backend = "cpu";
  BackendBenchOptions options = tiny();
  options.thread_count = 2;
  const MachineBench bench = measure_machine(run, options);
  CHECK(bench.scaling.size() == 2 * 3);
  CHECK(bench.scaling[0].name == "read bandwidth");
  CHECK(bench.scaling[0].threads == 1);
  CHECK(bench.scaling[5].threads == 2);
  const auto rows = bench_rows(bench);
  REQUIRE(rows.size() == bench.figures.size() + bench.scaling.size());
  for (const auto& row : rows) {
    CHECK(row["kind"] == "bench");
    CHECK(row["source"] == "measured");
    CHECK(row["backend"] == "cpu");
    for (const char* field :
         {"name", "format", "tokens", "active_percent", "threads", "bytes", "ms", "gb_per_s",
          "share_of_limit", "gflop_per_s", "share_of_peak", "device"}) {
      INFO(field);
      CHECK(row.contains(field));
    }
  }
}

TEST_CASE("a backend with memory of its own has the limits that it was given, or none") {
  CountingBackend backend;
  CHECK(measure_counted(backend).figures[0].share_of_limit == 0);
  BackendBenchOptions options = tiny();
  options.read_limit = 1e9;
  options.compute_limit = 2e9;
  const BackendFigure figure = measure_backend(backend, options)[0];
  CHECK(figure.share_of_limit == Approx(figure.gb_per_s));
  CHECK(figure.share_of_peak == Approx(figure.gflop_per_s / 2));
}

}  // namespace
}  // namespace thermocline::test
