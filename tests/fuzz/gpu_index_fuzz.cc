// PowerInfer's GPU index: parse, and look at every neuron that was accepted.
#include "models/gpu_index.h"

#include "models/error.h"
#include "tests/fuzz/fuzz.h"
#include "tests/gguf_parts.h"

namespace thermocline::fuzz {

std::vector<std::string> seeds() {
  return {test::small_gpu_index({{1, 0, 1, 1, 0, 0, 1, 0}, {0, 0, 0, 0, 0, 0, 0, 0}}).bytes(),
          test::small_gpu_index({{1}}).bytes()};
}

}  // namespace thermocline::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace thermocline;
  try {
    const GpuIndex index = parse_gpu_index(fuzz::as_bytes(data, size), "input");
    for (const auto& neurons : index.hot_neurons) {
      for (const uint32_t neuron : neurons) TC_CHECK(neuron < index.ffn_dim, "a neuron of a layer");
    }
  } catch (const Error&) {
  }
  return 0;
}
