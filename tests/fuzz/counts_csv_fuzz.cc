// Tables of counts: parse, and hold the steps that are made against the counts' rules.
#include "models/error.h"
#include "tests/fuzz/fuzz.h"
#include "traces/formats/counts_csv.h"

namespace thermocline::fuzz {

std::vector<std::string> seeds() {
  return {
      "layer,neuron,active_count,step_count\n0,0,3,10\n0,1,10,10\n1,0,0,10\n1,1,7,10\n",
      "task_id,layer,neuron,active_count,step_count\n4,0,0,1,2\n4,1,0,2,2\n5,0,0,0,1\n5,1,0,1,1"};
}

}  // namespace thermocline::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace thermocline;
  // Any number of steps can be asked for in ten digits; scaled, their number is known.
  for (const uint64_t profile_steps : {0, 50}) {
    try {
      const ImportOptions options = {.profile_steps = profile_steps};
      const auto source = parse_counts_csv({nullptr, fuzz::as_bytes(data, size)}, "input", options);
      if (source->facts().step_count > 1000) continue;
      uint64_t steps = 0;
      source->read([&](const StepInfo& info, std::span<const uint64_t>) {
        TC_CHECK(info.task < source->facts().tasks.size(), "a task");
        ++steps;
      });
      TC_CHECK(steps == source->facts().step_count, "as many steps as were announced");
    } catch (const Error&) {
    }
  }
  return 0;
}
