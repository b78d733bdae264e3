// llama2.c's legacy .bin: what is read, and everything that is refused.
#include <catch2/catch.hpp>

#include "models/checkpoint.h"
#include "models/model_spec.h"
#include "models/tokenizer.h"
#include "models/weights.h"
#include "tests/file_bytes.h"
#include "tests/models/parse_bytes.h"
#include "tests/models/reference_decoder.h"
#include "tests/support.h"

namespace thermocline::test {
namespace {

using Catch::Matchers::Contains;

std::unique_ptr<Checkpoint> parse(const std::string& bytes) {
  return parse_bytes("llama2c", bytes);
}

std::string with_field(std::string bytes, int index, int32_t value) {
  std::memcpy(bytes.data() + 4 * index, &value, sizeof value);
  return bytes;
}

ModelShape narrow_shape() {
  ModelShape shape = small_shape();
  shape.layer_count = 1;
  shape.model_dim = 8;
  shape.ffn_dim = 5;
  shape.head_dim = 2;
  shape.vocab_size = 3;
  shape.context_length = 2;
  shape.rope_theta = 10000.0f;
  return shape;
}

int32_t best_of_last(const TokenColumns& logits) {
  int32_t best = 0;
  for (uint64_t id = 1; id < logits.rows; ++id) {
    const uint64_t last = logits.tokens - 1;
    if (logits.row(id)[last] > logits.row(best)[last]) best = static_cast<int32_t>(id);
  }
  return best;
}

}  // namespace

TEST_CASE("llama2.c: stories260K has the shape that its source gives") {
  const std::string path = data_file("stories260K.bin");
  if (path.empty()) return;
  const auto checkpoint = open_checkpoint(path);
  const ModelShape expected = {.layer_count = 5,
                               .model_dim = 64,
                               .ffn_dim = 172,
                               .head_count = 8,
                               .kv_head_count = 4,
                               .head_dim = 8,
                               .vocab_size = 512,
                               .context_length = 512,
                               .tied_embeddings = true};
  CHECK(checkpoint->shape() == expected);
  CHECK(checkpoint->tensors().size() == 2 + 9 * 5);
  CHECK(checkpoint->vocabulary().kind == Vocabulary::Kind::none);
}

TEST_CASE("llama2.c: stories260K tells its story") {
  const std::string path = data_file("stories260K.bin");
  const std::string tokenizer_path = data_file("tok512.bin");
  if (path.empty() || tokenizer_path.empty()) return;
  const auto weights = open_weights(parse_model_spec(path));
  const auto tokenizer = open_tokenizer(tokenizer_path, weights->shape().vocab_size);
  const ReferenceDecoder decoder(*weights);
  const std::string expected =
      "Once upon a time, there was a little girl named Lily. She loved to play outside in the "
      "park. "
      "One day, she saw a big, red ball";
  std::vector<uint32_t> tokens = {1};
  std::string text;
  while (text.size() < expected.size()) {
    const auto stream = decoder.run(tokens, [](uint32_t, const TokenColumns&) {});
    const int32_t next = best_of_last(decoder.logits(stream));
    text += tokenizer->decode(static_cast<int32_t>(tokens.back()), next);
    tokens.push_back(static_cast<uint32_t>(next));
  }
  CHECK(text == expected);
}

TEST_CASE("llama2.c: tensors are those that were written, tied or not") {
  ModelShape shape = small_shape();
  shape.rope_theta = 10000.0f;
  shape.tied_embeddings = GENERATE(false, true);
  const auto checkpoint = parse(small_llama2c(shape));
  CHECK(checkpoint->shape() == shape);
  CHECK(checkpoint->tensors().size() == (shape.tied_embeddings ? 20 : 21));
  for (const TensorView& tensor : checkpoint->tensors()) {
    INFO(tensor.name);
    const std::string expected =
        encoded(DType::f32, made_values(tensor.name, tensor.rows, tensor.cols));
    REQUIRE(tensor.bytes.size() == expected.size());
    CHECK(std::memcmp(tensor.bytes.data(), expected.data(), expected.size()) == 0);
  }
  CHECK(checkpoint->get("blk.1.ffn_down.weight", 64, 160).dtype == DType::f32);
  CHECK((checkpoint->find("output.weight") == nullptr) == shape.tied_embeddings);
}

TEST_CASE("llama2.c: a file of another size than its header says is refused") {
  const std::string bytes = small_llama2c(narrow_shape());
  check_truncations(bytes, parse);
  CHECK_THAT(input_error([&] { parse(bytes + "x"); }),
             Contains(std::to_string(bytes.size()) + " bytes, as the llama2.c header says"));
}

TEST_CASE("llama2.c: absurd headers are refused") {
  const std::string bytes = small_llama2c(narrow_shape());
  const char* fields[] = {"dim", "hidden_dim", "n_layers", "n_heads", "n_kv_heads", "", "seq_len"};
  for (int i = 0; i < 7; ++i) {
    for (const int32_t value : {0, -1, INT32_MIN, INT32_MAX, 1 << 30}) {
      INFO(fields[i] << " = " << value);
      const std::string message = input_error([&] { parse(with_field(bytes, i, value)); });
      if (i != 5 && value <= 0) CHECK_THAT(message, Contains(std::string(fields[i]) + " above 0"));
    }
  }
  CHECK_THAT(input_error([&] { parse(with_field(bytes, 3, 3)); }), Contains("divides dim"));
  check_hostile_lengths(bytes, 28, parse);
}

TEST_CASE("llama2.c: a file of another name is known by its size") {
  const TempDir folder;
  const std::string bytes = small_llama2c(narrow_shape());
  const std::string path = folder / "model.weights";
  const auto write = [&path](const std::string& content) {
    std::FILE* file = std::fopen(path.c_str(), "wb");
    std::fwrite(content.data(), 1, content.size(), file);
    std::fclose(file);
  };
  write(bytes);
  CHECK(open_checkpoint(path)->shape().ffn_dim == 5);
  write(bytes + "x");
  CHECK_THAT(input_error([&] { open_checkpoint(path); }), Contains("gguf, llama2c"));
}

}  // namespace thermocline::test
