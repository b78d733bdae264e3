// Master: the file that joins the shards for other tools. Our reader takes from it which shards
// belong together; the steps themselves it reads from the shards.
//
// Goals: h5py sees the whole model in one place; nothing is joined that does not fit together.
// Thread-safety: const after construction, pure functions.
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

// Paths of a trace's shards by rank, finished or not; where a rank has none, the path that it
// should have. The master says how many there are, else the first shard that can be read.
// Error{input}: neither is there.
std::vector<std::string> find_shards(const std::string& path);

// Throws Error{input} naming the shard unless all are parts of one recording: equal headers, and
// equal steps up to `step_count`.
void check_same_recording(const std::vector<Shard>& shards, uint64_t step_count);
// Also: every rank is there (in order), finished, with the same number of steps and the same tasks.
void check_complete(const std::vector<Shard>& shards);

// Throws Error{input} unless `shards` are complete and what the master at `path` joins.
void check_joined(const std::string& path, const Master& master, const std::vector<Shard>& shards);

// Active neurons by step and layer over all shards: (count, layer_count).
std::vector<uint32_t> sum_popcounts(const std::vector<Shard>& shards, uint64_t begin,
                                    uint64_t count, Bits which = Bits::active);

}  // namespace thermocline
