#include "runtime/tiers/bundle_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "models/error.h"
#include "models/units.h"
#include "runtime/tiers/disk_reader.h"

namespace thermocline {
namespace {

constexpr uint64_t kHead = 4096;
constexpr uint64_t kIdentityMax = 4000;

uint64_t rounded_up(uint64_t bytes, uint64_t unit) { return (bytes + unit - 1) / unit * unit; }

std::vector<std::byte> head_of(const std::string& identity, const BundleLayout& layout) {
  std::string text = fmt::format("thermocline bundles 1\n{} neurons a layer, aligned to {}\n{}\n",
                                 layout.neuron_count, layout.alignment, identity);
  TC_CHECK(text.size() <= kHead && identity.size() <= kIdentityMax, "an identity that fits");
  std::vector<std::byte> head(kHead);
  std::memcpy(head.data(), text.data(), text.size());
  return head;
}

// Throws where the folder's file system has less than `bytes` to give.
void require_room(const std::string& path, uint64_t bytes) {
  const auto folder = std::filesystem::path(path).parent_path();
  std::error_code error;
  const auto space = std::filesystem::space(folder.empty() ? "." : folder, error);
  if (error) throw work_failed(folder.string() + ": " + error.message());
  if (space.available >= bytes) return;
  throw work_failed(fmt::format("{}: the bundles take {}, but {} are free there", path,
                                format_bytes(bytes), format_bytes(space.available)));
}

}  // namespace

uint64_t BundleLayout::stride_max() const {
  return strides.empty() ? 0 : *std::max_element(strides.begin(), strides.end());
}

BundleLayout lay_out_bundles(std::span<const uint64_t> bundle_bytes, uint32_t neuron_count,
                             uint64_t alignment) {
  const auto pads = [=](uint64_t bytes) { return rounded_up(bytes, alignment) * 4 > bytes * 5; };
  if (std::any_of(bundle_bytes.begin(), bundle_bytes.end(), pads)) alignment = kNotDirect;
  BundleLayout layout{neuron_count, {}, {}, kHead, alignment};
  for (const uint64_t bytes : bundle_bytes) {
    layout.strides.push_back(rounded_up(bytes, alignment));
    layout.offsets.push_back(layout.file_bytes);
    layout.file_bytes += layout.strides.back() * neuron_count;
  }
  return layout;
}

uint64_t alignment_in(const std::string& folder) {
  std::string path = folder + "/thermocline-XXXXXX";
  const int file = ::mkstemp(path.data());
  if (file < 0) {
    throw work_failed(folder + ": no file can be made there: " + std::strerror(errno));
  }
  const std::vector<std::byte> block(2 * kHead);
  const bool written = ::write(file, block.data(), block.size()) > 0;
  ::close(file);
  const uint64_t alignment = written ? direct_alignment(path) : kHead;
  ::unlink(path.c_str());
  return alignment;
}

BundleFile::BundleFile(std::string path, BundleLayout layout, const std::string& identity)
    : path_(std::move(path)),
      partial_(path_ + ".partial"),
      layout_(std::move(layout)),
      head_(head_of(identity, layout_)) {
  if (found()) return;
  ::unlink(path_.c_str());  // of another model or version: its room is wanted
  require_room(path_, layout_.file_bytes);
  file_ = ::open(partial_.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (file_ < 0) throw work_failed(partial_ + ": cannot be made: " + std::strerror(errno));
}

BundleFile::~BundleFile() {
  if (file_ < 0) return;
  ::close(file_);
  ::unlink(partial_.c_str());
}

bool BundleFile::found() const {
  const int file = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return false;
  struct stat facts {};
  std::vector<std::byte> head(kHead);
  const bool same =
      ::fstat(file, &facts) == 0 && static_cast<uint64_t>(facts.st_size) == layout_.file_bytes &&
      ::pread(file, head.data(), kHead, 0) == static_cast<ssize_t>(kHead) && head == head_;
  ::close(file);
  return same;
}

void BundleFile::write_at(uint64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t put = ::pwrite(file_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) throw work_failed(partial_ + ": cannot be written: " + std::strerror(errno));
    bytes = bytes.subspan(static_cast<size_t>(put));
    offset += static_cast<uint64_t>(put);
  }
}

void BundleFile::write(uint32_t layer, uint32_t neuron, std::span<const std::byte> bundles) {
  write_at(layout_.at(layer, neuron), bundles);
}

// What was written leaves the page cache, which belongs to others.
void BundleFile::finish() {
  if (file_ < 0) return;
  write_at(0, head_);
  const bool kept = ::fdatasync(file_) == 0;
  ::posix_fadvise(file_, 0, 0, POSIX_FADV_DONTNEED);
  const bool closed = ::close(file_) == 0;
  file_ = -1;
  if (kept && closed && ::rename(partial_.c_str(), path_.c_str()) == 0) return;
  const std::string why = std::strerror(errno);
  ::unlink(partial_.c_str());
  throw work_failed(path_ + ": cannot be written: " + why);
}

}  // namespace thermocline
