// Tokenizers against the Hugging Face library: ten thousand strings of code, prose and Unicode.
#include <catch2/catch.hpp>
#include <cstring>
#include <nlohmann/json.hpp>

#include "models/cli.h"
#include "models/pre_tokenizer.h"
#include "models/tokenizer.h"
#include "models/tokenizer_json.h"
#include "tests/models/made_strings.h"
#include "tests/support.h"

namespace thermocline::test {
namespace {

using nlohmann::json;

constexpr uint64_t kGoldenSeed = 1, kLiveSeed = 2, kStringCount = 10000;

struct Variant {
  std::string name;
  std::unique_ptr<Tokenizer> tokenizer;
  uint64_t string_count;
};

std::unique_ptr<Tokenizer> tokenizer_from(const json& document) {
  const std::string text = document.dump();
  return make_tokenizer(parse_tokenizer_json(std::as_bytes(std::span(text)), "FILE"), "FILE");
}

// As variants() of make_tokenizers.py.
std::vector<Variant> variants() {
  std::vector<Variant> all;
  json document = json::parse(read_file(oracle_file("byte_bpe.json")));
  all.push_back({"byte_bpe", tokenizer_from(document), kStringCount});
  document["model"]["ignore_merges"] = false;
  all.push_back({"byte_bpe_by_merges", tokenizer_from(document), kStringCount});
  document = json::parse(read_file(oracle_file("llama2.json")));
  all.push_back({"llama2", tokenizer_from(document), kStringCount / 4});
  document["normalizer"] = nullptr;
  for (const std::string scheme : {"first", "always", "never"}) {
    document["pre_tokenizer"] = {{"type", "Metaspace"},
                                 {"replacement", "\u2581"},
                                 {"prepend_scheme", scheme},
                                 {"split", false}};
    all.push_back({"llama2_" + scheme, tokenizer_from(document), kStringCount / 4});
  }
  return all;
}

uint32_t hash_of(const std::vector<int32_t>& ids) {
  uint64_t value = 0xcbf29ce484222325ull;
  for (const int32_t id : ids) value = (value ^ static_cast<uint64_t>(id)) * 0x100000001b3ull;
  return static_cast<uint32_t>(value ^ value >> 32);
}

// The strings whose ids are not those of `hashes`, the library's for the variant.
std::vector<std::string> differing(const Variant& variant, uint64_t seed,
                                   const std::string& hashes) {
  static const MadeStrings strings;
  REQUIRE(hashes.size() == 4 * variant.string_count);
  std::vector<std::string> wrong;
  for (uint64_t i = 0; i < variant.string_count; ++i) {
    uint32_t expected = 0;
    std::memcpy(&expected, hashes.data() + 4 * i, 4);
    const std::string text = strings.make(seed, i);
    if (hash_of(variant.tokenizer->encode(text)) != expected) wrong.push_back(text);
  }
  return wrong;
}

void check_against(const std::string& folder, uint64_t seed) {
  for (const Variant& variant : variants()) {
    const std::string hashes = read_file(folder + "/" + variant.name + ".hashes");
    const std::vector<std::string> wrong = differing(variant, seed, hashes);
    INFO(variant.name << ": " << wrong.size() << " of " << variant.string_count);
    INFO("the first: " << (wrong.empty() ? "" : json(wrong[0]).dump()));
    CHECK(wrong.empty());
  }
}

constexpr uint32_t kCodeEnd = 0x110000;

bool is_surrogate(uint32_t code) { return code >= 0xd800 && code < 0xe000; }

// Whether each character is in the class, as our expressions read it. Each stands before a NUL,
// with which a member makes one word; other characters and the NUL are two.
std::vector<bool> members(const std::string& name) {
  std::string text;
  for (uint32_t code = 1; code < kCodeEnd; ++code) {
    if (!is_surrogate(code)) text += utf8_of(code) + '\0';
  }
  const std::string nul(1, '\0');
  const PreTokenizer words({name + nul + "|" + nul}, "FILE");
  std::vector<bool> found(kCodeEnd);
  uint32_t code = 1;
  for (const std::string_view word : words.split(text)) {
    if (word == nul) continue;
    found[code] = word.ends_with('\0');
    code += code == 0xd7ff ? 0x801 : 1;
  }
  CHECK(code == kCodeEnd);
  return found;
}

}  // namespace

TEST_CASE("ten thousand strings have the ids that the tokenizers library gives") {
  check_against(oracle_file(""), kGoldenSeed);
}

TEST_CASE("ten thousand more strings, with the tokenizers library run beside") {
  const std::string python = oracle_python();
  if (python.empty()) return;
  const TempDir folder;
  const CommandResult result = run_command(
      python + " " + THERMOCLINE_SOURCE_DIR + "/tests/oracles/make_tokenizers.py encode " +
      folder.path() + " " + std::to_string(kLiveSeed) + " " + std::to_string(kStringCount));
  INFO(result.output);
  REQUIRE(result.exit_code == 0);
  check_against(folder.path(), kLiveSeed);
}

TEST_CASE("classes of characters are the library's, but for what our Unicode version lacks") {
  const json classes = json::parse(read_file(oracle_file("classes.json")));
  const std::vector<bool> unassigned = members("\\p{Cn}");
  for (const auto& [name, ranges] : classes.items()) {
    std::vector<bool> theirs(kCodeEnd);
    for (const auto& [first, last] : ranges.get<MadeStrings::Ranges>()) {
      for (uint32_t code = first; code <= last; ++code) theirs[code] = true;
    }
    const std::vector<bool> ours = members(name);
    int newer = 0, wrong = 0;
    for (uint32_t code = 1; code < kCodeEnd; ++code) {
      if (ours[code] != theirs[code]) ++(unassigned[code] && theirs[code] ? newer : wrong);
    }
    INFO(name << ": " << newer << " characters are newer than our Unicode, " << wrong << " differ");
    CHECK(wrong == 0);
    CHECK((name != "\\s" || newer == 0));
  }
}

TEST_CASE("decoding gives back each of the strings, and any bytes") {
  const MadeStrings strings;
  const std::vector<Variant> all = variants();
  for (const Variant& variant : all) {
    if (variant.name.ends_with("first") || variant.name.ends_with("always")) continue;
    for (uint64_t i = 0; i < variant.string_count; ++i) {
      std::string text = strings.make(kGoldenSeed, i);
      if (i % 7 == 0) text.insert(text.size() / 2, "\xff\xc3 \xed\xa0\x80");
      if (variant.name.starts_with("llama2") && text.find("\u2581") != std::string::npos) continue;
      REQUIRE(variant.tokenizer->decode_all(variant.tokenizer->encode(text)) == text);
    }
  }
}

}  // namespace thermocline::test
