// llama2.c checkpoints: parse, and read every tensor that was accepted.
#include "models/checkpoint.h"
#include "models/error.h"
#include "tests/file_bytes.h"
#include "tests/fuzz/fuzz.h"

namespace thermocline::fuzz {

std::vector<std::string> seeds() {
  ModelShape shape = test::small_shape();
  shape.layer_count = 1;
  shape.model_dim = 8;
  shape.ffn_dim = 3;
  shape.head_dim = 2;
  shape.vocab_size = 3;
  shape.context_length = 2;
  ModelShape tied = shape;
  tied.tied_embeddings = true;
  return {test::small_llama2c(shape), test::small_llama2c(tied)};
}

}  // namespace thermocline::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace thermocline;
  const auto bytes = fuzz::as_bytes(data, size);
  const CheckpointFormat& format = checkpoint_formats().by_name("llama2c");
  try {
    (void)format.matches(bytes, "input");
    const auto checkpoint = format.parse({"input", nullptr, bytes}, {});
    volatile uint8_t all = 0;
    for (const TensorView& tensor : checkpoint->tensors()) {
      for (const std::byte value : tensor.bytes) all = all ^ static_cast<uint8_t>(value);
    }
  } catch (const Error&) {
  }
  return 0;
}
