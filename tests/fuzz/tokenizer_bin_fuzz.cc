// llama2.c's tokenizer files: parse, then encode and decode with what was accepted.
#include <cstdlib>

#include "models/error.h"
#include "models/tokenizer.h"
#include "tests/file_bytes.h"
#include "tests/fuzz/fuzz.h"

namespace thermocline::fuzz {

std::vector<std::string> seeds() { return {test::small_tokenizer_bin()}; }

}  // namespace thermocline::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace thermocline;
  try {
    const auto tokenizer =
        make_tokenizer(parse_llama2c_vocabulary(fuzz::as_bytes(data, size), "input"), "input");
    const std::string text(reinterpret_cast<const char*>(data), size);
    const std::vector<int32_t> ids = tokenizer->encode(text);
    for (const int32_t id : ids) {
      if (id < 0 || static_cast<uint32_t>(id) >= tokenizer->vocab_size()) std::abort();
    }
    (void)tokenizer->decode_all(ids);
  } catch (const Error&) {
  }
  return 0;
}
