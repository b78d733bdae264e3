#include "tests/runtime/double_decoder.h"

#include <algorithm>
#include <cmath>

#include "models/quantize.h"

namespace thermocline::test {
namespace {

using Vector = std::vector<double>;

struct DoubleMatrix {
  uint64_t rows, cols;
  std::vector<float> values;
};

DoubleMatrix load(const WeightSource& source, Matrix matrix, uint32_t layer) {
  const auto [rows, cols] = size_of(matrix, source.shape());
  const DType dtype = source.dtype(matrix, layer);
  std::vector<std::byte> bytes(rows * bytes_of(dtype, cols));
  source.read(matrix, layer, {0, rows, 0, cols}, bytes.data());
  DoubleMatrix loaded{rows, cols, std::vector<float>(rows * cols)};
  dequantize(dtype, bytes.data(), rows * cols, loaded.values.data());
  return loaded;
}

Vector multiply(const DoubleMatrix& w, const Vector& x) {
  Vector y(w.rows);
  for (uint64_t r = 0; r < w.rows; ++r) {
    for (uint64_t c = 0; c < w.cols; ++c) y[r] += double{w.values[r * w.cols + c]} * x[c];
  }
  return y;
}

Vector rms_norm(const WeightSource& source, NormVector vector, uint32_t layer, const Vector& x) {
  std::vector<float> weight(x.size());
  source.read(vector, layer, weight.data());
  double squares = 0;
  for (const double value : x) squares += value * value;
  const double scale =
      1 / std::sqrt(squares / static_cast<double>(x.size()) + source.shape().norm_epsilon);
  Vector y(x.size());
  for (size_t i = 0; i < x.size(); ++i) y[i] = x[i] * scale * double{weight[i]};
  return y;
}

void rotate(Vector& x, uint32_t head_dim, double theta, size_t position) {
  for (size_t i = 0; i < x.size(); i += 2) {
    const double pair = static_cast<double>(i % head_dim);
    const double angle = static_cast<double>(position) * std::pow(theta, -pair / head_dim);
    const double a = x[i], b = x[i + 1];
    x[i] = a * std::cos(angle) - b * std::sin(angle);
    x[i + 1] = a * std::sin(angle) + b * std::cos(angle);
  }
}

double act(const ModelShape& shape, double g) {
  switch (shape.activation) {
    case FfnActivation::relu:
      return std::max(g, 0.0);
    case FfnActivation::fatrelu:
      return g >= double{shape.fatrelu_threshold} ? g : 0.0;
    case FfnActivation::silu:
      return g / (1 + std::exp(-g));
  }
  return 0;
}

void attention(const WeightSource& source, uint32_t layer, std::vector<Vector>& stream) {
  const ModelShape& s = source.shape();
  const auto wq = load(source, Matrix::q, layer), wk = load(source, Matrix::k, layer);
  const auto wv = load(source, Matrix::v, layer), wo = load(source, Matrix::o, layer);
  std::vector<Vector> keys, values;
  for (size_t t = 0; t < stream.size(); ++t) {
    const Vector n = rms_norm(source, NormVector::attention_norm, layer, stream[t]);
    Vector q = multiply(wq, n);
    keys.push_back(multiply(wk, n));
    values.push_back(multiply(wv, n));
    rotate(q, s.head_dim, s.rope_theta, t);
    rotate(keys[t], s.head_dim, s.rope_theta, t);
    Vector out(s.q_dim());
    for (uint32_t head = 0; head < s.head_count; ++head) {
      const uint32_t kv = head / (s.head_count / s.kv_head_count) * s.head_dim;
      const uint32_t at = head * s.head_dim;
      Vector weights(t + 1);
      double total = 0;
      for (size_t p = 0; p <= t; ++p) {
        double score = 0;
        for (uint32_t i = 0; i < s.head_dim; ++i) score += q[at + i] * keys[p][kv + i];
        weights[p] = std::exp(score / std::sqrt(static_cast<double>(s.head_dim)));
        total += weights[p];
      }
      for (size_t p = 0; p <= t; ++p) {
        for (uint32_t i = 0; i < s.head_dim; ++i) {
          out[at + i] += weights[p] / total * values[p][kv + i];
        }
      }
    }
    const Vector projected = multiply(wo, out);
    for (size_t i = 0; i < projected.size(); ++i) stream[t][i] += projected[i];
  }
}

void ffn(const WeightSource& source, uint32_t layer, std::vector<Vector>& stream, DoubleRun& run) {
  const ModelShape& s = source.shape();
  const auto gate = load(source, Matrix::gate, layer), up = load(source, Matrix::up, layer);
  const auto down_t = load(source, Matrix::down_t, layer);
  for (size_t t = 0; t < stream.size(); ++t) {
    const Vector n = rms_norm(source, NormVector::ffn_norm, layer, stream[t]);
    const Vector g = multiply(gate, n), u = multiply(up, n);
    std::copy(g.begin(), g.end(), run.gate.begin() + (t * s.layer_count + layer) * s.ffn_dim);
    for (uint32_t i = 0; i < s.ffn_dim; ++i) {
      const double h = act(s, g[i]) * u[i];
      for (uint32_t c = 0; c < s.model_dim; ++c) {
        stream[t][c] += h * double{down_t.values[uint64_t{i} * s.model_dim + c]};
      }
    }
  }
}

}  // namespace

DoubleRun run_in_double(const WeightSource& source, const std::vector<int32_t>& tokens) {
  const ModelShape& s = source.shape();
  DoubleRun run;
  run.gate.resize(tokens.size() * s.neuron_count());
  const auto embedding = load(source, Matrix::token_embedding, 0);
  std::vector<Vector> stream;
  for (const int32_t token : tokens) {
    const auto row = embedding.values.begin() + int64_t{token} * s.model_dim;
    stream.emplace_back(row, row + s.model_dim);
  }
  for (uint32_t layer = 0; layer < s.layer_count; ++layer) {
    attention(source, layer, stream);
    ffn(source, layer, stream, run);
  }
  const auto head = load(source, Matrix::head, 0);
  for (const Vector& x : stream) {
    const Vector logits = multiply(head, rms_norm(source, NormVector::output_norm, 0, x));
    run.logits.insert(run.logits.end(), logits.begin(), logits.end());
  }
  return run;
}

}  // namespace thermocline::test
