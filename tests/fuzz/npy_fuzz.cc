// .npy arrays of bits, and the table of steps beside one: parse, and read every step.
#include "models/error.h"
#include "models/npy_file.h"
#include "tests/fuzz/fuzz.h"
#include "traces/formats/npy.h"

namespace thermocline::fuzz {

std::vector<std::string> seeds() {
  const std::vector<uint64_t> shape = {4, 2, 3};
  return {
      npy_header(kNpyU8, shape) + std::string(24, '\x05'),
      "step,task,task_id,position,phase,token,pass\n0,0,11,0,prefill,1,0\n1,0,11,1,decode,2,1\n",
      "step,task,task_id,position,phase,token\n0,0,-1,0,decode,-1\n1,1,2,0,prefill,3\n"};
}

}  // namespace thermocline::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace thermocline;
  const auto bytes = fuzz::as_bytes(data, size);
  try {
    const auto source = parse_npy_bits({nullptr, bytes}, "input", std::nullopt, {});
    uint64_t steps = 0;
    source->read([&](const StepInfo&, std::span<const uint64_t> words) {
      ++steps;
      TC_CHECK(words.size() == source->pool().words_per_step(), "words of the whole model");
    });
    TC_CHECK(steps == source->facts().step_count, "as many steps as were announced");
  } catch (const Error&) {
  }
  try {
    const StepTable table = parse_step_table(bytes, "input");
    for (const StepInfo& step : table.steps) TC_CHECK(step.task < table.tasks.size(), "a task");
  } catch (const Error&) {
  }
  return 0;
}
