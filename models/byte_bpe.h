// Byte-level BPE (GPT-2, Llama-3): regular expressions split the text into words, and the bytes of
// each word are merged by rank.
//
// Vocabularies spell bytes as printable characters, GPT-2's alphabet: the 188 bytes that are
// printable in Latin-1 as themselves, the others as U+0100 and up, in order.
// Thread-safety: const methods of the tokenizer may be called from any thread.
#pragma once

#include <memory>
#include <string>

#include "models/tokenizer.h"

namespace thermocline {

// `origin` is for messages. Errors: see make_tokenizer.
std::unique_ptr<Tokenizer> make_byte_bpe(const Vocabulary& vocabulary, const std::string& origin);

}  // namespace thermocline
