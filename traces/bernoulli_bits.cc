#include "traces/bernoulli_bits.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace thermocline {
namespace {

// Words side by side: kRegisters registers of kWidth words. A vector wider than the instruction
// set's registers would go through memory; several registers keep it busy while each generator
// waits for itself. Never passed by value, which depends on the instruction set.
template <uint32_t kWidth, uint32_t kRegisters>
struct Lanes {
  using Register [[gnu::vector_size(8 * kWidth)]] = uint64_t;
  static constexpr uint32_t kCount = kWidth * kRegisters;
  static_assert(kGroupWords % kCount == 0);

  Register r[kRegisters] = {};

  [[gnu::always_inline]] inline void load(const uint64_t* from) {
    for (uint32_t i = 0; i < kRegisters; ++i) std::memcpy(&r[i], from + i * kWidth, sizeof r[i]);
  }
  [[gnu::always_inline]] inline void store(uint64_t* to) const {
    for (uint32_t i = 0; i < kRegisters; ++i) std::memcpy(to + i * kWidth, &r[i], sizeof r[i]);
  }
};

// One generator for each word.
template <uint32_t kWidth, uint32_t kRegisters>
struct Generators {
  using Words = Lanes<kWidth, kRegisters>;

  Words s[kGeneratorWords];

  [[gnu::always_inline]] inline void read(const uint64_t* from) {
    for (uint32_t i = 0; i < kGeneratorWords; ++i) s[i].load(from + i * kGroupWords);
  }
  [[gnu::always_inline]] inline void write(uint64_t* to) const {
    for (uint32_t i = 0; i < kGeneratorWords; ++i) s[i].store(to + i * kGroupWords);
  }
  [[gnu::always_inline]] inline void next(Words& random) {
    for (uint32_t i = 0; i < kRegisters; ++i) {
      auto &a = s[0].r[i], &b = s[1].r[i], &c = s[2].r[i], &d = s[3].r[i];
      const auto sum = a + d, shifted = b << 17;
      random.r[i] = (sum << 23 | sum >> 41) + a;
      c ^= a;
      d ^= b;
      b ^= c;
      a ^= d;
      c ^= shifted;
      d = d << 45 | d >> 19;
    }
  }

  // Bits of one probability for all. Digits below the lowest 1 leave all bits 0.
  [[gnu::always_inline]] inline void draw_equal(uint32_t probability, Words& bits) {
    bits = {};
    if (probability == 0) return;
    for (auto k = static_cast<uint32_t>(std::countr_zero(probability)); k < kProbabilityDigits;
         ++k) {
      Words random;
      next(random);
      for (uint32_t i = 0; i < kRegisters; ++i) {
        if ((probability >> k & 1) != 0) {
          bits.r[i] |= random.r[i];
        } else {
          bits.r[i] &= random.r[i];
        }
      }
    }
  }

