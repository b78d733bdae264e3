#include "traces/top_fifth.h"

#include <algorithm>
#include <array>

#include "models/bit_sums.h"
#include "models/error.h"

namespace thermocline {
namespace {

constexpr uint32_t kDigitBits = 11, kDigits = 1u << kDigitBits;

uint64_t fifth_of(uint64_t size) { return std::max<uint64_t>(size / 5, 1); }

// The count of place `place` (from 1, most active first): a radix selection, digit by digit from
// the highest that any count has.
uint32_t count_of_place(std::span<const uint32_t> counts, uint64_t place) {
  const uint32_t largest = *std::max_element(counts.begin(), counts.end());
  uint32_t shift = largest >> 2 * kDigitBits != 0 ? 2 * kDigitBits
                   : largest >> kDigitBits != 0   ? kDigitBits
                                                  : 0;
  uint32_t chosen = 0, known = 0;  // bits of the count, and which of them are settled
  for (;; shift -= kDigitBits) {
    std::array<uint32_t, kDigits> neurons{};
    for (const uint32_t count : counts) {
      if ((count & known) == chosen) ++neurons[count >> shift & (kDigits - 1)];
    }
    uint32_t digit = kDigits - 1;
    while (place > neurons[digit]) place -= neurons[digit--];
    chosen |= digit << shift;
    known |= (kDigits - 1) << shift;
    if (shift == 0) return chosen;
  }
}

template <class Holds>
std::vector<uint64_t> bits_where(std::span<const uint32_t> counts, Holds holds) {
  std::vector<uint64_t> bits((counts.size() + 63) / 64);
  for (size_t w = 0; w < bits.size(); ++w) {
    const auto of_word = counts.subspan(64 * w, std::min<size_t>(64, counts.size() - 64 * w));
    uint64_t word = 0;
    for (size_t i = 0; i < of_word.size(); ++i) word |= uint64_t{holds(of_word[i])} << i;
    bits[w] = word;
  }
  return bits;
}

}  // namespace

TopFifth top_fifth(std::span<const uint32_t> counts) {
  TC_CHECK(!counts.empty(), "a fifth of no neurons");
  const uint64_t places = fifth_of(counts.size());
  TopFifth top;
  top.last = count_of_place(counts, places);
  uint64_t above = 0;
  for (const uint32_t count : counts) {
    above += count > top.last;
    top.tied += count == top.last;
  }
  top.places_for_tied = places - above;
  return top;
}

TopSet::TopSet(std::span<const uint32_t> counts) : places_(fifth_of(counts.size())) {
  const TopFifth top = top_fifth(counts);
  tied_share_ = static_cast<double>(top.places_for_tied) / static_cast<double>(top.tied);
  above_ = bits_where(counts, [&top](uint32_t count) { return count > top.last; });
  tied_ = bits_where(counts, [&top](uint32_t count) { return count == top.last; });
}

double TopSet::overlap(const TopSet& other) const {
  TC_CHECK(above_.size() == other.above_.size() && places_ == other.places_,
           "counts of different layers");
  const auto both = [](const std::vector<uint64_t>& a, const std::vector<uint64_t>& b) {
    return static_cast<double>(bit_sums().count_both(a.data(), b.data(), a.size()));
  };
  const double whole = both(above_, other.above_);
  const double mine = both(tied_, other.above_), theirs = both(above_, other.tied_);
  const double shared = whole + mine * tied_share_ + theirs * other.tied_share_ +
                        both(tied_, other.tied_) * tied_share_ * other.tied_share_;
  return shared / static_cast<double>(places_);
}

uint64_t TopSet::bytes_of(uint32_t neuron_count) {
  return sizeof(TopSet) + 2 * sizeof(uint64_t) * ((uint64_t{neuron_count} + 63) / 64);
}

double top_fifth_overlap(std::span<const uint32_t> a, std::span<const uint32_t> b) {
  return TopSet(a).overlap(TopSet(b));
}

double top_fifth_firings(std::span<const uint32_t> choice, std::span<const uint32_t> counts) {
  TC_CHECK(choice.size() == counts.size(), "counts of different layers");
  const TopFifth top = top_fifth(choice);
  uint64_t above = 0, of_tied = 0;
  for (size_t i = 0; i < counts.size(); ++i) {
    above += choice[i] > top.last ? counts[i] : 0;
    of_tied += choice[i] == top.last ? counts[i] : 0;
  }
  return static_cast<double>(above) +
         static_cast<double>(of_tied * top.places_for_tied) / static_cast<double>(top.tied);
}

void FiringHistogram::add(std::span<const uint32_t> counts) {
  if (counts.empty()) return;
  const uint64_t size = uint64_t{*std::max_element(counts.begin(), counts.end())} + 1;
  if (neurons_by_count_.size() < size) neurons_by_count_.resize(size);
  for (const uint32_t count : counts) {
    ++neurons_by_count_[count];
    firings_ += count;
  }
  neurons_ += counts.size();
}

void FiringHistogram::add(const FiringHistogram& more) {
  const size_t size = more.neurons_by_count_.size();
  if (neurons_by_count_.size() < size) neurons_by_count_.resize(size);
  for (size_t i = 0; i < size; ++i) neurons_by_count_[i] += more.neurons_by_count_[i];
  neurons_ += more.neurons_;
  firings_ += more.firings_;
}

// In integers: the neurons that are taken have at least 4/5.
std::optional<double> FiringHistogram::share_of_80_percent() const {
  if (firings_ == 0) return std::nullopt;
  uint64_t taken = 0, sum = 0;
  for (uint64_t count = neurons_by_count_.size() - 1; 5 * sum < 4 * firings_; --count) {
    const uint64_t missing = 4 * firings_ - 5 * sum, each = 5 * count;
    const uint64_t wanted = (missing + each - 1) / each;
    const uint64_t here = std::min<uint64_t>(neurons_by_count_[count], wanted);
    taken += here;
    sum += here * count;
  }
  return static_cast<double>(taken) / static_cast<double>(neurons_);
}

std::vector<double> FiringHistogram::carried(uint32_t points) const {
  std::vector<double> shares;
  if (firings_ == 0) return shares;
  uint64_t count = neurons_by_count_.size() - 1, taken = 0, sum = 0;
  for (uint64_t i = 1; i <= points; ++i) {
    while ((taken + neurons_by_count_[count]) * points < i * neurons_) {
      taken += neurons_by_count_[count];
      sum += neurons_by_count_[count] * count;
      --count;
    }
    const double more = static_cast<double>(i * neurons_) / points - static_cast<double>(taken);
    shares.push_back((static_cast<double>(sum) + more * static_cast<double>(count)) /
                     static_cast<double>(firings_));
  }
  return shares;
}

}  // namespace thermocline
