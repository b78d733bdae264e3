// Every operation of the CUDA backend against double precision: on the host, and on a GPU where one
// can be used.
#include <catch2/catch.hpp>
#include <cstring>
#include <thread>

#include "models/error.h"
#include "tests/emulated/cuda.h"
#include "tests/kernels/reference.h"

using namespace thermocline;
using namespace thermocline::test;

namespace {

constexpr double kRounding = 0x1p-24;  // relative, of one operation in f32

template <class Test>
void on_each_backend(Test test) {
  {
    INFO("emulated");
    const auto emulated = make_emulated_cuda_backend();
    test(*emulated);
  }
  const BackendEntry* cuda = backends().by_name_or_null("cuda");
  if (cuda == nullptr || !cuda->unusable().empty()) return;
  INFO("on a GPU");
  const auto backend = cuda->make({});
  test(*backend);
}

// A copy of values in the backend's memory.
template <class T>
struct Placed {
  Backend* backend;
  size_t count;
  std::shared_ptr<std::byte> memory;

  Placed(Backend& on, const std::vector<T>& values)
      : backend(&on), count(values.size()), memory(on.allocate(count * sizeof(T))) {
    on.upload(memory.get(), values.data(), count * sizeof(T));
  }
  T* data() const { return reinterpret_cast<T*>(memory.get()); }
  std::vector<T> fetch() const {
    std::vector<T> values(count);
    backend->download(values.data(), memory.get(), count * sizeof(T));
    return values;
  }
};

Placed<float> unset(Backend& on, size_t count) {
  return Placed<float>(on, std::vector<float>(count, -12345));
}

// The rows of a matrix `gap` bytes apart, the first `gap` bytes into its memory.
struct PlacedMatrix {
  std::shared_ptr<std::byte> memory;
  WeightView view;

  PlacedMatrix(Backend& on, const Matrix& w, uint64_t gap) {
    const uint64_t row_bytes = bytes_of(w.dtype, static_cast<uint64_t>(w.cols));
    const uint64_t stride = row_bytes + gap;
    memory = on.allocate(stride * static_cast<uint64_t>(w.rows));
    view = {w.dtype, w.rows, w.cols, stride, memory.get() + gap};
    const int half = w.rows / 2;
    on.place_rows(view, half, w.rows, w.row(half));
    on.place_rows(view, 0, half, w.row(0));
  }
};

template <class T>
bool same_bits(const T* a, const T* b, size_t count) {
  return std::memcmp(a, b, count * sizeof(T)) == 0;
}

// Rows of one token each, at position 0 of slots of their own.
std::vector<TokenRow> token_rows(int count) {
  std::vector<TokenRow> rows;
  for (int t = 0; t < count; ++t) rows.push_back({t, 0, static_cast<uint32_t>(t)});
  return rows;
}

// A lane adds up to two units more than its part of the columns, then lanes are added in pairs.
double dot_tolerance(const Sum& sum, int cols) {
  return (cols / 32 + 64 + 5) * kRounding * sum.size;
}

bool fits(DType dtype, int cols) {
  return cols % static_cast<int>(facts(dtype).items_per_block) == 0;
}

void check_multiply(Backend& on, DType dtype, int rows, int cols, int tokens, uint64_t gap,
                    std::mt19937_64& random) {
  INFO(facts(dtype).name << " " << rows << "x" << cols << ", " << tokens << " tokens, gap " << gap);
  const Matrix w = random_matrix(dtype, rows, cols, random);
  const Matrix other = random_matrix(DType::f16, 3, cols, random);
  const PlacedMatrix placed(on, w, gap), others(on, other, 0);
  const auto x = random_floats(static_cast<size_t>(tokens) * cols, random);
  const Placed<float> inputs(on, x);
  const Placed<float> y = unset(on, static_cast<size_t>(tokens) * rows);
  const Placed<float> again = unset(on, y.count), last = unset(on, static_cast<size_t>(tokens) * 3);
  const Product products[] = {
      {placed.view, y.data()}, {placed.view, again.data()}, {others.view, last.data()}};
  on.multiply(products, inputs.data(), tokens);
  const auto values = y.fetch(), twice = again.fetch(), second = last.fetch();
  REQUIRE(same_bits(values.data(), twice.data(), values.size()));
  for (int t = 0; t < tokens; ++t) {
    const float* token = x.data() + static_cast<size_t>(t) * cols;
    for (int r = 0; r < rows; ++r) {
      const Sum sum = dot(w, r, token);
      REQUIRE(std::fabs(values[static_cast<size_t>(t) * rows + r] - sum.value) <=
              dot_tolerance(sum, cols));
    }
    for (int r = 0; r < 3; ++r) {
      const Sum sum = dot(other, r, token);
      REQUIRE(std::fabs(second[static_cast<size_t>(t) * 3 + r] - sum.value) <=
              dot_tolerance(sum, cols));
    }
  }
  const Placed<float> alone = unset(on, static_cast<size_t>(rows));
  const size_t t = static_cast<size_t>(tokens) / 2;
  const Product one[] = {{placed.view, alone.data()}};
  on.multiply(one, inputs.data() + t * cols, 1);
  REQUIRE(same_bits(alone.fetch().data(), values.data() + t * rows, static_cast<size_t>(rows)));
}

float silu(double g) { return static_cast<float>(g / (1 + std::exp(-g))); }

// A problem of gate_and_up and what it gave.
struct GateUp {
  Matrix gate, up;
  FfnActivation activation;
  float threshold;
  bool masked;
  int tokens;
  std::vector<float> x;
  std::vector<uint64_t> candidates;
  uint64_t words, stride;  // of a token's mask; of active bits

