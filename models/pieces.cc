#include "models/pieces.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <unordered_map>

#include "models/error.h"

namespace thermocline {
namespace {

using Ids = std::unordered_map<std::string_view, int32_t>;

Ids ids_of(const std::vector<std::string>& pieces) {
  Ids ids;
  ids.reserve(pieces.size());
  for (size_t id = 0; id < pieces.size(); ++id) {
    if (!pieces[id].empty()) ids[pieces[id]] = static_cast<int32_t>(id);
  }
  return ids;
}

// The ids of the two pieces of a merge and of what they make.
std::array<int32_t, 3> resolved(const Vocabulary::Merge& merge, const Ids& ids, int32_t rank,
                                const std::string& origin) {
  const auto id_of = [&](const std::string& piece) {
    const auto found = ids.find(piece);
    if (found != ids.end()) return found->second;
    throw bad_input(
        fmt::format("{}: merge {} of '{}' and '{}'", origin, rank, merge.left, merge.right),
        "pieces of the vocabulary", fmt::format("'{}', which is none", piece));
  };
  return {id_of(merge.left), id_of(merge.right), id_of(merge.left + merge.right)};
}

bool from_text(int32_t type) { return type != unknown && type != control && type != byte; }

}  // namespace

std::optional<uint8_t> byte_of(std::string_view piece) {
  if (piece.size() != 6 || !piece.starts_with("<0x") || piece[5] != '>') return {};
  uint8_t value = 0;
  const auto [end, error] = std::from_chars(piece.data() + 3, piece.data() + 5, value, 16);
  if (error != std::errc() || end != piece.data() + 5) return {};
  return value;
}

Vocabulary::Merge parse_merge(std::string_view text, const std::string& origin) {
  const size_t space = text.find(' ');
  const bool splits = space != std::string_view::npos && space > 0 && space + 1 < text.size() &&
                      text.find(' ', space + 1) == std::string_view::npos;
  if (splits) return {std::string(text.substr(0, space)), std::string(text.substr(space + 1))};
  throw bad_input(origin, "merges of two pieces with a space between", fmt::format("'{}'", text));
}

UserDefinedPieces::UserDefinedPieces(const Vocabulary& vocabulary) {
  for (size_t id = 0; id < vocabulary.pieces.size(); ++id) {
    if (vocabulary.types[id] != user_defined || vocabulary.pieces[id].empty()) continue;
    pieces_.push_back({vocabulary.pieces[id], static_cast<int32_t>(id)});
  }
  std::stable_sort(pieces_.begin(), pieces_.end(),
                   [](const Piece& a, const Piece& b) { return a.text.size() > b.text.size(); });
}

std::vector<UserDefinedPieces::Fragment> UserDefinedPieces::split(std::string_view text) const {
  std::vector<Fragment> parts = {{text}};
  for (const Piece& piece : pieces_) {
    if (text.find(piece.text) == std::string_view::npos) continue;
    std::vector<Fragment> split;
    for (const Fragment& part : parts) {
      std::string_view rest = part.text;
      size_t at = part.id >= 0 ? std::string_view::npos : rest.find(piece.text);
      for (; at != std::string_view::npos; at = rest.find(piece.text)) {
        split.push_back({rest.substr(0, at)});
        split.push_back({rest.substr(at, piece.text.size()), piece.id});
        rest.remove_prefix(at + piece.text.size());
      }
      split.push_back({rest, part.id});
    }
    parts = std::move(split);
  }
  return parts;
}

MergeRules::MergeRules(const Vocabulary& vocabulary, const std::string& origin) {
  if (vocabulary.merges.empty()) return;
  if (vocabulary.merges.size() > INT32_MAX / 4) {
    throw bad_input(origin, "merges with 32-bit ranks",
                    fmt::format("{}", vocabulary.merges.size()));
  }
  const size_t size = std::bit_ceil(2 * vocabulary.merges.size());
  entries_.resize(size);
  shift_ = 64 - std::countr_zero(size);
  const Ids ids = ids_of(vocabulary.pieces);
  int32_t rank = 0;
  for (const Vocabulary::Merge& merge : vocabulary.merges) {
    const auto [left, right, both] = resolved(merge, ids, rank, origin);
    Entry& entry = entries_[slot_of(key_of(left, right))];
    if (entry.key != kNoKey) {
      throw bad_input(origin, "merges that differ",
                      fmt::format("'{}' and '{}' twice", merge.left, merge.right));
    }
    const auto& types = vocabulary.types;
    if (from_text(types[left]) && from_text(types[right]) && from_text(types[both])) {
      entry = {key_of(left, right), {-rank, both}};
    }
    ++rank;
  }
}

}  // namespace thermocline
