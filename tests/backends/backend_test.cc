// Every operation of every backend that can be used here, and of CUDA's emulated on the host, by
// the same tests, against double precision.
#include "runtime/backend.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

#include "tests/backends/all_backends.h"
#include "tests/kernels/reference.h"

using namespace thermocline;
using namespace thermocline::test;

namespace {

constexpr float kUntouched = -12345;

// Rows with room for `extra` bytes behind each, as in a bundle.
struct PlacedMatrix {
  std::shared_ptr<std::byte> memory;
  WeightView view;

  PlacedMatrix(Backend& backend, const Matrix& w, uint64_t extra) {
    const uint64_t stride = bytes_of(w.dtype, w.cols) + extra;
    memory = backend.allocate(w.rows * stride);
    view = {w.dtype, w.rows, w.cols, stride, memory.get()};
    const int half = w.rows / 2;
    backend.place_rows(view, half, w.rows, w.row(half));
    backend.place_rows(view, 0, half, w.bytes.data());
  }
};

// Numbers of tokens: all of them, or the smallest and the largest.
std::vector<int> counts(std::vector<int> all) {
  if (kFewProblems) all = {all.front(), all.back()};
  return all;
}

std::vector<TokenRow> tokens(int count) {
  std::vector<TokenRow> rows;
  for (int t = 0; t < count; ++t) rows.push_back({t, static_cast<uint32_t>(t), 0});
  return rows;
}

// A dot product in f32, summed in any order of at least 16 lanes, of inputs that may have been
// rounded to 1 / 65278 of the largest of their block of 32.
double dot_tolerance(const Matrix& w, int r, const float* x) {
  double moved = 0, sizes = 0;
  for (int begin = 0; begin < w.cols; begin += 32) {
    float largest = 0;
    const int end = std::min(begin + 32, w.cols);
    for (int c = begin; c < end; ++c) largest = std::max(largest, std::fabs(x[c]));
    for (int c = begin; c < end; ++c) {
      moved += std::fabs(w.at(r, c)) * largest / 65278;
      sizes += (w.dtype < DType::q8_0 ? std::fabs(w.at(r, c)) : largest_value(w, r, c)) * largest;
    }
  }
  return (facts(w.dtype).items_per_block > 1 ? moved : 0) + (w.cols / 16 + 16) * 0x1p-24 * sizes;
}

int cols_of(DType dtype) { return facts(dtype).items_per_block == 256 ? 512 : 320; }

double activated(FfnActivation activation, float threshold, double gate) {
  if (activation == FfnActivation::silu) return gate / (1 + std::exp(-gate));
  return gate >= threshold && gate > 0 ? gate : 0;
}

template <class Test>
void on_every_backend(Test test) {
  for (const NamedBackend& named : all_backends()) {
    INFO(named.name << ": " << named.backend->describe());
    test(*named.backend);
  }
}

}  // namespace

TEST_CASE("products of one x with several matrices", "[backend][long]") {
  on_every_backend([](Backend& backend) {
    std::mt19937_64 random(31);
    for (const DType dtype : kAllTypes)
      for (const int count : {1, 3, 9, 33}) {
        INFO(facts(dtype).name << ", " << count << " tokens");
        const int cols = cols_of(dtype);
        const Matrix first = random_matrix(dtype, 37, cols, random);
        const Matrix second = random_matrix(DType::f32, 5, cols, random);
        const PlacedMatrix a(backend, first, 34), b(backend, second, 0);
        const auto x = random_floats(static_cast<size_t>(count) * cols, random);
        const Placed<float> inputs(backend, x);
        const Placed<float> y(backend, std::vector<float>(count * 37, kUntouched));
        const Placed<float> z(backend, std::vector<float>(count * 5, kUntouched));
        const Product products[] = {{a.view, y.data()}, {b.view, z.data()}};
        backend.begin(tokens(count));
        backend.multiply(products, inputs.data(), count);
        const auto found = y.fetch(), others = z.fetch();
        bool close = true;
        for (int t = 0; t < count; ++t) {
          const float* row = x.data() + static_cast<size_t>(t) * cols;
          for (int r = 0; r < 37; ++r)
            close &= std::fabs(found[t * 37 + r] - dot(first, r, row).value) <=
                     dot_tolerance(first, r, row);
          for (int r = 0; r < 5; ++r)
            close &= std::fabs(others[t * 5 + r] - dot(second, r, row).value) <=
                     dot_tolerance(second, r, row);
        }
        REQUIRE(close);
        // A row alone has the same bits.
        backend.begin(tokens(1));
        const float* last = inputs.data() + static_cast<size_t>(count - 1) * cols;
        backend.multiply(products, last, 1);
        const auto alone = y.fetch();
        for (int r = 0; r < 37; ++r) REQUIRE(alone[r] == found[(count - 1) * 37 + r]);
      }
  });
}

