// fifo: the neuron that entered first leaves first, whatever it did since. A cache (P8).
//
// Classical form (--fill demand): every active neuron is a request; a miss is admitted at once and
// the resident that was admitted first leaves. Counts equal those of any object-at-a-time
// simulator. Set-valued form: the profile's hottest neurons start hot, in the order of their index;
// after a step missed active neurons enter, up to the migration limit, a rotating cursor picks
// them, and as many that entered first leave. The baseline that any cache has to beat.
#include <algorithm>

#include "sim/policies/parts/dense_scores.h"
#include "sim/policies/parts/rotating_cursor.h"
#include "sim/policy.h"

namespace thermocline {
namespace {

// Neurons in the order of their admission, in a ring: a full one puts a new one in the place of the
// oldest.
class AdmissionRing {
 public:
  void push(uint32_t neuron) { ring_.push_back(neuron); }
  uint64_t size() const { return ring_.size(); }
  uint32_t oldest() const { return ring_[oldest_]; }
  void replace_oldest(uint32_t neuron) {
    ring_[oldest_] = neuron;
    if (++oldest_ == ring_.size()) oldest_ = 0;
  }

 private:
  std::vector<uint32_t> ring_;
  size_t oldest_ = 0;
};

class Fifo final : public Policy {
 public:
  static constexpr bool needs_future = false;
  static std::vector<PolicyParameter> parameters() { return {}; }
  explicit Fifo(const PolicyValues&) {}

  class Request final : public RequestPolicy {
   public:
    explicit Request(const PolicyValues&) {}
    void start(const PolicyContext& context) override { budget_ = context.hot_count_max; }
    void hit(uint32_t) override {}
    uint32_t evict(uint32_t) override { return ring_.oldest(); }
    void admit(uint32_t flat) override {
      ring_.size() < budget_ ? ring_.push(flat) : ring_.replace_oldest(flat);
    }

   private:
    uint64_t budget_ = 0;
    AdmissionRing ring_;
  };

  void start(const PolicyContext& context, HotSet& hot) override {
    places_ = ScorePlaces(context.pool);
    fill_hottest(*context.profile, context.hot_count_max, 0, hot);
    for_each_bit(context.pool, hot.words(), [this](uint32_t flat) { ring_.push(flat); });
    swap_count_max_ = std::min<uint64_t>(context.admit_count_max, ring_.size());
  }

  void step(const ActiveStep& active, const HotSet& hot, Moves& moves) override {
    uint64_t left = swap_count_max_;
    const auto missed = [&](uint64_t w) { return active.words[w] & ~hot.words()[w]; };
    cursor_.go(places_.word_count(), missed, [&](uint32_t place) {
      if (left == 0) return false;
      const uint32_t incoming = places_.flat_of(place);
      moves.evict.push_back(ring_.oldest());
      moves.admit.push_back(incoming);
      ring_.replace_oldest(incoming);
      --left;
      return true;
    });
  }

 private:
  ScorePlaces places_;
  uint64_t swap_count_max_ = 0;  // per step
  AdmissionRing ring_;
  RotatingCursor cursor_;
};

}  // namespace

THERMOCLINE_POLICY(fifo, "cache: the neuron that entered first leaves first", Fifo);

}  // namespace thermocline
