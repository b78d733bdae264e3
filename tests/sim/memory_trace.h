// A trace in memory, split over ranks: what the tests of this room replay without a file.
//
// Thread-safety: const methods from any thread.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "models/error.h"
#include "tests/policies/tiny_traces.h"
#include "traces/trace.h"

namespace thermocline::test {

class MemoryTrace final : public TraceReader {
 public:
  // `whole`: the bits of all neurons of the model; header.pools cut it into ranks.
  MemoryTrace(TraceHeader header, PoolSteps whole)
      : header_(std::move(header)), whole_(std::move(whole)) {
    times_.resize(header_.pools.size(), std::vector<StepTimes>(whole_.step_count));
    for (uint64_t i = 0; i < whole_.step_count; ++i) {
      steps_.push_back({0, static_cast<uint32_t>(i), 0, i < 3 ? Phase::prefill : Phase::decode,
                        static_cast<uint32_t>(i)});
    }
    const auto count = static_cast<uint32_t>(whole_.step_count);
    tasks_ = {{7, 0, count, std::min(count, 3u), {}}};
  }
  // Cuts the steps into tasks of `length`, whose first `prompt` steps are one pass of their prompt.
  void cut_into_tasks(uint32_t length, uint32_t prompt) {
    tasks_.clear();
    uint32_t pass = 0;
    for (uint32_t i = 0; i < whole_.step_count; ++i) {
      const uint32_t position = i % length;
      if (position == 0) tasks_.push_back({static_cast<int32_t>(100 + i / length), i, 0, 0, {}});
      if (position == 0 || position >= prompt) ++pass;
      const bool in_prompt = position < prompt;
      steps_[i] = {0, position, i / length, in_prompt ? Phase::prefill : Phase::decode, pass};
      ++tasks_.back().step_count;
      tasks_.back().prompt_tokens += in_prompt;
    }
  }

  const TraceHeader& header() const override { return header_; }
  uint64_t step_count() const override { return whole_.step_count; }
  bool finished() const override { return true; }
  const std::vector<std::string>& missing() const override { return missing_; }
  bool holds(uint32_t rank) const override { return rank < header_.pools.size(); }
  uint64_t file_bytes() const override { return 0; }
  const std::vector<TaskRecord>& tasks() const override { return tasks_; }
  std::vector<StepInfo> steps() const override { return steps_; }
  std::vector<StepTimes> times(uint32_t rank) const override { return times_.at(rank); }
  std::vector<uint32_t> popcounts(uint64_t begin, uint64_t count) const override {
    std::vector<uint32_t> counts;
    for (uint64_t i = begin; i < begin + count; ++i) {
      for (uint32_t layer = 0; layer < whole_.pool.layer_count; ++layer) {
        counts.push_back(whole_.step(i).layer(layer).count());
      }
    }
    return counts;
  }
  void read(const NeuronPool& pool, uint64_t step_begin, uint64_t step_count,
            StepBlock& block) const override {
    PoolSteps cut = cut_of(pool, step_begin, step_count);
    block = {pool, step_begin, step_count, std::move(cut.words)};
  }
  void read_predicted(const NeuronPool&, uint64_t, uint64_t, StepBlock&) const override {
    TC_CHECK(false, "no predicted bits here");
  }
  const std::vector<uint64_t>& magnitude_steps() const override { return magnitude_steps_; }
  void read_magnitudes(const NeuronPool&, uint64_t, uint64_t, std::vector<float>&) const override {
    TC_CHECK(false, "no magnitudes here");
  }
  std::string hash() const override { return hash_; }

  PoolSteps cut_of(const NeuronPool& pool, uint64_t step_begin, uint64_t step_count) const {
    PoolSteps cut{pool, step_count, std::vector<uint64_t>(step_count * pool.words_per_step())};
    for (uint64_t i = 0; i < step_count; ++i) {
      for (uint32_t flat = 0; flat < pool.total(); ++flat) {
        const uint32_t layer = pool.layer_begin + flat / pool.neuron_count;
        const uint32_t neuron = pool.neuron_begin + flat % pool.neuron_count;
        if (whole_.step(step_begin + i).layer(layer).contains(neuron)) cut.set(i, flat);
      }
    }
    return cut;
  }
  PoolSteps cut_of(const NeuronPool& pool) const { return cut_of(pool, 0, step_count()); }

  TraceHeader header_;
  PoolSteps whole_;
  std::vector<TaskRecord> tasks_;
  std::vector<std::string> missing_;
  std::vector<uint64_t> magnitude_steps_;
  std::vector<StepInfo> steps_;
  std::vector<std::vector<StepTimes>> times_;  // by rank
  std::string hash_ = "00000000000000aa";
};

inline TraceHeader memory_header(uint32_t layer_count, uint32_t ffn_dim,
                                 std::vector<NeuronPool> pools) {
  TraceHeader header;
  header.shape.layer_count = layer_count;
  header.shape.ffn_dim = ffn_dim;
  header.shape.model_dim = 32;
  header.shape.head_count = header.shape.kv_head_count = 4;
  header.shape.head_dim = 8;
  header.shape.vocab_size = 64;
  header.ffn_types = DType::f32;  // a bundle has 384 bytes
  header.model = "test";
  header.weight_provenance = "synthetic";
  header.weight_hash = "0123456789abcdef";
  header.pools = std::move(pools);
  return header;
}

inline MemoryTrace random_trace(uint64_t seed, const TraceHeader& header, uint64_t step_count,
                                uint32_t drift) {
  Lcg random(seed);
  const NeuronPool whole{0, header.shape.layer_count, 0, header.shape.ffn_dim};
  return {header, random_steps(random, whole, step_count, drift)};
}

// Two stages; the second has two ranks with uneven shares.
inline TraceHeader three_rank_header() {
  return memory_header(3, 136, {{0, 2, 0, 136}, {2, 1, 0, 80}, {2, 1, 80, 56}});
}

}  // namespace thermocline::test
