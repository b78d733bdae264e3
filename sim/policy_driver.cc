#include "sim/policy_driver.h"

#include <algorithm>

#include "models/bit_sums.h"
#include "models/error.h"

namespace thermocline {
namespace {

// Bits at even places, moved together: bit 2i to bit i. Warren, "Hacker's Delight", 7-2.
uint64_t even_bits(uint64_t word) {
  word &= 0x5555555555555555;
  word = (word | word >> 1) & 0x3333333333333333;
  word = (word | word >> 2) & 0x0f0f0f0f0f0f0f0f;
  word = (word | word >> 4) & 0x00ff00ff00ff00ff;
  word = (word | word >> 8) & 0x0000ffff0000ffff;
  return (word | word >> 16) & 0x00000000ffffffff;
}

// One bit for each `group` bits of a row, set where one of them is. groups: zeroed before.
void fold_row(const uint64_t* row, uint32_t word_count, uint32_t group, uint64_t* groups) {
  for (uint32_t w = 0; w < word_count; ++w) {
    uint64_t word = row[w];
    uint32_t bits = 64;  // still to be folded
    for (uint32_t g = group; g > 1 && bits > 1; g /= 2, bits /= 2) {
      word = even_bits(word | word >> 1);
    }
    const uint64_t first = uint64_t{w} * 64 / group;
    groups[first / 64] |= word << (first % 64);
  }
}

}  // namespace

NeuronPool grouped(const NeuronPool& pool, uint32_t group) {
  TC_CHECK(group > 0 && group <= kGroupMax && std::has_single_bit(group), "a group of such a size");
  NeuronPool groups = pool;
  groups.neuron_begin = 0;
  groups.neuron_count = (pool.neuron_count + group - 1) / group;
  return group == 1 ? pool : groups;
}

ActivationProfile grouped(const ActivationProfile& profile, uint32_t group) {
  if (group == 1) return profile;
  ActivationProfile groups(grouped(profile.pool, group));
  groups.step_count = profile.step_count;
  const uint32_t width = profile.pool.neuron_count;
  for (uint32_t layer = 0; layer < profile.pool.layer_count; ++layer) {
    for (uint32_t i = 0; i < width; ++i) {
      groups.counts[layer * groups.pool.neuron_count + i / group] +=
          profile.counts[layer * width + i];
    }
  }
  return groups;
}

FutureUses grouped(const FutureUses& uses, uint32_t group) {
  FutureUses groups{grouped(uses.pool, group), uses.step_count, {}};
  const uint64_t total = uses.pool.total(), group_total = groups.pool.total();
  const uint32_t width = uses.pool.neuron_count;
  const uint64_t blocks = (uses.step_count + 63) / 64;
  groups.words.resize(blocks * group_total);
  for (uint64_t block = 0; block < blocks; ++block) {
    for (uint64_t flat = 0; flat < total; ++flat) {
      const uint64_t to = flat / width * groups.pool.neuron_count + flat % width / group;
      groups.words[block * group_total + to] |= uses.words[block * total + flat];
    }
  }
  return groups;
}

double hit_ratio(const HotSetStats& stats) {
  if (stats.needed == 0) return 1.0;
  return static_cast<double>(stats.hits) / static_cast<double>(stats.needed);
}

double moved_bytes_per_token(const HotSetStats& stats, uint64_t bundle_bytes) {
  if (stats.step_count == 0) return 0.0;
  return static_cast<double>(stats.admitted * bundle_bytes) / static_cast<double>(stats.step_count);
}

void add_pool(HotSetStats& sum, const HotSetStats& pool) {
  TC_CHECK(sum.step_count == 0 || sum.step_count == pool.step_count, "pools of different runs");
  sum.step_count = pool.step_count;
  sum.needed += pool.needed;
  sum.hits += pool.hits;
  sum.admitted += pool.admitted;
  sum.evicted += pool.evicted;
  sum.refused += pool.refused;
  sum.loaded += pool.loaded;
  sum.wasted += pool.wasted;
  sum.hot_count_peak += pool.hot_count_peak;
  sum.hot_count_sum += pool.hot_count_sum;
}

HotSetStats since(const HotSetStats& now, const HotSetStats& earlier) {
  HotSetStats part = now;
  part.step_count -= earlier.step_count;
  part.needed -= earlier.needed;
  part.hits -= earlier.hits;
  part.admitted -= earlier.admitted;
  part.evicted -= earlier.evicted;
  part.refused -= earlier.refused;
  part.wasted -= earlier.wasted;
  part.hot_count_sum -= earlier.hot_count_sum;
  return part;
}

PolicyDriver::PolicyDriver(const PolicySpec& spec, const PolicyContext& context, Fill fill,
                           uint32_t group)
    : neurons_(context.pool),
      group_(group),
      context_(context),
      hot_(grouped(context.pool, group)),
      unused_(grouped(context.pool, group).words_per_step()),
      layer_counts_(context.pool.layer_count),
      layer_sums_(context.pool.layer_count) {
  const PolicyEntry& entry = *spec.entry;
  context_.pool = grouped(neurons_, group);
  context_.hot_count_max = std::min(context.hot_count_max / group, context_.pool.total());
  context_.admit_count_max = context.admit_count_max / group;
  context_.bundle_bytes = context.bundle_bytes * group;
  if (!entry.needs_future) context_.future = nullptr;
  if (!entry.needs_future_uses) context_.future_uses = nullptr;
  TC_CHECK(!entry.needs_future || context_.future != nullptr,
           "policy " + entry.name + " needs the future");
  for (const ActivationProfile* profile : {context_.profile, context_.future}) {
    TC_CHECK(profile == nullptr || profile->pool.total() == context_.pool.total(),
             "a profile of another pool");
  }
  if (group > 1) {
    expanded_.resize(neurons_.words_per_step());
    folded_.resize(context_.pool.words_per_step());
  }
  if (fill == Fill::demand) {
    TC_CHECK(entry.make_request != nullptr, spec.label() + " has no form for --fill demand");
    request_ = entry.make_request(spec.values);
    request_->start(context_);
    return;
  }
  policy_ = spec.make();
  HotSet first(context_.pool);
  policy_->start(context_, first);
  TC_CHECK(first.count() <= context_.hot_count_max, spec.label() + " starts above its budget");
  for_each_bit(context_.pool, first.words(), [this](uint32_t flat) {
    insert(slot_of(flat));
    stats_.loaded += size_of(flat);
  });
  stats_.hot_count_peak = stats_.loaded;
}

template <class Visit>
void PolicyDriver::for_each_word(uint32_t flat, Visit visit) const {
  const uint32_t layer = flat / context_.pool.neuron_count;
  const uint32_t begin = flat % context_.pool.neuron_count * group_, end = begin + size_of(flat);
  const size_t row = uint64_t{layer} * neurons_.words_per_layer();
  for (uint32_t i = begin; i < end; i = (i / 64 + 1) * 64) {
    const uint32_t count = std::min(end, (i / 64 + 1) * 64) - i;
    visit(row + i / 64, (~uint64_t{0} >> (64 - count)) << (i % 64));
  }
}

std::optional<double> PolicyDriver::hot_threshold() const {
  return policy_ == nullptr ? std::nullopt : policy_->hot_threshold();
}

StepCounts PolicyDriver::step(const ActiveStep& active) {
  TC_CHECK(active.words.size() == neurons_.words_per_step(), "a step of another pool");
  return request_ != nullptr ? step_requests(active) : step_moves(active);
}

uint64_t PolicyDriver::count_hot(std::span<const uint64_t> words) const {
  return bit_sums().count_both(words.data(), hot_neurons().data(), words.size());
}

StepCounts PolicyDriver::step_moves(const ActiveStep& active) {
  const uint64_t needed = bit_sums().count(active.words.data(), active.words.size());
  const uint64_t hits = count_hot(active.words), hot_then = hot_count();
  add_to_layer_sums();
  const ActiveStep groups = folded(active);
  note_use(groups.words);
  moves_.evict.clear();
  moves_.admit.clear();
  policy_->step(groups, hot_, moves_);
  const StepCounts counts{static_cast<uint32_t>(needed), static_cast<uint32_t>(hits), apply()};
  end_step(counts, hot_then);
  return counts;
}

// An illegal move is a bug of the policy; one that budget or migration limit forbids is refused.
uint32_t PolicyDriver::apply() {
  const uint64_t total = context_.pool.total();
  for (const uint32_t flat : moves_.evict) {
    TC_CHECK(flat < total, "evicts a neuron that is not hot");
    erase(slot_of(flat));
  }
  uint32_t admitted = 0, moved = 0;
  for (const uint32_t flat : moves_.admit) {
    TC_CHECK(flat < total, "admits a neuron that is hot already");
    const Slot slot = slot_of(flat);
    TC_CHECK(!hot_.contains_at(slot.word, slot.bit), "admits a neuron that is hot already");
    if (hot_.count() >= context_.hot_count_max || moved >= context_.admit_count_max) {
      stats_.refused += size_of(flat);
      continue;
    }
    admit(slot);
    ++moved;
    admitted += size_of(flat);
  }
  return admitted;
}

// Each request finds what those before it left.
StepCounts PolicyDriver::step_requests(const ActiveStep& active) {
  const ActiveStep groups = folded(active);
  request_->begin_step(groups);
  StepCounts counts;
  const uint32_t stride = context_.pool.words_per_layer();
  for (uint32_t layer = 0; layer < context_.pool.layer_count; ++layer) {
    const uint32_t first = layer * context_.pool.neuron_count;
    for (uint32_t w = 0; w < stride; ++w) {
      const uint64_t word = uint64_t{layer} * stride + w;
      for (uint64_t left = groups.words[word]; left != 0; left &= left - 1) {
        const auto flat = first + 64 * w + static_cast<uint32_t>(std::countr_zero(left));
        const StepCounts one = request(active, {flat, layer, word, left & -left});
        counts.needed += one.needed;
        counts.hits += one.hits;
        counts.admitted += one.admitted;
      }
    }
  }
  add_to_layer_sums();
  end_step(counts, hot_count());
  return counts;
}

inline StepCounts PolicyDriver::request(const ActiveStep& active, const Slot& slot) {
  uint32_t needed = group_ == 1 ? 1 : 0;
  if (group_ > 1) {
    for_each_word(slot.flat, [&](size_t w, uint64_t mask) {
      needed += static_cast<uint32_t>(std::popcount(active.words[w] & mask));
    });
  }
  if (hot_.contains_at(slot.word, slot.bit)) {
    unused_[slot.word] &= ~slot.bit;
    request_->hit(slot.flat);
    return {needed, needed, 0};
  }
  if (context_.hot_count_max == 0) return {needed, 0, 0};
  if (hot_.count() == context_.hot_count_max) {
    const uint32_t victim = request_->evict(slot.flat);
    if (victim == slot.flat) return {needed, 0, 0};  // bypassed
    erase(slot_of(victim));
  }
  admit(slot);
  request_->admit(slot.flat);
  return {needed, 0, size_of(slot.flat)};
}

void PolicyDriver::add_to_layer_sums() {
  for (size_t layer = 0; layer < layer_counts_.size(); ++layer) {
    layer_sums_[layer] += layer_counts_[layer];
  }
}

void PolicyDriver::end_step(const StepCounts& counts, uint64_t hot_then) {
  ++stats_.step_count;
  stats_.needed += counts.needed;
  stats_.hits += counts.hits;
  stats_.admitted += counts.admitted;
  stats_.hot_count_sum += hot_then;
  stats_.hot_count_peak = std::max(stats_.hot_count_peak, hot_count());
}

uint64_t PolicyDriver::hot_count() const {
  uint64_t count = 0;
  for (const uint64_t of_layer : layer_counts_) count += of_layer;
  return count;
}

void PolicyDriver::note_use(std::span<const uint64_t> active) {
  if (!any_unused_) return;
  uint64_t left = 0;
  for (size_t w = 0; w < unused_.size(); ++w) left |= unused_[w] &= ~active[w];
  any_unused_ = left != 0;
}

uint32_t PolicyDriver::size_of(uint32_t flat) const {
  if (group_ == 1) return 1;
  const uint32_t begin = flat % context_.pool.neuron_count * group_;
  return std::min(group_, neurons_.neuron_count - begin);
}

PolicyDriver::Slot PolicyDriver::slot_of(uint32_t flat) const {
  const uint32_t width = context_.pool.neuron_count, layer = flat / width;
  const uint32_t index = flat - layer * width;
  const uint64_t word = uint64_t{layer} * context_.pool.words_per_layer() + index / 64;
  return {flat, layer, word, uint64_t{1} << (index % 64)};
}

void PolicyDriver::insert(const Slot& slot) {
  hot_.insert_at(slot.word, slot.bit);
  layer_counts_[slot.layer] += size_of(slot.flat);
  if (group_ == 1) return;
  for_each_word(slot.flat, [this](size_t w, uint64_t mask) { expanded_[w] |= mask; });
}

void PolicyDriver::admit(const Slot& slot) {
  insert(slot);
  unused_[slot.word] |= slot.bit;
  any_unused_ = true;
}

void PolicyDriver::erase(const Slot& slot) {
  TC_CHECK(hot_.erase_at(slot.word, slot.bit), "evicts a neuron that is not hot");
  const uint32_t size = size_of(slot.flat);
  stats_.evicted += size;
  if (unused_[slot.word] & slot.bit) stats_.wasted += size;
  unused_[slot.word] &= ~slot.bit;
  layer_counts_[slot.layer] -= size;
  if (group_ == 1) return;
  for_each_word(slot.flat, [this](size_t w, uint64_t mask) { expanded_[w] &= ~mask; });
}

std::span<const uint64_t> PolicyDriver::hot_neurons() const {
  return group_ == 1 ? hot_.words() : std::span<const uint64_t>(expanded_);
}

ActiveStep PolicyDriver::folded(const ActiveStep& active) {
  if (group_ == 1) return {&context_.pool, active.words, active.task, active.prompt};
  std::fill(folded_.begin(), folded_.end(), 0);
  const uint32_t from = neurons_.words_per_layer(), to = context_.pool.words_per_layer();
  for (uint32_t layer = 0; layer < neurons_.layer_count; ++layer) {
    fold_row(active.words.data() + uint64_t{layer} * from, from, group_,
             folded_.data() + uint64_t{layer} * to);
  }
  return {&context_.pool, folded_, active.task, active.prompt};
}

}  // namespace thermocline
