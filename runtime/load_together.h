// The ranks of a job load their weights, step by step together.
//
// Goals: what one of them lacks, in memory or on the disk, ends all before any has read a weight;
//   ranks of one host are held to its memory together; unless all have loaded, no bundle file stays
//   that this job made.
// Thread-safety: one rank, one thread.
#pragma once

#include "runtime/comm.h"
#include "runtime/rank_weights.h"

namespace thermocline {

struct LoadedWeights {
  RankWeights weights;
  bool made_bundles = false;  // any rank did; with a disk tier, the next run takes them as they are
};

// Collective; errors, and the other parameters: as WeightLoad's. All ranks throw an AgreedError
// where one fails, or the ranks of a host have no room together.
LoadedWeights load_together(Comm& comm, const WeightSource& source, const Partition& partition,
                            Backend& backend, bool check_finite, const TierOptions& tiers);

}  // namespace thermocline
