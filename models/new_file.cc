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

void NewFile::fail(const char* what) const {
  throw work_failed(temporary(path_) + ": " + what + ": " + std::strerror(errno));
}

void require_room(const std::string& path, uint64_t bytes) {
  const fs::path folder = fs::absolute(path).parent_path();
  std::error_code failed;
  const fs::space_info space = fs::space(folder, failed);
  if (failed) throw work_failed(folder.string() + ": cannot write: " + failed.message());
  if (bytes <= space.available) return;
  throw work_failed(fmt::format("{}: needs {}, of which the disk has {}", path, format_bytes(bytes),
                                format_bytes(space.available)));
}

}  // namespace thermocline