  std::vector<float> hidden, magnitudes;
  std::vector<uint64_t> active;

  GateUp(DType gate_type, DType up_type, FfnActivation act, bool with_mask, int neurons, int cols,
         int token_count, std::mt19937_64& random)
      : gate(random_matrix(gate_type, neurons, cols, random)),
        up(random_matrix(up_type, neurons, cols, random)),
        activation(act),
        threshold(act == FfnActivation::relu ? 0.0f : 0.25f),
        masked(with_mask),
        tokens(token_count),
        x(random_floats(static_cast<size_t>(token_count) * cols, random)),
        words((static_cast<uint64_t>(neurons) + 63) / 64),
        stride(words + 2) {
    candidates = random_mask(tokens, static_cast<int>(words), 0.3, random);
  }

  // Of tokens [first, first + count).
  void run(Backend& on, uint64_t gap, int first, int count) {
    const PlacedMatrix gates(on, gate, gap), ups(on, up, gap);
    const size_t n = static_cast<size_t>(count) * gate.rows;
    const Placed<float> inputs(on, x), out = unset(on, n), sizes = unset(on, n);
    const Placed<uint64_t> mask(on, candidates);
    const Placed<uint64_t> bits(on, std::vector<uint64_t>(count * stride, 0x5555));
    on.begin(token_rows(count));
    on.gate_and_up({gates.view,
                    ups.view,
                    activation,
                    threshold,
                    {masked ? mask.data() + first * words : nullptr, words},
                    inputs.data() + static_cast<size_t>(first) * gate.cols,
                    out.data(),
                    bits.data(),
                    stride,
                    sizes.data()});
    hidden = out.fetch();
    magnitudes = sizes.fetch();
    active = bits.fetch();
  }

  bool is_active(int t, int n) const { return bit_of(active.data() + t * stride, n); }

