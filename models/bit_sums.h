// Sums over rows of bits, in the widest instructions that the machine has.
//
// Goals: integers, the same from every version; a plain version for any machine, which tests hold
//   the others against; chosen once per process.
// Non-goals: what rows mean.
// Thread-safety: pure functions over their arguments; a BitCounter belongs to one thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace thermocline {

// A BitCounter keeps bit p of the counts of 64 neurons in one word of plane p.
inline constexpr uint32_t kBitPlanes = 8;
inline constexpr uint32_t kBitPlaneSum = (1u << kBitPlanes) - 1;  // rows that fit into planes
inline constexpr uint32_t kRowsAtOnce = 8;

struct BitSums {
  const char* name;
  // Bits that are set in a row of `size` words.
  uint64_t (*count)(const uint64_t* row, size_t size);
  // Bits that are set in both rows.
  uint64_t (*count_both)(const uint64_t* a, const uint64_t* b, size_t size);
  // joined |= more; returns the bits that are set in it then.
  uint64_t (*widen)(uint64_t* joined, const uint64_t* more, size_t size);
  // Adds a row to planes (kBitPlanes, size) whose counts fit into the first `used` with it. The row
  // is in `carry`, where what is left of it carries on.
  void (*add)(uint64_t* planes, uint64_t* carry, uint32_t used, size_t size);
  // Adds kRowsAtOnce rows, `stride` words apart, to planes whose counts fit with them: carry-save,
  // so that a row costs its own reading and a third of a plane's.
  void (*add_rows)(uint64_t* planes, const uint64_t* rows, size_t stride, size_t size);
  // Adds the counts of planes (kBitPlanes, size) to counts (64 * size), and clears the planes.
  void (*flush)(uint64_t* planes, uint32_t* counts, size_t size);
};

// The versions that this machine can run; the last is the fastest.
std::span<const BitSums> all_bit_sums();
// The fastest.
const BitSums& bit_sums();

// How often each of a row's neurons was active. Rows wait until there are kRowsAtOnce of them; the
// 4 bytes of a neuron's count are touched once in kBitPlaneSum rows.
class BitCounter {
 public:
  BitCounter() = default;
  explicit BitCounter(uint32_t neuron_count);

  void add(const uint64_t* row);
  // `count` rows, `stride` words apart: without copying most of them.
  void add(const uint64_t* rows, size_t stride, size_t count);
  void clear();
  // (neuron_count). Valid until the next call.
  std::span<const uint32_t> counts();

  static uint64_t bytes_of(uint32_t neuron_count);

 private:
  void add_at_once(const uint64_t* rows, size_t stride);
  void flush();

  uint32_t neuron_count_ = 0, words_ = 0, in_planes_ = 0, waiting_ = 0;
  std::vector<uint64_t> planes_;  // (kBitPlanes, words)
  std::vector<uint64_t> rows_;    // (kRowsAtOnce, words), of which `waiting_` are to be added
  std::vector<uint32_t> counts_;  // (64 * words)
};

}  // namespace thermocline
