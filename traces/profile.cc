#include "traces/profile.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <future>

#include "models/error.h"
#include "traces/bit_sums.h"

namespace thermocline {
namespace {

constexpr uint64_t kBlockBytes = uint64_t{8} << 20;

struct BlockPair {
  StepBlock active, predicted;
};

// Reads consecutive blocks of a range of steps, which end where the trace's own do.
class BlockStream {
 public:
  BlockStream(const TraceReader& reader, const NeuronPool& pool, uint64_t begin, uint64_t count,
              bool predicted)
      : reader_(reader), pool_(pool), at_(begin), end_(begin + count), predicted_(predicted) {
    const uint64_t step_bytes = std::max<uint64_t>(pool.words_per_step() * sizeof(uint64_t), 1);
    block_steps_ = whole_blocks(kBlockBytes / step_bytes);
  }

  bool done() const { return at_ == end_; }
  void read(BlockPair& into) {
    const uint64_t to = std::min(end_, (at_ / kBlockSteps) * kBlockSteps + block_steps_);
    reader_.read(pool_, at_, to - at_, into.active);
    if (predicted_) reader_.read_predicted(pool_, at_, to - at_, into.predicted);
    at_ = to;
  }

 private:
  const TraceReader& reader_;
  NeuronPool pool_;
  uint64_t at_, end_, block_steps_;
  bool predicted_;
};

void visit_blocks(BlockStream stream, const PredictedVisit& visit) {
  if (stream.done()) return;
  std::array<BlockPair, 2> blocks;
  size_t current = 0;
  stream.read(blocks[current]);
  for (bool more = !stream.done();; more = !stream.done()) {
    std::future<void> next;  // waits where it is destroyed
    if (more) {
      next = std::async(std::launch::async, [&] { stream.read(blocks[1 - current]); });
    }
    visit(blocks[current].active, blocks[current].predicted);
    if (!more) return;
    next.get();
    current = 1 - current;
  }
}

}  // namespace

void for_each_block(const TraceReader& reader, const NeuronPool& pool, uint64_t step_begin,
                    uint64_t step_count, const std::function<void(const StepBlock&)>& visit) {
  visit_blocks({reader, pool, step_begin, step_count, false},
               [&visit](const StepBlock& active, const StepBlock&) { visit(active); });
}

void for_each_predicted_block(const TraceReader& reader, const NeuronPool& pool,
                              uint64_t step_begin, uint64_t step_count,
                              const PredictedVisit& visit) {
  visit_blocks({reader, pool, step_begin, step_count, reader.header().has_predicted}, visit);
}

ActivationProfile profile_of(const TraceReader& reader, const NeuronPool& pool, uint64_t step_begin,
                             uint64_t step_count) {
  std::vector<BitCounter> layers(pool.layer_count, BitCounter(pool.neuron_count));
  for_each_block(reader, pool, step_begin, step_count, [&layers](const StepBlock& block) {
    for (uint64_t i = 0; i < block.step_count; ++i) {
      const ActiveStep step = block.step(i);
      for (uint32_t layer = 0; layer < layers.size(); ++layer) {
        layers[layer].add(step.layer(layer).words.data());
      }
    }
  });
  ActivationProfile profile(pool);
  profile.step_count = step_count;
  for (uint32_t layer = 0; layer < layers.size(); ++layer) {
    const auto counts = layers[layer].counts();
    std::copy(counts.begin(), counts.end(),
              profile.counts.begin() + static_cast<ptrdiff_t>(layer) * pool.neuron_count);
  }
  return profile;
}

void check_profile(const TraceHeader& profile, const std::string& path, const ModelShape& shape,
                   const std::string& weight_hash, const std::string& whose) {
  const auto size = [](const ModelShape& of) {
    return fmt::format("{} layers of {} neurons", of.layer_count, of.ffn_dim);
  };
  if (size(profile.shape) != size(shape)) {
    throw bad_input(path, "a profile of " + size(shape) + ", as the " + whose + " has",
                    size(profile.shape));
  }
  if (profile.weight_hash != weight_hash) {
    throw bad_input(path, "a profile of the " + whose + "'s weights (" + weight_hash + ")",
                    "weights " + profile.weight_hash + " (" + profile.model + ")");
  }
}

NeuronPool whole_model(const TraceHeader& header) {
  return {0, header.shape.layer_count, 0, header.shape.ffn_dim};
}

}  // namespace thermocline
