// oracle-static (P0): the best set that never changes, chosen with the replayed trace's own counts.
//
// Hot are the B neurons that fire most often in the trace that is replayed, ties by index. No
// static set has more hits; an online policy that follows drift may. An upper bound for the fixed
// policies, and an oracle: labelled so wherever it is printed.
#include "sim/policy.h"

namespace thermocline {
namespace {

class OracleStatic final : public RankedPolicy {
 public:
  static constexpr bool needs_future = true;
  static std::vector<PolicyParameter> parameters() { return {}; }
  explicit OracleStatic(const PolicyValues&) {}

  std::vector<uint32_t> ranking(const PolicyContext& context) override {
    return ranked_by_count(context.future->counts);
  }
};

}  // namespace

THERMOCLINE_POLICY(oracle_static, "the most frequent neurons of the replayed trace itself",
                   OracleStatic);

}  // namespace thermocline
