// Byte-level BPE from GGUF: names of splittings, merges, special tokens, damaged vocabularies.
#include <catch2/catch.hpp>
#include <span>

#include "models/tokenizer.h"
#include "models/tokenizer_json.h"
#include "tests/file_bytes.h"
#include "tests/models/parse_bytes.h"
#include "tests/models/small_tokenizers.h"

namespace thermocline::test {
namespace {

using Catch::Matchers::Contains;
using Ids = std::vector<int32_t>;

std::unique_ptr<Tokenizer> made(const GgufFile& file) {
  return make_tokenizer(parse_bytes("gguf", file.bytes())->vocabulary(), "FILE");
}

std::string refused(const GgufFile& file) {
  return input_error([&] { made(file); });
}

std::string pieces_of(const Tokenizer& tokenizer, const std::string& text) {
  std::string pieces;
  for (const int32_t id : tokenizer.encode(text)) pieces += '|' + tokenizer.decode(-1, id);
  return pieces;
}

// With one key removed or replaced.
template <class Change>
GgufFile changed(Change change) {
  GgufFile file = byte_bpe_gguf();
  change(file);
  return file;
}

}  // namespace

TEST_CASE("a GGUF byte-level vocabulary tokenizes as the tokenizer.json of the same model") {
  const auto gguf = made(byte_bpe_gguf());
  const std::string text = small_byte_bpe().dump();
  const auto json =
      make_tokenizer(parse_tokenizer_json(std::as_bytes(std::span(text)), "FILE"), "FILE");
  for (const std::string text : {"the the an", "<x> the\xff\n 1234", "<|begin_of_text|>", "then"}) {
    CHECK(gguf->encode(text) == json->encode(text));
    CHECK(gguf->decode_all(gguf->encode(text)) == text);
  }
  CHECK(gguf->bos_id() == 262);
  CHECK(gguf->eos_id() == 263);
  CHECK(gguf->adds_bos());
  CHECK(gguf->vocab_size() == 265);
}

TEST_CASE("tokenizer.ggml.pre names how words are split, and whether merges count") {
  const auto with = [](const char* name) {
    return made(changed([&](GgufFile& file) { file.set_text("tokenizer.ggml.pre", name); }));
  };
  CHECK(pieces_of(*with("llama-bpe"), "an") == "|an");
  CHECK(pieces_of(*with("llama3"), "an") == "|an");
  CHECK(pieces_of(*with("gpt-2"), "an") == "|a|n");
  CHECK(!with("gpt-2")->adds_bos());
  CHECK(pieces_of(*with("smollm"), " the") == "| the");
  CHECK(pieces_of(*with("default"), " the") == "| the");
  const auto unnamed = made(changed([](GgufFile& file) { file.remove("tokenizer.ggml.pre"); }));
  CHECK(unnamed->encode("the, the") == with("default")->encode("the, the"));
  CHECK_THAT(input_error([&] { with("viking"); }), Contains("llama-bpe") && Contains("viking"));
}

TEST_CASE("a GGUF byte-level vocabulary without special tokens has none") {
  const auto tokenizer = made(changed([](GgufFile& file) {
    file.remove("tokenizer.ggml.bos_token_id");
    file.remove("tokenizer.ggml.eos_token_id");
    file.remove("tokenizer.ggml.token_type");
  }));
  CHECK(tokenizer->bos_id() == -1);
  CHECK(tokenizer->eos_id() == -1);
  CHECK(!tokenizer->adds_bos());
  CHECK(tokenizer->decode_all(tokenizer->encode("the")) == "the");
  CHECK(!made(changed([](GgufFile& file) {
           file.set_bool("tokenizer.ggml.add_bos_token", 0);
         }))->adds_bos());
}

TEST_CASE("damaged byte-level vocabularies are refused") {
  const auto merges = [](const std::vector<std::string>& texts) {
    return refused(
        changed([&](GgufFile& file) { file.set("tokenizer.ggml.merges", text_array(texts)); }));
  };
  CHECK_THAT(merges({"he"}), Contains("a space between"));
  CHECK_THAT(merges({" he"}), Contains("a space between"));
  CHECK_THAT(merges({"h e "}), Contains("a space between"));
  CHECK_THAT(merges({"h e", "h e"}), Contains("twice"));
  CHECK_THAT(merges({"e h"}), Contains("'eh', which is none"));
  CHECK_THAT(merges({"\u4e2d e"}), Contains("which is none"));
  CHECK_THAT(
      refused(changed([](GgufFile& file) { file.set_bool("tokenizer.ggml.add_space_prefix", 1); })),
      Contains("without a space"));
  CHECK_THAT(refused(changed([](GgufFile& file) {
               file.set("tokenizer.ggml.tokens", text_array(std::vector<std::string>(265, "a")));
             })),
             Contains("two that are 'a'"));
  CHECK_THAT(
      refused(changed([](GgufFile& file) { file.set_u32("tokenizer.ggml.bos_token_id", 265); })),
      Contains("below 265"));
  check_truncations(byte_bpe_gguf().bytes(),
                    [](const std::string& cut) { parse_bytes("gguf", cut); });
}

TEST_CASE("merging by rank takes the lowest rank first, and of equals the leftmost") {
  GgufFile file = byte_bpe_gguf();
  file.set("tokenizer.ggml.merges", text_array({"h e", "t he", "\u0120 t"}));
  const auto tokenizer = made(changed([&](GgufFile& changed) {
    changed = file;
    changed.set_text("tokenizer.ggml.pre", "gpt-2");
  }));
  CHECK(tokenizer->encode(" the") == Ids{' ', 259});
  CHECK(tokenizer->encode(" t") == Ids{256});
}

}  // namespace thermocline::test
