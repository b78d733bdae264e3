// Lets libFuzzer start from a target's own seeds: it cannot guess a header of 259 pieces, and no
// binary corpus is committed.
#include <algorithm>
#include <cstring>

#include "tests/fuzz/fuzz.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t size_max);

// One input in 64 is a seed, the others are changed as ever.
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t size_max,
                                          unsigned int random) {
  if (random % 64 != 0) return LLVMFuzzerMutate(data, size, size_max);
  static const std::vector<std::string> seeds = thermocline::fuzz::seeds();
  const std::string& seed = seeds[random / 64 % seeds.size()];
  size = std::min(seed.size(), size_max);
  std::memcpy(data, seed.data(), size);
  return size;
}
