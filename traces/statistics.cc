#include "traces/statistics.h"

#include <algorithm>
#include <bit>
#include <functional>

#include "models/error.h"
#include "traces/profile.h"

namespace thermocline {
namespace {

uint64_t count(std::span<const uint64_t> words) {
  uint64_t total = 0;
  for (const uint64_t word : words) total += static_cast<uint64_t>(std::popcount(word));
  return total;
}

std::optional<double> ratio(uint64_t part, uint64_t whole) {
  if (whole == 0) return std::nullopt;
  return static_cast<double>(part) / static_cast<double>(whole);
}

// How much of each of the top places a neuron with this count holds.
struct TopFifth {
  uint32_t last = 0;             // count of the last place
  uint64_t tied = 0;             // neurons with just that count
  uint64_t places_for_tied = 0;  // that they share

  double place(uint32_t count) const {
    const double share = static_cast<double>(places_for_tied) / static_cast<double>(tied);
    return count > last ? 1 : count == last ? share : 0;
  }
};

uint64_t fifth_of(uint64_t size) { return std::max<uint64_t>(size / 5, 1); }

TopFifth top_fifth(std::span<const uint32_t> counts) {
  const uint64_t places = fifth_of(counts.size());
  std::vector<uint32_t> sorted(counts.begin(), counts.end());
  const auto last = sorted.begin() + static_cast<std::ptrdiff_t>(places - 1);
  std::nth_element(sorted.begin(), last, sorted.end(), std::greater<>());
  TopFifth top;
  top.last = *last;
  uint64_t above = 0;
  for (const uint32_t value : counts) {
    above += value > top.last;
    top.tied += value == top.last;
  }
  top.places_for_tied = places - above;
  return top;
}

uint32_t largest(const StatisticsOptions& options) {
  uint32_t memory = 0;
  for (const uint32_t lag : options.lags) {
    TC_CHECK(lag > 0, "a lag of 0");
    memory = std::max(memory, lag);
  }
  for (const uint32_t window : options.windows) {
    TC_CHECK(window > 0, "a window of 0");
    memory = std::max(memory, window);
  }
  return memory;
}

uint64_t sum_of(std::span<const uint32_t> counts) {
  uint64_t sum = 0;
  for (const uint32_t value : counts) sum += value;
  return sum;
}

// The mean of `count` terms, each over the layers; nothing without a term.
std::optional<double> mean_of(double sum, uint64_t count, uint32_t layer_count = 1) {
  if (count == 0) return std::nullopt;
  return sum / (static_cast<double>(count) * layer_count);
}

void add_to(std::vector<uint64_t>& sums, const std::vector<uint64_t>& more) {
  for (size_t i = 0; i < sums.size(); ++i) sums[i] += more[i];
}

}  // namespace

std::optional<double> share_of_80_percent(std::vector<uint32_t> counts) {
  std::sort(counts.begin(), counts.end(), std::greater<>());
  uint64_t total = 0, sum = 0;
  for (const uint32_t value : counts) total += value;
  if (total == 0) return std::nullopt;
  size_t neurons = 0;
  while (5 * sum < 4 * total) sum += counts[neurons++];
  return static_cast<double>(neurons) / static_cast<double>(counts.size());
}

double top_fifth_overlap(std::span<const uint32_t> a, std::span<const uint32_t> b) {
  TC_CHECK(a.size() == b.size() && !a.empty(), "counts of different layers");
  const TopFifth top_a = top_fifth(a), top_b = top_fifth(b);
  double shared = 0;
  for (size_t i = 0; i < a.size(); ++i) shared += top_a.place(a[i]) * top_b.place(b[i]);
  return shared / static_cast<double>(fifth_of(a.size()));
}

double top_fifth_firings(std::span<const uint32_t> choice, std::span<const uint32_t> counts) {
  TC_CHECK(choice.size() == counts.size() && !choice.empty(), "counts of different layers");
  const TopFifth top = top_fifth(choice);
  uint64_t above = 0, of_tied = 0;
  for (size_t i = 0; i < counts.size(); ++i) {
    if (choice[i] > top.last) above += counts[i];
    if (choice[i] == top.last) of_tied += counts[i];
  }
  return static_cast<double>(above) +
         static_cast<double>(of_tied * top.places_for_tied) / static_cast<double>(top.tied);
}

StatisticsCounter::StatisticsCounter(const NeuronPool& pool, const StatisticsOptions& options)
    : pool_(pool),
      options_(options),
      memory_(largest(options)),
      pair_counts_(options.lags.size()),
      union_counts_(options.windows.size()),
      fresh_counts_(options.windows.size()),
      recent_(memory_ * pool.words_per_step()),
      scratch_(pool.words_per_layer()),
      total_(pool.total()),
      halves_{std::vector<uint32_t>(pool.total()), std::vector<uint32_t>(pool.total())},
      sequence_(pool.total()) {
  LayerSums zero;
  zero.both.resize(options.lags.size());
  zero.first.resize(options.lags.size());
  zero.in_union.resize(options.windows.size());
  zero.in_fresh.resize(options.windows.size());
  sums_.assign(pool.layer_count, zero);
  whole_ = zero;
}

// The words of the step `lag` steps ago.
const uint64_t* StatisticsCounter::past(uint32_t lag) const {
  return recent_.data() + (sequence_steps_ - lag) % memory_ * pool_.words_per_step();
}

void StatisticsCounter::add(const StepInfo& info, std::span<const uint64_t> words) {
  TC_CHECK(words.size() == pool_.words_per_step(), "words of another pool");
  if (task_ != info.task) {
    end_sequence();
    task_ = info.task;
  }
  if (info.position < options_.position_min) return;
  for (size_t i = 0; i < options_.lags.size(); ++i) {
    pair_counts_[i] += options_.lags[i] <= sequence_steps_;
  }
  for (size_t i = 0; i < options_.windows.size(); ++i) {
    union_counts_[i] += options_.windows[i] <= sequence_steps_ + 1;
    fresh_counts_[i] += options_.windows[i] <= sequence_steps_;
  }
  const uint32_t stride = pool_.words_per_layer();
  for (uint32_t layer = 0; layer < pool_.layer_count; ++layer) {
    const auto of_layer = words.subspan(uint64_t{layer} * stride, stride);
    compare(layer, of_layer);
    widen(layer, of_layer);
  }
  std::vector<uint32_t>& half = halves_[sequence_steps_ % 2];
  for_each_bit(pool_, words, [&half](uint32_t flat) { ++half[flat]; });
  if (memory_ > 0) {
    std::copy(words.begin(), words.end(),
              recent_.begin() +
                  static_cast<std::ptrdiff_t>(sequence_steps_ % memory_ * pool_.words_per_step()));
  }
  ++sequence_steps_;
  ++step_count_;
}

// The earlier step of each pair is the one that overlap() divides by.
void StatisticsCounter::compare(uint32_t layer, std::span<const uint64_t> words) {
  LayerSums& sums = sums_[layer];
  const uint64_t offset = uint64_t{layer} * pool_.words_per_layer();
  for (size_t i = 0; i < options_.lags.size(); ++i) {
    if (options_.lags[i] > sequence_steps_) continue;
    const uint64_t* earlier = past(options_.lags[i]) + offset;
    for (size_t w = 0; w < words.size(); ++w) {
      sums.both[i] += static_cast<uint64_t>(std::popcount(earlier[w] & words[w]));
      sums.first[i] += static_cast<uint64_t>(std::popcount(earlier[w]));
    }
  }
}

// Walks back from the step itself; scratch_ is the union of the steps before it.
void StatisticsCounter::widen(uint32_t layer, std::span<const uint64_t> words) {
  if (options_.windows.empty()) return;
  LayerSums& sums = sums_[layer];
  const uint64_t offset = uint64_t{layer} * pool_.words_per_layer();
  const uint32_t widest = *std::max_element(options_.windows.begin(), options_.windows.end());
  const uint64_t active = count(words);
  std::fill(scratch_.begin(), scratch_.end(), 0);
  for (uint32_t back = 0; back <= widest && back <= sequence_steps_; ++back) {
    if (back > 0) {
      const uint64_t* earlier = past(back) + offset;
      for (size_t w = 0; w < words.size(); ++w) scratch_[w] |= earlier[w];
    }
    uint64_t known = 0;
    for (size_t w = 0; w < words.size(); ++w) {
      known += static_cast<uint64_t>(std::popcount(scratch_[w] & words[w]));
    }
    const uint64_t in_union = count(scratch_) + active - known;
    for (size_t i = 0; i < options_.windows.size(); ++i) {
      if (options_.windows[i] == back + 1) sums.in_union[i] += in_union;
      if (options_.windows[i] == back) sums.in_fresh[i] += active - known;
    }
  }
}

std::span<const uint32_t> StatisticsCounter::layer_of(const std::vector<uint32_t>& counts,
                                                      uint32_t layer) const {
  return std::span(counts).subspan(uint64_t{layer} * pool_.neuron_count, pool_.neuron_count);
}

void StatisticsCounter::end_sequence() {
  if (sequence_steps_ == 0) return;
  for (size_t i = 0; i < sequence_.size(); ++i) sequence_[i] = halves_[0][i] + halves_[1][i];
  for (uint32_t layer = 0; layer < pool_.layer_count; ++layer) {
    add_share(sums_[layer], layer_of(sequence_, layer));
  }
  add_share(whole_, sequence_);
  if (sequence_steps_ > 1) compare_halves();
  if (sequence_count_ > 0) {
    compare_with_previous();
    cover();
  }
  for (size_t i = 0; i < total_.size(); ++i) total_[i] += sequence_[i];
  previous_ = sequence_;
  previous_even_ = halves_[0];
  for (auto& half : halves_) std::fill(half.begin(), half.end(), 0);
  sequence_steps_ = 0;
  ++sequence_count_;
}

void StatisticsCounter::add_share(LayerSums& sums, std::span<const uint32_t> counts) const {
  const auto share = share_of_80_percent({counts.begin(), counts.end()});
  sums.share_80 += share.value_or(0);
  sums.shares += share.has_value();
}

void StatisticsCounter::compare_halves() {
  for (uint32_t layer = 0; layer < pool_.layer_count; ++layer) {
    sums_[layer].halves +=
        top_fifth_overlap(layer_of(halves_[0], layer), layer_of(halves_[1], layer));
  }
  ++half_count_;
}

void StatisticsCounter::compare_with_previous() {
  const bool halves = sequence_steps_ > 1;
  for (uint32_t layer = 0; layer < pool_.layer_count; ++layer) {
    LayerSums& sums = sums_[layer];
    sums.shared += top_fifth_overlap(layer_of(previous_, layer), layer_of(sequence_, layer));
    if (!halves) continue;
    sums.half_next +=
        top_fifth_overlap(layer_of(previous_even_, layer), layer_of(halves_[1], layer));
  }
  half_next_count_ += halves;
}

// total_ still is that of the earlier sequences alone.
void StatisticsCounter::cover() {
  Carried whole;
  for (uint32_t layer = 0; layer < pool_.layer_count; ++layer) {
    const auto counts = layer_of(sequence_, layer);
    const Carried carried{top_fifth_firings(counts, counts),
                          top_fifth_firings(layer_of(total_, layer), counts), sum_of(counts)};
    add_coverage(sums_[layer], carried);
    whole = {whole.own + carried.own, whole.past + carried.past, whole.fired + carried.fired};
  }
  add_coverage(whole_, whole);
}

void StatisticsCounter::add_coverage(LayerSums& sums, const Carried& carried) {
  if (carried.fired == 0) return;
  sums.own += carried.own / static_cast<double>(carried.fired);
  sums.past += carried.past / static_cast<double>(carried.fired);
  ++sums.coverages;
}

ActivityStatistics StatisticsCounter::ratios(const LayerSums& sums, std::vector<uint32_t> counts,
                                             uint32_t layer_count) const {
  ActivityStatistics result;
  const uint64_t neurons = counts.size();
  result.mean_activity = ratio(sum_of(counts), neurons * step_count_);
  for (size_t i = 0; i < options_.lags.size(); ++i) {
    result.overlap.push_back(ratio(sums.both[i], sums.first[i]));
  }
  for (size_t i = 0; i < options_.windows.size(); ++i) {
    result.unions.push_back(ratio(sums.in_union[i], union_counts_[i] * neurons));
    result.fresh.push_back(ratio(sums.in_fresh[i], fresh_counts_[i] * neurons));
  }
  const uint64_t pairs = sequence_count_ > 0 ? sequence_count_ - 1 : 0;
  result.sequence_overlap = mean_of(sums.shared, pairs, layer_count);
  result.half_overlap = mean_of(sums.halves, half_count_, layer_count);
  result.half_next_overlap = mean_of(sums.half_next, half_next_count_, layer_count);
  result.own_coverage = mean_of(sums.own, sums.coverages);
  result.past_coverage = mean_of(sums.past, sums.coverages);
  result.sequence_share_80 = mean_of(sums.share_80, sums.shares);
  result.share_80 = share_of_80_percent(std::move(counts));
  return result;
}

TraceStatistics StatisticsCounter::finish() {
  end_sequence();
  TraceStatistics result;
  result.options = options_;
  result.step_count = step_count_;
  result.sequence_count = sequence_count_;
  LayerSums whole = whole_;
  for (uint32_t layer = 0; layer < pool_.layer_count; ++layer) {
    const LayerSums& sums = sums_[layer];
    const auto counts = layer_of(total_, layer);
    result.layers.push_back(ratios(sums, {counts.begin(), counts.end()}, 1));
    add_to(whole.both, sums.both);
    add_to(whole.first, sums.first);
    add_to(whole.in_union, sums.in_union);
    add_to(whole.in_fresh, sums.in_fresh);
    whole.shared += sums.shared;
    whole.halves += sums.halves;
    whole.half_next += sums.half_next;
  }
  if (pool_.layer_count > 0) result.whole = ratios(whole, total_, pool_.layer_count);
  return result;
}

TraceStatistics statistics_of(const TraceReader& reader, const StatisticsOptions& options,
                              const std::function<void(uint64_t)>& progress) {
  const NeuronPool pool = whole_model(reader.header());
  const std::vector<StepInfo> steps = reader.steps();
  StatisticsCounter counter(pool, options);
  for_each_block(reader, pool, 0, reader.step_count(), [&](const StepBlock& block) {
    for (uint64_t i = 0; i < block.step_count; ++i) {
      counter.add(steps[block.step_begin + i], block.step(i).words);
    }
    if (progress) progress(block.step_begin + block.step_count);
  });
  return counter.finish();
}

}  // namespace thermocline
