// NewFile: a file that appears under its name only when whole. Room on a disk.
//
// Goals: PATH.tmp until finish(); without finish() nothing is left; bytes may be written in order
//   or at their offset, so that a file can be filled from its end.
// Non-goals: pipes and devices, which cannot be renamed (models/cli.h's write_file takes them).
// Thread-safety: one file, one thread; but several may call write_at() at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace thermocline {

class NewFile {
 public:
  // Error: something that is no file has that name, or PATH.tmp cannot be made.
  explicit NewFile(const std::string& path);
  ~NewFile();
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;

  void reserve(uint64_t bytes) const;  // room for the whole file, as reserve_room()
  void write(std::string_view bytes);  // behind what was written so far; buffered
  void write(std::span<const std::byte> bytes) {
    write(std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
  }
  // At once, anywhere. Bytes of write() that still wait in the buffer would overwrite these.
  void write_at(uint64_t offset, std::string_view bytes);
  void rewrite(uint64_t offset, std::string_view bytes) {  // what write() wrote before
    flush();
    write_at(offset, bytes);
  }
  void finish() { finish_as(path_); }  // to the disk, then renames
  void finish_as(const std::string& path);

  uint64_t byte_count() const { return byte_count_; }  // of write()

 private:
  void flush();
  [[noreturn]] void fail(const char* what) const;

  std::string path_;
  int fd_;
  uint64_t byte_count_ = 0, flushed_ = 0;
  std::string buffer_;
};

// Error{failed} with both numbers unless `bytes` more fit beside `path`.
void require_room(const std::string& path, uint64_t bytes);

// Takes the room of a file that will have `bytes`, so that a disk that is too small is found out
// now, not after hours, and nobody else takes it meanwhile. Not every file system can.
// Error{failed} that names `path`, with both numbers where it is room that lacks.
void reserve_room(int file, const std::string& path, uint64_t bytes);

// "PATH: WHAT: " and the system's reason; for a full disk also what it has left, and what to do.
std::string write_failure(const std::string& path, const std::string& what, int reason);

}  // namespace thermocline
