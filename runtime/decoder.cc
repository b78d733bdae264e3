#include "runtime/decoder.h"

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstring>

#include "models/error.h"
#include "models/quantize.h"

namespace thermocline {
namespace {

// Threads take columns of the down projection in units that are whole blocks of every type.
constexpr int kColumnUnit = 64;

std::vector<uint64_t> every_neuron(const NeuronPool& pool) {
  std::vector<uint64_t> words(pool.words_per_layer(), ~uint64_t{0});
  const uint32_t spare = pool.words_per_layer() * 64 - pool.neuron_count;
  if (spare > 0) words.back() >>= spare;
  return words;
}

// Calls visit(i) for every set bit in [begin, end); begin is a multiple of 64.
template <class Visit>
void for_each_active(const uint64_t* words, int begin, int end, Visit visit) {
  for (int first = begin; first < end; first += 64) {
    for (uint64_t word = words[first / 64]; word != 0; word &= word - 1) {
      visit(first + std::countr_zero(word));
    }
  }
}

// Where row t of a (token, width) buffer begins.
size_t row_at(int t, int width) { return static_cast<size_t>(t) * static_cast<size_t>(width); }

// Which rows belong to one slot.
void find_sequences(std::span<const DecoderRow> rows, std::vector<Range>& sequences) {
  sequences.clear();
  for (uint32_t t = 0; t < rows.size(); ++t) {
    if (t > 0 && rows[t].slot == rows[t - 1].slot) {
      TC_CHECK(rows[t].position == rows[t - 1].position + 1, "consecutive positions of a slot");
      ++sequences.back().count;
    } else {
      TC_CHECK(t == 0 || rows[t].slot > rows[t - 1].slot, "ascending slots");
      sequences.push_back({t, 1});
    }
  }
}

}  // namespace

uint64_t now_ns() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(now).count());
}

Decoder::Decoder(Comm& world, const ModelShape& shape, const Partition& partition,
                 RankWeights weights, ActivationRule rule, ThreadPool& pool,
                 const DecoderOptions& options)
    : world_(world),
      shape_(shape),
      rope_frequencies_(rope_frequencies(shape)),
      layout_(partition.layout),
      share_(partition.ranks[static_cast<size_t>(world.rank())]),
      first_stage_(partition.first_stage(share_.rank)),
      last_stage_(partition.last_stage(share_.rank)),
      neuron_pool_(share_.pool()),
      weights_(std::move(weights)),
      rule_(std::move(rule)),
      pool_(pool),
      kernels_(cpu_kernels()),
      cache_(options.slot_count, share_.layers.count, share_.kv_heads.count, shape.head_dim,
             options.position_max),
      dim_(static_cast<int>(shape.model_dim)),
      q_rows_(static_cast<int>(share_.kv_heads.count * (shape.q_dim() / shape.kv_head_count))),
      kv_rows_(static_cast<int>(share_.kv_heads.count * shape.head_dim)),
      neurons_(static_cast<int>(share_.neurons.count)),
      all_neurons_(every_neuron(neuron_pool_)) {
  stage_ = world.split(static_cast<int>(share_.stage));
  const auto sized = [&](int width) {
    return std::vector<float>(static_cast<size_t>(width) * options.row_max);
  };
  x_ = sized(dim_);
  normed_ = sized(dim_);
  q_ = sized(q_rows_);
  k_ = sized(kv_rows_);
  v_ = sized(kv_rows_);
  heads_out_ = sized(q_rows_);
  gate_ = sized(neurons_);
  up_ = sized(neurons_);
  partial_ = sized(dim_);
}

