// OrderedFile: a file whose index can be cut off at any write without losing what it indexed.
//
// HDF5 writes a change of its index as several blocks, in any order. A process killed in between
// leaves an index that points to blocks which were never written. Here index blocks wait in memory
// until commit(), which writes first those that are new (nothing on the disk points to them yet),
// then nodes of the chunk trees from the root down (HDF5 format III.A.1: a parent that already
// knows both halves of a split child finds everything, whether or not the child is still whole),
// then the rest, each of which stands by itself.
// Goals: after any prefix of these writes, all that an earlier commit() indexed can be read.
// Non-goals: power loss (no barrier between writes); knowing more of the format than node levels.
// After the first failure nothing more is written; calls then succeed without doing anything, so
// that the library above can let go of its file.
// A finished file is sealed: behind HDF5's end of file stand the places of all index blocks and a
// hash over them, which check_seal() verifies before HDF5 looks at a file. HDF5 1.10 can crash on a
// damaged index. Seal: {begin u64, size u64} of each run of blocks, FNV-1a over these and what they
// name u64, number of runs u64, "TC-SEAL1".
// Thread-safety: none; HDF5's lock is held around all calls.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace thermocline {

class OrderedFile {
 public:
  // Creates the file, or empties it. Error{failed}: the system's reason, or another process has it.
  explicit OrderedFile(const std::string& path);
  ~OrderedFile();
  OrderedFile(const OrderedFile&) = delete;
  OrderedFile& operator=(const OrderedFile&) = delete;

  // False on the failure that error() then names.
  bool write_now(uint64_t at, std::span<const std::byte> bytes);
  void write_at_commit(uint64_t at, std::span<const std::byte> bytes);
  bool commit();
  bool resize(uint64_t size);
  bool read(uint64_t at, std::span<std::byte> bytes) const;  // zeros past the end
  // After the last commit. Waits until all is on the disk.
  bool seal();

  uint64_t end() const { return end_; }  // with what waits
  bool same_file(const OrderedFile& other) const;
  // Writes nothing from here on.
  void abandon() { abandoned_ = true; }
  int error() const { return error_; }  // errno of the first failure, or 0

 private:
  bool write(uint64_t at, std::span<const std::byte> bytes);
  bool write_last_page_first(uint64_t at, std::span<const std::byte> bytes);
  bool fail();
  void forget_waiting(uint64_t at, uint64_t size);
  int urgency(uint64_t at, std::span<const std::byte> bytes) const;

  int fd_;
  int error_ = 0;
  bool abandoned_ = false;
  uint64_t end_ = 0;
  std::map<uint64_t, std::vector<std::byte>> waiting_;  // by address; they do not overlap
  std::map<uint64_t, uint64_t> committed_;              // blocks on the disk: address, size
};

enum class SealState { none, broken, intact };
// Error{input}: the file cannot be read.
SealState check_seal(const std::string& path);

}  // namespace thermocline
