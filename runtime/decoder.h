// Decoder: one rank's part of a LLaMA forward pass (Touvron et al. 2023), readable as the paper.
//
// x += W_o attention(rope(W_q n), rope(W_k n), W_v n),  n = rms_norm(x)
// x += W_down (act(W_gate n) * (W_up n)),               n = rms_norm(x)
// Ranks of a stage hold heads, neurons and vocabulary rows; each sublayer ends in one sum over
// them, in rank order. Stages pass the residual on.
// Goals: weights executed in their own type; the FFN computed for active neurons only; the bits of
//   a layout never depend on threads or chunks.
// Non-goals: sampling, timing policy, files (engine.h).
// Thread-safety: one rank, one thread (it has a pool of its own).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "models/shape.h"
#include "runtime/activation_rule.h"
#include "runtime/comm.h"
#include "runtime/kernels/kernels.h"
#include "runtime/kv_cache.h"
#include "runtime/partition.h"
#include "runtime/rank_weights.h"
#include "runtime/thread_pool.h"

namespace thermocline {

uint64_t now_ns();  // steady clock

// Where a rank's time goes, in ns; grows until the caller resets it.
struct DecoderTimes {
  uint64_t comm_ns = 0;       // in transfers and sums
  uint64_t wait_ns = 0;       // for other ranks to arrive
  uint64_t attention_ns = 0;  // in the attention sublayers, communication included
  uint64_t ffn_ns = 0;        // in the FFN sublayers, communication included
};

struct DecoderOptions {
  uint32_t chunk_max = 32;    // tokens of one forward
  uint32_t position_max = 0;  // of the KV cache
};

class Decoder {
 public:
  // `world` and `pool` outlive the decoder. Collective: splits `world` into stages.
  Decoder(Comm& world, const ModelShape& shape, const Partition& partition, RankWeights weights,
          ActivationRule rule, ThreadPool& pool, const DecoderOptions& options);

  // Runs `tokens` at positions [position, position + size) through this rank's layers.
  // words: (tokens.size(), words_per_step) of the rank's pool, the active neurons.
  void forward(std::span<const int32_t> tokens, uint32_t position, std::span<uint64_t> words);

  // On the last stage: logits of this rank's vocabulary rows for rows [first, first + count) of the
  // last forward. out: (count, vocab rows of the rank).
  void logits(uint32_t first, uint32_t count, float* out);

  const NeuronPool& neuron_pool() const { return neuron_pool_; }
  const RankWeights& weights() const { return weights_; }
  const ActivationRule& rule() const { return rule_; }
  void set_rule(ActivationRule rule) { rule_ = std::move(rule); }
  // Counts |act(gate)| of every neuron of the next forwards; null: no longer.
  void observe_magnitudes(MagnitudeHistogram* histogram) { magnitudes_ = histogram; }

  DecoderTimes& times() { return times_; }
  // A collective of the caller's: waits for all ranks of `comm`, then runs `transfer`; both timed.
  void timed_transfer(Comm& comm, const std::function<void()>& transfer);

 private:
  void embed(std::span<const int32_t> tokens);
  void attention(uint32_t layer, int token_count, uint32_t position);
  void attend_heads(uint32_t layer, int token_count, uint32_t position, int head_begin,
                    int head_end);
  void ffn(uint32_t layer, int token_count, std::span<uint64_t> words);
  void gate_and_up(const LayerWeights& weights, uint32_t layer, int token_count,
                   std::span<uint64_t> words, int begin, int end);
  void normalize(const std::vector<float>& weight, int token_count);
  // x += the sum of partial_ over the stage's ranks.
  void add_reduced(int token_count);
  void reduce(float* values, int token_count);
  void receive_residual(int token_count);
  void send_residual(int token_count);

  Comm& world_;
  std::unique_ptr<Comm> stage_;  // the ranks that hold the same layers
  ModelShape shape_;
  std::vector<double> rope_frequencies_;  // (head_dim / 2)
  Layout layout_;
  RankShare share_;
  bool first_stage_, last_stage_;
  NeuronPool neuron_pool_;
  RankWeights weights_;
  ActivationRule rule_;
  ThreadPool& pool_;
  const Kernels& kernels_;
  KvCache cache_;
  MagnitudeHistogram* magnitudes_ = nullptr;
  DecoderTimes times_;

  int dim_, q_rows_, kv_rows_, neurons_;
  // Scratch, (chunk_max, width) each.
  std::vector<float> x_;       // the residual stream
  std::vector<float> normed_;  // rms_norm(x)
  std::vector<float> q_, k_, v_, heads_out_;
  std::vector<float> gate_, up_;
  std::vector<float> partial_;  // this rank's part of a sublayer's result
  std::vector<float> sum_scratch_;
  std::vector<uint64_t> all_neurons_;  // (words_per_layer) every neuron set
};

}  // namespace thermocline
