// Tasks in MBPP's format: parse JSON lines.
#include "models/error.h"
#include "models/prompts.h"
#include "tests/fuzz/fuzz.h"

namespace thermocline::fuzz {

std::vector<std::string> seeds() {
  const std::string all(embedded_tasks_jsonl());
  const std::string first = all.substr(0, all.find('\n') + 1);
  return {all, first,
          R"({"text":"Add.","code":"def f():\r\n\treturn 1","task_id":11,)"
          R"("test_list":["assert f() == 1"],"test_setup_code":"","challenge_test_list":[]})"};
}

}  // namespace thermocline::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace thermocline;
  try {
    (void)parse_tasks({reinterpret_cast<const char*>(data), size}, "input");
  } catch (const Error&) {
  }
  return 0;
}