  void check_neuron(int t, int n) const {
    const size_t at = static_cast<size_t>(t) * gate.rows + n;
    if (masked && !bit_of(candidates.data() + t * words, n)) {
      REQUIRE_FALSE(is_active(t, n));
      return;
    }
    const float* token = x.data() + static_cast<size_t>(t) * gate.cols;
    const Sum g = dot(gate, n, token), u = dot(up, n, token);
    const double slack = dot_tolerance(g, gate.cols) + 4 * kRounding * std::fabs(g.value);
    const bool dense = activation == FfnActivation::silu;
    const double value = dense ? silu(g.value) : g.value;
    const double compared = dense ? std::fabs(value) : value;
    if (std::fabs(compared - threshold) > 2 * slack)
      REQUIRE(is_active(t, n) == (compared > threshold));
    const bool computed = dense || is_active(t, n);
    REQUIRE(std::fabs(magnitudes[at] - (computed ? std::fabs(value) : 0)) <= 2 * slack);
    if (!computed) return;
    const double tolerance = 2 * slack * std::fabs(u.value) +
                             (std::fabs(value) + 2 * slack) * dot_tolerance(u, gate.cols) +
                             kRounding * std::fabs(value * u.value);
    REQUIRE(std::fabs(hidden[at] - value * u.value) <= tolerance);
  }

  void check_all() const {
    for (int t = 0; t < tokens; ++t) {
      for (int n = 0; n < gate.rows; ++n) check_neuron(t, n);
      for (int n = gate.rows; n < static_cast<int>(words) * 64; ++n) REQUIRE(!is_active(t, n));
      REQUIRE(active[(t + 1) * stride - 1] == 0x5555);  // beyond the words there are
    }
  }
};

void check_gate_and_up(Backend& on, GateUp problem, uint64_t gap) {
  INFO(facts(problem.gate.dtype).name
       << " " << facts(problem.up.dtype).name << ", " << static_cast<int>(problem.activation)
       << ", mask " << problem.masked << ", " << problem.gate.rows << "x" << problem.gate.cols
       << ", " << problem.tokens << " tokens, gap " << gap);
  problem.run(on, gap, 0, problem.tokens);
  problem.check_all();
  const GateUp batch = problem;
  const int t = problem.tokens - 1;
  problem.run(on, gap, t, 1);
  REQUIRE(same_bits(problem.active.data(), batch.active.data() + t * batch.stride, batch.words));
  for (int n = 0; n < batch.gate.rows; ++n)
    if (problem.is_active(0, n))
      REQUIRE(problem.hidden[n] == batch.hidden[static_cast<size_t>(t) * batch.gate.rows + n]);
}

void check_sum_rows(Backend& on, DType dtype, int rows, int cols, int tokens, uint64_t gap,
                    std::mt19937_64& random) {
  INFO(facts(dtype).name << " " << rows << "x" << cols << ", " << tokens << " tokens, gap " << gap);
  const Matrix w = random_matrix(dtype, rows, cols, random);
  const PlacedMatrix placed(on, w, gap);
  const auto a = random_floats(static_cast<size_t>(tokens) * rows, random);
  const uint64_t words = static_cast<uint64_t>(rows) / 64 + 2;
  const auto mask = random_mask(tokens, static_cast<int>(words), 0.3, random);
  const Placed<float> factors(on, a), y = unset(on, static_cast<size_t>(tokens) * cols);
  const Placed<uint64_t> bits(on, mask);
  on.begin(token_rows(tokens));
  const auto check = [&](const NeuronMask& of, auto is_active) {
    on.sum_rows(placed.view, of, factors.data(), y.data());
    const auto values = y.fetch();
    for (int t = 0; t < tokens; ++t)
      for (int c = 0; c < cols; ++c) {
        Sum sum;
        for (int r = 0; r < rows; ++r)
          if (is_active(t, r)) sum.add(w.at(r, c) * a[static_cast<size_t>(t) * rows + r]);
        // At worst a warp adds all rows; then there are warps and groups of rows.
        REQUIRE(std::fabs(values[static_cast<size_t>(t) * cols + c] - sum.value) <=
                (rows + 8 + 64) * kRounding * sum.size);
      }
    return values;
  };
  const auto batch =
      check({bits.data(), words}, [&](int t, int r) { return bit_of(mask.data() + t * words, r); });
  check({bits.data(), 0}, [&](int, int r) { return bit_of(mask.data(), r); });
  check({}, [](int, int) { return true; });
  const size_t t = static_cast<size_t>(tokens) - 1;
  const Placed<float> alone = unset(on, static_cast<size_t>(cols));
  on.begin(token_rows(1));
  on.sum_rows(placed.view, {bits.data() + t * words, words}, factors.data() + t * rows,
              alone.data());
  REQUIRE(same_bits(alone.fetch().data(), batch.data() + t * cols, static_cast<size_t>(cols)));
}

// Attention in double precision, with a cache of its own.
struct Attention {
  int heads, kv_heads, dim, positions, slots;
  std::vector<double> frequencies;
  std::vector<float> keys, values;  // (slots, kv_heads, positions, dim)

