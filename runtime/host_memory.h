// What the ranks of a host take of its memory: each may have room for itself, all together not.
//
// Thread-safety: a pure function.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "runtime/comm.h"

namespace thermocline {

// Bytes. `free`: of the whole host, as the rank saw it before any of them took any.
struct RankMemory {
  HostName host = {};
  uint64_t needed = 0;
  uint64_t free = 0;
};

// Names the first host of several `ranks` (of the job, in rank order) that take more than it has
// free, these ranks, what they take and what is free; empty: all have room.
std::string lack_of_host_memory(std::span<const RankMemory> ranks);

}  // namespace thermocline
