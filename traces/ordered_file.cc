#include "traces/ordered_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <string_view>

#include "models/error.h"
#include "models/hash.h"

namespace thermocline {
namespace {

// Above every level of a tree, which is a byte.
constexpr int kNewBlock = 257;
constexpr int kSuperblock = 256;
constexpr int kOtherBlock = -1;

constexpr uint64_t kSealBlock = uint64_t{1} << 16;
constexpr std::string_view kSealMagic = "TC-SEAL1";

// Bytes of the file that belong to its index.
struct Run {
  uint64_t begin, size;
};
static_assert(sizeof(Run) == 2 * sizeof(uint64_t), "runs are stored as they lie in memory");

struct SealEnd {
  uint64_t hash, run_count;
  char magic[8];
};
static_assert(sizeof(SealEnd) == 24, "stored as it lies in memory");

template <class T>
std::span<std::byte> bytes_of(std::vector<T>& values) {
  return std::as_writable_bytes(std::span(values));
}

// False where the file has fewer bytes.
bool read_all(int fd, uint64_t at, std::span<std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::pread(fd, bytes.data(), bytes.size(), static_cast<off_t>(at));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return false;
    bytes = bytes.subspan(static_cast<size_t>(count));
    at += static_cast<uint64_t>(count);
  }
  return true;
}

// Over the runs and the bytes that they name; nothing where these cannot be read.
std::optional<uint64_t> hash_runs(int fd, std::vector<Run>& runs) {
  Fnv1a hash;
  const auto add = [&hash](std::span<const std::byte> bytes) {
    hash.add({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  };
  add(bytes_of(runs));
  std::vector<std::byte> block(kSealBlock);
  for (const Run& run : runs) {
    for (uint64_t done = 0; done < run.size; done += kSealBlock) {
      const std::span piece = std::span(block).first(std::min(kSealBlock, run.size - done));
      if (!read_all(fd, run.begin + done, piece)) return std::nullopt;
      add(piece);
    }
  }
  return hash.value();
}

// The seal of a file of `size` bytes, if it is whole and names bytes before itself.
SealState check_seal(int fd, uint64_t size) {
  SealEnd end;
  const auto end_bytes = std::as_writable_bytes(std::span(&end, 1));
  if (size < sizeof end || !read_all(fd, size - sizeof end, end_bytes)) return SealState::none;
  if (std::string_view(end.magic, sizeof end.magic) != kSealMagic) return SealState::none;
  if (end.run_count > (size - sizeof end) / sizeof(Run)) return SealState::broken;
  const uint64_t begin = size - sizeof end - end.run_count * sizeof(Run);
  std::vector<Run> runs(end.run_count);
  if (!read_all(fd, begin, bytes_of(runs))) return SealState::broken;
  uint64_t last = 0;  // runs ascend, so that together they are no longer than the file
  for (const Run& run : runs) {
    if (run.begin < last || run.begin > begin || run.size > begin - run.begin) {
      return SealState::broken;
    }
    last = run.begin + run.size;
  }
  return hash_runs(fd, runs) == end.hash ? SealState::intact : SealState::broken;
}

}  // namespace

OrderedFile::OrderedFile(const std::string& path)
    : fd_(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666)) {
  bool ready = fd_ >= 0;
  // File systems without locks are trusted to have one writer.
  if (ready && ::flock(fd_, LOCK_EX | LOCK_NB) != 0) ready = errno != EWOULDBLOCK;
  if (ready) ready = ::ftruncate(fd_, 0) == 0;
  if (ready) return;
  const std::string reason = errno == EWOULDBLOCK ? "it is being written" : std::strerror(errno);
  if (fd_ >= 0) ::close(fd_);
  throw work_failed(path + ": cannot write: " + reason);
}

OrderedFile::~OrderedFile() { ::close(fd_); }

bool OrderedFile::same_file(const OrderedFile& other) const {
  struct stat here = {}, there = {};
  return ::fstat(fd_, &here) == 0 && ::fstat(other.fd_, &there) == 0 &&
         here.st_dev == there.st_dev && here.st_ino == there.st_ino;
}

bool OrderedFile::fail() {
  error_ = errno;
  abandoned_ = true;
  return false;
}

bool OrderedFile::write(uint64_t at, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(at));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return fail();
    bytes = bytes.subspan(static_cast<size_t>(count));
    at += static_cast<uint64_t>(count);
  }
  return true;
}

// A kill may cut a write at a page's border. The last page goes first, so that what counts a
// block's entries, at its beginning, is never ahead of them.
bool OrderedFile::write_last_page_first(uint64_t at, std::span<const std::byte> bytes) {
  constexpr uint64_t kPage = 4096;
  while (!bytes.empty()) {
    const uint64_t page = std::max(at, (at + bytes.size() - 1) / kPage * kPage);
    if (!write(page, bytes.subspan(page - at))) return false;
    bytes = bytes.first(page - at);
  }
  return true;
}

