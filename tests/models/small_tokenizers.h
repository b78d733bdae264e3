// Small tokenizer.json documents of both kinds, and one as GGUF has it, made in code: for tests to
// read, cut and damage, and for fuzzers to start from.
//
// Thread-safety: pure functions.
#pragma once

#include <array>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/file_bytes.h"

namespace thermocline::test {

// Llama-3's expression; see models/gguf_keys.cc.
inline constexpr const char* kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|)"
    R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

// A character below U+0800 as UTF-8.
inline std::string two_byte_character(uint32_t code) {
  if (code < 0x80) return {static_cast<char>(code)};
  return {static_cast<char>(0xc0 | code >> 6), static_cast<char>(0x80 | (code & 63))};
}

// A byte as a byte-level vocabulary spells it.
inline std::string spelt_byte(int byte) {
  const auto printable = [](int b) {
    return (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
  };
  uint32_t next = 0x100;
  for (int b = 0; b < byte; ++b) next += printable(b) ? 0 : 1;
  return two_byte_character(printable(byte) ? static_cast<uint32_t>(byte) : next);
}

inline nlohmann::json added_token(int id, const std::string& content, bool special) {
  return {{"id", id},        {"content", content},   {"special", special}, {"lstrip", false},
          {"rstrip", false}, {"single_word", false}, {"normalized", false}};
}

inline nlohmann::json bos_template(int id, const std::string& content) {
  return {{"type", "TemplateProcessing"},
          {"single",
           {{{"SpecialToken", {{"id", content}, {"type_id", 0}}}},
            {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}}},
          {"special_tokens", {{content, {{"id", content}, {"ids", {id}}}}}}};
}

// Id b is byte b; then th, he, the; " the" and "an", the last without a merge; special tokens.
inline nlohmann::json small_byte_bpe() {
  nlohmann::json vocab;
  for (int b = 0; b < 256; ++b) vocab[spelt_byte(b)] = b;
  vocab["\u0120t"] = 256;
  vocab["he"] = 257;
  vocab["\u0120the"] = 258;
  vocab["the"] = 259;
  vocab["an"] = 260;
  vocab["\u0120an"] = 261;
  using Pairs = std::vector<std::array<std::string, 2>>;
  const Pairs merges = {{"\u0120", "t"}, {"h", "e"}, {"\u0120t", "he"}, {"t", "he"}};
  return {{"added_tokens",
           {added_token(262, "<|begin_of_text|>", true), added_token(263, "<|end_of_text|>", true),
            added_token(264, "<x>", false)}},
          {"normalizer", nullptr},
          {"pre_tokenizer",
           {{"type", "Sequence"},
            {"pretokenizers",
             {{{"type", "Split"},
               {"pattern", {{"Regex", kLlama3Pattern}}},
               {"behavior", "Isolated"},
               {"invert", false}},
              {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}}}}},
          {"post_processor", bos_template(262, "<|begin_of_text|>")},
          {"decoder", {{"type", "ByteLevel"}}},
          {"model",
           {{"type", "BPE"},
            {"ignore_merges", true},
            {"byte_fallback", false},
            {"vocab", vocab},
            {"merges", merges}}}};
}

// The pieces of small_vocabulary(), with merges for three of them.
inline nlohmann::json small_llama2() {
  nlohmann::json vocab;
  int id = 0;
  for (const std::string& piece : small_vocabulary()) vocab[piece] = id++;
  vocab["the"] = id++;
  using Pairs = std::vector<std::array<std::string, 2>>;
  const Pairs merges = {{"\u2581", "t"}, {"h", "e"}, {"\u2581t", "he"}, {"t", "he"}};
  return {
      {"added_tokens",
       {added_token(0, "<unk>", true), added_token(1, "<s>", true), added_token(2, "</s>", true),
        added_token(id, "<x>", false)}},
      {"normalizer",
       {{"type", "Sequence"},
        {"normalizers",
         {{{"type", "Prepend"}, {"prepend", "\u2581"}},
          {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "\u2581"}}}}}},
      {"pre_tokenizer", nullptr},
      {"post_processor", bos_template(1, "<s>")},
      {"decoder",
       {{"type", "Sequence"}, {"decoders", nlohmann::json::array({{{"type", "ByteFallback"}}})}}},
      {"model",
       {{"type", "BPE"},
        {"unk_token", "<unk>"},
        {"byte_fallback", true},
        {"vocab", vocab},
        {"merges", merges}}}};
}

inline Bytes text_array(const std::vector<std::string>& texts) {
  Bytes array;
  array.put(kGgufArray).put(kGgufString).put<uint64_t>(texts.size());
  for (const std::string& text : texts) array.text(text);
  return array;
}

// What small_byte_bpe() says, as GGUF has it.
inline GgufFile byte_bpe_gguf() {
  const nlohmann::json document = small_byte_bpe();
  std::vector<std::string> pieces(265), merges;
  for (const auto& [piece, id] : document["model"]["vocab"].items()) pieces[id] = piece;
  Bytes types;
  types.put(kGgufArray).put<uint32_t>(5).put<uint64_t>(265);
  for (const auto& token : document["added_tokens"]) pieces[token["id"]] = token["content"];
  for (int id = 0; id < 265; ++id) types.put<int32_t>(id < 262 ? 1 : id < 264 ? 3 : 4);
  for (const auto& merge : document["model"]["merges"]) {
    merges.push_back(merge[0].get<std::string>() + " " + merge[1].get<std::string>());
  }
  GgufFile file;
  file.set_text("general.architecture", "llama");
  file.set_text("tokenizer.ggml.model", "gpt2");
  file.set_text("tokenizer.ggml.pre", "llama-bpe");
  file.set("tokenizer.ggml.tokens", text_array(pieces));
  file.set("tokenizer.ggml.token_type", types);
  file.set("tokenizer.ggml.merges", text_array(merges));
  file.set_u32("tokenizer.ggml.bos_token_id", 262);
  file.set_u32("tokenizer.ggml.eos_token_id", 263);
  return file;
}

}  // namespace thermocline::test
