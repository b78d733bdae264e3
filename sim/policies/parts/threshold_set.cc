#include "sim/policies/parts/threshold_set.h"

#include <algorithm>
#include <array>

#include "models/bit_sums.h"

namespace thermocline {

void ThresholdSet::start(const PolicyContext& context, HotSet& hot) {
  admit_count_max_ = std::min(context.admit_count_max, context.pool.total());
  scores_.start(context);
  candidates_.resize(context.pool.words_per_step());
  victims_.resize(context.pool.words_per_step());
  make_sections(context);
  for (Section& section : sections_) section.quantile = section.budget == 0 ? 1.0 : 0.0;
  if (context.profile != nullptr) fill(*context.profile, hot);
  for (Section& section : sections_) section.threshold = section.quantile;
}

void ThresholdSet::make_sections(const PolicyContext& context) {
  const NeuronPool& pool = context.pool;
  const uint64_t budget = std::min(context.hot_count_max, pool.total());
  const uint64_t count = rules_.by_layer ? pool.layer_count : 1;
  const uint64_t words = pool.words_per_step() / std::max<uint64_t>(count, 1);
  for (uint64_t i = 0; i < count; ++i) {
    Section section{i * words, words, pool.total() / count,
                    budget * (i + 1) / count - budget * i / count};
    section.cursor = BitCursor(i * words, (i + 1) * words);
    sections_.push_back(section);
  }
}

// The quantile starts at the share of the last neuron that fits.
void ThresholdSet::fill(const ActivationProfile& profile, HotSet& hot) {
  for (const uint32_t flat : ranked_by_count(profile.counts)) {
    const uint32_t place = scores_.places().place_of(flat);
    Section& section = section_of(place);
    if (section.hot_count == section.budget) continue;
    hot.insert(flat);
    ++section.hot_count;
    section.quantile = scores_.share_of(scores_.scores()[place]);
  }
}

ThresholdSet::Section& ThresholdSet::section_of(uint32_t place) {
  return sections_[place / 64 / sections_.front().word_count];
}

void ThresholdSet::step(const ActiveStep& active, const HotSet& hot, double wanted, Moves& moves) {
  scores_.begin_step(active.words);
  for (Section& section : sections_) {
    section.threshold = std::max(wanted, section.quantile);
    score(section, active, hot);
  }
  propose(wanted, moves);
  for (Section& section : sections_) {
    const double over = static_cast<double>(section.above) - static_cast<double>(section.budget);
    section.quantile = std::clamp(
        section.quantile + rules_.eta * over / static_cast<double>(section.neuron_count), 0.0, 1.0);
  }
}

// Adds the step to the scores of a section; marks who may come and who may go.
void ThresholdSet::score(Section& section, const ActiveStep& active, const HotSet& hot) {
  const uint64_t promoted = scores_.score_of(section.threshold / rules_.gamma);
  const uint64_t demoted = scores_.score_of(section.threshold);
  const uint64_t quantile = scores_.score_of(section.quantile);
  section.above = section.victim_count = section.hot_count = 0;
  for_each_score_block(section.word_count, [&](size_t offset, size_t count) {
    const size_t first = section.first_word + offset;
    scores_.add(active.words, first, count);
    scores_.at_least(promoted, first, count, candidates_.data() + first);
    scores_.at_least(demoted, first, count, victims_.data() + first);
    section.above += count_above(quantile, first, count);
    for (size_t w = first; w < first + count; ++w) {
      candidates_[w] &= active.words[w] & ~hot.words()[w];
      victims_[w] = hot.words()[w] & ~victims_[w];
    }
    section.victim_count += bit_sums().count(victims_.data() + first, count);
    section.hot_count += bit_sums().count(hot.words().data() + first, count);
  });
  if (quantile == 0) section.above = section.neuron_count;  // without the places of spare bits
}

uint64_t ThresholdSet::count_above(uint64_t least, size_t first, size_t count) const {
  std::array<uint64_t, kScoreBlockWords> bits;
  scores_.at_least(least, first, count, bits.data());
  return bit_sums().count(bits.data(), count);
}

void ThresholdSet::propose(double wanted, Moves& moves) {
  const auto candidates = [&](size_t w) { return candidates_[w]; };
  for (const ScoredPlace& best :
       strongest_.search(scores_.scores(), admit_count_max_, candidates)) {
    Section& section = section_of(best.place);
    if (section.hot_count >= section.budget) {
      if (section.victim_count == 0) continue;
      evict_next(section, moves);
    }
    moves.admit.push_back(scores_.places().flat_of(best.place));
    ++section.hot_count;
  }
  for (Section& section : sections_) {
    if (wanted <= section.quantile) continue;
    while (section.victim_count > 0 && moves.evict.size() < admit_count_max_) {
      evict_next(section, moves);
    }
  }
}

// Section has a victim.
void ThresholdSet::evict_next(Section& section, Moves& moves) {
  moves.evict.push_back(scores_.places().flat_of(section.cursor.take(victims_)));
  --section.victim_count;
  --section.hot_count;
}

double ThresholdSet::threshold() const {
  double sum = 0;
  for (const Section& section : sections_) sum += section.threshold;
  return sum / static_cast<double>(sections_.size());
}

double ThresholdSet::quantile() const {
  double sum = 0;
  for (const Section& section : sections_) sum += section.quantile;
  return sum / static_cast<double>(sections_.size());
}

}  // namespace thermocline
