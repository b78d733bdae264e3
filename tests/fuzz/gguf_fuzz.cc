// GGUF checkpoints: parse, and use what was accepted as a program would.
#include "models/checkpoint.h"
#include "models/error.h"
#include "models/tokenizer.h"
#include "tests/file_bytes.h"
#include "tests/fuzz/fuzz.h"

namespace thermocline::fuzz {
namespace {

// Every byte of every tensor, so that a sanitizer sees one that lies outside the input.
uint8_t touch(const Checkpoint& checkpoint) {
  uint8_t all = 0;
  for (const TensorView& tensor : checkpoint.tensors()) {
    for (const std::byte value : tensor.bytes) all ^= static_cast<uint8_t>(value);
  }
  return all;
}

void use(const Checkpoint& checkpoint) {
  volatile uint8_t kept = touch(checkpoint);
  (void)kept;
  if (checkpoint.vocabulary().kind == Vocabulary::Kind::none) return;
  const auto tokenizer = make_tokenizer(checkpoint.vocabulary(), "input");
  (void)tokenizer->decode_all(tokenizer->encode(" the ban\xff\u00e9\u2581 <s><0x41>"));
}

}  // namespace

std::vector<std::string> seeds() {
  ModelShape narrow = test::small_shape();
  narrow.layer_count = 1;
  narrow.model_dim = narrow.ffn_dim = 32;
  narrow.head_count = narrow.kv_head_count = 2;
  test::GgufFile tied = test::small_gguf(DType::f16, narrow);
  tied.remove_tensor("output.weight");
  tied.set_text("llama.hidden_activation", "relu");
  tied.set_u32("general.alignment", 32);
  return {test::small_gguf(DType::q4_0, narrow).bytes(), test::small_vocabulary_gguf().bytes(),
          tied.bytes()};
}

}  // namespace thermocline::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace thermocline;
  try {
    const CheckpointFile file{"input", nullptr, fuzz::as_bytes(data, size)};
    fuzz::use(*checkpoint_formats().by_name("gguf").parse(file, {}));
  } catch (const Error&) {
  }
  return 0;
}
