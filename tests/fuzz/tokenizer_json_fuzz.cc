// tokenizer.json: parse, then encode and decode with what was accepted.
#include <algorithm>
#include <cstdlib>

#include "models/error.h"
#include "models/tokenizer.h"
#include "models/tokenizer_json.h"
#include "tests/fuzz/fuzz.h"
#include "tests/models/small_tokenizers.h"

namespace thermocline::fuzz {

std::vector<std::string> seeds() {
  nlohmann::json gpt2 = test::small_byte_bpe();
  gpt2["pre_tokenizer"] = {{"type", "ByteLevel"}, {"add_prefix_space", false}};
  nlohmann::json metaspace = test::small_llama2();
  metaspace["normalizer"] = nullptr;
  metaspace["pre_tokenizer"] = {{"type", "Metaspace"},
                                {"replacement", "\u2581"},
                                {"prepend_scheme", "first"},
                                {"split", false}};
  return {test::small_byte_bpe().dump(), test::small_llama2().dump(), gpt2.dump(),
          metaspace.dump()};
}

}  // namespace thermocline::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace thermocline;
  try {
    const auto tokenizer =
        make_tokenizer(parse_tokenizer_json(fuzz::as_bytes(data, size), "input"), "input");
    const std::string own(reinterpret_cast<const char*>(data), std::min<size_t>(size, 512));
    for (const std::string& text :
         {own, std::string(" the ban\xff\u00e9\u2581 <s>\r\n 12345'LL <x>"), std::string(400, 'a'),
          std::string(400, ' ')}) {
      const std::vector<int32_t> ids = tokenizer->encode(text);
      for (const int32_t id : ids) {
        if (id < 0 || static_cast<uint32_t>(id) >= tokenizer->vocab_size()) std::abort();
      }
      (void)tokenizer->decode_all(ids);
    }
  } catch (const Error&) {
  }
  return 0;
}