TEST_CASE("gate, activation and up of the neurons that are wanted", "[backend][long]") {
  on_every_backend([](Backend& backend) {
    std::mt19937_64 random(32);
    for (const DType dtype : {DType::f32, DType::bf16, DType::q8_0, DType::q4_0, DType::q6_k})
      for (const FfnActivation activation :
           {FfnActivation::relu, FfnActivation::fatrelu, FfnActivation::silu})
        for (const int count : counts({1, 2, 7, 18}))
          for (const bool chosen : {false, true}) {
            INFO(facts(dtype).name << ", " << count << " tokens, activation "
                                   << static_cast<int>(activation) << (chosen ? ", chosen" : ""));
            const int cols = cols_of(dtype), neurons = 131, words = neurons / 64 + 1;
            const float threshold = activation == FfnActivation::relu ? 0.0f : 0.3f;
            const Matrix gate = random_matrix(dtype, neurons, cols, random);
            const Matrix up = random_matrix(dtype, neurons, cols, random);
            const PlacedMatrix g(backend, gate, 8), u(backend, up, 8);
            const auto x = random_floats(static_cast<size_t>(count) * cols, random);
            const auto mask = random_mask(count, words, 0.4, random);
            const Placed<float> inputs(backend, x),
                hidden(backend, std::vector<float>(count * neurons, kUntouched));
            const Placed<float> magnitudes(backend,
                                           std::vector<float>(count * neurons, kUntouched));
            const Placed<uint64_t> candidates(backend, mask);
            const Placed<uint64_t> active(backend,
                                          std::vector<uint64_t>(count * words, ~uint64_t{0}));
            backend.begin(tokens(count));
            backend.gate_and_up({g.view, u.view, activation, threshold,
                                 chosen
                                     ? NeuronMask{candidates.data(), static_cast<uint64_t>(words)}
                                     : NeuronMask{},
                                 inputs.data(), hidden.data(), active.data(),
                                 static_cast<uint64_t>(words), magnitudes.data()});
            const auto bits = active.fetch();
            const auto values = hidden.fetch(), sizes = magnitudes.fetch();
            bool right = true;
            for (int t = 0; t < count; ++t) {
              const float* row = x.data() + static_cast<size_t>(t) * cols;
              const uint64_t* of_row = bits.data() + t * words;
              right &= of_row[words - 1] >> (neurons % 64) == 0;
              for (int r = 0; r < neurons; ++r) {
                const double sum = dot(gate, r, row).value, near = dot_tolerance(gate, r, row);
                const double value = activated(activation, threshold, sum);
                const bool wanted = !chosen || bit_of(mask.data() + t * words, r);
                const bool is_active = bit_of(of_row, r);
                const double border = activation == FfnActivation::silu ? std::fabs(value) : sum;
                if (!wanted) {
                  right &= !is_active;
                  continue;
                }
                // Near the threshold either answer is right.
                if (std::fabs(border - threshold) > 2 * near + 1e-6)
                  right &= is_active == (border > threshold);
                const double expected = is_active || activation == FfnActivation::silu ? value : 0;
                if (std::fabs(border - threshold) > 2 * near + 1e-6)
                  right &= std::fabs(sizes[t * neurons + r] - std::fabs(expected)) <=
                           2 * near + 4 * 0x1p-23 * std::fabs(sum);
                if (!is_active && activation != FfnActivation::silu) continue;
                const double product = dot(up, r, row).value, near_up = dot_tolerance(up, r, row);
                const double kept = activation == FfnActivation::silu ? value : sum;
                right &= std::fabs(values[t * neurons + r] - kept * product) <=
                         2 * near * std::fabs(product) + near_up * (std::fabs(kept) + near) +
                             4 * 0x1p-23 * (std::fabs(kept * product) + std::fabs(product));
              }
            }
            REQUIRE(right);
          }
  });
}