  // The next digit of probabilities of their own: a majority, see the header.
  [[gnu::always_inline]] inline void draw_digit(const Words& digit, Words& bits) {
    Words random;
    next(random);
    for (uint32_t i = 0; i < kRegisters; ++i) {
      bits.r[i] = (bits.r[i] & random.r[i]) | (digit.r[i] & (bits.r[i] | random.r[i]));
    }
  }
};

// Where words [begin, begin + L::kCount) of a layer lie in what is kept by groups, `rows` words of
// each lane to a group.
constexpr uint64_t in_groups(uint32_t begin, uint32_t rows) {
  return uint64_t{begin / kGroupWords} * rows * kGroupWords + begin % kGroupWords;
}

template <uint32_t kWidth, uint32_t kRegisters>
[[gnu::always_inline]] inline void chain(const ChainRun& run) {
  using Words = Lanes<kWidth, kRegisters>;
  const uint32_t word_count = (run.neuron_count + 63) / 64;
  for (uint32_t begin = 0; begin < word_count; begin += Words::kCount) {
    const uint64_t* planes = run.planes + in_groups(begin, kProbabilityDigits);
    uint64_t* saved = run.generators + in_groups(begin, kGeneratorWords);
    Generators<kWidth, kRegisters> generators;
    generators.read(saved);
    Words state;
    state.load(run.state + begin);
    for (uint32_t step = 0; step < run.step_count; ++step) {
      Words bits, kept;
      for (uint32_t k = 0; k < kProbabilityDigits; ++k) {
        Words digit;
        digit.load(planes + k * kGroupWords);
        generators.draw_digit(digit, bits);
      }
      if (step > 0 || !run.first) generators.draw_equal(run.keep, kept);
      for (uint32_t i = 0; i < kRegisters; ++i) {
        state.r[i] = bits.r[i] ^ ((bits.r[i] ^ state.r[i]) & kept.r[i]);
      }
      uint64_t* to = run.out + step * run.stride + begin;
      if (word_count - begin >= Words::kCount) {
        state.store(to);
      } else {
        std::memcpy(to, state.r, (word_count - begin) * sizeof(uint64_t));
      }
    }
    state.store(run.state + begin);
    generators.write(saved);
  }
}

template <uint32_t kWidth, uint32_t kRegisters>
[[gnu::always_inline]] inline void guess(const GuessRun& run) {
  using Words = Lanes<kWidth, kRegisters>;
  const uint32_t word_count = (run.neuron_count + 63) / 64, spare = run.neuron_count % 64;
  const uint64_t last = spare == 0 ? ~uint64_t{0} : (uint64_t{1} << spare) - 1;
  for (uint32_t begin = 0; begin < word_count; begin += Words::kCount) {
    uint64_t* saved = run.generators + in_groups(begin, kGeneratorWords);
    const uint32_t words = std::min(word_count - begin, Words::kCount);
    Generators<kWidth, kRegisters> generators;
    generators.read(saved);
    for (uint32_t step = 0; step < run.step_count; ++step) {
      const uint64_t at = step * run.stride + begin;
      Words active, bits;
      std::memcpy(active.r, run.active + at, words * sizeof(uint64_t));
      for (uint32_t k = 0; k < kProbabilityDigits; ++k) {
        // The recall's where the bit is active, else the alarm's.
        const uint64_t recall = -uint64_t{run.recall >> k & 1};
        const uint64_t alarm = -uint64_t{run.alarm >> k & 1};
        Words digit;
        for (uint32_t i = 0; i < kRegisters; ++i) {
          digit.r[i] = (active.r[i] & recall) | (~active.r[i] & alarm);
        }
        generators.draw_digit(digit, bits);
      }
      std::memcpy(run.out + at, bits.r, words * sizeof(uint64_t));
      if (begin + words == word_count) run.out[at + words - 1] &= last;
    }
    generators.write(saved);
  }
}

void chain_baseline(const ChainRun& run) { chain<2, 2>(run); }
void guess_baseline(const GuessRun& run) { guess<2, 2>(run); }

#if defined(__x86_64__)
[[gnu::target("avx2")]] void chain_avx2(const ChainRun& run) { chain<4, 2>(run); }
[[gnu::target("avx2")]] void guess_avx2(const GuessRun& run) { guess<4, 2>(run); }
[[gnu::target("avx512f")]] void chain_avx512(const ChainRun& run) { chain<8, 2>(run); }
[[gnu::target("avx512f")]] void guess_avx512(const GuessRun& run) { guess<8, 2>(run); }
#endif

// Byte i of the result has bit k of each byte of `bytes`, for i = k: the transpose of 8 x 8 bits,
// by exchanging blocks of 1, 2 and 4 across the diagonal.
uint64_t transposed(uint64_t bytes) {
  const auto exchange = [&bytes](int distance, uint64_t mask) {
    const uint64_t changed = (bytes ^ bytes >> distance) & mask;
    bytes ^= changed ^ changed << distance;
  };
  exchange(7, 0x00AA00AA00AA00AA);
  exchange(14, 0x0000CCCC0000CCCC);
  exchange(28, 0x00000000F0F0F0F0);
  return bytes;
}

// Digits of eight neurons: byte k of {low, high} has digit k, or 8 + k, of all eight.
struct EightDigits {
  uint64_t low = 0, high = 0;

  explicit EightDigits(const uint16_t* probabilities) {
    for (int i = 0; i < 8; ++i) {
      low |= uint64_t{probabilities[i] & 255u} << 8 * i;
      high |= uint64_t{probabilities[i]} >> 8 << 8 * i;
    }
    low = transposed(low);
    high = transposed(high);
  }
};

}  // namespace

void fill_planes(std::span<const uint16_t> probabilities, uint64_t* planes) {
  const auto neuron_count = static_cast<uint32_t>(probabilities.size());
  constexpr uint32_t kStride = kProbabilityDigits * kGroupWords;
  std::fill_n(planes, bit_groups(neuron_count) * kStride, 0);
  for (uint32_t begin = 0; begin < neuron_count; begin += 8) {
    uint16_t eight[8] = {};
    std::copy_n(probabilities.data() + begin, std::min(neuron_count - begin, 8u), eight);
    const EightDigits digits(eight);
    const uint32_t word = begin / 64, shift = begin % 64;
    uint64_t* to = planes + word / kGroupWords * kStride + word % kGroupWords;
    for (uint32_t k = 0; k < 8; ++k) {
      to[k * kGroupWords] |= (digits.low >> 8 * k & 255) << shift;
      to[(k + 8) * kGroupWords] |= (digits.high >> 8 * k & 255) << shift;
    }
  }
}

const std::vector<BitKernels>& bit_kernels() {
  static const std::vector<BitKernels> kernels = [] {
    std::vector<BitKernels> usable = {{"baseline", chain_baseline, guess_baseline}};
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2")) usable.push_back({"avx2", chain_avx2, guess_avx2});
    if (__builtin_cpu_supports("avx512f")) {
      usable.push_back({"avx512", chain_avx512, guess_avx512});
    }
#endif
    return usable;
  }();
  return kernels;
}

}  // namespace thermocline
