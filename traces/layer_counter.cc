#include "traces/layer_counter.h"

#include <algorithm>
#include <utility>

namespace thermocline {
namespace {

void add_to(std::vector<uint64_t>& sums, const std::vector<uint64_t>& more) {
  for (size_t i = 0; i < sums.size(); ++i) sums[i] += more[i];
}

template <class Value, size_t n>
void add_to(std::array<Value, n>& sums, const std::array<Value, n>& more) {
  for (size_t i = 0; i < n; ++i) sums[i] += more[i];
}

uint32_t largest_of(const std::vector<uint32_t>& values) {
  return values.empty() ? 0 : *std::max_element(values.begin(), values.end());
}

uint32_t memory_of(const StatisticsOptions& options) {
  return std::max(largest_of(options.lags), largest_of(options.windows));
}

}  // namespace

LayerSums::LayerSums(const StatisticsOptions& options)
    : both(options.lags.size()),
      first(options.lags.size()),
      in_union(options.windows.size()),
      unions(options.windows.size()),
      in_fresh(options.windows.size()),
      freshes(options.windows.size()) {}

void LayerSums::add(const LayerSums& more) {
  add_to(both, more.both);
  add_to(first, more.first);
  add_to(in_union, more.in_union);
  add_to(unions, more.unions);
  add_to(in_fresh, more.in_fresh);
  add_to(freshes, more.freshes);
  add_to(shared, more.shared);
  add_to(half_shared, more.half_shared);
  add_to(pairs, more.pairs);
  add_to(half_pairs, more.half_pairs);
  halves += more.halves;
  half_count += more.half_count;
  predicted += more.predicted;
  foreseen += more.foreseen;
}

void SequenceMeans::add(const FiringHistogram& sequence) {
  const auto share = sequence.share_of_80_percent();
  share_80 += share.value_or(0);
  shares += share.has_value();
}

void SequenceMeans::add(const Carried& carried) {
  if (carried.fired == 0) return;
  own += carried.own / static_cast<double>(carried.fired);
  past += carried.past / static_cast<double>(carried.fired);
  ++coverages;
}

LayerCounter::LayerCounter(uint32_t neuron_count, const StatisticsOptions& options)
    : neuron_count_(neuron_count),
      words_((neuron_count + 63) / 64),
      options_(options),
      memory_(memory_of(options)),
      widest_(largest_of(options.windows)),
      sums_(options),
      joined_(words_),
      widths_(uint64_t{widest_} + 1),
      total_(neuron_count) {}

uint64_t LayerCounter::bytes_of(uint32_t neuron_count) {
  const uint64_t tops = (uint64_t{kTaskDistances.back()} + 1) * 2 * TopSet::bytes_of(neuron_count);
  return tops + uint64_t{neuron_count} * sizeof(uint32_t) + sizeof(LayerCounter);
}

uint64_t LayerCounter::slot_bytes_of(uint32_t neuron_count, const StatisticsOptions& options) {
  const uint64_t words = (uint64_t{neuron_count} + 63) / 64;
  return memory_of(options) * (words + 1) * sizeof(uint64_t) +
         options.windows.size() * sizeof(uint64_t) + 2 * BitCounter::bytes_of(neuron_count);
}

void LayerCounter::open_slots(uint32_t slot_count) {
  while (open_.size() < slot_count) {
    Open& added = open_.emplace_back();
    added.recent.resize(uint64_t{memory_} * words_);
    added.active.resize(memory_);
    added.last_union.resize(options_.windows.size());
    for (BitCounter& half : added.even_and_odd) half = BitCounter(neuron_count_);
  }
}

// The words of the step `lag` steps before a sequence's step number `steps`.
const uint64_t* LayerCounter::past(const Open& open, uint64_t steps, uint64_t lag) const {
  return open.recent.data() + (steps - lag) % memory_ * words_;
}

void LayerCounter::step(const SequenceEvent& event, const uint64_t* words,
                        const uint64_t* predicted) {
  Open& sequence = open_[event.slot];
  const uint64_t active = bit_sums().count(words, words_);
  compare(sequence, event.steps, words);
  widen(sequence, event.steps, words, active);
  if (predicted != nullptr) foresee(words, predicted);
  sequence.even_and_odd[event.steps % 2].add(words);
  if (memory_ == 0) return;
  const uint64_t place = event.steps % memory_;
  std::copy_n(words, words_, sequence.recent.data() + place * words_);
  sequence.active[place] = active;
}

// The earlier step of each pair is the one that an overlap is divided by.
void LayerCounter::compare(const Open& sequence, uint64_t steps, const uint64_t* words) {
  for (size_t i = 0; i < options_.lags.size(); ++i) {
    const uint64_t lag = options_.lags[i];
    if (lag > steps) continue;
    sums_.both[i] += bit_sums().count_both(past(sequence, steps, lag), words, words_);
    sums_.first[i] += sequence.active[(steps - lag) % memory_];
  }
}

// Walks back from the step itself. What is fresh after k steps is what the window of k + 1 steps
// that ends here has more than the window of k steps that ended one step before.
void LayerCounter::widen(Open& sequence, uint64_t steps, const uint64_t* words, uint64_t active) {
  if (options_.windows.empty()) return;
  std::copy_n(words, words_, joined_.begin());
  widths_[0] = active;
  for (uint64_t back = 1; back <= widest_ && back <= steps; ++back) {
    widths_[back] = bit_sums().widen(joined_.data(), past(sequence, steps, back), words_);
  }
  for (size_t i = 0; i < options_.windows.size(); ++i) {
    const uint64_t window = options_.windows[i];
    if (window <= steps) {
      sums_.in_fresh[i] += widths_[window] - sequence.last_union[i];
      ++sums_.freshes[i];
    }
    if (window > steps + 1) continue;
    sequence.last_union[i] = widths_[window - 1];
    sums_.in_union[i] += widths_[window - 1];
    ++sums_.unions[i];
  }
}

void LayerCounter::foresee(const uint64_t* words, const uint64_t* predicted) {
  sums_.predicted += bit_sums().count(predicted, words_);
  sums_.foreseen += bit_sums().count_both(words, predicted, words_);
}

LayerCounter::Ended LayerCounter::end(const SequenceEvent& event) {
  Open& sequence = open_[event.slot];
  const auto even = sequence.even_and_odd[0].counts(), odd = sequence.even_and_odd[1].counts();
  std::vector<uint32_t> counts(neuron_count_);
  for (size_t i = 0; i < counts.size(); ++i) counts[i] = even[i] + odd[i];
  Ended ended;
  ended.histogram.add(counts);
  means_.add(ended.histogram);
  Tops tops{TopSet(counts), TopSet(even)};
  const TopSet odd_top = event.steps > 1 ? TopSet(odd) : TopSet();
  compare_tops(tops, event.steps > 1 ? &odd_top : nullptr);
  if (event.at > 0) {
    ended.carried = coverage(counts);
    means_.add(ended.carried);
  }
  for (size_t i = 0; i < total_.size(); ++i) total_[i] += counts[i];
  earlier_.push_front(std::move(tops));
  if (earlier_.size() > kTaskDistances.back()) earlier_.pop_back();
  for (BitCounter& half : sequence.even_and_odd) half.clear();
  return ended;
}

// `odd`: null for a sequence of one step, which has no such half.
void LayerCounter::compare_tops(const Tops& tops, const TopSet* odd) {
  if (odd != nullptr) {
    sums_.halves += tops.even.overlap(*odd);
    ++sums_.half_count;
  }
  for (size_t i = 0; i < kTaskDistances.size() && kTaskDistances[i] <= earlier_.size(); ++i) {
    const Tops& earlier = earlier_[kTaskDistances[i] - 1];
    sums_.shared[i] += earlier.all.overlap(tops.all);
    ++sums_.pairs[i];
    if (odd == nullptr) continue;
    sums_.half_shared[i] += earlier.even.overlap(*odd);
    ++sums_.half_pairs[i];
  }
}

// total_ still is that of the earlier sequences alone.
Carried LayerCounter::coverage(std::span<const uint32_t> counts) const {
  Carried carried{top_fifth_firings(counts, counts), top_fifth_firings(total_, counts), 0};
  for (const uint32_t count : counts) carried.fired += count;
  return carried;
}

}  // namespace thermocline