TEST_CASE("the weighted sum of active rows", "[backend][long]") {
  on_every_backend([](Backend& backend) {
    std::mt19937_64 random(33);
    for (const DType dtype : kAllTypes)
      for (const int count : counts({1, 2, 9, 33}))
        for (const bool masked : {true, false}) {
          INFO(facts(dtype).name << ", " << count << " tokens" << (masked ? ", masked" : ""));
          const int cols = cols_of(dtype), rows = 150, words = rows / 64 + 1;
          const Matrix w = random_matrix(dtype, rows, cols, random);
          const PlacedMatrix placed(backend, w, 18);
          const auto a = random_floats(static_cast<size_t>(count) * rows, random);
          const auto mask = random_mask(count, words, 0.3, random);
          const Placed<float> factors(backend, a),
              y(backend, std::vector<float>(count * cols, kUntouched));
          const Placed<uint64_t> bits(backend, mask);
          backend.begin(tokens(count));
          backend.sum_rows(
              placed.view,
              masked ? NeuronMask{bits.data(), static_cast<uint64_t>(words)} : NeuronMask{},
              factors.data(), y.data());
          const auto found = y.fetch();
          bool close = true;
          for (int t = 0; t < count; ++t)
            for (int c = 0; c < cols; ++c) {
              Sum sum;
              MovedFactors moved;
              for (int r = 0; r < rows; ++r) {
                if (masked && !bit_of(mask.data() + t * words, r)) continue;
                const bool fixed = dtype >= DType::q8_0;
                const double size = (fixed ? largest_value(w, r, c) : std::fabs(w.at(r, c))) *
                                    std::fabs(a[t * rows + r]);
                sum.value += w.at(r, c) * a[t * rows + r];
                sum.size += size;
                if (fixed) moved.add(size);
              }
              close &= std::fabs(found[t * cols + c] - sum.value) <=
                       (2 * rows + 3) * 0x1p-24 * sum.size + moved.total();
            }
          REQUIRE(close);
        }
  });
}

TEST_CASE("normalisation, embedding and addition", "[backend]") {
  on_every_backend([](Backend& backend) {
    std::mt19937_64 random(34);
    for (const int count : {1, 5, 33})
      for (const int dim : {32, 64, 320, 8192}) {
        INFO(count << " tokens of " << dim);
        const auto x = random_floats(static_cast<size_t>(count) * dim, random);
        const auto weight = random_floats(dim, random);
        const Placed<float> in(backend, x), factors(backend, weight), out(backend, x),
            sum(backend, x);
        backend.begin(tokens(count));
        backend.rms_norm(in.data(), factors.data(), dim, 1e-5f, count, out.data());
        backend.add(sum.data(), out.data(), x.size());
        const auto y = out.fetch(), added = sum.fetch();
        for (int t = 0; t < count; ++t) {
          double squares = 0;
          for (int i = 0; i < dim; ++i)
            squares += static_cast<double>(x[t * dim + i]) * x[t * dim + i];
          for (int i = 0; i < dim; ++i) {
            const double expected = x[t * dim + i] * weight[i] / std::sqrt(squares / dim + 1e-5);
            REQUIRE(std::fabs(y[t * dim + i] - expected) <= 16 * 0x1p-24 * std::fabs(expected));
            REQUIRE(added[t * dim + i] == x[t * dim + i] + y[t * dim + i]);
          }
        }
      }
    for (const DType dtype : kAllTypes) {
      INFO(facts(dtype).name);
      const int cols = cols_of(dtype), rows = 20, first_token = 100;
      const Matrix table = random_matrix(dtype, rows, cols, random);
      const PlacedMatrix placed(backend, table, 0);
      const std::vector<TokenRow> wanted = {
          {100, 0, 0}, {119, 1, 0}, {99, 2, 0}, {120, 3, 0}, {0, 4, 0}};
      const Placed<float> x(backend, std::vector<float>(wanted.size() * cols, kUntouched));
      backend.begin(wanted);
      backend.embed(placed.view, first_token, x.data());
      const auto found = x.fetch();
      for (size_t t = 0; t < wanted.size(); ++t)
        for (int c = 0; c < cols; ++c) {
          const int row = wanted[t].token - first_token;
          const double expected = row >= 0 && row < rows ? table.at(row, c) : 0.0;
          REQUIRE(std::fabs(found[t * cols + c] - expected) <= 0x1p-23 * std::fabs(expected));
        }
    }
  });
}

