// Decoder: one rank's part of a LLaMA forward pass (Touvron et al. 2023), readable as the paper.
//
// x += W_o attention(rope(W_q n), rope(W_k n), W_v n),  n = rms_norm(x)
// x += W_down (act(W_gate n) * (W_up n)),               n = rms_norm(x)
// Ranks of a stage hold heads, neurons and vocabulary rows; each sublayer ends in one sum over
// them, in rank order. Stages pass the residual on.
// A forward takes rows, one a token: of a prefill chunk, or one of each request that decodes. Only
// attention knows which rows belong together; everything else reads the weights once for all.
// Goals: runs whole on any backend (backend.h); weights executed in their own type; the FFN only
//   for active neurons; the bits of a layout and a backend never depend on threads, on chunks or on
//   the other rows of a forward.
// Non-goals: sampling, timing policy, files (engine.h).
// Thread-safety: one rank, one thread.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "models/shape.h"
#include "runtime/activation_rule.h"
#include "runtime/backend.h"
#include "runtime/clock.h"
#include "runtime/comm.h"
#include "runtime/kv_cache.h"
#include "runtime/partition.h"
#include "runtime/predictor.h"
#include "runtime/rank_weights.h"
#include "runtime/side_by_side.h"
#include "runtime/staged_rows.h"

namespace thermocline {

// Where a rank's time goes, in ns; grows until the caller resets it. Sublayers are timed where the
// backend runs what it is given at once, and elsewhere if DecoderOptions::time_sublayers asks.
struct DecoderTimes {
  uint64_t comm_ns = 0;       // in transfers and sums
  uint64_t wait_ns = 0;       // for other ranks to arrive
  uint64_t transfer_ns = 0;   // for weights to come from another tier
  uint64_t attention_ns = 0;  // in the attention sublayers, communication included
  uint64_t ffn_ns = 0;        // in the FFN sublayers, communication and prediction included
  uint64_t predictor_ns = 0;  // of ffn_ns, in the predictor
  uint64_t audit_ns = 0;      // in exact gates beside the forward: part of no sublayer
};

struct DecoderOptions {
  uint32_t row_max = 32;        // of one forward
  uint32_t position_max = 0;    // of the KV cache
  uint32_t slot_count = 1;      // sequences of the KV cache
  bool time_sublayers = false;  // wait for the backend behind each
  bool check_finite = false;    // Error where the residual stream holds a NaN or an infinity
  bool audit_gate = false;      // beside each FFN, compute the exact gate of its input
};

// A token to feed. In a forward slots ascend, and rows of one slot are consecutive positions.
struct DecoderRow {
  int32_t token;
  uint32_t position;            // within its sequence
  uint32_t slot;                // of the KV cache
  float* magnitudes = nullptr;  // (layer_count, neuron_count) takes |act(gate)|; null: not wanted
};

class Decoder {
 public:
  // `world` and `backend` outlive the decoder. Collective: splits `world` into stages.
  Decoder(Comm& world, const ModelShape& shape, const Partition& partition, RankWeights weights,
          ActivationRule rule, Backend& backend, const DecoderOptions& options);

  // Runs `rows` through this rank's layers.
  // words: (rows.size(), words_per_step) of the rank's pool, the active neurons.
  void forward(std::span<const DecoderRow> rows, std::span<uint64_t> words);

  // On the last stage: logits of this rank's vocabulary rows for rows [first, first + count) of the
  // last forward. out: (count, vocab rows of the rank).
  void logits(uint32_t first, uint32_t count, float* out);

  const NeuronPool& neuron_pool() const { return neuron_pool_; }
  uint32_t slot_count() const { return cache_.slot_count(); }
  const RankWeights& weights() const { return weights_; }
  const ActivationRule& rule() const { return rule_; }
  void set_rule(ActivationRule rule) {
    rule_ = std::move(rule);
    ++rule_number_;
  }
  // Counts |act(gate)| of every neuron of the next forwards; null: no longer.
  void observe_magnitudes(MagnitudeHistogram* histogram) { magnitudes_ = histogram; }

