#include "runtime/npy_writer.h"

#include <fmt/format.h>

#include <bit>
#include <cerrno>
#include <cstring>

#include "models/error.h"

namespace thermocline {
namespace {

static_assert(std::endian::native == std::endian::little, "rows are written as they are in memory");

// Magic, version and length take 10 bytes; the text is padded so that data begins at byte 128,
// whatever the number of rows turns out to be.
constexpr size_t kPrefixBytes = 10;
constexpr size_t kHeaderBytes = 128;

}  // namespace

NpyWriter::NpyWriter(const std::string& path, uint64_t width)
    : path_(path), width_(width), file_(std::fopen((path + ".tmp").c_str(), "wb")) {
  if (file_ == nullptr) fail("cannot create it");
  write(header().data(), kHeaderBytes);
}

NpyWriter::~NpyWriter() {
  if (file_ == nullptr) return;
  file_.reset();
  std::remove((path_ + ".tmp").c_str());
}

void NpyWriter::append(std::span<const float> row) {
  TC_CHECK(row.size() == width_, "a row of another width");
  write(row.data(), row.size_bytes());
  ++row_count_;
}

void NpyWriter::finish() {
  if (std::fseek(file_.get(), 0, SEEK_SET) != 0) fail("cannot seek");
  write(header().data(), kHeaderBytes);
  if (std::fflush(file_.get()) != 0) fail("cannot write");
  file_.reset();
  if (std::rename((path_ + ".tmp").c_str(), path_.c_str()) != 0) fail("cannot rename it");
}

void NpyWriter::fail(const std::string& what) const {
  throw work_failed(path_ + ".tmp: " + what + ": " + std::strerror(errno));
}

void NpyWriter::write(const void* bytes, size_t count) {
  if (std::fwrite(bytes, 1, count, file_.get()) != count) fail("cannot write");
}

std::string NpyWriter::header() const {
  const std::string text = fmt::format(
      "{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {}), }}", row_count_, width_);
  std::string bytes("\x93NUMPY\x01\x00", 8);
  const auto length = static_cast<uint16_t>(kHeaderBytes - kPrefixBytes);
  bytes += static_cast<char>(length & 255);
  bytes += static_cast<char>(length >> 8);
  bytes += text;
  bytes.resize(kHeaderBytes - 1, ' ');
  return bytes + '\n';
}

}  // namespace thermocline
