// What a folder's disk gives to a tier: pieces of one size, anywhere in a file, as many at a time
// as a layer asks for.
//
// Goals: the way that tiers read (tiers/disk_reader.h), direct where they would be, so that the
// rate
//   is the one that a run gets. Non-goals: the disk's best (long reads in order).
// Thread-safety: one thread; it makes a file in the folder, and removes it.
#pragma once

#include <cstdint>
#include <string>

namespace thermocline {

struct DiskRate {
  double bytes_per_second = 0;
  uint64_t file_bytes = 0;  // that were read from
  std::string engine;       // "io_uring", "threads"
  bool direct = false;      // past the page cache
};

// Reads pieces of `read_bytes` for `seconds`. Errors: no file of at least a hundred of them can be
// made there, or read.
DiskRate measure_disk_reads(const std::string& folder, uint64_t read_bytes, double seconds,
                            const std::string& engine = "auto");

}  // namespace thermocline
