// TokenizerDocument: a tokenizer.json as it is written, before anybody asks what it means.
//
// The model's vocabulary and merges, which are nearly all of the file, go straight into vectors;
// the rest is a tree.
// Goals: the nesting, the number of values and the memory are bounded, whatever the file says; a
//   key that an object has twice is an Error, which JSON leaves open.
// Non-goals: what it means (models/tokenizer_json.h).
// Thread-safety: pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "models/checkpoint.h"

namespace thermocline {

struct TokenizerDocument {
  nlohmann::json rest;  // with null for model.vocab and model.merges where they are here:
  std::vector<std::pair<std::string, int64_t>> vocab;  // piece, id
  std::vector<Vocabulary::Merge> merges;               // the best first
};

TokenizerDocument read_tokenizer_document(std::span<const std::byte> bytes,
                                          const std::string& path);

}  // namespace thermocline