namespace {

struct AttentionProblem {
  int heads = 4, kv_heads = 2, dim = 16, position_max = 70, slots = 3;
  std::vector<double> frequencies;
  std::vector<std::vector<float>> keys, values;  // by slot: (position, kv_head, dim), keys rotated

  AttentionProblem() : keys(slots), values(slots) {
    for (int i = 0; i < dim / 2; ++i) frequencies.push_back(std::pow(10000.0, -2.0 * i / dim));
  }

  void rotate(float* x, int position) const {
    for (int i = 0; i < dim; i += 2) {
      const double angle = position * frequencies[i / 2];
      const double first = x[i], second = x[i + 1];
      x[i] = static_cast<float>(first * std::cos(angle) - second * std::sin(angle));
      x[i + 1] = static_cast<float>(first * std::sin(angle) + second * std::cos(angle));
    }
  }

  // The expected output of one row; its key and value are added to the slot first.
  std::vector<double> expected(const TokenRow& row, const float* q, const float* k,
                               const float* v) {
    const size_t width = static_cast<size_t>(kv_heads) * dim, begin = row.position * width;
    keys[row.slot].resize(begin);
    values[row.slot].resize(begin);
    keys[row.slot].insert(keys[row.slot].end(), k, k + width);
    values[row.slot].insert(values[row.slot].end(), v, v + width);
    for (int h = 0; h < kv_heads; ++h)
      rotate(keys[row.slot].data() + begin + static_cast<size_t>(h) * dim,
             static_cast<int>(row.position));
    std::vector<double> out(static_cast<size_t>(heads) * dim);
    for (int h = 0; h < heads; ++h)
      attend(row, q + h * dim, h / (heads / kv_heads), out.data() + h * dim);
    return out;
  }
  void attend(const TokenRow& row, const float* q, int kv_head, double* out) const {
    std::vector<float> query(q, q + dim);
    rotate(query.data(), static_cast<int>(row.position));
    const auto at = [&](const std::vector<float>& of, uint32_t p, int i) {
      return static_cast<double>(of[(static_cast<size_t>(p) * kv_heads + kv_head) * dim + i]);
    };
    std::vector<double> scores;
    double largest = -INFINITY, total = 0;
    for (uint32_t p = 0; p <= row.position; ++p) {
      double score = 0;
      for (int i = 0; i < dim; ++i) score += query[i] * at(keys[row.slot], p, i);
      scores.push_back(score / std::sqrt(dim));
      largest = std::max(largest, scores.back());
    }
    for (double& score : scores) total += score = std::exp(score - largest);
    for (uint32_t p = 0; p <= row.position; ++p)
      for (int i = 0; i < dim; ++i) out[i] += scores[p] / total * at(values[row.slot], p, i);
  }
};

}  // namespace

