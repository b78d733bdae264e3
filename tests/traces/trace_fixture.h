// Small traces for tests: bits from a formula, so that any reader can tell what they should be.
//
// The same formula is in tests/traces/read_with_h5py.py. Thread-safety: pure functions.
#pragma once

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "traces/trace.h"

namespace thermocline::test {

// Whether neuron `neuron` of layer `layer` is active at step `step`.
inline bool fixture_bit(uint64_t step, uint64_t layer, uint64_t neuron) {
  return (step * 2654435761u + layer * 40503u + neuron * 2246822519u) % 1009 < 250;
}

inline TraceHeader fixture_header(uint32_t layer_count, uint32_t ffn_dim,
                                  std::vector<NeuronPool> pools) {
  TraceHeader header;
  header.version = "0.1.0";
  header.shape = {.layer_count = layer_count,
                  .model_dim = 64,
                  .ffn_dim = ffn_dim,
                  .head_count = 8,
                  .kv_head_count = 4,
                  .head_dim = 8,
                  .vocab_size = 512,
                  .context_length = 512,
                  .activation = FfnActivation::relu};
  header.ffn_types = DType::q8_0;
  header.model = "preset:tiny,seed=1";
  header.weight_provenance = "synthetic";
  header.weight_hash = "0123456789abcdef";
  header.activation_rule = "relu>0";
  header.activation_thresholds.assign(layer_count, 0.0f);
  header.prompts = "embedded, test, 0 shots";
  header.prompts_hash = "fedcba9876543210";
  header.layout = "fixture";
  header.seed = 7;
  header.config_json = R"({"threads":1,"gate":"exact"})";
  header.pools = std::move(pools);
  return header;
}

// Words of one step of a pool.
inline std::vector<uint64_t> fixture_words(const NeuronPool& pool, uint64_t step) {
  std::vector<uint64_t> words(pool.words_per_step());
  for (uint32_t layer = 0; layer < pool.layer_count; ++layer) {
    for (uint32_t i = 0; i < pool.neuron_count; ++i) {
      const bool active = fixture_bit(step, pool.layer_begin + layer, pool.neuron_begin + i);
      words[layer * pool.words_per_layer() + i / 64] |= uint64_t{active} << (i % 64);
    }
  }
  return words;
}

inline StepInfo fixture_step(uint64_t step) {
  return {static_cast<int32_t>(step * 7 % 512), static_cast<uint32_t>(step % 10),
          static_cast<uint32_t>(step / 10), step % 10 < 4 ? Phase::prefill : Phase::decode,
          static_cast<uint32_t>(step / 2)};
}

inline StepTimes fixture_times(uint64_t step, uint32_t rank) {
  return {1000 + step, step % 7, 100 * rank + step, rank};
}

// Tasks of ten steps, four of them prefill. Their tokens are those of the steps, and one more.
inline TaskRecord fixture_task(uint64_t index) {
  TaskRecord task{static_cast<int32_t>(11 + index), static_cast<uint32_t>(10 * index), 10, 4, {}};
  for (uint64_t step = 10 * index + 4; step <= 10 * index + 10; ++step) {
    task.generated.push_back(fixture_step(step).token);
  }
  return task;
}

// A predictor that is wrong about one neuron in eight.
inline std::vector<uint64_t> fixture_predicted(const NeuronPool& pool, uint64_t step) {
  std::vector<uint64_t> words = fixture_words(pool, step);
  for (uint32_t layer = 0; layer < pool.layer_count; ++layer) {
    for (uint32_t i = 0; i < pool.neuron_count; ++i) {
      const bool wrong = (step + layer + pool.layer_begin + pool.neuron_begin + i) % 8 == 0;
      words[layer * pool.words_per_layer() + i / 64] ^= uint64_t{wrong} << (i % 64);
    }
  }
  return words;
}

// Recorded of every third step. Powers of two, which every format holds exactly.
inline bool fixture_samples(uint64_t step) { return step % 3 == 0; }
inline float fixture_magnitude(uint64_t step, uint64_t layer, uint64_t neuron) {
  const auto exponent = static_cast<int>((step * 31 + layer * 7 + neuron * 13) % 12);
  return exponent == 0 ? 0.0f : std::ldexp(1.0f, exponent - 9);
}
inline std::vector<float> fixture_magnitudes(const NeuronPool& pool, uint64_t step) {
  std::vector<float> magnitudes;
  for (uint32_t layer = 0; layer < pool.layer_count; ++layer) {
    for (uint32_t i = 0; i < pool.neuron_count; ++i) {
      magnitudes.push_back(
          fixture_magnitude(step, pool.layer_begin + layer, pool.neuron_begin + i));
    }
  }
  return magnitudes;
}

// Steps [0, step_count) of one rank, tasks of ten steps; not finished.
inline void append_fixture(TraceWriter& writer, const TraceHeader& header, uint32_t rank,
                           uint64_t step_count) {
  for (uint64_t step = 0; step < step_count; ++step) {
    const NeuronPool& pool = header.pools[rank];
    const auto active = fixture_words(pool, step);
    std::vector<uint64_t> predicted;
    std::vector<float> magnitudes;
    if (header.has_predicted) predicted = fixture_predicted(pool, step);
    const bool sampled = header.magnitudes != MagnitudeFormat::none && fixture_samples(step);
    if (sampled) magnitudes = fixture_magnitudes(pool, step);
    writer.append(fixture_step(step), fixture_times(step, rank), {active, predicted, magnitudes});
    if (step % 10 == 9) writer.end_task(fixture_task(step / 10));
  }
}

inline void write_fixture_shards(const std::string& path, const TraceHeader& header,
                                 uint64_t step_count) {
  for (uint32_t rank = 0; rank < header.pools.size(); ++rank) {
    const auto writer = create_shard(path, header, rank);
    append_fixture(*writer, header, rank, step_count);
    writer->finish();
  }
}

inline void write_fixture(const std::string& path, const TraceHeader& header, uint64_t step_count) {
  write_fixture_shards(path, header, step_count);
  write_master(path);
}

// Three ranks on the 172 neurons of stories260K's layers: the last byte is half full.
inline TraceHeader three_ranks() {
  return fixture_header(5, 172, {{0, 5, 0, 64}, {0, 5, 64, 56}, {0, 5, 120, 52}});
}

// With everything that a trace may hold beside the bits.
inline TraceHeader with_everything(TraceHeader header, MagnitudeFormat magnitudes) {
  header.has_predicted = true;
  header.magnitudes = magnitudes;
  return header;
}

// Two pipeline stages; the second splits its neurons unevenly.
inline TraceHeader two_stages() {
  TraceHeader header = fixture_header(3, 136, {{0, 2, 0, 136}, {2, 1, 0, 128}, {2, 1, 128, 8}});
  header.ffn_types = {DType::q4_0, DType::q5_1, DType::q8_0};
  return header;
}

}  // namespace thermocline::test
