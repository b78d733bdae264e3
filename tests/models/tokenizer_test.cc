// Tokenizers: llama.cpp's published cases, a slow reference, round trips, damaged vocabularies.
#include "models/tokenizer.h"

#include <catch2/catch.hpp>
#include <chrono>
#include <cmath>
#include <limits>
#include <map>
#include <random>
#include <sstream>

#include "models/cli.h"
#include "tests/file_bytes.h"
#include "tests/models/parse_bytes.h"
#include "tests/support.h"

namespace thermocline::test {
namespace {

using Catch::Matchers::Contains;
using Ids = std::vector<int32_t>;

constexpr std::string_view kSpace = "\u2581";

std::vector<std::string> split(const std::string& text, const std::string& separator) {
  std::vector<std::string> parts;
  size_t begin = 0;
  for (size_t end; (end = text.find(separator, begin)) != std::string::npos;
       begin = end + separator.size()) {
    parts.push_back(text.substr(begin, end - begin));
  }
  if (begin < text.size()) parts.push_back(text.substr(begin));
  return parts;
}

Ids ids_of(const std::string& line) {
  std::istringstream words(line);
  Ids ids;
  for (int32_t id; words >> id;) ids.push_back(id);
  return ids;
}

// A Unicode character as UTF-8.
std::string character(uint32_t code) {
  const auto tail = [code](int shift) { return static_cast<char>(0x80 | (code >> shift & 63)); };
  if (code < 0x80) return {static_cast<char>(code)};
  if (code < 0x800) return {static_cast<char>(0xc0 | code >> 6), tail(0)};
  if (code < 0x10000) return {static_cast<char>(0xe0 | code >> 12), tail(6), tail(0)};
  return {static_cast<char>(0xf0 | code >> 18), tail(12), tail(6), tail(0)};
}

// Any character but surrogates and U+2581, which stands for a space.
std::string random_text(std::mt19937& random, size_t length) {
  const uint32_t limits[] = {0x80, 0x80, 0x80, 0x800, 0x10000, 0x110000};
  std::string text;
  while (length > 0) {
    const uint32_t code = random() % limits[random() % 6];
    if ((code >= 0xd800 && code < 0xe000) || code == 0x2581) continue;
    text += random() % 5 == 0 ? " " : character(code);
    --length;
  }
  return text;
}

// Words of the letters of which the small vocabulary has pieces.
std::string random_words(std::mt19937& random, size_t length) {
  const char* letters[] = {"t", "h", "e", "a", "i", "n", "b", " ", " ", "\u00e9", "x", "\n"};
  std::string text;
  for (size_t i = 0; i < length; ++i) text += letters[random() % 12];
  return text;
}

// The algorithm as it is described, in quadratic time: the best pair, leftmost of equals, until
// there is none. For valid UTF-8.
class SlowReference {
 public:
  explicit SlowReference(const Vocabulary& vocabulary) : vocabulary_(vocabulary) {
    for (size_t id = 259; id < vocabulary.pieces.size(); ++id) ids_[vocabulary.pieces[id]] = id;
  }

  Ids encode(const std::string& text) const {
    std::vector<std::string> symbols = characters(text);
    while (merge_best(symbols)) {
    }
    Ids ids;
    for (const std::string& symbol : symbols) {
      const auto found = ids_.find(symbol);
      if (found != ids_.end()) {
        ids.push_back(found->second);
      } else {
        for (const char c : symbol) ids.push_back(3 + static_cast<uint8_t>(c));
      }
    }
    return ids;
  }

 private:
  static std::vector<std::string> characters(const std::string& text) {
    std::vector<std::string> symbols;
    for (const char c : " " + text) {
      if (c == ' ') {
        symbols.emplace_back(kSpace);
      } else if ((c & 0xc0) == 0x80) {
        symbols.back() += c;
      } else {
        symbols.emplace_back(1, c);
      }
    }
    return symbols;
  }

  bool merge_best(std::vector<std::string>& symbols) const {
    float best_score = -std::numeric_limits<float>::infinity();
    size_t best = symbols.size();
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      const auto found = ids_.find(symbols[i] + symbols[i + 1]);
      if (found == ids_.end() || vocabulary_.scores[found->second] <= best_score) continue;
      best_score = vocabulary_.scores[found->second];
      best = i;
    }
    if (best == symbols.size()) return false;
    symbols[best] += symbols[best + 1];
    symbols.erase(symbols.begin() + static_cast<ptrdiff_t>(best) + 1);
    return true;
  }

