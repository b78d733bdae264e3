#include "traces/profile.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <future>

#include "models/error.h"
#include "models/parallel.h"

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

ProfileCounter::ProfileCounter(const NeuronPool& pool, uint32_t thread_count)
    : pool_(pool),
      thread_count_(thread_count),
      layers_(pool.layer_count, BitCounter(pool.neuron_count)) {}

void ProfileCounter::add(const ActiveStep& active) {
  ++step_count_;
  const uint64_t* row = active.words.data();
  for (BitCounter& layer : layers_) {
    layer.add(row);
    row += pool_.words_per_layer();
  }
}

void ProfileCounter::add(const StepBlock& block) {
  step_count_ += block.step_count;
  const uint64_t stride = pool_.words_per_step();
  for_each_parallel(layers_.size(), thread_count_, [&](size_t layer) {
    const uint64_t* first = block.words.data() + layer * pool_.words_per_layer();
    layers_[layer].add(first, stride, block.step_count);
  });
}

ActivationProfile ProfileCounter::profile() {
  ActivationProfile profile(pool_);
  profile.step_count = step_count_;
  auto next = profile.counts.begin();
  for (BitCounter& layer : layers_) {
    const std::span<const uint32_t> counts = layer.counts();
    next = std::copy(counts.begin(), counts.end(), next);
  }
  return profile;
}

ActivationProfile profile_of(const TraceReader& reader, const NeuronPool& pool, uint64_t step_begin,
                             uint64_t step_count, uint32_t thread_count) {
  ProfileCounter counter(pool, thread_count);
  for_each_block(reader, pool, step_begin, step_count,
                 [&counter](const StepBlock& block) { counter.add(block); });
  return counter.profile();
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
