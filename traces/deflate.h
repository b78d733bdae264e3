// Compression of chunks: zlib streams (RFC 1950), so that HDF5's own deflate filter reads them.
//
// Bits come as words of one neuron each, the neurons that fire most first. What a general setting
// costs in time or space, this order saves: each piece of a chunk is stored as it is where its bits
// are nearly random, coded by Huffman codes alone where matches would be chance, and with runs of
// equal bytes where almost nothing fires. Figures: traces/README.md.
// Written by zlib, which can change its mind within a stream; read by libdeflate, which is faster.
// Thread-safety: a WordDeflater belongs to one thread; functions are pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace thermocline {

class WordDeflater {
 public:
  WordDeflater();
  ~WordDeflater();
  WordDeflater(const WordDeflater&) = delete;
  WordDeflater& operator=(const WordDeflater&) = delete;

  // The stream is valid until the next call.
  std::span<const std::byte> deflate(std::span<const uint64_t> words);

 private:
  struct Stream;
  std::unique_ptr<Stream> stream_;
  std::vector<std::byte> out_;
};

// For data without a known structure.
std::vector<std::byte> deflate_bytes(std::span<const std::byte> bytes);

// False unless `stream` is a zlib stream of exactly out.size() bytes with their right checksum.
bool inflate(std::span<const std::byte> stream, std::span<std::byte> out);

}  // namespace thermocline
