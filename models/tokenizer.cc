#include "models/tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "models/byte_bpe.h"
#include "models/byte_reader.h"
#include "models/embedded.h"
#include "models/error.h"
#include "models/mapped_file.h"
#include "models/pieces.h"
#include "models/sentencepiece.h"
#include "models/text.h"
#include "models/tokenizer_json.h"

namespace thermocline {
namespace {

constexpr int32_t kFirstByteId = 3;  // after <unk>, <s>, </s>
constexpr int32_t kByteVocabulary = kFirstByteId + 256;

class Bytes final : public Tokenizer {
 public:
  std::string_view name() const override { return "byte"; }
  int32_t bos_id() const override { return 1; }
  int32_t eos_id() const override { return 2; }
  bool adds_bos() const override { return true; }
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

Vocabulary open_vocabulary(const std::string& path) {
  if (std::filesystem::is_directory(path)) return open_tokenizer_folder(path);
  if (path == kDemoModel) return open_checkpoint(path)->vocabulary();
  const MappedFile file = map_file(path);
  if (path.ends_with(".json")) return parse_tokenizer_json(file.bytes, path);
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
  switch (vocabulary.kind) {
    case Vocabulary::Kind::sentencepiece:
      return make_sentencepiece(vocabulary, origin);
    case Vocabulary::Kind::byte_bpe:
      return make_byte_bpe(vocabulary, origin);
    case Vocabulary::Kind::none:
      break;
  }
  throw bad_input(origin, "a vocabulary", "no vocabulary");
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
    vocabulary.pieces.push_back(replaced(piece, " ", kPieceSpace));
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
  if (!vocabulary.refusal.empty()) {
    throw Error(ErrorKind::input, vocabulary.refusal + "; --tokenizer may name another");
  }
  if (vocabulary.kind == Vocabulary::Kind::none) return open_tokenizer("byte", vocab_size);
  return fitting(make_tokenizer(vocabulary, checkpoint.path()), checkpoint.path(), vocab_size);
}

}  // namespace thermocline
