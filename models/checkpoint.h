// Checkpoint: a file of named tensors, mapped into memory; the format is chosen by its content.
//
// Goals: parse(bytes) apart from open(path); every length in the file is checked against what is
//   left; only the bytes that are asked for are touched; find may be null, get must succeed.
// Non-goals: writing (later), arithmetic, distribution over ranks.
// Tensor names are GGUF's ("blk.0.ffn_gate.weight"), whatever the file calls them; rotary
//   embedding is interleaved (2i, 2i+1), as GGUF and Meta store q and k.
// Thread-safety: const methods may be called from any thread.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "models/dtype.h"
#include "models/registry.h"
#include "models/shape.h"

namespace thermocline {

struct TensorView {
  std::string name;
  DType dtype;
  uint64_t rows;  // out features; 1 for a vector
  uint64_t cols;  // in features, contiguous
  std::span<const std::byte> bytes;
};

// A vocabulary as the file holds it; models/tokenizer.h gives it behaviour.
struct Vocabulary {
  enum class Kind { none, sentencepiece, byte_bpe };
  Kind kind = Kind::none;
  std::vector<std::string> pieces;
  std::vector<float> scores;
  std::vector<int32_t> types;  // GGUF: 1 normal 2 unknown 3 control 4 user-defined 5 unused 6 byte
  int32_t bos_id = 1;
  int32_t eos_id = 2;
  int32_t unknown_id = 0;
  bool add_bos = true;
  bool add_space_prefix = true;

  // Where `add_space_prefix` puts a space: before the text and before whatever follows a
  // user-defined piece; there, but not before a space; before the text alone, unless it begins
  // with one.
  enum class SpacePrefix { always, where_missing, at_start_where_missing };
  SpacePrefix space_prefix = SpacePrefix::always;
  // Of byte-level BPE, and of SentencePiece where pairs are merged by rank, not by score.
  struct Merge {
    std::string left, right;  // pieces; so is their concatenation
  };
  std::vector<Merge> merges;  // the best first
  // Of byte-level BPE: regular expressions, one after the other. Each match is a part, and so is
  // what lies between two; the last one's parts are the words, which are merged alone.
  std::vector<std::string> split_patterns;
  bool ignore_merges = false;  // a word that is a piece is that token, whatever merging would give
};

// What a format's parser finds.
struct CheckpointContents {
  std::shared_ptr<const void> owner;  // keeps the bytes of the tensors alive
  ModelShape shape;                   // of a file without tensors: what it says, perhaps zeros
  Vocabulary vocabulary;
  std::vector<TensorView> tensors;
};

class Checkpoint {
 public:
  // Errors: two tensors of one name.
  Checkpoint(std::string path, CheckpointContents contents);
  Checkpoint(const Checkpoint&) = delete;
  Checkpoint& operator=(const Checkpoint&) = delete;

  const ModelShape& shape() const { return contents_.shape; }
  const Vocabulary& vocabulary() const { return contents_.vocabulary; }
  const std::vector<TensorView>& tensors() const { return contents_.tensors; }
  // True where the file holds a vocabulary and no tensors: it can tokenize and nothing else.
  bool vocabulary_only() const { return tensors().empty(); }

  const TensorView* find(std::string_view name) const;
  // The tensor, or an input Error with expected and found shape.
  const TensorView& get(std::string_view name, uint64_t rows, uint64_t cols) const;

  const std::string& path() const { return path_; }

 private:
  std::string path_;
  CheckpointContents contents_;
  std::map<std::string_view, const TensorView*> by_name_;
};

// Maps the file and parses its header. Errors: no such file, unknown format, anything malformed.
std::unique_ptr<Checkpoint> open_checkpoint(const std::string& path);

// FNV-1a over the file's size, its first MiB, its last 4 KiB and a 4 KiB sample per 64 MiB: names
// the weights in traces and reports without reading 36 GiB. 16 hex digits.
std::string checkpoint_hash(const std::string& path);

struct CheckpointFormat {
  std::string name;
  std::string summary;
  bool (*matches)(std::span<const std::byte> bytes, std::string_view path);
  // `owner` keeps `bytes` alive as long as the checkpoint; `path` is for messages.
  std::unique_ptr<Checkpoint> (*parse)(std::shared_ptr<const void> owner,
                                       std::span<const std::byte> bytes, const std::string& path);
};

Registry<CheckpointFormat>& checkpoint_formats();

#define THERMOCLINE_CHECKPOINT_FORMAT(id, summary, matches, parse) \
  const bool registered_format_##id =                              \
      ::thermocline::checkpoint_formats().add({#id, summary, matches, parse})

}  // namespace thermocline
