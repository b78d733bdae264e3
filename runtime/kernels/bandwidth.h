// How fast this machine reads memory: the limit that every other kernel is held against.
//
// Goals: measure what threads reach when they do nothing but add up a buffer, so that a kernel's
//   share of it is a fair figure. Non-goals: write or copy bandwidth.
// Thread-safety: may run in several processes or threads at once; then each sees its share.
#pragma once

#include <cstddef>
#include <cstdint>

namespace thermocline {

// Bytes per second that `thread_count` threads read together: the best pass over `buffer` among
// those begun within `seconds`. The caller owns the buffer, has written to it (untouched pages are
// one page of zeros), and sizes it well beyond the last-level cache: 256 MiB serve most machines,
// and a model's own weights serve too. At least two passes are made: the first one warms up;
// with 0 seconds, exactly two.
double read_bandwidth(const std::byte* buffer, uint64_t bytes, int thread_count, double seconds);

}  // namespace thermocline