  // Looks only at the neurons that it names, from now on; null: at every neuron.
  void use_predictor(std::unique_ptr<ActivationPredictor> predictor);
  const ActivationPredictor* predictor() const { return predictor_.get(); }
  // Reads ahead what it names of a layer that lies in tiers, before its attention; null: nothing.
  // It sees the residual stream in front of attention, and decides nothing.
  void use_lookahead(std::unique_ptr<ActivationPredictor> lookahead);
  // Of the last forward, as its words: the neurons that were looked at, empty without a predictor;
  // and with audit_gate those that the exact gate makes active, of the same inputs.
  std::span<const uint64_t> candidate_words() const { return candidate_words_; }
  std::span<const uint64_t> exact_words() const { return exact_words_; }

  // Null: the FFN is computed by one backend.
  const SideBySide* side_by_side() const { return side_by_side_.get(); }

  DecoderTimes& times() { return times_; }
  // A collective of the caller's: waits for all ranks of `comm`, then runs `transfer`; both timed.
  void timed_transfer(Comm& comm, const std::function<void()>& transfer);

 private:
  using Rows = std::span<const DecoderRow>;

  void make_tiers();
  void check(Rows rows, std::span<const uint64_t> words) const;
  void run_layers(Rows rows);
  void embed();
  void attention(uint32_t layer);
  void look_ahead(uint32_t layer);
  void ffn(uint32_t layer, Rows rows);
  NeuronMask predict(uint32_t layer);
  void audit_gate(uint32_t layer);
  void fetch_words(std::span<uint64_t> words);
  bool wants_magnitudes(Rows rows) const;
  void pass_magnitudes(uint32_t layer, Rows rows);
  void end_sublayer(const char* what, uint32_t layer);
  void normalize(const float* x, const WeightVector& weight, int count);
  // x += the sum of partial_ over the stage's ranks.
  void add_reduced();
  void reduce(float* values);
  void receive_residual();
  void send_residual();
  // Reads or changes row_count_ rows of a (row, model_dim) buffer on the host.
  void on_host(float* values, const std::function<void(float*)>& work, bool changes);

  Comm& world_;
  std::unique_ptr<Comm> stage_;  // the ranks that hold the same layers
  ModelShape shape_;
  Layout layout_;
  RankShare share_;
  bool first_stage_, last_stage_;
  NeuronPool neuron_pool_;
  RankWeights weights_;
  ActivationRule rule_;
  uint64_t rule_number_ = 0;  // which of those set
  Backend& backend_;
  DecoderOptions options_;
  KvCache cache_;
  MagnitudeHistogram* magnitudes_ = nullptr;
  std::unique_ptr<ActivationPredictor> predictor_, lookahead_;
  DecoderTimes times_;

  int dim_, q_rows_, kv_rows_, neurons_;
  int row_count_ = 0;                 // of the current forward
  std::vector<TokenRow> token_rows_;  // of the current forward
  // In the backend's memory, (row_max, width) f32 each.
  template <class T>
  struct Buffer {
    std::shared_ptr<std::byte> memory;
    T* data() const { return reinterpret_cast<T*>(memory.get()); }
  };
  template <class T>
  Buffer<T> buffer(uint64_t width);
  Buffer<double> rope_frequencies_;  // (head_dim / 2)
  Buffer<float> x_;                  // the residual stream
  Buffer<float> normed_;             // rms_norm(x)
  Buffer<float> q_, k_, v_, heads_out_;
  Buffer<float> hidden_;           // act(gate) * up
  Buffer<float> gate_magnitudes_;  // |act(gate)|; made when they are first wanted
  Buffer<float> partial_;          // this rank's part of a sublayer's result
  Buffer<float> logits_;
  Buffer<uint64_t> words_;       // (row_max, words_per_step) active neurons
  Buffer<uint64_t> candidates_;  // likewise, of a predictor
  Buffer<uint64_t> ahead_;       // (row_max, words_per_layer) what a layer will probably need
  Buffer<float> exact_hidden_;   // of audit_gate: what its gate makes of every neuron
  Buffer<uint64_t> exact_;       // likewise: its active neurons
  std::vector<uint64_t> candidate_words_, exact_words_;
  std::vector<float> staging_, sum_scratch_;
  std::vector<float> sent_;                   // the residual that is on its way to the next stage
  std::vector<uint64_t> likely_;              // (row, words_per_layer) of ahead_, on the host
  std::unique_ptr<StagedRows> staged_;        // where up and down rows lie in a file
  std::unique_ptr<SideBySide> side_by_side_;  // where the FFN lies on device and host
};

}  // namespace thermocline
