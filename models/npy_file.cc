#include "models/npy_file.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <bit>
#include <charconv>
#include <set>

#include "models/byte_reader.h"
#include "models/error.h"

namespace thermocline {
namespace {

static_assert(std::endian::native == std::endian::little, "rows are written as they are in memory");

constexpr std::string_view kMagic = "\x93NUMPY";
// Magic, version and length take 10 bytes; data begins at a multiple of 64, as the format has it.
// The header of an array whose number of rows is not known yet takes 128.
constexpr size_t kPrefixBytes = 10, kHeaderBytes = 128, kAlignment = 64;
constexpr size_t kDimensionsMax = 32;  // NumPy's own limit (NPY_MAXDIMS)

uint64_t product(std::span<const uint64_t> shape) {
  uint64_t all = 1;
  for (const uint64_t extent : shape) all *= extent;
  return all;
}

// The dict of a header: {'descr': '|u1', 'fortran_order': False, 'shape': (3, 4), }.
class HeaderDict {
 public:
  HeaderDict(std::string_view text, const std::string& path) : text_(text), path_(path) {}

  NpyHeader parse() {
    expect('{');
    while (!accept('}')) {
      parse_entry();
      if (!accept(',')) {
        expect('}');
        break;
      }
    }
    skip_blanks();
    if (at_ != text_.size()) fail("the end of the header");
    if (seen_.size() != 3) fail("descr, fortran_order and shape");
    return header_;
  }

 private:
  void parse_entry() {
    const std::string key = quoted();
    expect(':');
    if (!seen_.insert(key).second) fail("each key once");
    if (key == "descr") {
      header_.descr = quoted();
    } else if (key == "fortran_order") {
      header_.fortran_order = boolean();
    } else if (key == "shape") {
      header_.shape = shape();
    } else {
      fail("descr, fortran_order or shape");
    }
  }

  std::string quoted() {
    skip_blanks();
    const char quote = at_ < text_.size() ? text_[at_] : '\0';
    const size_t end =
        quote == '\'' || quote == '"' ? text_.find(quote, at_ + 1) : std::string_view::npos;
    if (end == std::string_view::npos) fail("a text in quotes (a plain element type)");
    const std::string value(text_.substr(at_ + 1, end - at_ - 1));
    at_ = end + 1;
    return value;
  }

  bool boolean() {
    skip_blanks();
    for (const std::string_view word : {"True", "False"}) {
      if (!text_.substr(at_).starts_with(word)) continue;
      at_ += word.size();
      return word == "True";
    }
    fail("True or False");
  }

  std::vector<uint64_t> shape() {
    std::vector<uint64_t> extents;
    expect('(');
    while (!accept(')')) {
      if (extents.size() == kDimensionsMax) fail("at most 32 dimensions");
      extents.push_back(number());
      if (!accept(',')) {
        expect(')');
        break;
      }
    }
    return extents;
  }

  uint64_t number() {
    skip_blanks();
    uint64_t value = 0;
    const char* const begin = text_.data() + at_;
    const auto [end, error] = std::from_chars(begin, text_.data() + text_.size(), value);
    if (error != std::errc()) fail("a length below 2^64");
    at_ += static_cast<size_t>(end - begin);
    return value;
  }

  void skip_blanks() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n')) ++at_;
  }

  bool accept(char c) {
    skip_blanks();
    if (at_ == text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }

  void expect(char c) {
    if (!accept(c)) fail(std::string("'") + c + "'");
  }

  [[noreturn]] void fail(const std::string& expected) const {
    throw bad_input(path_, fmt::format("{} at character {} of the .npy header", expected, at_),
                    fmt::format("'{}'", text_.substr(at_, 20)));
  }

  std::string_view text_;
  const std::string& path_;
  size_t at_ = 0;
  std::set<std::string> seen_;
  NpyHeader header_ = {};
};

}  // namespace

std::string npy_header(const NpyType& type, std::span<const uint64_t> shape) {
  const std::string text =
      fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}{}), }}", type.descr,
                  fmt::join(shape, ", "), shape.size() == 1 ? "," : "");
  const size_t whole = std::max(
      kHeaderBytes, (kPrefixBytes + text.size() + 1 + kAlignment - 1) / kAlignment * kAlignment);
  const size_t length = whole - kPrefixBytes;
  std::string bytes(kMagic);
  bytes += {'\1', '\0', static_cast<char>(length & 255), static_cast<char>(length >> 8)};
  bytes += text;
  bytes.resize(whole - 1, ' ');
  return bytes + '\n';
}

NpyWriter::NpyWriter(const std::string& path, const NpyType& type, std::vector<uint64_t> row_shape)
    : file_(path),
      type_(type),
      row_shape_(std::move(row_shape)),
      row_bytes_(type.bytes * product(row_shape_)) {
  file_.write(header());
}

void NpyWriter::append(std::span<const std::byte> rows) {
  TC_CHECK(rows.size() % row_bytes_ == 0, "whole rows");
  file_.write(rows);
  row_count_ += rows.size() / row_bytes_;
}

void NpyWriter::finish() {
  TC_CHECK(header().size() == kHeaderBytes, "a header that fits where the first was");
  file_.rewrite(0, header());
  file_.finish();
}

std::string NpyWriter::header() const {
  std::vector<uint64_t> shape = {row_count_};
  shape.insert(shape.end(), row_shape_.begin(), row_shape_.end());
  return npy_header(type_, shape);
}

NpyHeader parse_npy_header(std::span<const std::byte> bytes, const std::string& path) {
  ByteReader reader(bytes, path);
  const std::string_view magic = reader.text(std::min(reader.left(), kMagic.size()), "magic");
  if (magic != kMagic) throw bad_input(path, "a NumPy .npy file", "another magic");
  const auto major = reader.read<uint8_t>("version");
  const auto minor = reader.read<uint8_t>("version");
  if (major < 1 || major > 2 || minor != 0) {
    throw bad_input(path, ".npy version 1.0 or 2.0", fmt::format("{}.{}", major, minor));
  }
  const uint32_t length =
      major == 1 ? reader.read<uint16_t>("header length") : reader.read<uint32_t>("header length");
  NpyHeader header = HeaderDict(reader.text(length, "header"), path).parse();
  header.data_offset = reader.offset();
  return header;
}

}  // namespace thermocline
