// Master: the file that joins the shards for other tools. Our reader takes from it which shards
// belong together; the steps themselves it reads from the shards.
//
// Goals: h5py sees the whole model in one place; nothing is joined that does not fit together.
// Thread-safety: pure functions; a Master is const after construction.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "traces/shard.h"

namespace thermocline {

struct Master {
  std::unique_ptr<Hdf5File> file;
  TraceHeader header;
  uint64_t step_count = 0;
  std::vector<std::string> shard_paths;  // by rank

  explicit Master(const std::string& path);
};

// Throws Error{input} naming the shard unless all are finished parts of one recording: equal
// headers, steps and tasks, each rank once. `shards` is by rank.
void check_together(const std::vector<Shard>& shards);

// Active neurons by step and layer over all shards: (count, layer_count).
std::vector<uint32_t> sum_popcounts(const std::vector<Shard>& shards, uint64_t begin,
                                    uint64_t count);

}  // namespace thermocline
