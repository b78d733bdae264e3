// MissRate: misses over needed neurons, summed up between two updates of a controller.
//
// Thread-safety: none needed; one policy, one thread.
#pragma once

#include <cstdint>
#include <optional>

#include "models/bit_sums.h"
#include "sim/policy.h"

namespace thermocline {

// "target", as the policies that are driven by the miss rate have it.
inline PolicyParameter miss_target_parameter() {
  return {"target",
          0.2,
          0.0,
          1.0,
          "misses over needed neurons that are aimed at",
          false,
          {},
          {0.05, 0.1, 0.3, 0.4}};
}

class MissRate {
 public:
  void add(const ActiveStep& active, const HotSet& hot) {
    const size_t words = active.words.size();
    needed_ += bit_sums().count(active.words.data(), words);
    hits_ += bit_sums().count_both(active.words.data(), hot.words().data(), words);
    ++step_count_;
  }
  uint64_t step_count() const { return step_count_; }

  // Since the last call; nothing where nothing was needed.
  std::optional<double> take() {
    std::optional<double> rate;
    if (needed_ > 0) rate = static_cast<double>(needed_ - hits_) / static_cast<double>(needed_);
    *this = {};
    return rate;
  }

 private:
  uint64_t needed_ = 0, hits_ = 0, step_count_ = 0;
};

}  // namespace thermocline
