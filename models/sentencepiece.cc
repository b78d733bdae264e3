#include "models/sentencepiece.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <unordered_map>

#include "models/error.h"
#include "models/merger.h"
#include "models/pieces.h"
#include "models/text.h"
#include "models/utf8.h"

namespace thermocline {
namespace {

using SpacePrefix = Vocabulary::SpacePrefix;

// The types that files without them mean: by the name of the piece and the special ids.
std::vector<int32_t> default_types(const Vocabulary& vocabulary) {
  std::vector<int32_t> types;
  for (const std::string& piece : vocabulary.pieces)
    types.push_back(byte_of(piece) ? byte : normal);
  types.at(vocabulary.unknown_id) = unknown;
  types.at(vocabulary.bos_id) = types.at(vocabulary.eos_id) = control;
  return types;
}

bool crosses_words(std::string_view piece) {
  while (piece.starts_with(kPieceSpace)) piece.remove_prefix(kPieceSpace.size());
  return piece.find(kPieceSpace) != std::string_view::npos;
}

class SentencePiece final : public Tokenizer {
 public:
  SentencePiece(const Vocabulary& vocabulary, const std::string& origin)
      : vocabulary_(vocabulary), origin_(origin) {
    check();
    if (vocabulary_.types.empty()) vocabulary_.types = default_types(vocabulary_);
    vocabulary_.scores.resize(vocabulary_.pieces.size());
    byte_ids_.fill(vocabulary_.unknown_id);
    for (size_t id = 0; id < vocabulary_.pieces.size(); ++id) add(static_cast<int32_t>(id));
    user_defined_ = UserDefinedPieces(vocabulary_);
    rules_ = MergeRules(vocabulary_, origin);
    vocabulary_.merges = {};  // the rules have them
  }

  std::string_view name() const override { return "sentencepiece"; }
  int32_t bos_id() const override { return vocabulary_.bos_id; }
  int32_t eos_id() const override { return vocabulary_.eos_id; }
  bool adds_bos() const override { return vocabulary_.add_bos && vocabulary_.bos_id >= 0; }
  uint32_t vocab_size() const override { return static_cast<uint32_t>(vocabulary_.pieces.size()); }

  std::vector<int32_t> encode(std::string_view text) const override {
    std::vector<int32_t> ids;
    for (const UserDefinedPieces::Fragment& fragment : user_defined_.split(text)) {
      if (fragment.id >= 0) {
        ids.push_back(fragment.id);
      } else if (!fragment.text.empty()) {
        encode_fragment(fragment.text, fragment.text.data() == text.data(), ids);
      }
    }
    return ids;
  }

  std::string decode(int32_t previous, int32_t token) const override {
    if (token < 0 || static_cast<size_t>(token) >= vocabulary_.pieces.size()) {
      return std::string(kReplacement);
    }
    const std::string& piece = vocabulary_.pieces[token];
    switch (vocabulary_.types[token]) {
      case unknown:
      case control:
        return "";
      case byte:
        return std::string(1, static_cast<char>(byte_of(piece).value()));
      case user_defined:
        return piece;
      default:
        return without_prefix(previous, replaced(piece, kPieceSpace, " "));
    }
  }

 private:
  // Of merging by score; by rank, MergeRules say.
  using ScoreMerger = Merger<float>;
  using RankMerger = Merger<int32_t>;

  void check() const {
    const size_t count = vocabulary_.pieces.size();
    for (const int32_t id : {vocabulary_.bos_id, vocabulary_.eos_id, vocabulary_.unknown_id}) {
      const bool may_lack = id == -1 && !vocabulary_.merges.empty() && !vocabulary_.types.empty();
      if (may_lack || (id >= 0 && static_cast<size_t>(id) < count)) continue;
      throw bad_input(origin_, fmt::format("special tokens below {}, the vocabulary's size", count),
                      fmt::format("{}", id));
    }
    if (!vocabulary_.types.empty() && vocabulary_.types.size() != count) {
      throw bad_input(origin_, fmt::format("{} token types", count),
                      fmt::format("{}", vocabulary_.types.size()));
    }
    for (const float score : vocabulary_.scores) {
      if (std::isnan(score)) throw bad_input(origin_, "scores that are numbers", "NaN");
    }
  }

  void add(int32_t id) {
    const std::string& piece = vocabulary_.pieces[id];
    const int32_t type = vocabulary_.types[id];
    if (type == byte) {
      const auto value = byte_of(piece);
      if (!value) throw bad_input(origin_, "a byte token <0xNN>", "'" + piece + "'");
      byte_ids_[*value] = id;
    } else if (type != unknown && type != control && !piece.empty()) {
      ids_[piece] = id;
      piece_bytes_max_ = std::max(piece_bytes_max_, piece.size());
      pieces_cross_words_ |= crosses_words(piece);
    }
  }