void Decoder::check(Rows rows, std::span<const uint64_t> words) const {
  for (const DecoderRow& row : rows) {
    TC_CHECK(row.slot < cache_.slot_count(), "a slot of the KV cache");
    TC_CHECK(row.position < cache_.position_max(), "the KV cache is full");
    TC_CHECK(row.token >= 0 && static_cast<uint32_t>(row.token) < shape_.vocab_size,
             "token " + std::to_string(row.token));
  }
  TC_CHECK(rows.size() * static_cast<size_t>(dim_) <= x_.size(), "more rows than row_max");
  TC_CHECK(words.size() == rows.size() * neuron_pool_.words_per_step(), "words of another pool");
}

void Decoder::forward(Rows rows, std::span<uint64_t> words) {
  check(rows, words);
  find_sequences(rows, sequences_);
  const int row_count = static_cast<int>(rows.size());
  if (first_stage_) {
    embed(rows);
  } else {
    receive_residual(row_count);
  }
  for (uint32_t layer = 0; layer < share_.layers.count; ++layer) {
    const uint64_t start = now_ns();
    attention(layer, rows);
    const uint64_t middle = now_ns();
    ffn(layer, rows, words);
    times_.attention_ns += middle - start;
    times_.ffn_ns += now_ns() - middle;
  }
  if (!last_stage_) send_residual(row_count);
}

void Decoder::logits(uint32_t first, uint32_t count, float* out) {
  TC_CHECK(last_stage_, "logits are the last stage's");
  const float* x = x_.data() + size_t{first} * shape_.model_dim;
  for (uint32_t t = 0; t < count; ++t) {
    kernels_.rms_norm(x + size_t{t} * shape_.model_dim, weights_.output_norm.data(), dim_,
                      shape_.norm_epsilon, normed_.data() + size_t{t} * shape_.model_dim);
  }
  const WeightMatrix& head = weights_.head;
  pool_.run(head.rows, 1, [&](int begin, int end) {
    kernels_.matmul(head.dtype, head.data(), dim_, begin, end, normed_.data(), dim_,
                    static_cast<int>(count), out, head.rows);
  });
}

// The rank that holds a token's row contributes it, the others zeros: the sum is exact.
void Decoder::embed(Rows rows) {
  const WeightMatrix& table = weights_.token_embedding;
  const uint64_t row_bytes = bytes_of(table.dtype, shape_.model_dim);
  for (size_t t = 0; t < rows.size(); ++t) {
    const uint32_t row = static_cast<uint32_t>(rows[t].token) - share_.vocab.begin;  // wraps below
    float* x = x_.data() + t * shape_.model_dim;
    if (row < share_.vocab.count) {
      dequantize(table.dtype, table.data() + row * row_bytes, shape_.model_dim, x);
    } else {
      std::fill(x, x + dim_, 0.0f);
    }
  }
  reduce(x_.data(), static_cast<int>(rows.size()));
}

// x += W_o attention(rope(W_q n), rope(W_k n), W_v n)
void Decoder::attention(uint32_t layer, Rows rows) {
  const LayerWeights& weights = weights_.layers[layer];
  const int token_count = static_cast<int>(rows.size());
  normalize(weights.attention_norm, token_count);

  // Threads share the rows of q, k and v as if they were one matrix.
  const auto project = [&](const WeightMatrix& w, int offset, int begin, int end, float* out) {
    const int first = std::clamp(begin - offset, 0, w.rows);
    const int last = std::clamp(end - offset, 0, w.rows);
    if (first == last) return;
    kernels_.matmul(w.dtype, w.data(), dim_, first, last, normed_.data(), dim_, token_count, out,
                    w.rows);
  };
  pool_.run(q_rows_ + 2 * kv_rows_, 1, [&](int begin, int end) {
    project(weights.q, 0, begin, end, q_.data());
    project(weights.k, q_rows_, begin, end, k_.data());
    project(weights.v, q_rows_ + kv_rows_, begin, end, v_.data());
  });
  const uint32_t heads = share_.kv_heads.count;
  pool_.run(static_cast<int>(heads * sequences_.size()), 1, [&](int begin, int end) {
    std::vector<float> scores;
    for (auto i = static_cast<uint32_t>(begin); i < static_cast<uint32_t>(end); ++i) {
      const Range of = sequences_[i / heads];
      attend_head(layer, i % heads, rows.subspan(of.begin, of.count), static_cast<int>(of.begin),
                  scores);
    }
  });
  pool_.run(dim_, 1, [&](int begin, int end) {
    kernels_.matmul(weights.o.dtype, weights.o.data(), q_rows_, begin, end, heads_out_.data(),
                    q_rows_, token_count, partial_.data(), dim_);
  });
  add_reduced(token_count);
}