  Attention(int head_count, int kv_head_count, int head_dim, int position_max, int slot_count,
            std::mt19937_64& random)
      : heads(head_count),
        kv_heads(kv_head_count),
        dim(head_dim),
        positions(position_max),
        slots(slot_count) {
    for (int i = 0; i < dim / 2; ++i) frequencies.push_back(std::pow(10000.0, -2.0 * i / dim));
    const size_t count = static_cast<size_t>(slots) * kv_heads * positions * dim;
    keys = random_floats(count, random);
    values = random_floats(count, random);
  }

  size_t cached(const TokenRow& row, int kv_head, size_t position) const {
    return ((static_cast<size_t>(row.slot) * kv_heads + kv_head) * positions + position) * dim;
  }

  std::vector<double> rotated(const float* head, uint32_t position) const {
    std::vector<double> turned(head, head + dim);
    for (int i = 0; i < dim / 2; ++i) {
      const double angle = position * frequencies[i], x = head[2 * i], y = head[2 * i + 1];
      turned[2 * i] = x * std::cos(angle) - y * std::sin(angle);
      turned[2 * i + 1] = x * std::sin(angle) + y * std::cos(angle);
    }
    return turned;
  }

  void store(const TokenRow& row, const float* k, const float* v) {
    for (int h = 0; h < kv_heads; ++h) {
      const auto key = rotated(k + h * dim, row.position);
      const size_t at = cached(row, h, row.position);
      for (int d = 0; d < dim; ++d) keys[at + d] = static_cast<float>(key[d]);
      std::copy_n(v + h * dim, dim, values.begin() + static_cast<std::ptrdiff_t>(at));
    }
  }

  std::vector<double> attend(const TokenRow& row, const float* q, int head) const {
    const auto query = rotated(q + head * dim, row.position);
    const int kv_head = head / (heads / kv_heads);
    std::vector<double> out(dim, 0);
    double total = 0;
    for (size_t p = 0; p <= row.position; ++p) {
      double score = 0;
      for (int d = 0; d < dim; ++d) score += query[d] * keys[cached(row, kv_head, p) + d];
      const double weight = std::exp(score / std::sqrt(dim));
      total += weight;
      for (int d = 0; d < dim; ++d) out[d] += weight * values[cached(row, kv_head, p) + d];
    }
    for (double& value : out) value /= total;
    return out;
  }
};

// The same on a backend.
struct PlacedAttention {
  Backend& on;
  const Attention& of;
  Placed<float> keys, values;
  Placed<double> frequencies;

  PlacedAttention(Backend& backend, const Attention& attention)
      : on(backend),
        of(attention),
        keys(backend, attention.keys),
        values(backend, attention.values),
        frequencies(backend, attention.frequencies) {}

