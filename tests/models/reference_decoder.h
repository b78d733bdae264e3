// A LLaMA decoder in plain loops, to hold weights to what they promise. Test use only.
//
// Goals: an independent forward pass over a WeightSource, all tokens of a text at once, layer by
//   layer; readable beside the papers. Non-goals: speed beyond what tests need, generation.
// Thread-safety: none.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "models/weights.h"

namespace thermocline::test {

// Values of all tokens, one row per coordinate: at(row, token).
struct TokenColumns {
  uint64_t rows, tokens;
  std::vector<float> values;

  TokenColumns(uint64_t row_count, uint64_t token_count)
      : rows(row_count), tokens(token_count), values(row_count * token_count) {}
  float* row(uint64_t r) { return values.data() + r * tokens; }
  const float* row(uint64_t r) const { return values.data() + r * tokens; }
};

// Rows [0, rows) with stride `row_step` of the matrix, times x.
TokenColumns multiply(const WeightSource& weights, Matrix matrix, uint32_t layer,
                      const TokenColumns& x, uint64_t row_step = 1);

class ReferenceDecoder {
 public:
  explicit ReferenceDecoder(const WeightSource& weights) : weights_(weights) {}

  // Called with W_gate x of each layer: (ffn_dim, tokens).
  using OnGate = std::function<void(uint32_t layer, const TokenColumns& gate)>;

  TokenColumns embed(const std::vector<uint32_t>& tokens) const;
  void add_attention(uint32_t layer, TokenColumns& stream) const;
  TokenColumns ffn_input(uint32_t layer, const TokenColumns& stream) const;
  void add_ffn(uint32_t layer, TokenColumns& stream, const OnGate& on_gate) const;
  TokenColumns logits(const TokenColumns& stream) const;  // (vocab_size, tokens)

  // The stream after all layers.
  TokenColumns run(const std::vector<uint32_t>& tokens, const OnGate& on_gate) const;

 private:
  TokenColumns normalised(NormVector vector, uint32_t layer, const TokenColumns& x) const;
  void rotate(TokenColumns& x, uint32_t head_count) const;
  TokenColumns attend(const TokenColumns& q, const TokenColumns& k, const TokenColumns& v) const;

  const WeightSource& weights_;
};

}  // namespace thermocline::test
