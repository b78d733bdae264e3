// SentencePiece BPE (Llama-2, tok512): spaces become U+2581, characters are merged into pieces,
// and a character that is no piece becomes byte tokens.
//
// Pairs are merged by the score of the piece that they make, or by rank where the vocabulary has
// merges, as a tokenizer.json gives them.
// Thread-safety: const methods of the tokenizer may be called from any thread.
#pragma once

#include <memory>
#include <string>

#include "models/tokenizer.h"

namespace thermocline {

// `origin` is for messages. Errors: see make_tokenizer.
std::unique_ptr<Tokenizer> make_sentencepiece(const Vocabulary& vocabulary,
                                              const std::string& origin);

}  // namespace thermocline