  const Vocabulary& vocabulary_;
  std::map<std::string, int32_t> ids_;
};

std::unique_ptr<Tokenizer> llama_tokenizer() {
  const std::string path = data_file("ggml-vocab-llama-spm.gguf");
  return path.empty() ? nullptr : open_tokenizer(path, 32000);
}

Vocabulary parse_bin(const std::string& bytes) {
  const std::vector<char> block(bytes.begin(), bytes.end());
  return parse_llama2c_vocabulary(std::as_bytes(std::span(block)), "FILE");
}

// The small vocabulary with some pieces of its own, all of one type.
Vocabulary with_pieces(const std::vector<std::string>& pieces, int32_t type) {
  Vocabulary vocabulary = parse_bytes("gguf", small_vocabulary_gguf().bytes())->vocabulary();
  for (const std::string& piece : pieces) {
    vocabulary.pieces.push_back(piece);
    vocabulary.scores.push_back(100);
    vocabulary.types.push_back(type);
  }
  return vocabulary;
}

std::string joined(const Tokenizer& tokenizer, const std::string& text) {
  std::string pieces;
  for (const int32_t id : tokenizer.encode(text)) pieces += '|' + tokenizer.decode(-1, id);
  return pieces;
}

double seconds_to_encode(const Tokenizer& tokenizer, const std::string& text) {
  const auto start = std::chrono::steady_clock::now();
  CHECK(tokenizer.encode(text).size() > text.size() / 20);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

TEST_CASE("llama.cpp's cases for the Llama 2 vocabulary are exact") {
  const std::string input = data_file("ggml-vocab-llama-spm.gguf.inp");
  const auto tokenizer = llama_tokenizer();
  if (input.empty() || tokenizer == nullptr) return;
  const auto texts = split(read_file(input), "\n__ggml_vocab_test__\n");
  const auto lines = split(read_file(data_file("ggml-vocab-llama-spm.gguf.out")), "\n");
  REQUIRE(texts.size() == lines.size());
  REQUIRE(texts.size() >= 46);
  for (size_t i = 0; i < texts.size(); ++i) {
    INFO("case " << i << ": " << texts[i]);
    CHECK(tokenizer->encode(texts[i]) == ids_of(lines[i]));
    CHECK(tokenizer->decode_all(tokenizer->encode(texts[i])) == texts[i]);
  }
}

TEST_CASE("merging agrees with the quadratic reference") {
  const auto checkpoint = parse_bytes("gguf", small_vocabulary_gguf().bytes());
  const auto small = make_tokenizer(checkpoint->vocabulary(), "FILE");
  const SlowReference reference(checkpoint->vocabulary());
  std::mt19937 random(1);
  for (int i = 0; i < 2000; ++i) {
    const std::string text = random_words(random, random() % 40);
    INFO(text);
    REQUIRE(small->encode(text) == (text.empty() ? Ids() : reference.encode(text)));
  }
}

TEST_CASE("merging agrees with the reference where pieces reach over words, and on ties") {
  Vocabulary vocabulary = with_pieces({"e\u2581t", "n\u2581", "th", "ht", "aa"}, 1);
  for (float& score : vocabulary.scores) score = std::floor(score / 4);
  const auto tokenizer = make_tokenizer(vocabulary, "FILE");
  const SlowReference reference(vocabulary);
  std::mt19937 random(2);
  for (int i = 0; i < 2000; ++i) {
    const std::string text = random_words(random, 1 + random() % 40);
    INFO(text);
    REQUIRE(tokenizer->encode(text) == reference.encode(text));
  }
}

TEST_CASE("the Llama 2 vocabulary agrees with the reference on random Unicode") {
  const auto tokenizer = llama_tokenizer();
  if (tokenizer == nullptr) return;
  const auto checkpoint = open_checkpoint(data_file("ggml-vocab-llama-spm.gguf"));
  const SlowReference reference(checkpoint->vocabulary());
  std::mt19937 random(3);
  for (int i = 0; i < 200; ++i) {
    const std::string text = random_text(random, 1 + random() % 30);
    INFO(text);
    REQUIRE(tokenizer->encode(text) == reference.encode(text));
  }
}

TEST_CASE("decode undoes encode, for valid UTF-8 and for any bytes") {
  std::vector<std::unique_ptr<Tokenizer>> tokenizers;
  tokenizers.push_back(make_byte_tokenizer());
  tokenizers.push_back(make_tokenizer(parse_bin(small_tokenizer_bin()), "FILE"));
  if (auto llama = llama_tokenizer()) tokenizers.push_back(std::move(llama));
  const std::string tok512 = data_file("tok512.bin");
  if (!tok512.empty()) tokenizers.push_back(open_tokenizer(tok512, 512));
  std::mt19937 random(4);
  for (const auto& tokenizer : tokenizers) {
    for (int i = 0; i < 300; ++i) {
      const std::string text = random_text(random, random() % 60);
      REQUIRE(tokenizer->decode_all(tokenizer->encode(text)) == text);
      std::string bytes(random() % 60, '\0');
      for (char& byte : bytes) byte = static_cast<char>(random() % 256);
      if (bytes.find(kSpace) != std::string::npos) continue;
      REQUIRE(tokenizer->decode_all(tokenizer->encode(bytes)) == bytes);
    }
  }
}

TEST_CASE("bytes that are no UTF-8 become byte tokens, one each") {
  const auto tokenizer = make_tokenizer(parse_bin(small_tokenizer_bin()), "FILE");
  const auto bytes_after_space = [&](const std::string& text) {
    Ids ids = tokenizer->encode(text);
    ids.erase(ids.begin());
    for (int32_t& id : ids) id -= 3;
    return ids;
  };
  CHECK(bytes_after_space("\xff") == Ids{0xff});
  CHECK(bytes_after_space("\xc3") == Ids{0xc3});                      // cut off
  CHECK(bytes_after_space("\xc0\xaf") == Ids{0xc0, 0xaf});            // overlong
  CHECK(bytes_after_space("\xed\xa0\x80") == Ids{0xed, 0xa0, 0x80});  // surrogate
  CHECK(joined(*tokenizer, "\xe2 a") == "| |\xe2| a");  // a lead byte does not eat the space
}

TEST_CASE("tok512 splits a story's beginning into its words") {
  const std::string path = data_file("tok512.bin");
  if (path.empty()) return;
  const auto tokenizer = open_tokenizer(path, 512);
  CHECK(tokenizer->encode("Once upon a time") == Ids{403, 407, 261, 378});
  CHECK(joined(*tokenizer, "Once upon a time") == "| Once| upon| a| time");
  CHECK(tokenizer->vocab_size() == 512);
  CHECK(tokenizer->bos_id() == 1);
  CHECK(tokenizer->eos_id() == 2);
}

TEST_CASE("text never becomes a control or byte token") {
  const auto tokenizer =
      make_tokenizer(with_pieces({"<s", "</s", "<0", "<0x", "<0x4", "<0x41"}, 1), "FILE");
  for (const char* text : {"<s>", "</s>", "<0x41>", "<unk>"}) {
    const Ids ids = tokenizer->encode(text);
    for (const int32_t id : ids) CHECK(id > 2);
    CHECK(std::count(ids.begin(), ids.end(), 3 + 0x41) == 0);
    CHECK(tokenizer->decode_all(ids) == text);
  }
}

TEST_CASE("user-defined pieces are found before anything else, longest first") {
  const auto tokenizer = make_tokenizer(with_pieces({"<a>", "<a><b>"}, 4), "FILE");
  CHECK(joined(*tokenizer, "the<a><b>an<a>") == "| the|<a><b>| a|n|<a>");
  for (const char* text : {"the<a><b>an<a>", "<a>", "<a><a> x", " <a>  the"}) {
    CHECK(tokenizer->decode_all(tokenizer->encode(text)) == text);
  }
}

TEST_CASE("a vocabulary without a space prefix adds none and removes none") {
  Vocabulary vocabulary = with_pieces({}, 1);
  vocabulary.add_space_prefix = false;
  const auto tokenizer = make_tokenizer(vocabulary, "FILE");
  CHECK(joined(*tokenizer, "the a") == "|t|he| a");
  CHECK(tokenizer->decode_all(tokenizer->encode(" the")) == " the");
}

TEST_CASE("decoding one token at a time") {
  const auto tokenizer = make_tokenizer(parse_bin(small_tokenizer_bin()), "FILE");
  const int32_t the = 262;
  CHECK(tokenizer->decode(1, the) == "the");
  CHECK(tokenizer->decode(the, the) == " the");
  CHECK(tokenizer->decode(the, 1).empty());
  CHECK(tokenizer->decode(the, 0).empty());
  CHECK(tokenizer->decode(the, 3 + 'A') == "A");
  CHECK(tokenizer->decode(the, 100000) == "\ufffd");
  CHECK(tokenizer->decode(the, -1) == "\ufffd");
  CHECK(tokenizer->decode(100000, the) == " the");
  CHECK(make_byte_tokenizer()->decode(1, 259) == "\ufffd");
}

TEST_CASE("a mebibyte of text is encoded in seconds at most") {
  std::mt19937 random(5);
  const auto small = make_tokenizer(parse_bin(small_tokenizer_bin()), "FILE");
  const auto llama = llama_tokenizer();
  const Tokenizer& tokenizer = llama != nullptr ? *llama : *small;
  CHECK(seconds_to_encode(tokenizer, random_words(random, 1 << 20)) < 8);
  CHECK(seconds_to_encode(tokenizer, std::string(1 << 20, 'a')) < 8);  // one word
}

TEST_CASE("damaged vocabularies are refused") {
  const auto refused = [](auto damage) {
    Vocabulary vocabulary = with_pieces({}, 1);
    damage(vocabulary);
    return input_error([&] { make_tokenizer(vocabulary, "FILE"); });
  };
  CHECK_THAT(refused([](Vocabulary& v) { v.scores[300 - 30] = std::nanf(""); }), Contains("NaN"));
  CHECK_THAT(refused([](Vocabulary& v) { v.bos_id = 277; }), Contains("below 277"));
  CHECK_THAT(refused([](Vocabulary& v) { v.unknown_id = -1; }), Contains("below 277"));
  CHECK_THAT(refused([](Vocabulary& v) { v.types.pop_back(); }), Contains("277 token types"));
  CHECK_THAT(refused([](Vocabulary& v) { v.types[270] = 6; }), Contains("a byte token <0xNN>"));
  CHECK_THAT(refused([](Vocabulary& v) { v.kind = Vocabulary::Kind::none; }),
             Contains("no vocabulary"));
  CHECK_THAT(refused([](Vocabulary& v) { v.kind = Vocabulary::Kind::byte_bpe; }),
             Contains("byte-level BPE without a space"));
}

TEST_CASE("llama2.c's tokenizer file: cut, lying and foreign ones are refused") {
  const std::string bytes = small_tokenizer_bin();
  CHECK(parse_bin(bytes).pieces == small_vocabulary());
  // All pieces that follow the bytes are shorter than the longest: a cut between them is a smaller
  // vocabulary, which nothing in the format gives away.
  size_t byte_tokens_end = 4;
  for (int id = 0; id < 259; ++id) byte_tokens_end += 8 + small_vocabulary()[id].size();
  check_truncations(bytes.substr(0, byte_tokens_end),
                    [](const std::string& cut) { parse_bin(cut); });
  check_hostile_lengths(bytes, 400, [](const std::string& lie) { parse_bin(lie); });
  std::string lie = bytes;
  lie[0] = 9;
  CHECK_THAT(input_error([&] { parse_bin(lie); }), Contains("cut off"));
  CHECK_THAT(input_error([&] { parse_bin(small_llama2c()); }), Contains("FILE"));
}

TEST_CASE("open_tokenizer takes byte, .gguf and .bin, and no more tokens than the model has") {
  const TempDir folder;
  write_file(folder / "vocabulary.gguf", small_vocabulary_gguf().bytes());
  write_file(folder / "tokenizer.bin", small_tokenizer_bin());
  write_file(folder / "model.gguf", small_gguf(DType::f32).bytes());
  write_file(folder / "empty", "");
  const std::string text = "the ban";
  const auto gguf = open_tokenizer(folder / "vocabulary.gguf", 277);
  const auto bin = open_tokenizer(folder / "tokenizer.bin", 32000);
  CHECK(gguf->name() == "sentencepiece");
  CHECK(gguf->encode(text) == bin->encode(text));
  CHECK(open_tokenizer("byte", 259)->name() == "byte");
  CHECK_THAT(input_error([&] { open_tokenizer("byte", 258); }), Contains("at most 258 tokens"));
  CHECK_THAT(input_error([&] { open_tokenizer(folder / "tokenizer.bin", 276); }),
             Contains("at most 276 tokens") && Contains("277"));
  for (const char* name : {"model.gguf", "empty", "missing", ""}) {
    input_error([&] { open_tokenizer(folder / name, 32000); });
  }
}

}  // namespace thermocline::test
