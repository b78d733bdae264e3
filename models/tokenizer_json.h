// tokenizer.json: the vocabulary of a Hugging Face model.
//
// Format: the JSON that the `tokenizers` library writes. Two kinds of it are honoured:
//   byte-level BPE (Llama-3, GPT-2): a BPE model behind Split, Digits and ByteLevel;
//   SentencePiece as converted (Llama-2): a BPE model with byte_fallback behind the normalizers
//   Prepend and Replace, or behind the pre-tokenizer Metaspace.
// Goals: what is accepted gives the tokens that the library gives; anything else is an input Error
//   that names it. Memory and time are bounded by the file's size.
// Special tokens become control tokens, which no text ever spells; other added tokens become
//   user-defined pieces, which are found in the text before anything else.
// Non-goals: truncation and padding, which belong to a batch; tokenizing (models/tokenizer.h).
// Thread-safety: pure functions.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "models/checkpoint.h"

namespace thermocline {

// `path` is for messages. The special tokens are those of the post-processor's template, else
// those with the usual names; an id of -1 says that there is none.
Vocabulary parse_tokenizer_json(std::span<const std::byte> bytes, const std::string& path);
// What a model's tokenizer_config.json says about the vocabulary's special tokens: bos_token,
// eos_token, add_bos_token. Errors: a token that the vocabulary lacks.
void apply_tokenizer_config(std::span<const std::byte> bytes, const std::string& path,
                            Vocabulary& vocabulary);
// tokenizer.json of a model's folder, with its tokenizer_config.json where there is one.
Vocabulary open_tokenizer_folder(const std::string& folder);

}  // namespace thermocline