// Grouped-query attention (Ainslie et al. 2023): the query heads of a group share one kv head.
// `rows` are of one slot, the first of them row `first_row` of the forward.
void Decoder::attend_head(uint32_t layer, uint32_t head, Rows rows, int first_row,
                          std::vector<float>& scores) {
  const int head_dim = static_cast<int>(shape_.head_dim);
  const int group = static_cast<int>(shape_.head_count / shape_.kv_head_count);
  float* keys = cache_.keys(rows[0].slot, layer, head);
  float* values = cache_.values(rows[0].slot, layer, head);
  scores.resize(rows.back().position + 1);
  for (size_t i = 0; i < rows.size(); ++i) {
    const int t = first_row + static_cast<int>(i), at = static_cast<int>(rows[i].position);
    const size_t from = row_at(t, kv_rows_) + row_at(static_cast<int>(head), head_dim);
    float* key = keys + row_at(at, head_dim);
    std::copy_n(k_.data() + from, head_dim, key);
    std::copy_n(v_.data() + from, head_dim, values + row_at(at, head_dim));
    kernels_.rope(key, 1, head_dim, at, rope_frequencies_.data());
  }
  for (size_t i = 0; i < rows.size(); ++i) {
    const int t = first_row + static_cast<int>(i), at = static_cast<int>(rows[i].position);
    const size_t first = row_at(t, q_rows_) + row_at(static_cast<int>(head) * group, head_dim);
    kernels_.rope(q_.data() + first, group, head_dim, at, rope_frequencies_.data());
    for (int of_group = 0; of_group < group; ++of_group) {
      const size_t query = first + row_at(of_group, head_dim);
      kernels_.attend(q_.data() + query, keys, values, at + 1, head_dim, head_dim, scores.data(),
                      heads_out_.data() + query);
    }
  }
}

// x += W_down (act(W_gate n) * (W_up n)), up and down for active neurons only
void Decoder::ffn(uint32_t layer, Rows rows, std::span<uint64_t> words) {
  const LayerWeights& weights = weights_.layers[layer];
  const int token_count = static_cast<int>(rows.size());
  normalize(weights.ffn_norm, token_count);

  const auto part = [&](int begin, int end) { gate_and_up(layer, rows, words, begin, end); };
  if (magnitudes_ == nullptr) {
    pool_.run(neurons_, 64, part);
  } else {
    part(0, neurons_);  // a histogram belongs to one thread
  }
  const bool dense = rule_.dense();
  const uint64_t* mask =
      dense ? all_neurons_.data() : words.data() + size_t{layer} * neuron_pool_.words_per_layer();
  const int mask_stride = dense ? 0 : static_cast<int>(neuron_pool_.words_per_step());
  std::fill_n(partial_.data(), row_at(token_count, dim_), 0.0f);
  const int block = static_cast<int>(facts(weights.down_t.dtype).items_per_block);
  pool_.run(dim_, std::max(kColumnUnit, block), [&](int begin, int end) {
    kernels_.weighted_rows(weights.down_t.dtype, weights.down_t.data(), neurons_, dim_, begin, end,
                           mask, mask_stride, gate_.data(), neurons_, token_count, partial_.data(),
                           dim_);
  });
  add_reduced(token_count);
}

