// torch.save's tensors of counts: the archive, its pickle, its elements; and pickles alone.
#include "models/error.h"
#include "tests/fuzz/fuzz.h"
#include "traces/count_tensor.h"
#include "traces/tensor_pickle.h"

namespace thermocline::fuzz {

std::vector<std::string> seeds() {
  return {count_tensor(std::vector<uint32_t>{0, 3, 70000}, "a"), tensor_pickle("LongStorage", 3),
          tensor_pickle("FloatStorage", 70000)};
}

}  // namespace thermocline::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace thermocline;
  try {
    const auto counts = parse_count_tensor(fuzz::as_bytes(data, size), "input");
    TC_CHECK(counts.size() <= size / sizeof(float), "no more counts than the file has bytes for");
  } catch (const Error&) {
  }
  try {
    const TensorPickle tensor =
        parse_tensor_pickle({reinterpret_cast<const char*>(data), size}, "input");
    TC_CHECK(tensor.offset + tensor.count <= tensor.storage_count, "within the storage");
  } catch (const Error&) {
  }
  return 0;
}
