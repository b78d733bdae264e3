// libCacheSim's records: parse, and read every step that was accepted.
#include <cstring>

#include "models/error.h"
#include "tests/fuzz/fuzz.h"
#include "traces/formats/oracle_general.h"

namespace thermocline::fuzz {
namespace {

std::string record(uint32_t time, uint64_t object, int64_t next) {
  const uint32_t size = 100;
  std::string bytes(kOracleRecordBytes, '\0');
  std::memcpy(bytes.data(), &time, 4);
  std::memcpy(bytes.data() + 4, &object, 8);
  std::memcpy(bytes.data() + 12, &size, 4);
  std::memcpy(bytes.data() + 16, &next, 8);
  return bytes;
}

}  // namespace

std::vector<std::string> seeds() {
  return {record(0, 1, -1) + record(0, 140, 3) + record(2, 140, -1) + record(2, 6, -1),
          record(0, 7, 1) + record(1, 7, -1), record(300, 9, -1)};
}

}  // namespace thermocline::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace thermocline;
  const auto bytes = fuzz::as_bytes(data, size);
  try {
    const auto source =
        parse_oracle_records({nullptr, bytes}, "input", {.layer_count = 2, .ffn_dim = 70});
    uint64_t steps = 0;
    uint64_t active = 0;
    source->read([&](const StepInfo&, std::span<const uint64_t> words) {
      ++steps;
      for (const uint64_t word : words) active += static_cast<uint64_t>(std::popcount(word));
    });
    TC_CHECK(steps == source->facts().step_count, "as many steps as were announced");
    TC_CHECK(active == size / kOracleRecordBytes, "a bit for every record");
  } catch (const Error&) {
  }
  return 0;
}
