#include "traces/count_steps.h"

#include <fmt/format.h>

#include <algorithm>

#include "models/error.h"
#include "traces/profile.h"

namespace thermocline {
namespace {

// splitmix64's finisher: neighbouring indices get unrelated terms.
uint64_t mixed(uint64_t index) {
  uint64_t z = index + 0x9e3779b97f4a7c15ull;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

}  // namespace

CountSteps::CountSteps(const NeuronPool& pool, std::vector<uint32_t> counts, uint64_t counted_steps,
                       uint64_t step_count)
    : pool_(pool),
      step_count_(step_count),
      counts_(std::move(counts)),
      terms_(counts_.size()),
      words_(pool.words_per_step()) {
  TC_CHECK(counts_.size() == pool.total(), "a count for every neuron");
  TC_CHECK(step_count <= UINT32_MAX && counted_steps <= UINT32_MAX, "products fit into 64 bits");
  for (size_t i = 0; i < counts_.size(); ++i) {
    TC_CHECK(counts_[i] <= counted_steps, "no count above the number of steps");
    if (step_count == 0) break;
    counts_[i] = static_cast<uint32_t>((counts_[i] * step_count + counted_steps / 2) /
                                       std::max<uint64_t>(counted_steps, 1));
    terms_[i] = static_cast<uint32_t>(mixed(i) % step_count);
  }
}

std::span<const uint64_t> CountSteps::next() {
  std::fill(words_.begin(), words_.end(), 0);
  const uint32_t stride = pool_.words_per_layer();
  size_t flat = 0;
  for (uint32_t layer = 0; layer < pool_.layer_count; ++layer) {
    for (uint32_t i = 0; i < pool_.neuron_count; ++i, ++flat) {
      const uint64_t term = uint64_t{terms_[flat]} + counts_[flat];
      const bool active = term >= step_count_;
      terms_[flat] = static_cast<uint32_t>(active ? term - step_count_ : term);
      words_[layer * stride + i / 64] |= uint64_t{active} << (i % 64);
    }
  }
  return words_;
}

uint64_t steps_to_make(uint64_t counted_steps, uint64_t counted_total,
                       const ImportOptions& options) {
  if (options.profile_steps == 0 || counted_steps == 0) return counted_steps;
  const double share = static_cast<double>(counted_steps) / static_cast<double>(counted_total);
  const auto steps =
      static_cast<uint64_t>(share * static_cast<double>(options.profile_steps) + 0.5);
  return std::clamp<uint64_t>(steps, 1, UINT32_MAX);
}

void note_made_steps(SourceFacts& facts, uint64_t counted_total) {
  facts.order_is_real = false;
  facts.notes.emplace_back("counts: order of steps is not real, only how often each neuron fires");
  if (facts.step_count == counted_total) return;
  facts.notes.push_back(fmt::format("counts over {} steps were scaled to {} and rounded",
                                    counted_total, facts.step_count));
}

ActivationProfile count_selected(const Selection& selection, int64_t task,
                                 const std::function<void(uint64_t steps)>& progress) {
  ProfileCounter counter(selection.pool());
  StepBlock block;
  for (size_t i = 0; i < selection.block_count(); ++i) {
    stop_if_interrupted();
    const auto of_task = [&](uint64_t step) {
      return task < 0 || selection.infos()[step].task == static_cast<uint64_t>(task);
    };
    bool any = false;
    for (uint64_t step = selection.block_begin(i); step < selection.block_end(i); ++step) {
      any = any || of_task(step);
    }
    if (!any) continue;
    selection.read(i, block);
    for (uint64_t k = 0; k < block.step_count; ++k) {
      if (of_task(block.step_begin + k)) counter.add(block.step(k));
    }
    progress(selection.block_end(i));
  }
  return counter.profile();
}

}  // namespace thermocline
