#include "runtime/side_by_side.h"

#include <algorithm>
#include <cstring>

#include "models/error.h"
#include "runtime/clock.h"

namespace thermocline {
namespace {

template <class T>
T* at(const std::shared_ptr<std::byte>& memory) {
  return reinterpret_cast<T*>(memory.get());
}

// Where up and down rows are wanted: of active neurons, or, where all count, of all candidates.
NeuronMask computed_by(const GateUpCall& call) {
  if (call.activation == FfnActivation::silu) return call.candidates;
  return {call.active, call.active_stride};
}

}  // namespace

SideBySide::SideBySide(Backend& device, DeviceTier& tier, const NeuronPool& pool, int model_dim,
                       int row_max, StagedRows* staged)
    : device_(device),
      host_(tier.host()),
      tier_(tier),
      staged_(staged),
      pool_(pool),
      dim_(static_cast<size_t>(model_dim)),
      one_memory_(device.uses_host_memory()),
      host_ns_(pool.layer_count) {
  TC_CHECK(host_.uses_host_memory(), "a host backend computes in host memory");
  const auto rows = static_cast<size_t>(row_max);
  const size_t sums = rows * dim_ * sizeof(float);
  const size_t layer_words = rows * pool.words_per_layer();
  cold_sum_on_device_ = device.allocate(sums);
  hot_candidates_ = device.allocate(layer_words * sizeof(uint64_t));
  input_ = device.allocate_host(sums);
  cold_sum_ = device.allocate_host(sums);
  candidates_ = device.allocate_host(layer_words * sizeof(uint64_t));
  cold_hidden_.resize(rows * pool.neuron_count);
  cold_words_.resize(rows * pool.words_per_step());
  cold_candidates_.resize(layer_words);
  any_part_.resize(layer_words);
}

void SideBySide::begin(std::span<const TokenRow> rows) {
  tier_.begin_pass();
  rows_ = rows;
  host_.begin(rows);
  std::fill(cold_words_.begin(), cold_words_.end(), 0);
}

uint64_t SideBySide::ffn(uint32_t layer, const GateUpCall& call, float* partial) {
  const bool any_cold = tier_.cold_count(layer) > 0;
  if (any_cold) send_input(call);
  mark(layer, kInputSent);
  run_hot(layer, call, partial);
  mark(layer, kHotDone);
  host_ns_[layer] = 0;
  const uint64_t waited = any_cold || one_memory_ ? run_cold(layer, call, partial) : 0;
  mark(layer, kColdSent);
  if (any_cold && !one_memory_) add_cold_sum(partial);
  mark(layer, kMerged);
  return waited;
}

void SideBySide::send_input(const GateUpCall& call) {
  device_.queue_copy(input_.get(), call.x, row_count() * dim_ * sizeof(float));
  if (call.candidates.words == nullptr) return;
  const size_t words = pool_.words_per_layer();
  for (size_t t = 0; t < row_count(); ++t)
    device_.queue_copy(at<uint64_t>(candidates_) + t * words,
                       call.candidates.words + t * call.candidates.stride,
                       words * sizeof(uint64_t));
}

void SideBySide::run_hot(uint32_t layer, const GateUpCall& call, float* partial) {
  GateUpCall hot = call;
  hot.gate = tier_.device_rows(layer, kGateRow);
  hot.up = tier_.device_rows(layer, kUpRow);
  hot.candidates = hot_candidates(layer, call.candidates);
  device_.gate_and_up(hot);
  if (one_memory_) return;
  device_.sum_rows(tier_.device_rows(layer, kDownRow), computed_by(hot), hot.hidden, partial);
}

// On the host, while the device is busy with what is hot.
uint64_t SideBySide::run_cold(uint32_t layer, const GateUpCall& call, float* partial) {
  device_.wait_for(layer * kMarkCount + kInputSent);
  const uint64_t start = now_ns();
  GateUpCall cold = call;
  cold.gate = tier_.host_rows(layer, kGateRow);
  cold.up = staged_ != nullptr ? WeightView{} : tier_.host_rows(layer, kUpRow);
  cold.candidates = cold_candidates(layer, call.candidates);
  cold.x = at<float>(input_);
  cold.hidden = cold_hidden_.data();
  cold.active = cold_words_.data() + size_t{layer} * pool_.words_per_layer();
  cold.active_stride = pool_.words_per_step();
  if (call.magnitudes != nullptr) {
    cold_magnitudes_.resize(cold_hidden_.size());
    cold.magnitudes = cold_magnitudes_.data();
  }
  const uint64_t waited = tier_.cold_count(layer) > 0 ? gate_and_up_of_cold(layer, cold) : 0;
  if (one_memory_) {
    sum_together(layer, call, partial);
  } else {
    host_.sum_rows(tier_.host_rows(layer, kDownRow), computed_by(cold), cold.hidden,
                   at<float>(cold_sum_));
  }
  if (staged_ != nullptr && tier_.cold_count(layer) > 0) staged_->release();
  host_ns_[layer] = now_ns() - start;
  return waited;
}

// Returns the ns that it waited.
uint64_t SideBySide::gate_and_up_of_cold(uint32_t layer, const GateUpCall& cold) {
  host_.gate_and_up(cold);
  if (staged_ == nullptr) return 0;
  return staged_->scale(layer, tier_.host_rows(layer, kUpRow), computed_by(cold), row_count(),
                        cold.x, cold.hidden);
}

NeuronMask SideBySide::hot_candidates(uint32_t layer, const NeuronMask& candidates) {
  const uint64_t* hot = tier_.hot_on_device(layer);
  if (candidates.words == nullptr) return {hot, 0};
  device_.intersect(candidates, hot, pool_.words_per_layer(), at<uint64_t>(hot_candidates_));
  return {at<uint64_t>(hot_candidates_), pool_.words_per_layer()};
}

NeuronMask SideBySide::cold_candidates(uint32_t layer, const NeuronMask& candidates) {
  const std::span<const uint64_t> cold = tier_.cold(layer);
  if (candidates.words == nullptr) return {cold.data(), 0};
  const uint64_t* sent = at<uint64_t>(candidates_);
  for (size_t i = 0; i < row_count() * cold.size(); ++i)
    cold_candidates_[i] = sent[i] & cold[i % cold.size()];
  return {cold_candidates_.data(), cold.size()};
}

void SideBySide::add_cold_sum(float* partial) {
  const uint64_t count = row_count() * dim_;
  device_.queue_copy(cold_sum_on_device_.get(), cold_sum_.get(), count * sizeof(float));
  device_.add(partial, at<float>(cold_sum_on_device_), count);
}

// Where there is one memory: the hidden values of both parts side by side, then one sum.
void SideBySide::sum_together(uint32_t layer, const GateUpCall& call, float* partial) {
  const size_t words = pool_.words_per_layer();
  const bool dense = call.activation == FfnActivation::silu;
  const std::span<const uint64_t> hot_words = tier_.hot(layer);
  std::vector<uint64_t> hot(words);
  for (size_t t = 0; t < row_count(); ++t) {
    const uint64_t* of_hot = call.active + t * call.active_stride;
    const uint64_t* of_cold = cold_words_.data() + t * pool_.words_per_step() + layer * words;
    for (size_t w = 0; w < words; ++w) {
      any_part_[t * words + w] = of_hot[w] | of_cold[w];
      hot[w] = dense ? hot_words[w] : of_hot[w];
    }
    const size_t row = t * pool_.neuron_count;
    for_each_neuron(pool_.neuron_count, hot, [&](uint32_t neuron) {
      cold_hidden_[row + neuron] = call.hidden[row + neuron];
    });
  }
  const NeuronMask computed = dense ? call.candidates : NeuronMask{any_part_.data(), words};
  const WeightView down =
      staged_ == nullptr ? tier_.host_rows(layer, kDownRow) : down_rows_together(layer, computed);
  host_.sum_rows(down, computed, cold_hidden_.data(), partial);
}

// Rows of hot neurons lie in places of the tier, those of cold ones in places of a store: copied
// to where one view has them all.
WeightView SideBySide::down_rows_together(uint32_t layer, const NeuronMask& computed) {
  const WeightView device = tier_.device_rows(layer, kDownRow);
  const WeightView& host = tier_.host_rows(layer, kDownRow);
  const std::span<const uint64_t> hot = tier_.hot(layer);
  const auto bytes = bytes_of(host.dtype, static_cast<uint64_t>(host.cols));
  down_rows_.resize(bytes * pool_.neuron_count);
  for_each_neuron(pool_.neuron_count, in_any_row(pool_, computed, row_count()), [&](uint32_t n) {
    const bool is_hot = (hot[n / 64] >> n % 64 & 1) != 0;
    const std::byte* from = (is_hot ? device : host).row(static_cast<int>(n));
    std::memcpy(down_rows_.data() + n * bytes, from, bytes);
  });
  return {host.dtype, host.rows, host.cols, bytes, down_rows_.data()};
}

void SideBySide::add_cold_magnitudes(uint32_t layer, float* values) const {
  for (size_t t = 0; t < row_count(); ++t) {
    const size_t row = t * pool_.neuron_count;
    for_each_neuron(pool_.neuron_count, tier_.cold(layer), [&](uint32_t neuron) {
      values[row + neuron] = cold_magnitudes_[row + neuron];
    });
  }
}

void SideBySide::end(std::span<uint64_t> words) {
  for (size_t i = 0; i < words.size(); ++i) words[i] |= cold_words_[i];
  tier_.count(words);
  add_times();
}

void SideBySide::add_times() {
  ++times_.pass_count;
  for (uint32_t layer = 0; layer < pool_.layer_count; ++layer) {
    const uint64_t device = ns_between(layer, kInputSent, kHotDone), host = host_ns_[layer];
    times_.device_ns += device;
    times_.host_ns += host;
    times_.larger_ns += std::max(device, host);
    times_.merge_ns += ns_between(layer, kColdSent, kMerged);
    times_.both_ns += ns_between(layer, kInputSent, kMerged);
  }
}

}  // namespace thermocline