  std::vector<float> run(const std::vector<TokenRow>& rows, const float* q, const float* k,
                         const float* v) {
    const size_t count = rows.size(), q_width = static_cast<size_t>(of.heads) * of.dim;
    const size_t kv_width = static_cast<size_t>(of.kv_heads) * of.dim;
    const Placed<float> queries(on, {q, q + count * q_width});
    const Placed<float> new_keys(on, {k, k + count * kv_width});
    const Placed<float> new_values(on, {v, v + count * kv_width});
    const Placed<float> out = unset(on, count * q_width);
    const uint64_t head_stride = static_cast<uint64_t>(of.positions) * of.dim;
    on.begin(rows);
    on.attend({queries.data(),
               new_keys.data(),
               new_values.data(),
               {keys.data(), values.data(), head_stride * of.kv_heads, head_stride, of.positions},
               of.heads,
               of.kv_heads,
               of.dim,
               frequencies.data(),
               out.data()});
    return out.fetch();
  }
};

// Rows of one slot are given in ascending positions; earlier positions are those of the cache.
void check_attention(Backend& on, Attention attention, const std::vector<TokenRow>& rows,
                     std::mt19937_64& random) {
  INFO(attention.heads << " heads of " << attention.dim << ", " << attention.kv_heads
                       << " kv heads");
  PlacedAttention placed(on, attention), one_by_one(on, attention);
  const size_t q_width = static_cast<size_t>(attention.heads) * attention.dim;
  const size_t kv_width = static_cast<size_t>(attention.kv_heads) * attention.dim;
  const auto q = random_floats(rows.size() * q_width, random);
  const auto k = random_floats(rows.size() * kv_width, random);
  const auto v = random_floats(rows.size() * kv_width, random);
  const auto out = placed.run(rows, q.data(), k.data(), v.data());
  for (size_t i = 0; i < rows.size(); ++i) {
    attention.store(rows[i], k.data() + i * kv_width, v.data() + i * kv_width);
    for (int head = 0; head < attention.heads; ++head) {
      const auto expected = attention.attend(rows[i], q.data() + i * q_width, head);
      const float* found = out.data() + i * q_width + static_cast<size_t>(head) * attention.dim;
      // Values are of size 1 to 4; errors of scores, up to 10 * 2^-20, count as factors.
      for (int d = 0; d < attention.dim; ++d) REQUIRE(std::fabs(found[d] - expected[d]) <= 4e-5);
    }
    const auto alone = one_by_one.run({rows[i]}, q.data() + i * q_width, k.data() + i * kv_width,
                                      v.data() + i * kv_width);
    REQUIRE(same_bits(alone.data(), out.data() + i * q_width, q_width));
  }
  const auto keys = placed.keys.fetch(), values = placed.values.fetch();
  REQUIRE(values == attention.values);
  for (size_t i = 0; i < keys.size(); ++i)
    REQUIRE(std::fabs(keys[i] - attention.keys[i]) <= 4e-6 * (1 + std::fabs(keys[i])));
}

}  // namespace

TEST_CASE("multiply on CUDA agrees with double precision for every type", "[cuda]") {
  on_each_backend([](Backend& on) {
    std::mt19937_64 random(21);
    int turn = 0;  // each type takes one token, some of 2..4 and some of 5..9
    for (const DType dtype : kAllTypes) {
      const int block = static_cast<int>(facts(dtype).items_per_block);
      const int cols = block == 1 ? 136 : block == 32 ? 352 : 768;
      for (const int tokens : {1, 2 + turn % 3, 5 + turn % 5})
        check_multiply(on, dtype, 37, cols, tokens, 0, random);
      check_multiply(on, dtype, 9, cols, 3, 2, random);
      check_multiply(on, dtype, 9, cols, 1, 48, random);
      ++turn;
    }
    for (const int cols : {1, 7, 33, 331}) check_multiply(on, DType::f16, 5, cols, 2, 0, random);
    for (const int cols : {1, 5, 34}) check_multiply(on, DType::f32, 3, cols, 5, 0, random);
  });
}

