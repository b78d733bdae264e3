// Tokenizers: text to token ids and back.
//
// sentencepiece: SentencePiece BPE, by score or by rank (Llama-2, tok512).
// byte-level BPE: expressions split words, whose bytes are merged by rank (GPT-2, Llama-3).
// byte: ids 0..2 are <unk>, <s>, </s>; id 3+b is byte b. For models without a vocabulary.
// Goals: exact on llama.cpp's published test vectors and with the Hugging Face tokenizers library;
//   decode_all(encode(x)) == x for any bytes, as long as the vocabulary has all byte tokens and x
//   has no U+2581, which SentencePiece uses for a space. Text never becomes a control token,
//   whatever it spells; user-defined pieces (a tokenizer.json's added tokens that are not special)
//   are found before anything else, the longest first.
// Bytes that are not valid UTF-8 become byte tokens, or words of byte-level BPE.
// Non-goals: chat templates; Unicode normalization.
// Thread-safety: const methods may be called from any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "models/checkpoint.h"

namespace thermocline {

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  virtual std::string_view name() const = 0;
  // Without BOS; the caller adds bos_id() at the start of a prompt, where adds_bos(). Errors: an
  // expression of the vocabulary that takes too long on this text.
  virtual std::vector<int32_t> encode(std::string_view text) const = 0;
  // The text of one token after `previous`: a piece loses its leading space after BOS, a control
  // token has no text, and an id that the vocabulary lacks is U+FFFD (a model may have more ids).
  virtual std::string decode(int32_t previous, int32_t token) const = 0;
  virtual int32_t bos_id() const = 0;  // -1 where there is none
  virtual int32_t eos_id() const = 0;  // likewise
  virtual bool adds_bos() const = 0;   // whether a prompt begins with BOS
  virtual uint32_t vocab_size() const = 0;

  std::string decode_all(const std::vector<int32_t>& tokens) const;  // tokens[0] follows BOS
};

std::unique_ptr<Tokenizer> make_byte_tokenizer();
// Errors: Vocabulary::Kind::none; scores that are not numbers, ids outside the vocabulary, merges
// of pieces that it lacks, expressions that are none. `origin` is for messages.
std::unique_ptr<Tokenizer> make_tokenizer(const Vocabulary& vocabulary, const std::string& origin);
// llama2.c's tokenizer .bin: int32 longest piece; then f32 score, int32 length, bytes of each.
// Nothing in it says how many there are: a file cut between two pieces, after the longest one,
// is a smaller vocabulary.
Vocabulary parse_llama2c_vocabulary(std::span<const std::byte> bytes, const std::string& path);
// A .gguf with a vocabulary, llama2.c's tokenizer .bin, a tokenizer.json or the folder of a Hugging
// Face model that has one, or "byte".
// `vocab_size` is the model's: a tokenizer with more tokens than the model has is an Error.
std::unique_ptr<Tokenizer> open_tokenizer(const std::string& path, uint32_t vocab_size);
// Of the checkpoint's own vocabulary; bytes where it has none. Errors: one that cannot be used.
std::unique_ptr<Tokenizer> tokenizer_of(const Checkpoint& checkpoint);

}  // namespace thermocline
