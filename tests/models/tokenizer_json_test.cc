// tokenizer.json: what is honoured, and everything that is refused.
#include "models/tokenizer_json.h"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "models/cli.h"
#include "models/tokenizer.h"
#include "tests/file_bytes.h"
#include "tests/models/parse_bytes.h"
#include "tests/models/small_tokenizers.h"
#include "tests/support.h"

namespace thermocline::test {
namespace {

using Catch::Matchers::Contains;
using nlohmann::json;
using Ids = std::vector<int32_t>;

Vocabulary parse(const std::string& text) {
  const std::vector<char> block(text.begin(), text.end());
  return parse_tokenizer_json(std::as_bytes(std::span(block)), "FILE");
}

std::unique_ptr<Tokenizer> made(const json& document) {
  return make_tokenizer(parse(document.dump()), "FILE");
}

std::string refused(const std::string& text) {
  return input_error([&] { make_tokenizer(parse(text), "FILE"); });
}

// The message for a document that `damage` has changed.
template <class Damage>
std::string refused_after(json document, Damage damage) {
  damage(document);
  return refused(document.dump());
}

std::string pieces_of(const Tokenizer& tokenizer, const std::string& text) {
  std::string pieces;
  for (const int32_t id : tokenizer.encode(text)) pieces += '|' + tokenizer.decode(-1, id);
  return pieces;
}

}  // namespace

TEST_CASE("a small byte-level tokenizer.json: words, merges, added tokens") {
  const auto tokenizer = made(small_byte_bpe());
  CHECK(tokenizer->name() == "byte-level BPE");
  CHECK(tokenizer->vocab_size() == 265);
  CHECK(tokenizer->bos_id() == 262);
  CHECK(tokenizer->adds_bos());
  CHECK(pieces_of(*tokenizer, "the the he") == "|the| the| |he");
  CHECK(pieces_of(*tokenizer, "an") == "|an");  // which no merge makes
  CHECK(tokenizer->encode("\n\xff") == Ids{'\n', 0xff});
  CHECK(tokenizer->decode(-1, 262).empty());
  CHECK(tokenizer->decode(-1, 265) == "\ufffd");
}

TEST_CASE("text never becomes a special token of a tokenizer.json, and always an added one") {
  const auto tokenizer = made(small_byte_bpe());
  for (const int32_t id : tokenizer->encode("<|begin_of_text|>")) CHECK(id < 262);
  CHECK(tokenizer->encode("<x>the<x>") == Ids{264, 259, 264});
  CHECK(tokenizer->decode_all({264, 259, 264}) == "<x>the<x>");
}

TEST_CASE("merges as texts and as pairs, and words that are pieces") {
  json document = small_byte_bpe();
  const auto pairs = made(document);
  for (json& merge : document["model"]["merges"]) {
    merge = merge[0].get<std::string>() + " " + merge[1].get<std::string>();
  }
  const auto texts = made(document);
  document["model"]["ignore_merges"] = false;
  const auto by_merges = made(document);
  for (const char* text : {"the an", " the", "then", "a the\n"}) {
    CHECK(pairs->encode(text) == texts->encode(text));
    CHECK(by_merges->decode_all(by_merges->encode(text)) == text);
  }
  CHECK(pieces_of(*by_merges, "an") == "|a|n");
}

TEST_CASE("a tokenizer.json converted from SentencePiece: spaces and bytes") {
  json document = small_llama2();
  const auto always = made(document);
  CHECK(always->name() == "sentencepiece");
  CHECK(always->bos_id() == 1);
  CHECK(always->eos_id() == 2);
  CHECK(pieces_of(*always, "the") == "| the");
  CHECK(pieces_of(*always, " the") == "| | the");
  CHECK(pieces_of(*always, "the<x>the") == "| the|<x>| the");
  CHECK(always->decode_all(always->encode("the<x>the \xff")) == "the<x>the \xff");
  document["normalizer"] = nullptr;
  const auto scheme = [&](const std::string& name) {
    document["pre_tokenizer"] = {{"type", "Metaspace"},
                                 {"replacement", "\u2581"},
                                 {"prepend_scheme", name},
                                 {"split", false}};
    return made(document);
  };
  CHECK(pieces_of(*scheme("always"), " the<x>the") == "| the|<x>| the");
  CHECK(pieces_of(*scheme("first"), "the<x>the") == "| the|<x>|the");
  CHECK(pieces_of(*scheme("never"), "the the") == "|the| the");
  CHECK(scheme("first")->decode_all(scheme("first")->encode("the<x> the")) == "the<x> the");
}

TEST_CASE("a tokenizer.json cut at any byte is refused") {
  check_truncations(small_byte_bpe().dump(), parse);
  check_truncations(small_llama2().dump(), parse);
}

TEST_CASE("a tokenizer.json that asks for something else is refused by name") {
  const json bytes = small_byte_bpe(), llama2 = small_llama2();
  struct Case {
    const json& document;
    const char* pointer;
    json value;
    const char* message;
  };
  const Case cases[] = {
      {bytes, "/model/type", "Unigram", "Unigram"},
      {bytes, "/model/dropout", 0.1, "model.dropout"},
      {bytes, "/model/end_of_word_suffix", "</w>", "</w>"},
      {bytes, "/model/byte_fallback", true, "byte_fallback"},
      {bytes, "/normalizer", {{"type", "NFC"}}, "NFC"},
      {bytes, "/normalizer", {{"type", "Prepend"}, {"prepend", "\u2581"}}, "normalizer"},
      {bytes, "/pre_tokenizer", {{"type", "Whitespace"}}, "Whitespace"},
      {bytes, "/pre_tokenizer/pretokenizers/0/behavior", "Removed", "Removed"},
      {bytes, "/pre_tokenizer/pretokenizers/0/pattern", {{"String", " "}}, "the field Regex"},
      {bytes, "/pre_tokenizer/pretokenizers/1/add_prefix_space", true, "add_prefix_space"},
      {bytes, "/pre_tokenizer/pretokenizers/2", {{"type", "Digits"}}, "ByteLevel as the last"},
      {bytes, "/post_processor", {{"type", "BertProcessing"}}, "BertProcessing"},
      {bytes, "/post_processor/single/2", {{"SpecialToken", {{"id", "x"}}}}, "single"},
      {bytes, "/decoder", {{"type", "WordPiece"}}, "WordPiece"},
      {bytes, "/added_tokens/2/lstrip", true, "lstrip"},
      {llama2, "/model/byte_fallback", false, "byte_fallback"},
      {llama2, "/model/unk_token", "none", "unk_token"},
      {llama2, "/model/merges", json::array(), "model.merges"},
      {llama2, "/normalizer", nullptr, "Metaspace"},
      {llama2, "/normalizer/normalizers/1/content", "_", "content"},
      {llama2, "/pre_tokenizer", {{"type", "Digits"}}, "no pre-tokenizer but Metaspace"},
      {llama2, "/added_tokens/3/normalized", true, "normalized"},
  };
  for (const Case& wrong : cases) {
    INFO(wrong.pointer << " = " << wrong.value);
    CHECK_THAT(refused_after(wrong.document,
                             [&](json& j) { j[json::json_pointer(wrong.pointer)] = wrong.value; }),
               Catch::StartsWith("FILE") && Contains(wrong.message));
  }
}

TEST_CASE("ids and pieces of a tokenizer.json that contradict each other are refused") {
  const auto bytes = [](auto damage) { return refused_after(small_byte_bpe(), damage); };
  CHECK_THAT(bytes([](json& j) { j["model"]["vocab"]["he"] = 3; }), Contains("there"));
  CHECK_THAT(bytes([](json& j) { j["model"]["vocab"]["he"] = -1; }), Contains("'he' at -1"));
  CHECK_THAT(bytes([](json& j) { j["model"]["vocab"]["he"] = 2147483647; }), Contains("outside"));
  CHECK_THAT(bytes([](json& j) { j["model"]["vocab"]["he"] = UINT64_MAX; }), Contains("outside"));
  CHECK_THAT(bytes([](json& j) { j["model"]["vocab"]["he"] = 1.5; }), Contains("model.vocab"));
  CHECK_THAT(bytes([](json& j) { j["model"]["vocab"]["he"] = {1}; }), Contains("model.vocab"));
  CHECK_THAT(bytes([](json& j) { j["model"]["vocab"].erase("A"); }), Contains("none for 0x41"));
  CHECK_THAT(bytes([](json& j) { j["model"]["vocab"] = json::object(); }), Contains("outside"));
  CHECK_THAT(bytes([](json& j) { j["added_tokens"][1] = j["added_tokens"][0]; }),
             Contains("'<|begin_of_text|>'"));
  CHECK_THAT(bytes([](json& j) { j["added_tokens"][0]["content"] = "he"; }), Contains("'he'"));
  CHECK_THAT(bytes([](json& j) { j["added_tokens"][0]["id"] = 1u << 31; }), Contains("token's id"));
  CHECK_THAT(bytes([](json& j) { j["model"]["merges"].push_back("q z"); }),
             Contains("'qz', which is none"));
  CHECK_THAT(bytes([](json& j) { j["model"]["merges"].push_back({"h", "e"}); }), Contains("twice"));
  for (const json& merge : {json("he"), json("a b c"), json({"h"}), json({"h", "e", "e"}),
                            json({1, 2}), json(7), json({{"h", "e"}})}) {
    CHECK_THAT(bytes([&](json& j) { j["model"]["merges"].push_back(merge); }), Contains("merges"));
  }
  CHECK_THAT(refused_after(small_llama2(), [](json& j) { j["model"]["vocab"].erase("<0x00>"); }),
             Contains("<0x00>"));
}

TEST_CASE("holes between the ids of a tokenizer.json have no text") {
  json document = small_byte_bpe();
  document["added_tokens"][2]["id"] = 300;
  const auto tokenizer = made(document);
  CHECK(tokenizer->vocab_size() == 301);
  CHECK(tokenizer->decode(-1, 280) == "\ufffd");
  CHECK(tokenizer->encode("<x>") == Ids{300});
}

TEST_CASE("hostile JSON: keys twice, depth, size, foreign bytes") {
  CHECK_THAT(refused(R"({"model": 1, "model": 2})"), Contains("'model' twice"));
  std::string twice = small_byte_bpe().dump();
  const size_t at = twice.find("\"vocab\":{") + 9;
  CHECK_THAT(refused(twice.insert(at, "\"he\":258,")), Contains("one id for each piece"));
  CHECK_THAT(refused(std::string(1 << 20, '[')), Contains("nested"));
  std::string deep = "{\"a\":";
  for (int i = 0; i < 18; ++i) deep += deep;
  CHECK_THAT(refused(deep), Contains("nested"));
  std::string wide = "{\"a\":[0";
  for (int i = 0; i < 300000; ++i) wide += ",0";
  CHECK_THAT(refused(wide + "]}"), Contains("values"));
  for (const char* text :
       {"", "null", "[]", "7", "\"x\"", "{}", "{\"model\":[]}", "\xff", "{\"model\":"}) {
    INFO(text);
    CHECK_THAT(refused(text), Catch::StartsWith("FILE"));
  }
}

TEST_CASE("open_tokenizer takes a tokenizer.json and a model's folder") {
  const TempDir folder;
  write_file(folder / "tokenizer.json", small_byte_bpe().dump());
  CHECK(open_tokenizer(folder / "tokenizer.json", 265)->eos_id() == 263);
  CHECK_THAT(input_error([&] { open_tokenizer(folder / "tokenizer.json", 264); }),
             Contains("at most 264"));
  CHECK(open_tokenizer(folder.path(), 265)->encode("the") == Ids{259});
  write_file(folder / "tokenizer_config.json",
             R"({"bos_token": null, "eos_token": {"content": "<x>"}, "add_bos_token": false})");
  const auto configured = open_tokenizer(folder.path(), 265);
  CHECK(configured->bos_id() == 262);
  CHECK(configured->eos_id() == 264);
  CHECK(!configured->adds_bos());
  write_file(folder / "tokenizer_config.json", R"({"eos_token": "<none>"})");
  CHECK_THAT(input_error([&] { open_tokenizer(folder.path(), 265); }), Contains("<none>"));
  const TempDir empty;
  CHECK_THAT(input_error([&] { open_tokenizer(empty.path(), 265); }), Contains("tokenizer.json"));
}

}  // namespace thermocline::test
