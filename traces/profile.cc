#include "traces/profile.h"

#include <fmt/format.h>

#include <algorithm>

#include "models/error.h"

namespace thermocline {
namespace {

constexpr uint64_t kBlockBytes = uint64_t{8} << 20;

}  // namespace

void for_each_block(const TraceReader& reader, const NeuronPool& pool, uint64_t step_begin,
                    uint64_t step_count, const std::function<void(const StepBlock&)>& visit) {
  const uint64_t step_bytes = std::max<uint64_t>(pool.words_per_step() * sizeof(uint64_t), 1);
  const uint64_t block_steps = whole_blocks(kBlockBytes / step_bytes);
  StepBlock block;
  for (uint64_t done = 0; done < step_count; done += block.step_count) {
    reader.read(pool, step_begin + done, std::min(block_steps, step_count - done), block);
    visit(block);
  }
}

ActivationProfile profile_of(const TraceReader& reader, const NeuronPool& pool, uint64_t step_begin,
                             uint64_t step_count) {
  ActivationProfile profile(pool);
  for_each_block(reader, pool, step_begin, step_count, [&profile](const StepBlock& block) {
    for (uint64_t i = 0; i < block.step_count; ++i) profile.add(block.step(i));
  });
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
