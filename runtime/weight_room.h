// Whether a rank's weights fit: what a backend cannot run or has no room for is refused before
// anything is read.
//
// Goals: messages that name what takes the room and what to do. Non-goals: reading (part_loader.h),
//   the hosts of several ranks (host_memory.h).
// Thread-safety: pure functions of their arguments.
#pragma once

#include <cstdint>

#include "models/shape.h"
#include "runtime/backend.h"
#include "runtime/partition.h"
#include "runtime/rank_weights.h"
#include "runtime/weight_parts.h"

namespace thermocline {

// Hot bundles that the rank's budgets allow, in the memory of each backend.
struct HotMax {
  uint64_t device = 0, host = 0;
};
HotMax hot_max_of(const RankShare& share, const TierOptions& tiers, const ModelShape& shape);

// What the rank's weights and tiers take of the memory of the host, bytes: nothing where all of
// them lie on a device. Error{usage} where a backend cannot run a part, Error{work} without room.
uint64_t host_bytes_of(const WeightPlan& plan, const RankShare& share, const ModelShape& shape,
                       const Backend& backend, const TierOptions& tiers, const HotMax& hot_max);

}  // namespace thermocline
