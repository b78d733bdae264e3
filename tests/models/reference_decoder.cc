#include "tests/models/reference_decoder.h"

#include <algorithm>
#include <cmath>

#include "models/quantize.h"

namespace thermocline::test {
namespace {

std::vector<float> read_row(const WeightSource& weights, Matrix matrix, uint32_t layer,
                            uint64_t row, uint64_t cols) {
  const DType dtype = weights.dtype(matrix, layer);
  std::vector<std::byte> bytes(bytes_of(dtype, cols));
  weights.read(matrix, layer, {row, row + 1, 0, cols}, bytes.data());
  std::vector<float> values(cols);
  dequantize(dtype, bytes.data(), cols, values.data());
  return values;
}

double apply(const ModelShape& shape, double gate) {
  if (shape.activation == FfnActivation::relu) return std::max(gate, 0.0);
  if (shape.activation == FfnActivation::fatrelu) {
    return gate >= shape.fatrelu_threshold ? gate : 0.0;
  }
  return gate / (1 + std::exp(-gate));
}

void add(TokenColumns& to, const TokenColumns& from) {
  for (size_t i = 0; i < to.values.size(); ++i) to.values[i] += from.values[i];
}

}  // namespace

TokenColumns multiply(const WeightSource& weights, Matrix matrix, uint32_t layer,
                      const TokenColumns& x, uint64_t row_step) {
  const uint64_t rows = size_of(matrix, weights.shape()).rows;
  TokenColumns y((rows + row_step - 1) / row_step, x.tokens);
  for (uint64_t r = 0; r < y.rows; ++r) {
    const std::vector<float> w = read_row(weights, matrix, layer, r * row_step, x.rows);
    float* out = y.row(r);
    for (uint64_t c = 0; c < x.rows; ++c) {
      const float* in = x.row(c);
      for (uint64_t t = 0; t < x.tokens; ++t) out[t] += w[c] * in[t];
    }
  }
  return y;
}

TokenColumns ReferenceDecoder::embed(const std::vector<uint32_t>& tokens) const {
  TokenColumns stream(weights_.shape().model_dim, tokens.size());
  for (size_t t = 0; t < tokens.size(); ++t) {
    const auto row = read_row(weights_, Matrix::token_embedding, 0, tokens[t], stream.rows);
    for (uint64_t c = 0; c < stream.rows; ++c) stream.row(c)[t] = row[c];
  }
  return stream;
}

TokenColumns ReferenceDecoder::normalised(NormVector vector, uint32_t layer,
                                          const TokenColumns& x) const {
  std::vector<float> weight(x.rows);
  weights_.read(vector, layer, weight.data());
  TokenColumns y(x.rows, x.tokens);
  for (uint64_t t = 0; t < x.tokens; ++t) {
    double squares = 0;
    for (uint64_t c = 0; c < x.rows; ++c) squares += double{x.row(c)[t]} * x.row(c)[t];
    const double scale = 1 / std::sqrt(squares / x.rows + weights_.shape().norm_epsilon);
    for (uint64_t c = 0; c < x.rows; ++c) {
      y.row(c)[t] = static_cast<float>(x.row(c)[t] * scale * weight[c]);
    }
  }
  return y;
}

void ReferenceDecoder::rotate(TokenColumns& x, uint32_t head_count) const {
  const ModelShape& shape = weights_.shape();
  for (uint32_t head = 0; head < head_count; ++head) {
    for (uint32_t i = 0; i < shape.head_dim; i += 2) {
      const double frequency = std::pow(double{shape.rope_theta}, -double(i) / shape.head_dim);
      float* even = x.row(uint64_t{head} * shape.head_dim + i);
      float* odd = even + x.tokens;
      for (uint64_t t = 0; t < x.tokens; ++t) {
        const double cosine = std::cos(t * frequency), sine = std::sin(t * frequency);
        const double a = even[t], b = odd[t];
        even[t] = static_cast<float>(a * cosine - b * sine);
        odd[t] = static_cast<float>(a * sine + b * cosine);
      }
    }
  }
}

TokenColumns ReferenceDecoder::attend(const TokenColumns& q, const TokenColumns& k,
                                      const TokenColumns& v) const {
  const ModelShape& shape = weights_.shape();
  const uint32_t group = shape.head_count / shape.kv_head_count;
  TokenColumns out(q.rows, q.tokens);
  for (uint32_t head = 0; head < shape.head_count; ++head) {
    const uint64_t q_row = uint64_t{head} * shape.head_dim;
    const uint64_t kv_row = uint64_t{head / group} * shape.head_dim;
    for (uint64_t t = 0; t < q.tokens; ++t) {
      std::vector<float> scores(t + 1);
      for (uint32_t i = 0; i < shape.head_dim; ++i) {
        const float query = q.row(q_row + i)[t];
        for (uint64_t s = 0; s <= t; ++s) scores[s] += query * k.row(kv_row + i)[s];
      }
      const float largest = *std::max_element(scores.begin(), scores.end());
      double sum = 0;
      for (float& score : scores) {
        score = std::exp((score - largest) / std::sqrt(static_cast<float>(shape.head_dim)));
        sum += score;
      }
      for (uint32_t i = 0; i < shape.head_dim; ++i) {
        double value = 0;
        for (uint64_t s = 0; s <= t; ++s) value += scores[s] * v.row(kv_row + i)[s];
        out.row(q_row + i)[t] = static_cast<float>(value / sum);
      }
    }
  }
  return out;
}

void ReferenceDecoder::add_attention(uint32_t layer, TokenColumns& stream) const {
  const ModelShape& shape = weights_.shape();
  const TokenColumns x = normalised(NormVector::attention_norm, layer, stream);
  TokenColumns q = multiply(weights_, Matrix::q, layer, x);
  TokenColumns k = multiply(weights_, Matrix::k, layer, x);
  const TokenColumns v = multiply(weights_, Matrix::v, layer, x);
  rotate(q, shape.head_count);
  rotate(k, shape.kv_head_count);
  add(stream, multiply(weights_, Matrix::o, layer, attend(q, k, v)));
}

TokenColumns ReferenceDecoder::ffn_input(uint32_t layer, const TokenColumns& stream) const {
  return normalised(NormVector::ffn_norm, layer, stream);
}

void ReferenceDecoder::add_ffn(uint32_t layer, TokenColumns& stream, const OnGate& on_gate) const {
  const ModelShape& shape = weights_.shape();
  const TokenColumns x = ffn_input(layer, stream);
  const TokenColumns gate = multiply(weights_, Matrix::gate, layer, x);
  const TokenColumns up = multiply(weights_, Matrix::up, layer, x);
  on_gate(layer, gate);
  for (uint64_t n = 0; n < shape.ffn_dim; ++n) {
    const auto down = read_row(weights_, Matrix::down_t, layer, n, shape.model_dim);
    std::vector<float> hidden(stream.tokens);
    for (uint64_t t = 0; t < stream.tokens; ++t) {
      hidden[t] = static_cast<float>(apply(shape, gate.row(n)[t]) * up.row(n)[t]);
    }
    for (uint64_t c = 0; c < shape.model_dim; ++c) {
      float* out = stream.row(c);
      for (uint64_t t = 0; t < stream.tokens; ++t) out[t] += down[c] * hidden[t];
    }
  }
}

TokenColumns ReferenceDecoder::run(const std::vector<uint32_t>& tokens,
                                   const OnGate& on_gate) const {
  TokenColumns stream = embed(tokens);
  for (uint32_t layer = 0; layer < weights_.shape().layer_count; ++layer) {
    add_attention(layer, stream);
    add_ffn(layer, stream, on_gate);
  }
  return stream;
}

TokenColumns ReferenceDecoder::logits(const TokenColumns& stream) const {
  return multiply(weights_, Matrix::head, 0, normalised(NormVector::output_norm, 0, stream));
}

}  // namespace thermocline::test