bool OrderedFile::write_now(uint64_t at, std::span<const std::byte> bytes) {
  forget_waiting(at, bytes.size());
  end_ = std::max(end_, at + bytes.size());
  return abandoned_ || write(at, bytes);
}

void OrderedFile::write_at_commit(uint64_t at, std::span<const std::byte> bytes) {
  forget_waiting(at, bytes.size());
  end_ = std::max(end_, at + bytes.size());
  waiting_[at].assign(bytes.begin(), bytes.end());
}

// Cuts [at, at + size) out of what waits: a block that was given up and its space used again.
void OrderedFile::forget_waiting(uint64_t at, uint64_t size) {
  auto block = waiting_.upper_bound(at);
  if (block != waiting_.begin()) --block;
  while (block != waiting_.end() && block->first < at + size) {
    const uint64_t begin = block->first, end = begin + block->second.size();
    if (end <= at) {
      ++block;
      continue;
    }
    const std::vector<std::byte> bytes = std::move(block->second);
    block = waiting_.erase(block);
    if (begin < at) waiting_[begin].assign(bytes.begin(), bytes.end() - (end - at));
    if (end > at + size) waiting_[at + size].assign(bytes.end() - (end - at - size), bytes.end());
  }
}

// The order of a commit, highest first.
int OrderedFile::urgency(uint64_t at, std::span<const std::byte> bytes) const {
  if (!committed_.contains(at)) return kNewBlock;
  if (at == 0) return kSuperblock;
  constexpr size_t kLevelAt = 5;  // after the signature and the node type
  const bool node = bytes.size() > kLevelAt && std::memcmp(bytes.data(), "TREE", 4) == 0;
  return node ? static_cast<int>(bytes[kLevelAt]) : kOtherBlock;
}

bool OrderedFile::commit() {
  if (abandoned_) return true;
  std::vector<std::pair<int, uint64_t>> order;
  for (const auto& [at, bytes] : waiting_) order.emplace_back(-urgency(at, bytes), at);
  std::sort(order.begin(), order.end());
  for (const auto& [unused, at] : order) {
    if (!write_last_page_first(at, waiting_.at(at))) return false;
  }
  for (const auto& [unused, at] : order) {
    committed_[at] = std::max<uint64_t>(committed_[at], waiting_.at(at).size());
  }
  waiting_.clear();
  return true;
}

bool OrderedFile::resize(uint64_t size) {
  end_ = size;
  return abandoned_ || ::ftruncate(fd_, static_cast<off_t>(size)) == 0 || fail();
}

bool OrderedFile::seal() {
  if (abandoned_) return true;
  std::vector<Run> runs;
  for (const auto& [at, size] : committed_) {
    // Space that was used again may have blocks that overlap.
    if (!runs.empty() && at <= runs.back().begin + runs.back().size) {
      runs.back().size = std::max(runs.back().size, at + size - runs.back().begin);
    } else {
      runs.push_back({at, size});
    }
  }
  const std::optional<uint64_t> hash = hash_runs(fd_, runs);
  if (!hash) return fail();
  SealEnd end = {*hash, runs.size(), {}};
  std::copy(kSealMagic.begin(), kSealMagic.end(), end.magic);
  return write(end_, bytes_of(runs)) &&
         write(end_ + runs.size() * sizeof(Run), std::as_bytes(std::span(&end, 1))) &&
         (::fsync(fd_) == 0 || fail());
}

bool OrderedFile::read(uint64_t at, std::span<std::byte> bytes) const {
  for (uint64_t done = 0; done < bytes.size();) {
    const ssize_t count =
        ::pread(fd_, bytes.data() + done, bytes.size() - done, static_cast<off_t>(at + done));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return false;
    if (count == 0) {
      std::fill(bytes.begin() + static_cast<ptrdiff_t>(done), bytes.end(), std::byte{0});
      break;
    }
    done += static_cast<uint64_t>(count);
  }
  auto block = waiting_.upper_bound(at);
  if (block != waiting_.begin()) --block;
  for (; block != waiting_.end() && block->first < at + bytes.size(); ++block) {
    const uint64_t begin = std::max(at, block->first);
    const uint64_t end = std::min(at + bytes.size(), block->first + block->second.size());
    if (begin < end) {
      std::memcpy(bytes.data() + (begin - at), block->second.data() + (begin - block->first),
                  end - begin);
    }
  }
  return true;
}

SealState check_seal(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) throw bad_input(path, "a file that can be read", std::strerror(errno));
  struct stat facts = {};
  const bool known = ::fstat(fd, &facts) == 0;
  const SealState state =
      known ? check_seal(fd, static_cast<uint64_t>(facts.st_size)) : SealState::none;
  ::close(fd);
  return state;
}

}  // namespace thermocline
