#include "models/byte_bpe.h"

#include <fmt/format.h>

#include <array>
#include <optional>
#include <unordered_map>
#include <unordered_set>

#include "models/error.h"
#include "models/merger.h"
#include "models/pieces.h"
#include "models/pre_tokenizer.h"
#include "models/utf8.h"

namespace thermocline {
namespace {

bool is_printable(int byte) {
  return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
}

constexpr uint32_t kAlphabetEnd = 0x100 + 68;  // 68 bytes are not printable

// The byte that each character below kAlphabetEnd spells; -1 for none.
std::array<int16_t, kAlphabetEnd> make_alphabet() {
  std::array<int16_t, kAlphabetEnd> alphabet;
  alphabet.fill(-1);
  uint32_t next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    alphabet[is_printable(byte) ? byte : next++] = static_cast<int16_t>(byte);
  }
  return alphabet;
}

// The bytes that a piece spells; none where it has a character outside the alphabet.
std::optional<std::string> spelt_bytes(std::string_view piece) {
  static const std::array<int16_t, kAlphabetEnd> alphabet = make_alphabet();
  std::string bytes;
  while (!piece.empty()) {
    const size_t size = utf8_size(piece);
    if (size != 1 && size != 2) return {};
    const auto first = static_cast<uint8_t>(piece[0]);
    const uint32_t code = size == 1 ? first : (first & 31u) << 6 | (piece[1] & 63u);
    if (code >= kAlphabetEnd || alphabet[code] < 0) return {};
    bytes += static_cast<char>(alphabet[code]);
    piece.remove_prefix(size);
  }
  return bytes;
}

class ByteBpe final : public Tokenizer {
 public:
  ByteBpe(const Vocabulary& vocabulary, const std::string& origin)
      : vocabulary_(vocabulary), words_(vocabulary.split_patterns, origin) {
    if (vocabulary_.types.empty()) vocabulary_.types.assign(vocabulary_.pieces.size(), normal);
    check(origin);
    texts_.reserve(vocabulary_.pieces.size());
    byte_ids_.fill(-1);
    for (size_t id = 0; id < vocabulary_.pieces.size(); ++id) add(static_cast<int32_t>(id), origin);
    for (size_t byte = 0; byte < byte_ids_.size(); ++byte) {
      if (byte_ids_[byte] >= 0) continue;
      throw bad_input(origin, "a piece for each byte", fmt::format("none for 0x{:02x}", byte));
    }
    user_defined_ = UserDefinedPieces(vocabulary_);
    rules_ = MergeRules(vocabulary_, origin);
    vocabulary_.merges = {};  // the rules have them
  }

  std::string_view name() const override { return "byte-level BPE"; }
  int32_t bos_id() const override { return vocabulary_.bos_id; }
  int32_t eos_id() const override { return vocabulary_.eos_id; }
  bool adds_bos() const override { return vocabulary_.add_bos && vocabulary_.bos_id >= 0; }
  uint32_t vocab_size() const override { return static_cast<uint32_t>(vocabulary_.pieces.size()); }

  std::vector<int32_t> encode(std::string_view text) const override {
    std::vector<int32_t> ids;
    Merger<int32_t> merger;
    for (const UserDefinedPieces::Fragment& fragment : user_defined_.split(text)) {
      if (fragment.id >= 0) {
        ids.push_back(fragment.id);
        continue;
      }
      for (const std::string_view word : words_.split(fragment.text)) {
        encode_word(word, merger, ids);
      }
    }
    return ids;
  }

  std::string decode(int32_t, int32_t token) const override {
    if (token < 0 || static_cast<size_t>(token) >= texts_.size()) return std::string(kReplacement);
    return texts_[token];
  }

 private:
  void check(const std::string& origin) const {
    const size_t count = vocabulary_.pieces.size();
    if (vocabulary_.types.size() != count) {
      throw bad_input(origin, fmt::format("{} token types", count),
                      fmt::format("{}", vocabulary_.types.size()));
    }
    for (const int32_t id : {vocabulary_.bos_id, vocabulary_.eos_id}) {
      if (id >= -1 && id < static_cast<int64_t>(count)) continue;
      throw bad_input(origin, fmt::format("special tokens below {}, the vocabulary's size", count),
                      fmt::format("{}", id));
    }
    if (vocabulary_.add_space_prefix) {
      throw bad_input(origin, "byte-level BPE without a space before the text", "one with it");
    }
  }

  void add(int32_t id, const std::string& origin) {
    const std::string& piece = vocabulary_.pieces[id];
    const int32_t type = vocabulary_.types[id];
    const bool has_text = type != control && type != unknown;
    const bool spelt = type == normal || type == unused;
    const auto bytes = spelt ? spelt_bytes(piece) : std::nullopt;
    texts_.push_back(piece.empty() ? std::string(kReplacement)
                     : bytes       ? *bytes
                     : has_text    ? piece
                                   : "");
    if (!bytes || piece.empty()) return;
    if (!ids_.emplace(texts_.back(), id).second) {
      throw bad_input(origin, "pieces that differ", "two that are '" + piece + "'");
    }
    if (bytes->size() == 1) byte_ids_[static_cast<uint8_t>((*bytes)[0])] = id;
  }

  void encode_word(std::string_view word, Merger<int32_t>& merger,
                   std::vector<int32_t>& ids) const {
    using Symbol = Merger<int32_t>::Symbol;
    if (vocabulary_.ignore_merges) {
      if (const auto found = ids_.find(word); found != ids_.end()) {
        ids.push_back(found->second);
        return;
      }
    }
    merger.clear();
    for (size_t i = 0; i < word.size(); ++i) {
      merger.add(i, 1, byte_ids_[static_cast<uint8_t>(word[i])]);
    }
    const auto join = [this](const Symbol& left, const Symbol& right) {
      return rules_.find(left.id, right.id);
    };
    for (const Symbol& symbol : merger.merge(join)) {
      if (symbol.size > 0) ids.push_back(symbol.id);
    }
  }

  Vocabulary vocabulary_;
  PreTokenizer words_;
  std::vector<std::string> texts_;                     // of each id; its place never moves
  std::unordered_map<std::string_view, int32_t> ids_;  // views into texts_
  std::array<int32_t, 256> byte_ids_;
  UserDefinedPieces user_defined_;
  MergeRules rules_;
};

}  // namespace

std::unique_ptr<Tokenizer> make_byte_bpe(const Vocabulary& vocabulary, const std::string& origin) {
  return std::make_unique<ByteBpe>(vocabulary, origin);
}

}  // namespace thermocline
