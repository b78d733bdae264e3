// How fast this machine reads memory and computes: the limits that every other kernel is held
// against.
//
// Goals: measure what threads reach when they do nothing but read a buffer, or nothing but multiply
//   and add, so that a kernel's share of it is a fair figure. Non-goals: write or copy bandwidth.
// Thread-safety: may run in several processes or threads at once; then each sees its share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

namespace thermocline {

// Bytes per second that `thread_count` threads read together: the best pass over `buffer` among
// those begun within `seconds`. The caller owns the buffer, has written to it (untouched pages are
// one page of zeros), and sizes it well beyond the last-level cache: 256 MiB serve most machines,
// and a model's own weights serve too. At least two passes are made: the first one warms up;
// with 0 seconds, exactly two.
double read_bandwidth(const std::byte* buffer, uint64_t bytes, int thread_count, double seconds);

// Calls work(begin, end) for the parts of [0, count), each on its own thread, and waits for them:
// the threads that somebody has anyway.
using RunParts =
    std::function<void(int count, const std::function<void(int begin, int end)>& work)>;

// Reads the buffer once, each thread its own part; a tail of less than 512 bytes is left out.
void read_once(const std::byte* buffer, uint64_t bytes, const RunParts& run);

// f32 operations per second that the threads of `run` reach in registers, a multiplication and an
// addition counted as two: the best pass of `seconds`.
double compute_peak(const RunParts& run, double seconds);

}  // namespace thermocline