// gate = act(W_gate n) * (W_up n) and the bits of the active neurons, for neurons [begin, end).
void Decoder::gate_and_up(uint32_t layer, Rows rows, std::span<uint64_t> words, int begin,
                          int end) {
  const LayerWeights& weights = weights_.layers[layer];
  const int token_count = static_cast<int>(rows.size());
  kernels_.matmul(weights.gate.dtype, weights.gate.data(), dim_, begin, end, normed_.data(), dim_,
                  token_count, gate_.data(), neurons_);
  const uint64_t step_words = neuron_pool_.words_per_step();
  uint64_t* bits = words.data() + size_t{layer} * neuron_pool_.words_per_layer();
  for (int t = 0; t < token_count; ++t) {
    activate(rule_, share_.layers.begin + layer, gate_.data() + row_at(t, neurons_), begin, end,
             bits + static_cast<uint64_t>(t) * step_words);
  }
  pass_magnitudes(layer, rows, begin, end);
  const uint64_t* mask = rule_.dense() ? all_neurons_.data() : bits;
  const int mask_stride = rule_.dense() ? 0 : static_cast<int>(step_words);
  kernels_.matmul_masked(weights.up.dtype, weights.up.data(), dim_, begin, end, mask, mask_stride,
                         normed_.data(), dim_, token_count, up_.data(), neurons_);
  for (int t = 0; t < token_count; ++t) {
    float* gate = gate_.data() + row_at(t, neurons_);
    const float* up = up_.data() + row_at(t, neurons_);
    for_each_active(mask + static_cast<int64_t>(t) * mask_stride, begin, end,
                    [&](int i) { gate[i] *= up[i]; });
  }
}

// While gate_ holds act(W_gate n): to those who want it.
void Decoder::pass_magnitudes(uint32_t layer, Rows rows, int begin, int end) {
  for (size_t t = 0; t < rows.size(); ++t) {
    const float* gate = gate_.data() + row_at(static_cast<int>(t), neurons_);
    if (magnitudes_ != nullptr) {
      magnitudes_->add(share_.layers.begin + layer, gate + begin, end - begin);
    }
    if (rows[t].magnitudes == nullptr) continue;
    float* out = rows[t].magnitudes + row_at(static_cast<int>(layer), neurons_);
    for (int i = begin; i < end; ++i) out[i] = std::fabs(gate[i]);
  }
}

void Decoder::normalize(const std::vector<float>& weight, int token_count) {
  for (int t = 0; t < token_count; ++t) {
    const size_t first = row_at(t, dim_);
    kernels_.rms_norm(x_.data() + first, weight.data(), dim_, shape_.norm_epsilon,
                      normed_.data() + first);
  }
}

void Decoder::add_reduced(int token_count) {
  reduce(partial_.data(), token_count);
  const size_t count = row_at(token_count, dim_);
  for (size_t i = 0; i < count; ++i) x_[i] += partial_[i];
}

void Decoder::reduce(float* values, int token_count) {
  if (stage_->size() == 1) return;
  timed_transfer(*stage_, [&] {
    sum_in_rank_order(*stage_, values, row_at(token_count, dim_), sum_scratch_);
  });
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
void Decoder::receive_residual(int token_count) {
  const int from = static_cast<int>(share_.rank - layout_.tensor);
  const uint64_t start = now_ns();
  std::byte ready{};  // sent first: waiting for it is not transfer
  world_.receive(from, &ready, 1);
  const uint64_t arrived = now_ns();
  world_.receive(from, x_.data(), row_at(token_count, dim_) * sizeof(float));
  times_.wait_ns += arrived - start;
  times_.comm_ns += now_ns() - arrived;
}

void Decoder::send_residual(int token_count) {
  const int to = static_cast<int>(share_.rank + layout_.tensor);
  const uint64_t start = now_ns();
  const std::byte ready{1};
  world_.send(to, &ready, 1);
  world_.send(to, x_.data(), row_at(token_count, dim_) * sizeof(float));
  times_.comm_ns += now_ns() - start;
}

}  // namespace thermocline
