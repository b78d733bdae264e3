// Hugging Face checkpoints: safetensors in one file or in shards that an index names, with
// config.json and perhaps tokenizer.json beside them.
//
// The index, model.safetensors.index.json, is {"metadata": …, "weight_map": {tensor: shard}}.
// q and k are stored for half-split rotary embedding; their views say so and nothing is copied.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <optional>
#include <set>

#include "models/checkpoint.h"
#include "models/error.h"
#include "models/hf_config.h"
#include "models/json_reader.h"
#include "models/safetensors_header.h"
#include "models/tokenizer_json.h"

namespace thermocline {
namespace {

constexpr const char* kIndexName = "model.safetensors.index.json";
constexpr std::string_view kShardEnding = ".safetensors";
constexpr std::string_view kLayerPrefix = "model.layers.";
// Tables of frequencies that old files hold beside each layer; they follow from theta.
constexpr std::string_view kSkippedEnding = ".rotary_emb.inv_freq";

struct Name {
  std::string_view ours;  // GGUF's
  std::string_view theirs;
  bool half_split;
};

constexpr Name kModelNames[] = {
    {"token_embd.weight", "model.embed_tokens.weight", false},
    {"output_norm.weight", "model.norm.weight", false},
    {"output.weight", "lm_head.weight", false},
};

// Behind "blk.N." and "model.layers.N.".
constexpr Name kLayerNames[] = {
    {"attn_norm.weight", "input_layernorm.weight", false},
    {"attn_q.weight", "self_attn.q_proj.weight", true},
    {"attn_k.weight", "self_attn.k_proj.weight", true},
    {"attn_v.weight", "self_attn.v_proj.weight", false},
    {"attn_output.weight", "self_attn.o_proj.weight", false},
    {"ffn_norm.weight", "post_attention_layernorm.weight", false},
    {"ffn_gate.weight", "mlp.gate_proj.weight", false},
    {"ffn_up.weight", "mlp.up_proj.weight", false},
    {"ffn_down.weight", "mlp.down_proj.weight", false},
    // Not Hugging Face's: where models/demo/predictor.py puts the predictor of a layer.
    {kPredictorTensors[0], "mlp.predictor.fc1.weight", false},
    {kPredictorTensors[1], "mlp.predictor.fc2.weight", false},
};

// What a tensor of the file is called here; none where it is not part of a LLaMA decoder.
struct KnownTensor {
  std::string name;
  bool half_split;
};

std::optional<KnownTensor> known_tensor(std::string_view theirs) {
  for (const Name& name : kModelNames) {
    if (name.theirs == theirs) return KnownTensor{std::string(name.ours), name.half_split};
  }
  if (!theirs.starts_with(kLayerPrefix)) return {};
  theirs.remove_prefix(kLayerPrefix.size());
  const size_t dot = std::min(theirs.find('.'), theirs.size());
  uint32_t layer = 0;
  const auto [end, error] = std::from_chars(theirs.data(), theirs.data() + dot, layer);
  const bool canonical = error == std::errc() && end == theirs.data() + dot &&
                         fmt::format("{}", layer) == theirs.substr(0, dot);
  if (!canonical || dot == theirs.size()) return {};
  theirs.remove_prefix(dot + 1);
  for (const Name& name : kLayerNames) {
    if (name.theirs != theirs) continue;
    return KnownTensor{fmt::format("blk.{}.{}", layer, name.ours), name.half_split};
  }
  return {};
}

TensorView view_of(const SafetensorsEntry& entry, const ModelShape& shape,
                   const std::string& place) {
  const auto known = known_tensor(entry.name);
  if (!known) throw bad_input(place, "the name of a tensor of a LLaMA decoder", entry.name);
  const std::vector<uint64_t>& dimensions = entry.shape;
  const bool zero = std::count(dimensions.begin(), dimensions.end(), uint64_t{0}) != 0;
  if (dimensions.empty() || dimensions.size() > 2 || zero) {
    throw bad_input(place, "one or two dimensions from 1 on",
                    fmt::format("[{}]", fmt::join(dimensions, ", ")));
  }
  TensorView view{.name = known->name,
                  .dtype = entry.dtype,
                  .rows = dimensions.size() == 2 ? dimensions[0] : 1,
                  .cols = dimensions.back(),
                  .bytes = entry.bytes};
  if (!known->half_split) return view;
  if (view.rows % shape.head_dim != 0) {
    throw bad_input(place, fmt::format("rows of whole heads of {}", shape.head_dim),
                    fmt::format("{}", view.rows));
  }
  view.half_split_head_dim = shape.head_dim;
  return view;
}

// Appends the tensors of one shard; `listed`: those that an index puts into it.
void read_shard(const CheckpointFile& file, const std::set<std::string>* listed,
                CheckpointContents& contents) {
  std::set<std::string> missing = listed != nullptr ? *listed : std::set<std::string>();
  for (const SafetensorsEntry& entry : parse_safetensors(file.bytes, file.path)) {
    const std::string place = fmt::format("{}: tensor {}", file.path, entry.name);
    if (listed != nullptr && missing.erase(entry.name) == 0) {
      throw bad_input(place, "a tensor that the index puts into this shard",
                      "one that it does not");
    }
    if (entry.name.ends_with(kSkippedEnding)) continue;
    contents.tensors.push_back(view_of(entry, contents.shape, place));
  }
  if (missing.empty()) return;
  throw bad_input(file.path, fmt::format("tensor {}, as the index says", *missing.begin()),
                  "no such tensor");
}

// The tensors of each shard, by the shard's name.
std::map<std::string, std::set<std::string>> parse_index(const CheckpointFile& file) {
  const nlohmann::json json = parse_json(file.bytes, file.path);
  const JsonView weights = JsonView(json, file.path).at("weight_map");
  if (!weights.value().is_object() || weights.value().empty()) {
    weights.refuse("an object of tensors and the shards that hold them");
  }
  std::map<std::string, std::set<std::string>> shards;
  for (const auto& [tensor, shard] : weights.value().items()) {
    const JsonView name(shard, fmt::format("{}: weight_map of {}", file.path, tensor));
    if (!name.text().ends_with(kShardEnding)) name.refuse("a file of that folder, *.safetensors");
    shards[name.text()].insert(tensor);
  }
  return shards;
}

CheckpointFile neighbour(const CheckpointFile& file, const Neighbours& neighbours,
                         const std::string& name) {
  if (auto found = neighbours(name)) return *found;
  throw bad_input(file.path, name + " beside it", "no such file");
}

bool is_index(const CheckpointFile& file) {
  const bool object = !file.bytes.empty() && file.bytes[0] == std::byte{'{'};
  return object && !begins_as_safetensors(file.bytes);
}

// A head of its own in the file is the head, whatever the configuration says of a shared one.
void settle_head(const CheckpointFile& file, const Neighbours& neighbours,
                 CheckpointContents& contents) {
  const auto holds = [&](std::string_view name) {
    return std::any_of(contents.tensors.begin(), contents.tensors.end(),
                       [name](const TensorView& tensor) { return tensor.name == name; });
  };
  if (holds("output.weight")) contents.shape.tied_embeddings = false;
  if (holds("token_embd.weight")) return;
  const bool shard = !is_index(file) && neighbours(kIndexName).has_value();
  throw bad_input(file.path, "tensor model.embed_tokens.weight",
                  shard ? fmt::format("one shard of several: name the folder or {}", kIndexName)
                        : "no such tensor");
}

// That of tokenizer.json, where there is one. tokenizer.model, SentencePiece's own, is not read.
// A model can be used without its tokenizer (`--tokenizer` names another).
void read_vocabulary(const Neighbours& neighbours, CheckpointContents& contents) {
  const auto file = neighbours("tokenizer.json");
  if (!file) return;
  contents.files.push_back(*file);
  const auto config = neighbours("tokenizer_config.json");
  if (config) contents.files.push_back(*config);
  try {
    contents.vocabulary = parse_tokenizer_json(file->bytes, file->path);
    if (config) apply_tokenizer_config(config->bytes, config->path, contents.vocabulary);
  } catch (const Error& error) {
    contents.vocabulary = {};
    contents.vocabulary.refusal = error.what();
  }
}

// Anything that begins as an object is ours to read or to refuse with a reason.
bool matches_safetensors(std::span<const std::byte> bytes, std::string_view path) {
  return path.ends_with(kShardEnding) || begins_as_safetensors(bytes) ||
         (!bytes.empty() && bytes[0] == std::byte{'{'});
}

std::unique_ptr<Checkpoint> parse_checkpoint(const CheckpointFile& file,
                                             const Neighbours& neighbours) {
  CheckpointContents contents;
  contents.files = {file};
  const auto open = [&](const std::string& name) {
    contents.files.push_back(neighbour(file, neighbours, name));
    return contents.files.back();
  };
  const auto read_config = [&] {
    const CheckpointFile config = open("config.json");
    contents.shape = parse_hf_config(config.bytes, config.path);
    const HfNotes notes = parse_hf_notes(config.bytes, config.path);
    contents.provenance = notes.provenance;
    contents.predictor_threshold = notes.predictor_threshold;
  };
  if (is_index(file)) {
    const auto shards = parse_index(file);
    read_config();
    for (const auto& [name, tensors] : shards) read_shard(open(name), &tensors, contents);
  } else {
    parse_safetensors(file.bytes, file.path);  // before its neighbours: what is wrong with it
    read_config();
    read_shard(file, nullptr, contents);
  }
  settle_head(file, neighbours, contents);
  read_vocabulary(neighbours, contents);
  auto checkpoint = std::make_unique<Checkpoint>(file.path, std::move(contents));
  check_predictors(*checkpoint);
  return checkpoint;
}

}  // namespace

THERMOCLINE_CHECKPOINT_FORMAT(safetensors,
                              "Hugging Face: safetensors with config.json; F32, F16, BF16",
                              matches_safetensors, parse_checkpoint, kIndexName,
                              "model.safetensors");

}  // namespace thermocline
