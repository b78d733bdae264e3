#include "models/gguf_output.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "models/new_file.h"

namespace thermocline {
namespace {

constexpr uint32_t kVersion3 = 3;
constexpr size_t kTensorNameBytesMax = 64;
enum ValueType : uint32_t { u32 = 4, i32 = 5, f32 = 6, boolean = 7, string = 8, array = 9 };

template <class T>
void put(std::string& bytes, T value) {
  bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
}

void put_text(std::string& bytes, std::string_view text) {
  put<uint64_t>(bytes, text.size());
  bytes.append(text);
}

void put_array(std::string& bytes, ValueType element, uint64_t count) {
  put<uint32_t>(bytes, array);
  put<uint32_t>(bytes, element);
  put<uint64_t>(bytes, count);
}

std::span<const std::byte> bytes_in(std::string_view text) {
  return std::as_bytes(std::span(text));
}

}  // namespace

GgufOutput::GgufOutput(std::string path, uint32_t alignment)
    : path_(std::move(path)), temporary_(path_ + ".tmp"), alignment_(alignment) {
  // A rename would put a file in the place of a device or a link to one.
  struct stat facts;
  if (::stat(path_.c_str(), &facts) == 0 && !S_ISREG(facts.st_mode)) {
    throw work_failed(path_ + ": cannot write: it is there and no regular file");
  }
  file_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (file_ < 0) throw failure("cannot write");
  if (alignment != kGgufAlignmentDefault) set_count("general.alignment", alignment);
}

GgufOutput::~GgufOutput() {
  if (file_ < 0) return;
  ::close(file_);
  ::unlink(temporary_.c_str());
}

Error GgufOutput::failure(const char* what) const {
  return work_failed(write_failure(path_, what, errno));
}

bool GgufOutput::new_key(std::string_view key) {
  TC_CHECK(!begun_, "keys come before data");
  if (std::find(keys_.begin(), keys_.end(), key) != keys_.end()) return false;
  keys_.emplace_back(key);
  put_text(pairs_, key);
  return true;
}

void GgufOutput::set_count(std::string_view key, uint32_t value) {
  if (!new_key(key)) return;
  put<uint32_t>(pairs_, u32);
  put(pairs_, value);
}

void GgufOutput::set_number(std::string_view key, float value) {
  if (!new_key(key)) return;
  put<uint32_t>(pairs_, f32);
  put(pairs_, value);
}

void GgufOutput::set_flag(std::string_view key, bool value) {
  if (!new_key(key)) return;
  put<uint32_t>(pairs_, boolean);
  put<uint8_t>(pairs_, value ? 1 : 0);
}

void GgufOutput::set_text(std::string_view key, std::string_view value) {
  if (!new_key(key)) return;
  put<uint32_t>(pairs_, string);
  put_text(pairs_, value);
}

void GgufOutput::set_texts(std::string_view key, const std::vector<std::string>& values) {
  if (!new_key(key)) return;
  put_array(pairs_, string, values.size());
  for (const std::string& value : values) put_text(pairs_, value);
}

void GgufOutput::set_numbers(std::string_view key, const std::vector<float>& values) {
  if (!new_key(key)) return;
  put_array(pairs_, f32, values.size());
  for (const float value : values) put(pairs_, value);
}

void GgufOutput::set_integers(std::string_view key, const std::vector<int32_t>& values) {
  if (!new_key(key)) return;
  put_array(pairs_, i32, values.size());
  for (const int32_t value : values) put(pairs_, value);
}

void GgufOutput::set_raw(std::string_view key, std::span<const std::byte> typed_value) {
  if (!new_key(key)) return;
  pairs_.append(reinterpret_cast<const char*>(typed_value.data()), typed_value.size());
}

void GgufOutput::add_tensor(std::string_view name, uint32_t ggml_type,
                            const std::vector<uint64_t>& dimensions, uint64_t byte_count) {
  TC_CHECK(!begun_, "tensors are named before data");
  if (name.size() > kTensorNameBytesMax) {
    throw work_failed(fmt::format("{}: GGUF has {} bytes for a tensor's name, '{}' has {}", path_,
                                  kTensorNameBytesMax, name, name.size()));
  }
  const uint64_t begin = (data_bytes_ + alignment_ - 1) / alignment_ * alignment_;
  put_text(infos_, name);
  put<uint32_t>(infos_, static_cast<uint32_t>(dimensions.size()));
  for (const uint64_t dimension : dimensions) put(infos_, dimension);
  put(infos_, ggml_type);
  put(infos_, begin);
  extents_.push_back({begin, begin + byte_count});
  data_bytes_ = begin + byte_count;
}

void GgufOutput::begin() {
  std::string head(kGgufMagic);
  put(head, kVersion3);
  put<uint64_t>(head, extents_.size());
  put<uint64_t>(head, keys_.size());
  head += pairs_;
  head += infos_;
  begun_ = true;
  data_begin_ = head.size();
  if (!extents_.empty()) data_begin_ = (head.size() + alignment_ - 1) / alignment_ * alignment_;
  reserve_room(file_, path_, byte_count());
  write(bytes_in(head));
}

void GgufOutput::append(std::span<const std::byte> bytes) {
  TC_CHECK(begun_, "data follows the header");
  if (bytes.empty()) return;
  if (written_ < data_begin_) pad_to(data_begin_);
  while (current_ < extents_.size() && written_ - data_begin_ >= extents_[current_].end) ++current_;
  TC_CHECK(current_ < extents_.size(), "no more data than the tensors have");
  pad_to(data_begin_ + std::max(extents_[current_].begin, written_ - data_begin_));
  TC_CHECK(written_ - data_begin_ + bytes.size() <= extents_[current_].end,
           "data of one tensor at a time");
  write(bytes);
}

void GgufOutput::finish() {
  TC_CHECK(begun_ && (extents_.empty() || written_ == byte_count()), "all tensors have their data");
  if (::fsync(file_) != 0) throw failure("cannot write");
  const int file = file_;
  file_ = -1;
  if (::close(file) == 0 && ::rename(temporary_.c_str(), path_.c_str()) == 0) return;
  const Error error = failure("cannot write");
  ::unlink(temporary_.c_str());
  throw error;
}

void GgufOutput::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::write(file_, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) throw failure("cannot write");
    bytes = bytes.subspan(static_cast<size_t>(count));
    written_ += static_cast<uint64_t>(count);
  }
}

void GgufOutput::pad_to(uint64_t offset) {
  static constexpr std::array<std::byte, 4096> kZeros = {};
  while (written_ < offset) {
    write(std::span(kZeros).first(std::min<uint64_t>(kZeros.size(), offset - written_)));
  }
}

}  // namespace thermocline
