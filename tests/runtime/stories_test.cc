// A real trained model: its greedy text is known, and must come out of every layout.
#include <catch2/catch.hpp>

#include "models/tokenizer.h"
#include "tests/runtime/local_run.h"
#include "tests/support.h"

namespace thermocline::test {
namespace {

constexpr const char* kStory =
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. "
    "One day, she saw a big, red ball";

TEST_CASE("stories260K writes its known text in every layout") {
  const std::string model = data_file("stories260K.bin");
  const std::string vocabulary = data_file("tok512.bin");
  if (model.empty() || vocabulary.empty()) return;
  const auto source = open_weights(parse_model_spec(model));
  const auto tokenizer = open_tokenizer(vocabulary, source->shape().vocab_size);
  LocalRunOptions options;
  options.prompt = {tokenizer->bos_id()};
  options.new_token_max = 80;
  options.logits = false;
  const auto one = run_locally(*source, options);
  CHECK_THAT(tokenizer->decode_all(one.task.tokens), Catch::StartsWith(kStory));

  options.layout = GENERATE("pp1,tp2", "pp1,tp3", "pp1,tp4", "pp2,tp1", "pp2,tp2", "pp3,tp1",
                            "pp4,tp1", "pp5,tp1");
  options.threads = 2;
  INFO(options.layout);
  CHECK(run_locally(*source, options).task.tokens == one.task.tokens);
}

TEST_CASE("stories260K writes its known text with an uneven split") {
  const std::string model = data_file("stories260K.bin");
  if (model.empty()) return;
  const auto source = open_weights(parse_model_spec(model));
  LocalRunOptions options;
  options.new_token_max = 80;
  options.logits = false;
  const auto one = run_locally(*source, options);
  options.layout = "pp2,tp2";
  options.rank_weights = "3,1,1,2";
  CHECK(run_locally(*source, options).task.tokens == one.task.tokens);
}

}  // namespace
}  // namespace thermocline::test
