// What a rank measures of the machine that it runs on: read bandwidth, cores, caches, memory.
//
// Goals: the limit that this run's own figures are held against, measured in the same run.
// Thread-safety: measure_read_bandwidth may run on several ranks at once, each sees its share.
#pragma once

#include <cstdint>

namespace thermocline {

// Bytes per second that this process reads with `thread_count` threads, mean. The buffer is a share
// of 256 MiB among `process_count` processes that measure at once: all together outgrow the caches.
double measure_read_bandwidth(uint32_t thread_count, uint32_t process_count, double seconds);

// Cores that one of `process_count` processes on this machine should use: at least 1.
uint32_t cores_of_process(uint32_t process_count);

// Of all last-level caches that the machine has, as the kernel lists them; 0: it lists none.
uint64_t last_level_cache_bytes();

// Resident bytes of this process at their highest (VmHWM) since it began or since the last reset;
// 0 where /proc does not say. The reset keeps a measuring buffer out of a model's peak.
uint64_t peak_rss_bytes();
void reset_peak_rss();

}  // namespace thermocline
