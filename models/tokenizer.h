// Tokenizers: text to token ids and back.
//
// sentencepiece: the merge-by-score algorithm of SentencePiece BPE models (Llama-2, tok512).
// byte: ids 0..2 are <unk>, <s>, </s>; id 3+b is byte b. For models without a vocabulary.
// Goals: exact on llama.cpp's published test vectors; decode(encode(x)) == x for valid UTF-8.
// Non-goals: chat templates; byte-level BPE (later).
// Thread-safety: const methods may be called from any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "models/checkpoint.h"

namespace thermocline {

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  virtual std::string_view name() const = 0;
  // Without BOS; the caller adds bos_id() at the start of a prompt.
  virtual std::vector<int32_t> encode(std::string_view text) const = 0;
  // The text of one token after `previous` (a piece loses its leading space after BOS).
  virtual std::string decode(int32_t previous, int32_t token) const = 0;
  virtual int32_t bos_id() const = 0;
  virtual int32_t eos_id() const = 0;
  virtual uint32_t vocab_size() const = 0;

  std::string decode_all(const std::vector<int32_t>& tokens) const;  // tokens[0] follows BOS
};

std::unique_ptr<Tokenizer> make_byte_tokenizer();
// Errors: Vocabulary::Kind::none or one that we do not read yet.
std::unique_ptr<Tokenizer> make_tokenizer(const Vocabulary& vocabulary, const std::string& origin);
// A .gguf with a vocabulary, llama2.c's tokenizer .bin, or "byte".
// `vocab_size` is the model's: a tokenizer with more tokens than the model has is an Error.
std::unique_ptr<Tokenizer> open_tokenizer(const std::string& path, uint32_t vocab_size);

}  // namespace thermocline
