// What the pieces of a vocabulary mean, whatever kind it is: their types, the pieces that stand
// for bytes, those that are found in the text before anything else, and the merges between them.
//
// Thread-safety: const after construction.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "models/checkpoint.h"
#include "models/merger.h"

namespace thermocline {

inline constexpr std::string_view kPieceSpace = "\u2581";   // SentencePiece's stand-in for a space
inline constexpr std::string_view kReplacement = "\ufffd";  // text of an id that has none

enum PieceType : int32_t {
  normal = 1,
  unknown = 2,
  control = 3,
  user_defined = 4,
  unused = 5,
  byte = 6
};

// 0xNN of a piece "<0xNN>".
std::optional<uint8_t> byte_of(std::string_view piece);

// The parts of "left right". Errors: not exactly one space, or nothing on a side of it.
Vocabulary::Merge parse_merge(std::string_view text, const std::string& origin);

// The user-defined pieces of a vocabulary. They are found in the text as it is, before anything
// else; where two would overlap, the longer one wins, as in llama.cpp.
class UserDefinedPieces {
 public:
  struct Fragment {  // of a text: a user-defined piece, or what lies between two
    std::string_view text;
    int32_t id = -1;
  };

  UserDefinedPieces() = default;
  // `vocabulary` has a type for each piece.
  explicit UserDefinedPieces(const Vocabulary& vocabulary);
  std::vector<Fragment> split(std::string_view text) const;

 private:
  struct Piece {
    std::string text;
    int32_t id;
  };
  std::vector<Piece> pieces_;  // longest first
};

// Which two pieces make a third, and how early: a hash table of pairs of ids.
class MergeRules {
 public:
  using Join = Merger<int32_t>::Join;  // its priority is the rank's negative

  MergeRules() = default;
  // `vocabulary` has a type for each piece. A merge with a control, unknown or byte piece is passed
  // over: no text becomes one. Errors: a merge that is listed twice or names no piece.
  MergeRules(const Vocabulary& vocabulary, const std::string& origin);

  bool empty() const { return entries_.empty(); }
  std::optional<Join> find(int32_t left, int32_t right) const {
    if (entries_.empty() || left < 0 || right < 0) return {};
    const Entry& entry = entries_[slot_of(key_of(left, right))];
    return entry.key == kNoKey ? std::nullopt : std::optional(entry.join);
  }

 private:
  static constexpr uint64_t kNoKey = UINT64_MAX;
  struct Entry {
    uint64_t key = kNoKey;
    Join join = {};
  };

  static uint64_t key_of(int32_t left, int32_t right) {
    return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
  }
  // Where the key is, or the free place where it belongs.
  size_t slot_of(uint64_t key) const {
    size_t slot = key * 0x9e3779b97f4a7c15ull >> shift_;
    while (entries_[slot].key != key && entries_[slot].key != kNoKey) {
      slot = (slot + 1) & (entries_.size() - 1);
    }
    return slot;
  }

  std::vector<Entry> entries_;  // a power of two, at most half full
  int shift_ = 0;
};

}  // namespace thermocline
