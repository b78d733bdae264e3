#include "models/tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <optional>
#include <queue>
#include <unordered_map>

#include "models/byte_reader.h"
#include "models/error.h"
#include "models/mapped_file.h"
#include "models/text.h"

namespace thermocline {
namespace {

constexpr std::string_view kSpace = "\u2581";        // SentencePiece's stand-in for a space
constexpr std::string_view kReplacement = "\ufffd";  // text of an id that has none
constexpr int32_t kFirstByteId = 3;                  // after <unk>, <s>, </s>
constexpr int32_t kByteVocabulary = kFirstByteId + 256;

enum PieceType : int32_t { normal = 1, unknown = 2, control = 3, user_defined = 4, byte = 6 };

// 0xNN of a piece "<0xNN>".
std::optional<uint8_t> byte_of(std::string_view piece) {
  if (piece.size() != 6 || !piece.starts_with("<0x") || piece[5] != '>') return {};
  uint8_t value = 0;
  const auto [end, error] = std::from_chars(piece.data() + 3, piece.data() + 5, value, 16);
  if (error != std::errc() || end != piece.data() + 5) return {};
  return value;
}

// The types that files without them mean: by the name of the piece and the special ids.
std::vector<int32_t> default_types(const Vocabulary& vocabulary) {
  std::vector<int32_t> types;
  for (const std::string& piece : vocabulary.pieces)
    types.push_back(byte_of(piece) ? byte : normal);
  types.at(vocabulary.unknown_id) = unknown;
  types.at(vocabulary.bos_id) = types.at(vocabulary.eos_id) = control;
  return types;
}

// Length of the UTF-8 character at the front of `text` (RFC 3629); 1 where the bytes are none.
size_t character_size(std::string_view text) {
  const auto at = [text](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t first = at(0);
  const size_t size = first < 0xc2 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 1;
  if (size > text.size()) return 1;
  for (size_t i = 1; i < size; ++i) {
    if ((at(i) & 0xc0) != 0x80) return 1;
  }
  const bool overlong = (first == 0xe0 && at(1) < 0xa0) || (first == 0xf0 && at(1) < 0x90);
  const bool surrogate = first == 0xed && at(1) >= 0xa0;
  const bool beyond = first == 0xf4 && at(1) >= 0x90;
  return overlong || surrogate || beyond ? 1 : size;
}

bool crosses_words(std::string_view piece) {
  while (piece.starts_with(kSpace)) piece.remove_prefix(kSpace.size());
  return piece.find(kSpace) != std::string_view::npos;
}

// Merges neighbours, the pair of the best score first and of equal scores the leftmost, until no
// pair makes a piece: a linked list of symbols and a queue of pairs, O(n log n). A pair in the
// queue is stale where one of its symbols has changed size since.
class Merger {
 public:
  struct Symbol {
    size_t begin, size;     // in the text; a size of 0 is one that was merged into its left
    ptrdiff_t left, right;  // neighbours; -1 for none
  };
  using Score = std::optional<float>;

  // `score(piece)` says whether the piece exists.
  template <class ScoreOf>
  static std::vector<Symbol> merge(std::string_view text, const ScoreOf& score) {
    Merger merger(text);
    const auto propose = [&](ptrdiff_t left, ptrdiff_t right) {
      if (left < 0 || right < 0) return;
      const size_t size = merger.symbols_[left].size + merger.symbols_[right].size;
      const Score found = score(text.substr(merger.symbols_[left].begin, size));
      if (found) merger.pairs_.push({*found, left, right, size});
    };
    for (size_t i = 1; i < merger.symbols_.size(); ++i) propose(i - 1, i);
    while (!merger.pairs_.empty()) {
      const Pair pair = merger.pairs_.top();
      merger.pairs_.pop();
      if (!merger.join(pair)) continue;
      propose(merger.symbols_[pair.left].left, pair.left);
      propose(pair.left, merger.symbols_[pair.left].right);
    }
    return std::move(merger.symbols_);
  }

 private:
  struct Pair {
    float score;
    ptrdiff_t left, right;
    size_t size;  // of both together, when they were put into the queue
    bool operator<(const Pair& other) const {
      return score != other.score ? score < other.score : left > other.left;
    }
  };

  explicit Merger(std::string_view text) {
    for (size_t begin = 0; begin < text.size();) {
      const size_t size = character_size(text.substr(begin));
      const auto index = static_cast<ptrdiff_t>(symbols_.size());
      symbols_.push_back({begin, size, index - 1, index + 1});
      begin += size;
    }
    if (!symbols_.empty()) symbols_.back().right = -1;
  }

  bool join(const Pair& pair) {
    Symbol &left = symbols_[pair.left], &right = symbols_[pair.right];
    if (left.size == 0 || right.size == 0 || left.size + right.size != pair.size) return false;
    left.size = pair.size;
    right.size = 0;
    left.right = right.right;
    if (right.right >= 0) symbols_[right.right].left = pair.left;
    return true;
  }

  std::vector<Symbol> symbols_;
  std::priority_queue<Pair> pairs_;
};

class SentencePiece final : public Tokenizer {
 public:
  SentencePiece(const Vocabulary& vocabulary, const std::string& origin)
      : vocabulary_(vocabulary), origin_(origin) {
    check();
    if (vocabulary_.types.empty()) vocabulary_.types = default_types(vocabulary_);
    vocabulary_.scores.resize(vocabulary_.pieces.size());
    byte_ids_.fill(vocabulary_.unknown_id);
    for (size_t id = 0; id < vocabulary_.pieces.size(); ++id) add(static_cast<int32_t>(id));
    std::stable_sort(user_defined_.begin(), user_defined_.end(), [this](int32_t a, int32_t b) {
      return vocabulary_.pieces[a].size() > vocabulary_.pieces[b].size();
    });
  }

  std::string_view name() const override { return "sentencepiece"; }
  int32_t bos_id() const override { return vocabulary_.bos_id; }
  int32_t eos_id() const override { return vocabulary_.eos_id; }
  uint32_t vocab_size() const override { return static_cast<uint32_t>(vocabulary_.pieces.size()); }

  std::vector<int32_t> encode(std::string_view text) const override {
    std::vector<int32_t> ids;
    for (const Fragment& fragment : fragments(text)) {
      if (fragment.id >= 0) {
        ids.push_back(fragment.id);
      } else if (!fragment.text.empty()) {
        encode_fragment(fragment.text, ids);
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
        return without_prefix(previous, replaced(piece, kSpace, " "));
    }
  }

 private:
  // A part of the text: a user-defined piece, or what lies between two.
  struct Fragment {
    std::string_view text;
    int32_t id = -1;
  };

  void check() const {
    const size_t count = vocabulary_.pieces.size();
    for (const int32_t id : {vocabulary_.bos_id, vocabulary_.eos_id, vocabulary_.unknown_id}) {
      if (id >= 0 && static_cast<size_t>(id) < count) continue;
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
      if (type == user_defined) user_defined_.push_back(id);
    }
  }

  // User-defined pieces are found in the text as it is, longest first, before anything else.
  std::vector<Fragment> fragments(std::string_view text) const {
    std::vector<Fragment> parts = {{text}};
    for (const int32_t id : user_defined_) {
      const std::string& piece = vocabulary_.pieces[id];
      std::vector<Fragment> split;
      for (const Fragment& part : parts) {
        std::string_view rest = part.text;
        size_t at = part.id >= 0 ? std::string_view::npos : rest.find(piece);
        for (; at != std::string_view::npos; at = rest.find(piece)) {
          split.push_back({rest.substr(0, at)});
          split.push_back({rest.substr(at, piece.size()), id});
          rest.remove_prefix(at + piece.size());
        }
        split.push_back({rest, part.id});
      }
      parts = std::move(split);
    }
    return parts;
  }

  std::optional<int32_t> find(std::string_view piece) const {
    if (piece.size() > piece_bytes_max_) return {};
    const auto found = ids_.find(piece);
    return found == ids_.end() ? std::nullopt : std::optional(found->second);
  }

  void encode_fragment(std::string_view text, std::vector<int32_t>& ids) const {
    std::string escaped(vocabulary_.add_space_prefix ? kSpace : "");
    escaped += replaced(text, " ", kSpace);
    for (size_t begin = 0; begin < escaped.size();) {
      const size_t end = word_end(escaped, begin);
      encode_word(std::string_view(escaped).substr(begin, end - begin), ids);
      begin = end;
    }
  }

  // Where no piece goes on after a word with a space, words are merged one at a time: the same
  // result from queues that fit into the cache.
  size_t word_end(std::string_view text, size_t begin) const {
    if (pieces_cross_words_) return text.size();
    size_t at = begin;
    while (text.substr(at).starts_with(kSpace)) at += kSpace.size();
    return std::min(text.find(kSpace, at), text.size());
  }

  void encode_word(std::string_view text, std::vector<int32_t>& ids) const {
    const auto score = [this](std::string_view piece) {
      const auto id = find(piece);
      return id ? Merger::Score(vocabulary_.scores[*id]) : Merger::Score();
    };
    for (const Merger::Symbol& symbol : Merger::merge(text, score)) {
      if (symbol.size == 0) continue;
      const std::string_view piece = text.substr(symbol.begin, symbol.size);
      if (const auto id = find(piece)) {
        ids.push_back(*id);
      } else {
        for (const char c : piece) ids.push_back(byte_ids_[static_cast<uint8_t>(c)]);
      }
    }
  }

  // Encoding put a space before the text, and before what follows a user-defined piece.
  std::string without_prefix(int32_t previous, std::string text) const {
    const bool begins =
        previous == vocabulary_.bos_id ||
        (previous >= 0 && static_cast<size_t>(previous) < vocabulary_.types.size() &&
         vocabulary_.types[previous] == user_defined);
    if (vocabulary_.add_space_prefix && begins && text.starts_with(' ')) text.erase(0, 1);
    return text;
  }

  Vocabulary vocabulary_;
  std::string origin_;
  std::unordered_map<std::string_view, int32_t> ids_;  // views into vocabulary_.pieces
  std::array<int32_t, 256> byte_ids_;                  // the unknown token where there is none
  std::vector<int32_t> user_defined_;                  // longest first
  size_t piece_bytes_max_ = 0;
  bool pieces_cross_words_ = false;  // some piece has a space after another character
};

class Bytes final : public Tokenizer {
 public:
  std::string_view name() const override { return "byte"; }
  int32_t bos_id() const override { return 1; }
  int32_t eos_id() const override { return 2; }
  uint32_t vocab_size() const override { return kByteVocabulary; }

  std::vector<int32_t> encode(std::string_view text) const override {
    std::vector<int32_t> ids;
    ids.reserve(text.size());
    for (const char c : text) ids.push_back(kFirstByteId + static_cast<uint8_t>(c));
    return ids;
  }

  std::string decode(int32_t, int32_t token) const override {
    if (token < 0 || token >= kByteVocabulary) return std::string(kReplacement);
    if (token < kFirstByteId) return "";
    return std::string(1, static_cast<char>(token - kFirstByteId));
  }
};

// The vocabulary of a file that is a GGUF checkpoint or else llama2.c's tokenizer.
Vocabulary open_vocabulary(const std::string& path) {
  const MappedFile file = map_file(path);
  const CheckpointFormat& gguf = checkpoint_formats().by_name("gguf");
  if (gguf.matches(file.bytes, path))
    return gguf.parse({path, file.owner, file.bytes}, {})->vocabulary();
  return parse_llama2c_vocabulary(file.bytes, path);
}

std::string read_piece(ByteReader& reader, int32_t piece_bytes_max, float& score) {
  const uint64_t at = reader.offset();
  score = reader.read<float>("score");
  const auto length = reader.read<int32_t>("piece length");
  if (length >= 1 && length <= piece_bytes_max) {
    return std::string(reader.text(static_cast<uint64_t>(length), "piece"));
  }
  throw bad_input(fmt::format("{} at byte {}", reader.path(), at),
                  fmt::format("a piece of 1 to {} bytes", piece_bytes_max),
                  fmt::format("{}", length));
}

// llama2.c finds byte b at id 3+b without looking, so its files have it there.
void check_byte_pieces(const Vocabulary& vocabulary, const std::string& path) {
  for (int32_t value = 0; value < 256; ++value) {
    const size_t id = static_cast<size_t>(kFirstByteId) + static_cast<size_t>(value);
    if (id < vocabulary.pieces.size() && byte_of(vocabulary.pieces[id]) == value) continue;
    throw bad_input(path, fmt::format("llama2.c's tokenizer with <0x{:02X}> at {}", value, id),
                    id < vocabulary.pieces.size()
                        ? "'" + vocabulary.pieces[id] + "'"
                        : fmt::format("{} pieces", vocabulary.pieces.size()));
  }
}

// The tokenizer, unless it makes tokens that the model does not have.
std::unique_ptr<Tokenizer> fitting(std::unique_ptr<Tokenizer> tokenizer, const std::string& path,
                                   uint32_t vocab_size) {
  if (tokenizer->vocab_size() <= vocab_size) return tokenizer;
  throw bad_input(path, fmt::format("a tokenizer of at most {} tokens, the model's", vocab_size),
                  fmt::format("{}", tokenizer->vocab_size()));
}

}  // namespace

std::string Tokenizer::decode_all(const std::vector<int32_t>& tokens) const {
  std::string text;
  int32_t previous = bos_id();
  for (const int32_t token : tokens) {
    text += decode(previous, token);
    previous = token;
  }
  return text;
}

std::unique_ptr<Tokenizer> make_byte_tokenizer() { return std::make_unique<Bytes>(); }

std::unique_ptr<Tokenizer> make_tokenizer(const Vocabulary& vocabulary, const std::string& origin) {
  if (vocabulary.kind == Vocabulary::Kind::sentencepiece) {
    return std::make_unique<SentencePiece>(vocabulary, origin);
  }
  const bool none = vocabulary.kind == Vocabulary::Kind::none;
  throw bad_input(origin, "a SentencePiece vocabulary",
                  none ? "no vocabulary" : "one of byte-level BPE, which is not supported");
}

Vocabulary parse_llama2c_vocabulary(std::span<const std::byte> bytes, const std::string& path) {
  ByteReader reader(bytes, path);
  Vocabulary vocabulary;
  vocabulary.kind = Vocabulary::Kind::sentencepiece;
  const auto piece_bytes_max = reader.read<int32_t>("length of the longest piece");
  size_t longest = 0;
  while (reader.left() > 0) {
    const std::string piece = read_piece(reader, piece_bytes_max, vocabulary.scores.emplace_back());
    longest = std::max(longest, piece.size());
    // The file has spaces where SentencePiece has U+2581.
    vocabulary.pieces.push_back(replaced(piece, " ", kSpace));
  }
  check_byte_pieces(vocabulary, path);
  if (longest != static_cast<size_t>(piece_bytes_max)) {
    throw bad_input(path, fmt::format("a longest piece of {} bytes", piece_bytes_max),
                    fmt::format("{} bytes: is the file cut off?", longest));
  }
  return vocabulary;
}

std::unique_ptr<Tokenizer> open_tokenizer(const std::string& path, uint32_t vocab_size) {
  if (path == "byte") return fitting(make_byte_tokenizer(), path, vocab_size);
  return fitting(make_tokenizer(open_vocabulary(path), path), path, vocab_size);
}

std::unique_ptr<Tokenizer> tokenizer_of(const Checkpoint& checkpoint) {
  const uint32_t vocab_size = checkpoint.shape().vocab_size;
  const Vocabulary& vocabulary = checkpoint.vocabulary();
  if (vocabulary.kind == Vocabulary::Kind::none) return open_tokenizer("byte", vocab_size);
  return fitting(make_tokenizer(vocabulary, checkpoint.path()), checkpoint.path(), vocab_size);
}

}  // namespace thermocline
