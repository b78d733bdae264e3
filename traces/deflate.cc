#include "traces/deflate.h"

#include <libdeflate.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "models/bit_sums.h"
#include "models/error.h"

namespace thermocline {
namespace {

constexpr uint64_t kPieceWords = 512;
constexpr uint64_t kPieceBytes = kPieceWords * sizeof(uint64_t);
// Above this entropy of its bytes, of 8 bits each, a piece is stored: it would be little smaller,
// and reading it needs no decoding. Below this share of set bits, runs of zero bytes are long.
constexpr float kStoredEntropy = 0.70f;
constexpr double kRunsShare = 0.04;

enum class Method { stored, huffman, runs };

// n log2(n) for the counts that a byte can have in a piece.
const std::array<float, kPieceBytes + 1>& information_table() {
  static const auto table = [] {
    std::array<float, kPieceBytes + 1> made{};
    for (size_t n = 1; n < made.size(); ++n) {
      made[n] = static_cast<float>(n) * std::log2(static_cast<float>(n));
    }
    return made;
  }();
  return table;
}

// What Huffman codes of single bytes could do, as a share of 8 bits a byte.
float entropy_of_bytes(std::span<const uint64_t> piece) {
  // Four tables, because equal bytes in a row would wait for one another.
  std::array<std::array<uint16_t, 256>, 4> counts{};
  for (const uint64_t word : piece) {
    for (uint32_t byte = 0; byte < 8; ++byte) ++counts[byte % 4][word >> (8 * byte) & 255];
  }
  const auto& information = information_table();
  const auto bytes = static_cast<float>(piece.size_bytes());
  float sum = 0;
  for (size_t value = 0; value < 256; ++value) {
    sum += information[size_t{counts[0][value]} + counts[1][value] + counts[2][value] +
                       counts[3][value]];
  }
  return (std::log2(bytes) - sum / bytes) / 8;
}

Method method_of(std::span<const uint64_t> piece) {
  const double share = static_cast<double>(bit_sums().count(piece.data(), piece.size())) /
                       static_cast<double>(64 * piece.size());
  if (share < kRunsShare) return Method::runs;
  return entropy_of_bytes(piece) > kStoredEntropy ? Method::stored : Method::huffman;
}

Bytef* bytes_of(const void* data) { return static_cast<Bytef*>(const_cast<void*>(data)); }

}  // namespace

struct WordDeflater::Stream {
  z_stream z = {};
  Method method = Method::runs;

  Stream() {
    constexpr int kWindowBits = 15, kMemoryLevel = 9;
    TC_CHECK(deflateInit2(&z, 1, Z_DEFLATED, kWindowBits, kMemoryLevel, Z_RLE) == Z_OK, "zlib");
  }
  ~Stream() { deflateEnd(&z); }

  void choose(Method wanted) {
    if (wanted == method) return;
    const int level = wanted == Method::stored ? 0 : 1;
    const int strategy = wanted == Method::huffman ? Z_HUFFMAN_ONLY : Z_RLE;
    TC_CHECK(deflateParams(&z, level, strategy) == Z_OK, "room for a chunk");
    method = wanted;
  }
};

WordDeflater::WordDeflater() : stream_(std::make_unique<Stream>()) {}
WordDeflater::~WordDeflater() = default;

std::span<const std::byte> WordDeflater::deflate(std::span<const uint64_t> words) {
  z_stream& z = stream_->z;
  TC_CHECK(deflateReset(&z) == Z_OK, "zlib");
  // Each change of method ends a block, which costs some bytes beyond the bound.
  out_.resize(deflateBound(&z, words.size_bytes()) + 64 * (words.size() / kPieceWords + 1));
  z.next_out = bytes_of(out_.data());
  z.avail_out = static_cast<uInt>(out_.size());
  z.avail_in = 0;
  for (uint64_t begin = 0; begin < words.size(); begin += kPieceWords) {
    const auto piece = words.subspan(begin, std::min(kPieceWords, words.size() - begin));
    stream_->choose(method_of(piece));
    z.next_in = bytes_of(piece.data());
    z.avail_in = static_cast<uInt>(piece.size_bytes());
    TC_CHECK(::deflate(&z, Z_NO_FLUSH) == Z_OK && z.avail_in == 0, "room for a chunk");
  }
  TC_CHECK(::deflate(&z, Z_FINISH) == Z_STREAM_END, "room for a chunk");
  return std::span<const std::byte>(out_).first(z.total_out);
}

std::vector<std::byte> deflate_bytes(std::span<const std::byte> bytes) {
  const std::unique_ptr<libdeflate_compressor, decltype(&libdeflate_free_compressor)> compressor(
      libdeflate_alloc_compressor(1), libdeflate_free_compressor);
  std::vector<std::byte> out(libdeflate_zlib_compress_bound(compressor.get(), bytes.size()));
  out.resize(libdeflate_zlib_compress(compressor.get(), bytes.data(), bytes.size(), out.data(),
                                      out.size()));
  TC_CHECK(!out.empty(), "room for a chunk");
  return out;
}

bool inflate(std::span<const std::byte> stream, std::span<std::byte> out) {
  thread_local const std::unique_ptr<libdeflate_decompressor,
                                     decltype(&libdeflate_free_decompressor)>
      decompressor(libdeflate_alloc_decompressor(), libdeflate_free_decompressor);
  return libdeflate_zlib_decompress(decompressor.get(), stream.data(), stream.size(), out.data(),
                                    out.size(), nullptr) == LIBDEFLATE_SUCCESS;
}

}  // namespace thermocline
