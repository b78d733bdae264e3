// DiskReader: pieces of a file, past the page cache if asked, many at a time.
//
// Boost.Asio on io_uring, with one thread that waits for what ends; where the kernel refuses that,
//   threads that call pread.
// Goals: a read that was started runs beside whatever its owner does; nothing is read twice where
//   a device answers in parts. Non-goals: what to read (bundle_store.h), caching.
// Errors: open throws Error; a read that failed is told by wait(), with path and offset. A disk
//   that answers nothing for long is named on standard error, and waited for.
// Thread-safety: one owner thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace thermocline {

// Of direct reads, offset, length and address are multiples of direct_alignment().
struct DiskRead {
  uint64_t offset;
  uint64_t bytes;
  std::byte* to;
  uint64_t tag;  // the owner's: finished() gives it back
};

class DiskReader {
 public:
  virtual ~DiskReader() = default;

  virtual const char* name() const = 0;  // "io_uring", "threads"
  virtual void start(const std::vector<DiskRead>& reads) = 0;
  // Tags of reads that ended since the last call. Throws Error where one failed.
  virtual std::vector<uint64_t> finished() = 0;
  // The same; waits until at least one has ended. None under way: returns at once.
  virtual std::vector<uint64_t> wait() = 0;
};

// "auto": io_uring where it can be used, else threads. Usage Error for another name. Reads that are
// not direct go through the page cache, and may begin anywhere.
// patience: seconds without an answer until wait() says so, again and again.
std::unique_ptr<DiskReader> open_disk_reader(const std::string& path, const std::string& engine,
                                             bool direct = true, double patience = 30);

// What offsets, lengths and addresses of direct reads of this file are multiples of: at most 4096.
uint64_t direct_alignment(const std::string& path);

}  // namespace thermocline
