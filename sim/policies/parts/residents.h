// Residents: hot neurons that may not leave yet, because they came a short time ago.
//
// Goals: constant work per admission; nothing allocated once it has grown.
// Thread-safety: none needed; one policy, one thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace thermocline {

class Residents {
 public:
  explicit Residents(uint64_t step_count) : step_count_(step_count) {}
  void start(uint64_t words) { bits_.assign(words, 0); }

  // A neuron, by place (parts/dense_scores.h), was admitted at the end of step `now`.
  void settle(uint32_t place, uint64_t now) {
    if (step_count_ == 0) return;
    bits_[place / 64] |= uint64_t{1} << (place % 64);
    settled_.push_back({now, place});
  }

  // Before step `now`: lets those go that have stayed for their time.
  void release(uint64_t now) {
    while (next_ < settled_.size() && settled_[next_].step + step_count_ <= now) {
      const uint32_t place = settled_[next_++].place;
      bits_[place / 64] &= ~(uint64_t{1} << (place % 64));
    }
    if (2 * next_ <= settled_.size()) return;
    settled_.erase(settled_.begin(), settled_.begin() + static_cast<ptrdiff_t>(next_));
    next_ = 0;
  }

  uint64_t word(size_t w) const { return bits_[w]; }

 private:
  struct Settled {
    uint64_t step;
    uint32_t place;
  };

  const uint64_t step_count_;
  std::vector<uint64_t> bits_;
  std::vector<Settled> settled_;  // in order of admission
  size_t next_ = 0;               // into settled_: the first that has not been let go
};

}  // namespace thermocline