TEST_CASE("attention over the cache of several sequences", "[backend]") {
  on_every_backend([](Backend& backend) {
    std::mt19937_64 random(35);
    AttentionProblem problem;
    const int dim = problem.dim, kv_width = problem.kv_heads * dim, width = problem.heads * dim;
    const size_t head_floats = static_cast<size_t>(problem.position_max) * dim;
    const Placed<float> cache(
        backend, std::vector<float>(problem.slots * problem.kv_heads * 2 * head_floats, 0.0f));
    const KvView view{cache.data(), cache.data() + head_floats, problem.kv_heads * 2 * head_floats,
                      2 * head_floats, problem.position_max};
    const Placed<double> frequencies(backend, problem.frequencies);
    // A long prefill, one beside it, then one token of each; the second slot starts over.
    std::vector<std::vector<TokenRow>> forwards(4);
    for (uint32_t p = 0; p < 40; ++p) forwards[0].push_back({0, p, 0});
    for (uint32_t p = 0; p < 3; ++p) forwards[0].push_back({0, p, 2});
    for (uint32_t p = 0; p < 29; ++p) forwards[1].push_back({0, 40 + p, 0});
    forwards[2] = {{0, 69, 0}, {0, 0, 1}, {0, 3, 2}};
    forwards[3] = {{0, 0, 0}, {0, 1, 1}};
    for (const auto& rows : forwards) {
      const auto count = rows.size();
      const auto q = random_floats(count * width, random),
                 k = random_floats(count * kv_width, random),
                 v = random_floats(count * kv_width, random);
      const Placed<float> qs(backend, q), ks(backend, k), vs(backend, v), out(backend, q);
      backend.begin(rows);
      backend.attend({qs.data(), ks.data(), vs.data(), view, problem.heads, problem.kv_heads, dim,
                      frequencies.data(), out.data()});
      const auto found = out.fetch();
      for (size_t t = 0; t < count; ++t) {
        const auto expected = problem.expected(rows[t], q.data() + t * width,
                                               k.data() + t * kv_width, v.data() + t * kv_width);
        for (int i = 0; i < width; ++i)
          REQUIRE(std::fabs(found[t * width + i] - expected[i]) <= 2e-5);
      }
    }
  });
}

TEST_CASE("what is queued under a key is run each time it is asked for", "[backend]") {
  on_every_backend([](Backend& backend) {
    const Placed<float> x(backend, std::vector<float>(8, 0.0f)),
        y(backend, std::vector<float>(8, 1.5f));
    for (int i = 0; i < 3; ++i) {
      backend.begin(tokens(1));
      backend.run_queued(7, [&] { backend.add(x.data(), y.data(), 8); });
    }
    backend.wait();
    REQUIRE(x.fetch() == std::vector<float>(8, 4.5f));
  });
}

TEST_CASE("a matrix whose rows are no whole blocks is refused, and attention of odd heads",
          "[backend]") {
  on_every_backend([](Backend& backend) {
    REQUIRE(backend.refusal_of_matrix(DType::q4_0, 64).empty());
    REQUIRE(backend.refusal_of_matrix(DType::q4_k, 512).empty());
    REQUIRE(!backend.refusal_of_matrix(DType::q4_0, 40).empty());
    REQUIRE(!backend.refusal_of_matrix(DType::q6_k, 128).empty());
    REQUIRE(backend.refusal_of_attention(128, 8).empty());
    REQUIRE(!backend.refusal_of_attention(7, 1).empty());
  });
}

TEST_CASE("backends are found by name, or it is said why not", "[backend]") {
  REQUIRE(backends().by_name("cpu").unusable().empty());
  REQUIRE(choose_backend("cpu").name == "cpu");
  REQUIRE(choose_backend("auto").unusable().empty());
  REQUIRE_THROWS_AS(choose_backend("abacus"), Error);
  for (const BackendEntry* entry : backends().entries()) {
    if (entry->unusable().empty()) continue;
    REQUIRE_THROWS_AS(choose_backend(entry->name), Error);
  }
}
