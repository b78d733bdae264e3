#include "models/new_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "models/error.h"
#include "models/units.h"

namespace thermocline {
namespace {

namespace fs = std::filesystem;

constexpr size_t kBufferBytes = size_t{1} << 20;

std::string temporary(const std::string& path) { return path + ".tmp"; }

// A rename onto a device would replace it.
void require_plain(const std::string& path) {
  std::error_code ignored;
  const fs::file_status status = fs::status(path, ignored);
  if (!fs::exists(status) || fs::is_regular_file(status)) return;
  throw work_failed(path + ": cannot write: a folder or a device has that name");
}

constexpr const char* kWhatToDo = "free some room, or write to another disk";

uint64_t room_beside(const std::string& path) {
  const fs::path folder = fs::absolute(path).parent_path();
  std::error_code failed;
  const fs::space_info space = fs::space(folder, failed);
  if (failed) throw work_failed(folder.string() + ": cannot write: " + failed.message());
  return space.available;
}

[[noreturn]] void lacks_room(const std::string& path, const char* what, uint64_t bytes,
                             uint64_t available) {
  throw work_failed(fmt::format("{}: {} {}, of which the disk has {}: {}", path, what,
                                format_bytes(bytes), format_bytes(available), kWhatToDo));
}

bool is_full(int reason) { return reason == ENOSPC || reason == EDQUOT; }

}  // namespace

NewFile::NewFile(const std::string& path) : path_(path), fd_(-1) {
  require_plain(path);
  fd_ = ::open(temporary(path).c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd_ < 0) fail("cannot create it");
}

NewFile::~NewFile() {
  if (fd_ < 0) return;
  ::close(fd_);
  ::unlink(temporary(path_).c_str());
}

void NewFile::write(std::string_view bytes) {
  buffer_.append(bytes);
  byte_count_ += bytes.size();
  if (buffer_.size() >= kBufferBytes) flush();
}

void NewFile::flush() {
  const std::string bytes = std::move(buffer_);
  buffer_.clear();
  const uint64_t offset = flushed_;
  flushed_ += bytes.size();
  write_at(offset, bytes);
}

void NewFile::write_at(uint64_t offset, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) fail("cannot write");
    offset += static_cast<uint64_t>(count);
    bytes.remove_prefix(static_cast<size_t>(count));
  }
}

void NewFile::finish_as(const std::string& path) {
  flush();
  if (::fsync(fd_) != 0) fail("cannot write");
  const int closed = ::close(fd_);
  fd_ = -1;
  if (closed == 0 && std::rename(temporary(path_).c_str(), path.c_str()) == 0) return;
  const int reason = errno;
  ::unlink(temporary(path_).c_str());
  errno = reason;
  fail("cannot finish it");
}

void NewFile::reserve(uint64_t bytes) const { reserve_room(fd_, path_, bytes); }

void NewFile::fail(const char* what) const {
  throw work_failed(write_failure(temporary(path_), what, errno));
}

void require_room(const std::string& path, uint64_t bytes) {
  const uint64_t available = room_beside(path);
  if (bytes > available) lacks_room(path, "needs", bytes, available);
}

void reserve_room(int file, const std::string& path, uint64_t bytes) {
  while (::fallocate(file, 0, 0, static_cast<off_t>(bytes)) != 0) {
    const int reason = errno;
    if (reason == EINTR) continue;
    if (reason == EOPNOTSUPP || reason == ENOSYS) return;
    const bool emptied = ::ftruncate(file, 0) == 0;  // what it did get counts as free
    if (is_full(reason) && emptied) lacks_room(path, "cannot reserve", bytes, room_beside(path));
    throw work_failed(
        write_failure(path, fmt::format("cannot reserve {}", format_bytes(bytes)), reason));
  }
}

std::string write_failure(const std::string& path, const std::string& what, int reason) {
  std::string text = path + ": " + what + ": " + std::strerror(reason);
  if (!is_full(reason)) return text;
  std::error_code failed;
  const fs::space_info space = fs::space(fs::absolute(path).parent_path(), failed);
  if (!failed) text += fmt::format("; the disk has {} left", format_bytes(space.available));
  return text + ": " + kWhatToDo;
}

}  // namespace thermocline