TEST_CASE("multiply on CUDA takes many tokens and more columns than a tile", "[cuda]") {
  on_each_backend([](Backend& on) {
    std::mt19937_64 random(22);
    for (const DType dtype : {DType::f16, DType::q4_0, DType::q6_k}) {
      check_multiply(on, dtype, 3, 8192 + 768, 1, 0, random);
      check_multiply(on, dtype, 3, 2048 + 256, 9, 0, random);
      check_multiply(on, dtype, 17, 256, 33, 0, random);
    }
  });
}

TEST_CASE("multiply on CUDA takes so many rows that warps take four", "[cuda][slow]") {
  on_each_backend([](Backend& on) {
    std::mt19937_64 random(30);
    check_multiply(on, DType::q4_0, 8500, 32, 1, 0, random);  // alone, two
  });
}

TEST_CASE("gate_and_up on CUDA agrees with double precision", "[cuda]") {
  on_each_backend([](Backend& on) {
    std::mt19937_64 random(23);
    int turn = 0;
    for (const DType dtype : kAllTypes)
      for (const FfnActivation act :
           {FfnActivation::relu, FfnActivation::fatrelu, FfnActivation::silu}) {
        const int tokens = std::vector{1, 4, 9, 2, 7}[static_cast<size_t>(turn++) % 5];
        const int cols = facts(dtype).items_per_block == 256 ? 256 : 160;
        check_gate_and_up(on, {dtype, dtype, act, turn % 2 == 0, 70, cols, tokens, random},
                          turn % 3 == 0   ? 2
                          : turn % 3 == 1 ? 0
                                          : 96);
      }
    check_gate_and_up(
        on, {DType::q4_k, DType::q6_k, FfnActivation::relu, false, 40, 256, 3, random}, 0);
    check_gate_and_up(on, {DType::q4_0, DType::f16, FfnActivation::silu, true, 129, 64, 5, random},
                      0);
    check_gate_and_up(on, {DType::f16, DType::f16, FfnActivation::relu, false, 40, 8200, 1, random},
                      0);
  });
}

TEST_CASE("sum_rows on CUDA agrees with double precision for every type", "[cuda]") {
  on_each_backend([](Backend& on) {
    std::mt19937_64 random(24);
    for (const DType dtype : kAllTypes) {
      const int block = static_cast<int>(facts(dtype).items_per_block);
      const int cols = block == 1 ? 136 : block == 32 ? 352 : 768;
      for (const int tokens : {1, 2, 3}) check_sum_rows(on, dtype, 130, cols, tokens, 0, random);
      check_sum_rows(on, dtype, 65, cols, 2, 2, random);
    }
    check_sum_rows(on, DType::f16, 1300, 33, 5, 0, random);
    check_sum_rows(on, DType::q4_0, 2100, 1056, 1, 96, random);
    check_sum_rows(on, DType::q4_0, 1, 32, 33, 0, random);
  });
}

TEST_CASE("attention on CUDA serves rows of several slots and positions", "[cuda]") {
  on_each_backend([](Backend& on) {
    std::mt19937_64 random(25);
    const std::vector<TokenRow> first = {{0, 0, 0}, {0, 1, 0}, {0, 2, 0}, {0, 0, 2}};
    check_attention(on, {4, 2, 16, 8, 3, random}, first, random);
    check_attention(on, {3, 3, 6, 3, 3, random}, first, random);
    // Over the border of a chunk of 128 positions, and several chunks.
    const std::vector<TokenRow> later = {
        {0, 126, 0}, {0, 127, 0}, {0, 128, 0}, {0, 3, 1}, {0, 290, 2}};
    check_attention(on, {8, 1, 32, 300, 3, random}, later, random);
    check_attention(on, {10, 2, 10, 300, 3, random}, later, random);
  });
}

