#include "runtime/disk_bench.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <random>
#include <vector>

#include "models/error.h"
#include "models/units.h"
#include "runtime/tiers/bundle_file.h"
#include "runtime/tiers/disk_reader.h"

namespace thermocline {
namespace {

constexpr uint64_t kFileBytes = uint64_t{1} << 30;
constexpr uint64_t kPiecesMin = 100, kPiecesMax = 1 << 17;
constexpr uint32_t kAtOnce = 2048;  // about what a 70B layer misses at half of its active neurons

using Room = std::unique_ptr<std::byte, decltype(&std::free)>;

Room aligned_room(uint64_t bytes) {
  constexpr uint64_t kPage = 4096;
  void* room = std::aligned_alloc(kPage, (bytes + kPage - 1) / kPage * kPage);
  if (room == nullptr) throw std::bad_alloc();
  return {static_cast<std::byte*>(room), &std::free};
}

// Pieces that change from one to the next: a disk may keep those that are alike once.
void fill(BundleFile& file, uint32_t count) {
  const uint64_t stride = file.layout().strides[0];
  const auto at_once = static_cast<uint32_t>(std::max<uint64_t>(1, (uint64_t{4} << 20) / stride));
  std::mt19937_64 random(1);
  std::vector<std::byte> pieces;
  for (uint32_t first = 0; first < count; first += at_once) {
    pieces.resize(std::min(at_once, count - first) * stride);
    for (size_t i = 0; i < pieces.size(); i += sizeof(uint64_t)) {
      const uint64_t word = random();
      std::memcpy(pieces.data() + i, &word, std::min(sizeof word, pieces.size() - i));
    }
    file.write(0, first, pieces);
  }
  file.finish();
}

// Pieces for as many bytes as are asked for, or as half of what is free allows.
uint32_t piece_count(const std::string& folder, uint64_t read_bytes) {
  std::error_code error;
  const uint64_t free_bytes = std::filesystem::space(folder, error).available;
  if (error) throw work_failed(folder + ": " + error.message());
  const uint64_t fit = std::min(kFileBytes, free_bytes / 2) / read_bytes;
  const uint64_t count = std::min(fit, kPiecesMax);
  if (count >= kPiecesMin) return static_cast<uint32_t>(count);
  throw work_failed(folder + ": expected room for " + format_bytes(2 * kPiecesMin * read_bytes) +
                    ", found " + format_bytes(free_bytes));
}

// Batches of reads, each waited for, as layers do.
double rate_of(DiskReader& reader, const BundleLayout& layout, double seconds) {
  const uint64_t stride = layout.strides[0];
  const Room room = aligned_room(kAtOnce * stride);
  std::mt19937_64 random(2);
  using Clock = std::chrono::steady_clock;
  const Clock::time_point begin = Clock::now();
  double elapsed = 0;
  uint64_t bytes = 0;
  do {
    std::vector<DiskRead> reads;
    for (uint32_t i = 0; i < kAtOnce; ++i) {
      const auto piece = static_cast<uint32_t>(random() % layout.neuron_count);
      reads.push_back({layout.at(0, piece), stride, room.get() + i * stride, i});
    }
    reader.start(reads);
    for (size_t left = reads.size(); left > 0;) left -= reader.wait().size();
    bytes += kAtOnce * stride;
    elapsed = std::chrono::duration<double>(Clock::now() - begin).count();
  } while (elapsed < seconds);
  return static_cast<double>(bytes) / elapsed;
}

}  // namespace

DiskRate measure_disk_reads(const std::string& folder, uint64_t read_bytes, double seconds,
                            const std::string& engine) {
  if (read_bytes == 0) throw bad_usage("expected reads of at least one byte, found 0");
  const std::string path = folder + "/calibrate-" + std::to_string(::getpid()) + ".pieces";
  const uint64_t alignment = alignment_in(folder);
  const uint32_t count = piece_count(folder, read_bytes);
  const std::vector<uint64_t> sizes{read_bytes};
  BundleFile file(path, lay_out_bundles(sizes, count, alignment), "pieces to measure reads with");
  struct Removed {
    const std::string& path;
    ~Removed() { ::unlink(path.c_str()); }
  } const removed{path};
  fill(file, count);
  const auto reader = open_disk_reader(path, engine, file.layout().is_direct());
  return {rate_of(*reader, file.layout(), seconds), file.layout().file_bytes, reader->name(),
          file.layout().is_direct()};
}

}  // namespace thermocline
