#include "runtime/tiers/bundle_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "models/error.h"
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

std::string_view text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// What was written leaves the page cache, which belongs to others.
void forget_pages(const std::string& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return;
  ::posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
  ::close(file);
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
    : path_(std::move(path)), layout_(std::move(layout)), head_(head_of(identity, layout_)) {
  if (found()) return;
  ::unlink(path_.c_str());  // of another model or version: its room is wanted
  require_room(path_, layout_.file_bytes);
  file_.emplace(path_);
  file_->reserve(layout_.file_bytes);  // ranks that share a disk do not count on the same room
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

void BundleFile::write(uint32_t layer, uint32_t neuron, std::span<const std::byte> bundles) {
  file_->write_at(layout_.at(layer, neuron), text_of(bundles));
}

void BundleFile::finish() {
  if (is_made()) return;
  file_->write_at(0, text_of(head_));
  file_->finish();
  file_.reset();
  is_new_ = true;
  forget_pages(path_);
}

void BundleFile::remove_new() {
  if (is_new_) ::unlink(path_.c_str());
  is_new_ = false;
}

}  // namespace thermocline
