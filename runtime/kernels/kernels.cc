// Which kernels this machine can run, and which of them to use.
#include "runtime/kernels/kernels.h"

#include <cstdlib>
#include <cstring>

#include "runtime/kernels/instruction_sets.h"

namespace thermocline {
namespace {

#if defined(__x86_64__)
// F16C, which every maker had before AVX2; clang's list of names leaves it out.
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vnni");
}
// The first AMD core that has this.
bool is_zen5() { return __builtin_cpu_is("amd") && __builtin_cpu_supports("avx512vp2intersect"); }
#else
bool has_avx2() { return false; }
bool has_avx512() { return false; }
bool is_zen5() { return false; }
#endif

bool always() { return true; }

struct InstructionSet {
  const char* name;
  const Kernels* (*kernels)();
  bool (*runs_here)();
  bool (*suits)();  // whether it is chosen where nobody asks for another
};

// The fastest first.
constexpr InstructionSet kInstructionSets[] = {
    {"avx512-zen5", avx512_zen5_kernels, has_avx512, is_zen5},
    {"avx512", avx512_kernels, has_avx512, always},
    {"avx2", avx2_kernels, has_avx2, always},
    {"portable", portable_kernels, always, always},
};

const Kernels* usable(const InstructionSet& set) {
  return set.runs_here() ? set.kernels() : nullptr;
}

const Kernels& choose() {
  const char* asked = std::getenv("TC_KERNELS");
  const Kernels* chosen = asked != nullptr ? kernels_by_name(asked) : nullptr;
  for (const InstructionSet& set : kInstructionSets)
    if (chosen == nullptr && set.suits()) chosen = usable(set);
  return *chosen;
}

}  // namespace

const Kernels* kernels_by_name(const char* name) {
  for (const InstructionSet& set : kInstructionSets)
    if (std::strcmp(set.name, name) == 0) return usable(set);
  return nullptr;
}

const Kernels& cpu_kernels() {
  static const Kernels& chosen = choose();
  return chosen;
}

}  // namespace thermocline