  int32_t find(std::string_view piece) const {  // -1 where it is none
    if (piece.size() > piece_bytes_max_) return -1;
    const auto found = ids_.find(piece);
    return found == ids_.end() ? -1 : found->second;
  }

  std::string escaped(std::string_view text, bool at_start) const {
    std::string escaped = replaced(text, " ", kPieceSpace);
    const SpacePrefix rule = vocabulary_.space_prefix;
    const bool prefix = vocabulary_.add_space_prefix &&
                        (rule == SpacePrefix::always || !escaped.starts_with(kPieceSpace)) &&
                        (rule != SpacePrefix::at_start_where_missing || at_start);
    return prefix ? std::string(kPieceSpace) + escaped : escaped;
  }

  void encode_fragment(std::string_view text, bool at_start, std::vector<int32_t>& ids) const {
    const std::string all = escaped(text, at_start);
    const int32_t whole = vocabulary_.ignore_merges ? find(all) : -1;
    if (whole >= 0) {
      ids.push_back(whole);
      return;
    }
    ScoreMerger by_score;
    RankMerger by_rank;
    for (size_t begin = 0; begin < all.size();) {
      const size_t end = word_end(all, begin);
      const std::string_view word = std::string_view(all).substr(begin, end - begin);
      rules_.empty() ? merge_by_score(word, by_score, ids) : merge_by_rank(word, by_rank, ids);
      begin = end;
    }
  }

  // Where no piece goes on after a word with a space, words are merged one at a time: the same
  // result from queues that fit into the cache.
  size_t word_end(std::string_view text, size_t begin) const {
    if (pieces_cross_words_) return text.size();
    size_t at = begin;
    while (text.substr(at).starts_with(kPieceSpace)) at += kPieceSpace.size();
    return std::min(text.find(kPieceSpace, at), text.size());
  }

  // Two symbols that are no pieces may still make one together.
  void merge_by_score(std::string_view word, ScoreMerger& merger, std::vector<int32_t>& ids) const {
    using Symbol = ScoreMerger::Symbol;
    add_characters(word, merger);
    const auto join = [&](const Symbol& left, const Symbol& right) {
      const int32_t id = find(word.substr(left.begin, left.size + right.size));
      return id < 0 ? std::nullopt : std::optional(ScoreMerger::Join{vocabulary_.scores[id], id});
    };
    append(word, merger.merge(join), ids);
  }

  void merge_by_rank(std::string_view word, RankMerger& merger, std::vector<int32_t>& ids) const {
    using Symbol = RankMerger::Symbol;
    add_characters(word, merger);
    const auto join = [this](const Symbol& left, const Symbol& right) {
      return rules_.find(left.id, right.id);
    };
    append(word, merger.merge(join), ids);
  }

  template <class AnyMerger>
  void add_characters(std::string_view word, AnyMerger& merger) const {
    merger.clear();
    for (size_t begin = 0; begin < word.size();) {
      const size_t size = std::max<size_t>(utf8_size(word.substr(begin)), 1);
      merger.add(begin, size, find(word.substr(begin, size)));
      begin += size;
    }
  }

  // The tokens of the symbols that are left; bytes for those that are no piece.
  template <class Symbols>
  void append(std::string_view word, const Symbols& symbols, std::vector<int32_t>& ids) const {
    for (const auto& symbol : symbols) {
      if (symbol.size == 0) continue;
      if (symbol.id >= 0) {
        ids.push_back(symbol.id);
        continue;
      }
      for (const char c : word.substr(symbol.begin, symbol.size)) {
        ids.push_back(byte_ids_[static_cast<uint8_t>(c)]);
      }
    }
  }

  // Encoding put a space before the text, and perhaps before what follows a user-defined piece.
  std::string without_prefix(int32_t previous, std::string text) const {
    const bool begins = previous == vocabulary_.bos_id ||
                        (vocabulary_.space_prefix == SpacePrefix::always && previous >= 0 &&
                         static_cast<size_t>(previous) < vocabulary_.types.size() &&
                         vocabulary_.types[previous] == user_defined);
    if (vocabulary_.add_space_prefix && begins && text.starts_with(' ')) text.erase(0, 1);
    return text;
  }

  Vocabulary vocabulary_;
  std::string origin_;
  std::unordered_map<std::string_view, int32_t> ids_;  // views into vocabulary_.pieces
  std::array<int32_t, 256> byte_ids_;                  // the unknown token where there is none
  UserDefinedPieces user_defined_;
  MergeRules rules_;
  size_t piece_bytes_max_ = 0;
  bool pieces_cross_words_ = false;  // some piece has a space after another character
};

}  // namespace

std::unique_ptr<Tokenizer> make_sentencepiece(const Vocabulary& vocabulary,
                                              const std::string& origin) {
  return std::make_unique<SentencePiece>(vocabulary, origin);
}

}  // namespace thermocline
