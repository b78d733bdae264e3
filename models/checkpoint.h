// Checkpoint: named tensors in one file or several, mapped into memory; the format is chosen by the
// content of the file that the user names, which may name others beside it.
//
// Goals: parse(bytes) apart from open(path); every length in the file is checked against what is
//   left; only the bytes that are asked for are touched; find may be null, get must succeed.
// Non-goals: writing (models/gguf_writer.h), arithmetic, distribution over ranks.
// Tensor names are GGUF's ("blk.0.ffn_gate.weight"), whatever the file calls them. Rows come in the
//   order of interleaved rotary embedding (2i, 2i+1), as GGUF and Meta store q and k.
// A file may hold the down projection as rows of neurons instead ("ffn_down_t.weight"), and an
//   activation predictor (kPredictorTensors): see activations.md section 2, powerinfer.md
//   section 2.
// Thread-safety: const methods may be called from any thread.
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "models/dtype.h"
#include "models/error.h"
#include "models/registry.h"
#include "models/shape.h"

namespace thermocline {

struct TensorView {
  std::string name;
  DType dtype;
  uint64_t rows;                     // out features; 1 for a vector
  uint64_t cols;                     // in features, contiguous
  std::span<const std::byte> bytes;  // from the first stored row to the end of the last
  uint64_t row_stride = 0;  // bytes from one stored row to the next; 0: rows lie end to end
  // Where not 0: each head of so many rows is stored for half-split rotary embedding, pair i as
  // rows i and i + head_dim / 2 (Hugging Face).
  uint32_t half_split_head_dim = 0;

  uint64_t row_bytes() const { return bytes_of(dtype, cols); }
  uint64_t byte_count() const { return rows * row_bytes(); }
  // True where rows [0, rows) lie end to end in their order.
  bool contiguous() const {
    return half_split_head_dim == 0 && (row_stride == 0 || row_stride == row_bytes());
  }
  const std::byte* row(uint64_t row) const;  // row < rows
};

// Where weights come from.
inline constexpr std::string_view kProvenances[] = {"real", "trained-demo", "synthetic"};

// What an activation predictor of a layer is called: relu(x fc1^T) fc2^T scores its neurons.
// fc1 (rank, model_dim), fc2 (ffn_dim, rank); the rank may differ between layers.
inline constexpr std::string_view kPredictorTensors[] = {"fc1.weight", "fc2.weight"};

// A vocabulary as the file holds it; models/tokenizer.h gives it behaviour.
struct Vocabulary {
  enum class Kind { none, sentencepiece, byte_bpe };
  Kind kind = Kind::none;
  std::string refusal;  // of kind none: why the one beside the weights cannot be used; or empty
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

// A file in memory.
struct CheckpointFile {
  std::string path;                   // for messages
  std::shared_ptr<const void> owner;  // keeps `bytes` alive
  std::span<const std::byte> bytes;
};

// The file of that plain name beside the one that is being parsed; none where there is no such
// file. Errors: a name with a folder in it, a file that cannot be read.
using Neighbours = std::function<std::optional<CheckpointFile>(const std::string& name)>;

// A key of a GGUF file and its value as they lie there: `model convert` keeps what it need not
// know.
struct KeptPair {
  std::string key;
  std::span<const std::byte> typed_value;  // u32 type, value
};

// What a format's parser finds.
struct CheckpointContents {
  std::vector<CheckpointFile> files;  // all that were read; they keep the bytes of tensors alive
  ModelShape shape;                   // of a file without tensors: what it says, perhaps zeros
  Vocabulary vocabulary;
  std::vector<TensorView> tensors;
  // The predictor threshold: a neuron whose score (fc2's output) reaches it is predicted active.
  std::optional<float> predictor_threshold = {};
  std::string provenance = "real";        // of kProvenances
  std::vector<KeptPair> gguf_pairs = {};  // of GGUF files only
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
  std::optional<float> predictor_threshold() const { return contents_.predictor_threshold; }
  const std::string& provenance() const { return contents_.provenance; }
  const std::vector<KeptPair>& gguf_pairs() const { return contents_.gguf_pairs; }
  // True where the file holds a vocabulary and no tensors: it can tokenize and nothing else.
  bool vocabulary_only() const { return tensors().empty(); }

  const TensorView* find(std::string_view name) const;
  // The tensor, or an input Error with expected and found shape.
  const TensorView& get(std::string_view name, uint64_t rows, uint64_t cols) const;

  const std::string& path() const { return path_; }
  const std::vector<CheckpointFile>& files() const { return contents_.files; }

 private:
  std::string path_;
  CheckpointContents contents_;
  std::map<std::string_view, const TensorView*> by_name_;
};

// An input Error unless each layer has a whole predictor, of the right shape, or none.
void check_predictors(const Checkpoint& checkpoint);

// "PATH: tensor NAME: expected finite weights, found nan in row 5".
Error not_finite(const std::string& path, const TensorView& tensor, uint64_t row, float value);

// Maps the file (or the model that a folder holds; or takes the demo model, models/embedded.h) and
// parses its header; of the tensors only what is read later. Errors: no such file, unknown format,
// anything malformed.
std::unique_ptr<Checkpoint> open_checkpoint(const std::string& path);

// FNV-1a over each file's size, its first MiB, its last 4 KiB and a 4 KiB sample per 64 MiB: names
// the weights in traces and reports without reading 36 GiB. 16 hex digits.
std::string checkpoint_hash(const std::vector<CheckpointFile>& files);

struct CheckpointFormat {
  std::string name;
  std::string summary;
  bool (*matches)(std::span<const std::byte> bytes, std::string_view path);
  std::unique_ptr<Checkpoint> (*parse)(const CheckpointFile& file, const Neighbours& neighbours);
  // What to open where the user names a folder, the first that is there; may be empty.
  std::vector<std::string> folder_names;
};

Registry<CheckpointFormat>& checkpoint_formats();

// The rest: names of files that a folder of this format holds.
#define THERMOCLINE_CHECKPOINT_FORMAT(id, summary, matches, parse, ...) \
  const bool registered_format_##id =                                   \
      ::thermocline::checkpoint_formats().add({#id, summary, matches, parse, {__VA_ARGS__}})

}  // namespace thermocline