TEST_CASE("attention on CUDA takes wide heads", "[cuda]") {
  on_each_backend([](Backend& on) {
    std::mt19937_64 random(26);
    check_attention(on, {9, 1, 128, 40, 1, random}, {{0, 33, 0}, {0, 34, 0}}, random);
    check_attention(on, {2, 1, 300, 40, 1, random}, {{0, 0, 0}, {0, 1, 0}}, random);
    REQUIRE(on.refusal_of_attention(128, 8).empty());
    REQUIRE_FALSE(on.refusal_of_attention(127, 8).empty());
    REQUIRE_FALSE(on.refusal_of_attention(2048, 8).empty());
  });
}

TEST_CASE("embed, rms_norm and add on CUDA", "[cuda]") {
  on_each_backend([](Backend& on) {
    std::mt19937_64 random(27);
    for (const DType dtype : kAllTypes)
      for (const int cols : {256, 1024, 37}) {
        if (!fits(dtype, cols)) continue;
        INFO(facts(dtype).name << " " << cols);
        const Matrix table = random_matrix(dtype, 5, cols, random);
        const PlacedMatrix placed(on, table, 0);
        const std::vector<TokenRow> rows = {{12, 0, 0}, {10, 0, 1}, {9, 0, 2}, {15, 0, 3}};
        const Placed<float> x = unset(on, rows.size() * cols);
        on.begin(rows);
        on.embed(placed.view, 10, x.data());
        const auto values = x.fetch();
        for (int c = 0; c < cols; ++c) {
          REQUIRE(values[c] == static_cast<float>(table.at(2, c)));
          REQUIRE(values[cols + c] == static_cast<float>(table.at(0, c)));
          REQUIRE((values[2 * cols + c] == 0 && values[3 * cols + c] == 0));
        }
      }
    for (const int dim : {1, 37, 1000}) {
      const auto x = random_floats(3 * dim, random), weight = random_floats(dim, random);
      const Placed<float> inputs(on, x), weights(on, weight), y = unset(on, x.size());
      on.rms_norm(inputs.data(), weights.data(), dim, 1e-5f, 3, y.data());
      const auto values = y.fetch();
      for (int t = 0; t < 3; ++t) {
        double sum = 0;
        for (int i = 0; i < dim; ++i) sum += std::pow(x[t * dim + i], 2.0);
        for (int i = t * dim; i < (t + 1) * dim; ++i) {
          const double expected = x[i] / std::sqrt(sum / dim + 1e-5f) * weight[i - t * dim];
          REQUIRE(std::fabs(values[i] - expected) <= 3 * kRounding * std::fabs(expected));
        }
      }
      on.add(inputs.data(), y.data(), x.size());
      const auto sums = inputs.fetch();
      for (size_t i = 0; i < x.size(); ++i) REQUIRE(sums[i] == x[i] + values[i]);
    }
  });
}

TEST_CASE("what a CUDA backend queued for a key is replayed with new rows and inputs", "[cuda]") {
  on_each_backend([](Backend& on) {
    std::mt19937_64 random(28);
    const Matrix table = random_matrix(DType::q8_0, 9, 64, random);
    const PlacedMatrix placed(on, table, 0);
    const Placed<float> x = unset(on, 2 * 64), y = unset(on, 2 * 9);
    const Product product[] = {{placed.view, y.data()}};
    int queued = 0;
    for (int pass = 0; pass < 5; ++pass) {
      const std::vector<TokenRow> rows = {{pass, 0, 0}, {8 - pass, 0, 1}};
      on.begin(rows);
      on.run_queued(7, [&] {
        ++queued;
        on.embed(placed.view, 0, x.data());
        on.multiply(product, x.data(), 2);
      });
      const auto values = y.fetch();
      for (int t = 0; t < 2; ++t)
        for (int r = 0; r < 9; ++r) {
          std::vector<float> row;
          for (int c = 0; c < 64; ++c)
            row.push_back(static_cast<float>(table.at(rows[static_cast<size_t>(t)].token, c)));
          const Sum sum = dot(table, r, row.data());
          REQUIRE(std::fabs(values[t * 9 + r] - sum.value) <= dot_tolerance(sum, 64));
        }
    }
    REQUIRE(queued == 2);  // run once, captured once
    on.begin(token_rows(1));
    REQUIRE_THROWS_AS(on.run_queued(8, [] { throw work_failed("queue"); }), Error);
    REQUIRE_THROWS_AS(on.run_queued(8, [] { throw work_failed("queue"); }), Error);
    on.run_queued(8, [&] { on.add(y.data(), y.data(), 1); });
    const auto before = y.fetch();
    on.run_queued(8, [&] { on.add(y.data(), y.data(), 1); });
    REQUIRE(y.fetch()[0] == 2 * before[0]);
  });
}

