#include "runtime/decoder.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "models/error.h"

namespace thermocline {
namespace {

// Where row t of a (token, width) buffer begins.
size_t row_at(int t, int width) { return static_cast<size_t>(t) * static_cast<size_t>(width); }

}  // namespace

template <class T>
Decoder::Buffer<T> Decoder::buffer(uint64_t width) {
  return {backend_.allocate(std::max<uint64_t>(1, width) * options_.row_max * sizeof(T))};
}

Decoder::Decoder(Comm& world, const ModelShape& shape, const Partition& partition,
                 RankWeights weights, ActivationRule rule, Backend& backend,
                 const DecoderOptions& options)
    : world_(world),
      shape_(shape),
      layout_(partition.layout),
      share_(partition.ranks[static_cast<size_t>(world.rank())]),
      first_stage_(partition.first_stage(share_.rank)),
      last_stage_(partition.last_stage(share_.rank)),
      neuron_pool_(share_.pool()),
      weights_(std::move(weights)),
      rule_(std::move(rule)),
      backend_(backend),
      options_(options),
      cache_(backend, options.slot_count, share_.layers.count, share_.kv_heads.count,
             shape.head_dim, options.position_max),
      dim_(static_cast<int>(shape.model_dim)),
      q_rows_(static_cast<int>(share_.kv_heads.count * (shape.q_dim() / shape.kv_head_count))),
      kv_rows_(static_cast<int>(share_.kv_heads.count * shape.head_dim)),
      neurons_(static_cast<int>(share_.neurons.count)) {
  stage_ = world.split(static_cast<int>(share_.stage));
  const std::vector<double> frequencies = rope_frequencies(shape);
  rope_frequencies_ = {backend.allocate(frequencies.size() * sizeof(double))};
  backend.upload(rope_frequencies_.data(), frequencies.data(), frequencies.size() * sizeof(double));
  const auto floats = [&](int width) { return buffer<float>(static_cast<uint64_t>(width)); };
  x_ = floats(dim_);
  normed_ = floats(dim_);
  q_ = floats(q_rows_);
  k_ = floats(kv_rows_);
  v_ = floats(kv_rows_);
  heads_out_ = floats(q_rows_);
  hidden_ = floats(neurons_);
  partial_ = floats(dim_);
  if (last_stage_) logits_ = floats(weights_.head.view.rows);
  words_ = buffer<uint64_t>(neuron_pool_.words_per_step());
  make_tiers();
  if (!options.audit_gate) return;
  exact_hidden_ = floats(neurons_);
  exact_ = buffer<uint64_t>(neuron_pool_.words_per_step());
}

void Decoder::make_tiers() {
  DeviceTier* const device = weights_.device_tier.get();
  if (weights_.tiers != nullptr) {
    Backend& reader = device != nullptr ? device->host() : backend_;
    staged_ = std::make_unique<StagedRows>(reader, *weights_.tiers, neuron_pool_);
  }
  if (device == nullptr) return;
  TC_CHECK(!options_.audit_gate, "an audit of gates wants all of them on one backend");
  side_by_side_ = std::make_unique<SideBySide>(backend_, *device, neuron_pool_, dim_,
                                               static_cast<int>(options_.row_max), staged_.get());
}

void Decoder::use_predictor(std::unique_ptr<ActivationPredictor> predictor) {
  predictor_ = std::move(predictor);
  ++rule_number_;  // what was queued looked at other neurons
  candidates_ = {};
  candidate_words_.clear();
  if (predictor_ != nullptr) candidates_ = buffer<uint64_t>(neuron_pool_.words_per_step());
}

void Decoder::use_lookahead(std::unique_ptr<ActivationPredictor> lookahead) {
  TC_CHECK(lookahead == nullptr || weights_.tiers != nullptr, "nothing lies in tiers");
  lookahead_ = std::move(lookahead);
  ahead_ = {};
  if (lookahead_ != nullptr) ahead_ = buffer<uint64_t>(neuron_pool_.words_per_layer());
}

void Decoder::check(Rows rows, std::span<const uint64_t> words) const {
  for (size_t t = 0; t < rows.size(); ++t) {
    const DecoderRow& row = rows[t];
    TC_CHECK(row.slot < cache_.slot_count(), "a slot of the KV cache");
    TC_CHECK(row.position < cache_.position_max(), "the KV cache is full");
    TC_CHECK(row.token >= 0 && static_cast<uint32_t>(row.token) < shape_.vocab_size,
             "token " + std::to_string(row.token));
    if (t == 0) continue;
    const DecoderRow& before = rows[t - 1];
    TC_CHECK(row.slot >= before.slot, "ascending slots");
    TC_CHECK(row.slot != before.slot || row.position == before.position + 1,
             "consecutive positions of a slot");
  }
  TC_CHECK(rows.size() <= options_.row_max, "more rows than row_max");
  TC_CHECK(words.size() == rows.size() * neuron_pool_.words_per_step(), "words of another pool");
}

void Decoder::forward(Rows rows, std::span<uint64_t> words) {
  check(rows, words);
  row_count_ = static_cast<int>(rows.size());
  token_rows_.clear();
  for (const DecoderRow& row : rows) token_rows_.push_back({row.token, row.position, row.slot});
  if (weights_.tiers != nullptr) weights_.tiers->begin_pass();
  backend_.begin(token_rows_);
  if (side_by_side_ != nullptr) side_by_side_->begin(token_rows_);
  // What meets the host between its operations cannot be replayed.
  const bool alone = world_.size() == 1 && !wants_magnitudes(rows) && side_by_side_ == nullptr;
  if (alone && !options_.time_sublayers && !options_.check_finite) {
    backend_.run_queued(rule_number_ << 32 | rows.size(), [&] { run_layers(rows); });
  } else {
    run_layers(rows);
  }
  fetch_words(words);
}

void Decoder::fetch_words(std::span<uint64_t> words) {
  backend_.download(words.data(), words_.data(), words.size_bytes());
  if (side_by_side_ != nullptr) side_by_side_->end(words);
  const auto fetch = [&](const Buffer<uint64_t>& from, std::vector<uint64_t>& to) {
    if (from.memory == nullptr) return;
    to.resize(words.size());
    backend_.download(to.data(), from.data(), words.size_bytes());
  };
  fetch(candidates_, candidate_words_);
  fetch(exact_, exact_words_);
}

void Decoder::run_layers(Rows rows) {
  if (first_stage_) {
    embed();
  } else {
    receive_residual();
  }
  for (uint32_t layer = 0; layer < share_.layers.count; ++layer) {
    if (lookahead_ != nullptr) look_ahead(layer);
    const uint64_t start = now_ns();
    attention(layer);
    end_sublayer("attention", layer);
    const uint64_t middle = now_ns();
    ffn(layer, rows);
    end_sublayer("FFN", layer);
    times_.attention_ns += middle - start;
    times_.ffn_ns += now_ns() - middle;
    if (options_.audit_gate) audit_gate(layer);
    if (!last_stage_) world_.advance_sends();  // of the last forward's residual
  }
  if (!last_stage_) send_residual();
}

void Decoder::end_sublayer(const char* what, uint32_t layer) {
  if (options_.time_sublayers) backend_.wait();
  if (!options_.check_finite) return;
  const auto find = [&](const float* x) {
    for (int t = 0; t < row_count_; ++t)
      for (int c = 0; c < dim_; ++c) {
        const float value = x[row_at(t, dim_) + static_cast<size_t>(c)];
        if (std::isfinite(value)) continue;
        throw work_failed(
            fmt::format("layer {}, behind its {}: element {} of the residual stream at position {} "
                        "is {}",
                        share_.layers.begin + layer, what, c,
                        token_rows_[static_cast<size_t>(t)].position, value));
      }
  };
  on_host(x_.data(), find, false);
}

void Decoder::logits(uint32_t first, uint32_t count, float* out) {
  TC_CHECK(last_stage_, "logits are the last stage's");
  const int rows = static_cast<int>(count);
  normalize(x_.data() + size_t{first} * shape_.model_dim, weights_.output_norm, rows);
  const Product head[] = {{weights_.head.view, logits_.data()}};
  backend_.multiply(head, normed_.data(), rows);
  backend_.download(out, logits_.data(), row_at(rows, weights_.head.view.rows) * sizeof(float));
}

// The rank that holds a token's row contributes it, the others zeros: the sum is exact.
void Decoder::embed() {
  backend_.embed(weights_.token_embedding.view, share_.vocab.begin, x_.data());
  reduce(x_.data());
}

// x += W_o attention(rope(W_q n), rope(W_k n), W_v n)
void Decoder::attention(uint32_t layer) {
  const LayerWeights& weights = weights_.layers[layer];
  normalize(x_.data(), weights.attention_norm, row_count_);
  const Product qkv[] = {
      {weights.q.view, q_.data()}, {weights.k.view, k_.data()}, {weights.v.view, v_.data()}};
  backend_.multiply(qkv, normed_.data(), row_count_);
  const int head_dim = static_cast<int>(shape_.head_dim);
  backend_.attend({q_.data(), k_.data(), v_.data(), cache_.of_layer(layer), q_rows_ / head_dim,
                   kv_rows_ / head_dim, head_dim, rope_frequencies_.data(), heads_out_.data()});
  const Product o[] = {{weights.o.view, partial_.data()}};
  backend_.multiply(o, heads_out_.data(), row_count_);
  add_reduced();
}

// While attention runs, and the gate, the disk reads what the FFN behind them will probably need.
void Decoder::look_ahead(uint32_t layer) {
  const uint64_t start = now_ns();
  normalize(x_.data(), weights_.layers[layer].ffn_norm, row_count_);
  const uint64_t stride = neuron_pool_.words_per_layer();
  lookahead_->predict(layer, {x_.data(), normed_.data(), row_count_}, ahead_.data(), stride);
  const auto rows = static_cast<size_t>(row_count_);
  likely_.resize(rows * stride);
  backend_.download(likely_.data(), ahead_.data(), likely_.size() * sizeof(uint64_t));
  const NeuronMask likely{likely_.data(), stride};
  if (side_by_side_ != nullptr) {
    staged_->read_ahead(layer, likely, rows, weights_.device_tier->cold(layer));
  } else {
    staged_->read_ahead(layer, likely, rows);
  }
  times_.predictor_ns += now_ns() - start;
  times_.ffn_ns += now_ns() - start;
}

// x += W_down (act(W_gate n) * (W_up n)), up and down for active neurons only, gate for candidates
void Decoder::ffn(uint32_t layer, Rows rows) {
  const LayerWeights& weights = weights_.layers[layer];
  normalize(x_.data(), weights.ffn_norm, row_count_);
  const NeuronMask candidates = predict(layer);
  const bool wanted = wants_magnitudes(rows);
  if (wanted && gate_magnitudes_.memory == nullptr) {
    gate_magnitudes_ = buffer<float>(static_cast<uint64_t>(neurons_));
  }
  uint64_t* active = words_.data() + size_t{layer} * neuron_pool_.words_per_layer();
  const uint64_t stride = neuron_pool_.words_per_step();
  const bool tiered = staged_ != nullptr;
  const GateUpCall gate_and_up{weights.gate.view,
                               tiered ? WeightView{} : weights.up.view,
                               rule_.activation,
                               rule_.thresholds[share_.layers.begin + layer],
                               candidates,
                               normed_.data(),
                               hidden_.data(),
                               active,
                               stride,
                               wanted ? gate_magnitudes_.data() : nullptr};
  if (side_by_side_ != nullptr) {
    times_.transfer_ns += side_by_side_->ffn(layer, gate_and_up, partial_.data());
    if (wanted) pass_magnitudes(layer, rows);
    return add_reduced();
  }
  backend_.gate_and_up(gate_and_up);
  if (wanted) pass_magnitudes(layer, rows);
  const NeuronMask computed = rule_.dense() ? candidates : NeuronMask{active, stride};
  if (tiered) {
    times_.transfer_ns +=
        staged_->scale(layer, weights.up.view, computed, static_cast<size_t>(row_count_),
                       normed_.data(), hidden_.data());
  }
  backend_.sum_rows(weights.down_t.view, computed, hidden_.data(), partial_.data());
  if (tiered) staged_->release();
  add_reduced();
}

// The neurons of the layer to look at.
NeuronMask Decoder::predict(uint32_t layer) {
  if (predictor_ == nullptr) return {};
  if (options_.time_sublayers) backend_.wait();
  const uint64_t start = now_ns();
  uint64_t* candidates = candidates_.data() + size_t{layer} * neuron_pool_.words_per_layer();
  const uint64_t stride = neuron_pool_.words_per_step();
  predictor_->predict(layer, {x_.data(), normed_.data(), row_count_}, candidates, stride);
  if (options_.time_sublayers) backend_.wait();
  times_.predictor_ns += now_ns() - start;
  return {candidates, stride};
}

// What the gate of every neuron says of the input that the layer's FFN just had.
void Decoder::audit_gate(uint32_t layer) {
  const uint64_t start = now_ns();
  const LayerWeights& weights = weights_.layers[layer];
  backend_.gate_and_up({weights.gate.view, weights.up.view, rule_.activation,
                        rule_.thresholds[share_.layers.begin + layer], NeuronMask{}, normed_.data(),
                        exact_hidden_.data(),
                        exact_.data() + size_t{layer} * neuron_pool_.words_per_layer(),
                        neuron_pool_.words_per_step(), nullptr});
  if (options_.time_sublayers) backend_.wait();
  times_.audit_ns += now_ns() - start;
}

bool Decoder::wants_magnitudes(Rows rows) const {
  const auto wants = [](const DecoderRow& row) { return row.magnitudes != nullptr; };
  return magnitudes_ != nullptr || std::any_of(rows.begin(), rows.end(), wants);
}

// |act(W_gate n)|, to those who want it.
void Decoder::pass_magnitudes(uint32_t layer, Rows rows) {
  std::vector<float> values(row_at(row_count_, neurons_));
  backend_.download(values.data(), gate_magnitudes_.data(), values.size() * sizeof(float));
  if (side_by_side_ != nullptr) side_by_side_->add_cold_magnitudes(layer, values.data());
  for (size_t t = 0; t < rows.size(); ++t) {
    const float* of_row = values.data() + row_at(static_cast<int>(t), neurons_);
    if (magnitudes_ != nullptr) magnitudes_->add(share_.layers.begin + layer, of_row, neurons_);
    if (rows[t].magnitudes == nullptr) continue;
    std::copy_n(of_row, neurons_, rows[t].magnitudes + row_at(static_cast<int>(layer), neurons_));
  }
}

void Decoder::normalize(const float* x, const WeightVector& weight, int count) {
  backend_.rms_norm(x, weight.data(), dim_, shape_.norm_epsilon, count, normed_.data());
}

void Decoder::add_reduced() {
  reduce(partial_.data());
  backend_.add(x_.data(), partial_.data(), row_at(row_count_, dim_));
}

void Decoder::reduce(float* values) {
  if (stage_->size() == 1) return;
  const auto sum = [&](float* parts) {
    timed_transfer(*stage_, [&] {
      sum_in_rank_order(*stage_, parts, row_at(row_count_, dim_), sum_scratch_);
    });
  };
  on_host(values, sum, true);
}

void Decoder::on_host(float* values, const std::function<void(float*)>& work, bool changes) {
  if (backend_.uses_host_memory()) return work(values);
  staging_.resize(row_at(row_count_, dim_));
  const uint64_t bytes = staging_.size() * sizeof(float);
  backend_.download(staging_.data(), values, bytes);
  work(staging_.data());
  if (changes) backend_.upload(values, staging_.data(), bytes);
}

void Decoder::timed_transfer(Comm& comm, const std::function<void()>& transfer) {
  const uint64_t start = now_ns();
  comm.barrier();
  const uint64_t arrived = now_ns();
  transfer();
  times_.wait_ns += arrived - start;
  times_.comm_ns += now_ns() - arrived;
}

// Rank r of a stage passes the residual to rank r of the next; all ranks of a stage hold it whole.
void Decoder::receive_residual() {
  const int from = static_cast<int>(share_.rank - layout_.tensor);
  const uint64_t start = now_ns();
  std::byte ready{};  // sent first: waiting for it is not transfer
  world_.receive(from, &ready, 1);
  const uint64_t arrived = now_ns();
  on_host(
      x_.data(),
      [&](float* x) { world_.receive(from, x, row_at(row_count_, dim_) * sizeof(float)); }, true);
  times_.wait_ns += arrived - start;
  times_.comm_ns += now_ns() - arrived;
}

// It goes on its way while this stage computes the next chunk.
void Decoder::send_residual() {
  const int to = static_cast<int>(share_.rank + layout_.tensor);
  const uint64_t start = now_ns();
  world_.finish_sends();  // what was sent last is in the same memory
  on_host(
      x_.data(), [&](float* x) { sent_.assign(x, x + row_at(row_count_, dim_)); }, false);
  static constexpr std::byte kReady{1};
  world_.start_send(to, &kReady, 1);
  world_.start_send(to, sent_.data(), sent_.size() * sizeof(float));
  times_.comm_ns += now_ns() - start;
}

}  // namespace thermocline