TEST_CASE("a CUDA backend's memory", "[cuda]") {
  on_each_backend([](Backend& on) {
    REQUIRE_FALSE(on.uses_host_memory());
    REQUIRE_FALSE(on.describe().empty());
    const auto zeros = on.allocate(1000);
    REQUIRE(reinterpret_cast<uintptr_t>(zeros.get()) % 64 == 0);
    std::vector<char> bytes(1000, 1);
    on.download(bytes.data(), zeros.get(), bytes.size());
    REQUIRE(bytes == std::vector<char>(1000, 0));

    std::vector<uint32_t> large(3'000'000);  // more than what is staged at once
    for (size_t i = 0; i < large.size(); ++i) large[i] = static_cast<uint32_t>(i * 2654435761u);
    const Placed<uint32_t> placed(on, large);
    REQUIRE(placed.fetch() == large);

    REQUIRE(on.free_bytes() > 0);
    REQUIRE_THROWS_WITH(on.allocate(uint64_t{1} << 50),
                        Catch::Contains("allocate 1125899906842624 bytes, of "));
    REQUIRE(on.refusal_of_matrix(DType::q4_k, 512).empty());
    REQUIRE_THAT(on.refusal_of_matrix(DType::q4_k, 32), Catch::Contains("q4_k needs rows"));
  });
}

TEST_CASE("several threads place rows of a matrix on CUDA", "[cuda]") {
  on_each_backend([](Backend& on) {
    std::mt19937_64 random(29);
    const Matrix w = random_matrix(DType::q4_0, 64, 64, random);
    const uint64_t stride = bytes_of(DType::q4_0, 64) + 6;
    const auto memory = on.allocate(stride * 64);
    const WeightView view{DType::q4_0, 64, 64, stride, memory.get()};
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i)
      threads.emplace_back([&, i] { on.place_rows(view, 16 * i, 16 * i + 16, w.row(16 * i)); });
    for (std::thread& thread : threads) thread.join();
    const Placed<float> x(on, std::vector<float>(64, 1)), y = unset(on, 64);
    const Product product[] = {{view, y.data()}};
    on.multiply(product, x.data(), 1);
    const std::vector<float> ones(64, 1), values = y.fetch();
    for (int r = 0; r < 64; ++r) {
      const Sum sum = dot(w, r, ones.data());
      REQUIRE(std::fabs(values[static_cast<size_t>(r)] - sum.value) <= dot_tolerance(sum, 64));
    }
    std::vector<int> parts(10, 0);
    on.run_on_host(10, [&](int begin, int end) {
      for (int i = begin; i < end; ++i) ++parts[static_cast<size_t>(i)];
    });
    REQUIRE(parts == std::vector<int>(10, 1));
  });
}

TEST_CASE("a machine without a usable GPU says why", "[gpu]") {
  const BackendEntry* cuda = backends().by_name_or_null("cuda");
  if (cuda == nullptr) {
    WARN("skipped: built without CUDA");
  } else if (const std::string reason = cuda->unusable(); !reason.empty()) {
    WARN("skipped: no GPU can be used: " << reason);
  } else {
    REQUIRE_FALSE(cuda->make({})->describe().empty());
  }
}
