#include "models/tokenizer_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <unordered_map>

#include "models/error.h"
#include "models/mapped_file.h"
#include "models/pieces.h"
#include "models/tokenizer_document.h"

namespace thermocline {
namespace {

using Json = nlohmann::json;
using SpacePrefix = Vocabulary::SpacePrefix;

// ByteLevel's own expression, GPT-2's.
constexpr const char* kByteLevelPattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// A value of the document, and where it stands.
class Node {
 public:
  Node(const Json& value, std::string where, const std::string& path)
      : value_(&value), where_(std::move(where)), path_(&path) {}

  const Json& value() const { return *value_; }
  bool is_null() const { return value_->is_null(); }
  // Null where there is no such key.
  Node at(const std::string& key) const {
    static const Json none;
    if (!value_->is_object()) throw error("an object");
    const auto found = value_->find(key);
    return {found == value_->end() ? none : *found, where_ + "." + key, *path_};
  }
  std::vector<Node> items() const {
    if (!value_->is_array()) throw error("a list");
    std::vector<Node> nodes;
    for (size_t i = 0; i < value_->size(); ++i) {
      nodes.emplace_back((*value_)[i], fmt::format("{}[{}]", where_, i), *path_);
    }
    return nodes;
  }
  const std::string& text() const {
    if (!value_->is_string()) throw error("a text");
    return value_->get_ref<const std::string&>();
  }
  bool flag_or(bool fallback) const {
    if (is_null()) return fallback;
    if (!value_->is_boolean()) throw error("true or false");
    return value_->get<bool>();
  }
  int64_t id() const {
    const bool fits = value_->is_number_integer() && value_->get<uint64_t>() <= INT32_MAX;
    if (!fits) throw error("a token's id");
    return value_->get<int64_t>();
  }
  // What would change the tokens and is not computed here.
  void require(const Json& honoured) const {
    if (*value_ != honoured) throw error(honoured.dump());
  }

  Error error(const std::string& expected) const {
    std::string found = value_->is_null() ? "nothing" : value_->dump();
    if (found.size() > 80)
      found = fmt::format("a {} of {} bytes", value_->type_name(), found.size());
    return bad_input(*path_, fmt::format("{}: {}", where_, expected), found);
  }

 private:
  const Json* value_;
  std::string where_;
  const std::string* path_;
};

// What the document does to the text before the model sees it.
struct Pipeline {
  Vocabulary vocabulary;
  bool byte_level = false;
  bool prepends = false, replaces = false;  // normalizers
  bool metaspace = false;                   // the pre-tokenizer
  std::string bos;                          // of the post-processor's template
};

struct Step {
  std::string_view type;
  void (*apply)(const Node& node, Pipeline& pipeline);
};
using Steps = std::vector<Step>;

std::string names_of(const Steps& steps) {
  std::string names;
  for (const Step& step : steps) names += std::string(step.type) + ", ";
  return names + "Sequence";
}

// A step, or a Sequence of steps under `list`; null is none at all.
void apply_steps(const Node& node, const Steps& steps, const char* list, Pipeline& pipeline) {
  if (node.is_null()) return;
  const Node type = node.at("type");
  if (type.text() == "Sequence") {
    for (const Node& step : node.at(list).items()) apply_steps(step, steps, list, pipeline);
    return;
  }
  for (const Step& step : steps) {
    if (step.type == type.text()) return step.apply(node, pipeline);
  }
  throw type.error(names_of(steps));
}

void prepend(const Node& node, Pipeline& pipeline) {
  node.at("prepend").require(std::string(kPieceSpace));
  if (pipeline.prepends) throw node.error("one Prepend");
  pipeline.prepends = true;
}

void replace(const Node& node, Pipeline& pipeline) {
  node.at("pattern").require({{"String", " "}});
  node.at("content").require(std::string(kPieceSpace));
  pipeline.replaces = true;
}

void check_before_bytes(const Node& node, const Pipeline& pipeline) {
  if (pipeline.byte_level) throw node.error("ByteLevel as the last pre-tokenizer");
}

void split(const Node& node, Pipeline& pipeline) {
  check_before_bytes(node, pipeline);
  node.at("behavior").require("Isolated");
  if (node.at("invert").flag_or(false)) throw node.at("invert").error("false");
  pipeline.vocabulary.split_patterns.push_back(node.at("pattern").at("Regex").text());
}

void digits(const Node& node, Pipeline& pipeline) {
  check_before_bytes(node, pipeline);
  const bool each = node.at("individual_digits").flag_or(false);
  pipeline.vocabulary.split_patterns.push_back(each ? "\\p{N}" : "\\p{N}+");
}

void byte_level(const Node& node, Pipeline& pipeline) {
  check_before_bytes(node, pipeline);
  node.at("add_prefix_space").require(false);
  if (node.at("use_regex").flag_or(true)) {
    pipeline.vocabulary.split_patterns.push_back(kByteLevelPattern);
  }
  pipeline.byte_level = true;
}

void metaspace(const Node& node, Pipeline& pipeline) {
  if (pipeline.metaspace) throw node.error("one Metaspace");
  node.at("replacement").require(std::string(kPieceSpace));
  node.at("split").require(false);
  const Node scheme = node.at("prepend_scheme");
  const std::string& name = scheme.text();
  if (name != "always" && name != "first" && name != "never") {
    throw scheme.error("always, first or never");
  }
  pipeline.metaspace = true;
  pipeline.vocabulary.add_space_prefix = name != "never";
  pipeline.vocabulary.space_prefix =
      name == "first" ? SpacePrefix::at_start_where_missing : SpacePrefix::where_missing;
}

// The text with or without one token before it.
void post_template(const Node& node, Pipeline& pipeline) {
  const Node single = node.at("single");
  const std::vector<Node> parts = single.items();
  if (parts.empty() || parts.size() > 2 || !pipeline.bos.empty()) {
    throw single.error("the text, perhaps after one special token");
  }
  parts.back().at("Sequence").at("id").require("A");
  if (parts.size() == 1) return;
  const std::string& name = parts[0].at("SpecialToken").at("id").text();
  const Node tokens = node.at("special_tokens").at(name).at("ids");
  if (tokens.items().size() != 1) throw tokens.error("one token");
  pipeline.vocabulary.bos_id = static_cast<int32_t>(tokens.items()[0].id());
  pipeline.bos = name;
}

void nothing(const Node&, Pipeline&) {}

const Steps kNormalizers = {{"Prepend", prepend}, {"Replace", replace}};
const Steps kPreTokenizers = {
    {"ByteLevel", byte_level}, {"Digits", digits}, {"Metaspace", metaspace}, {"Split", split}};
const Steps kPostProcessors = {{"ByteLevel", nothing}, {"TemplateProcessing", post_template}};
// Decoding follows from encoding; these are what undoes the steps above.
const Steps kByteDecoders = {{"ByteLevel", nothing}};
const Steps kPieceDecoders = {{"ByteFallback", nothing},
                              {"Fuse", nothing},
                              {"Metaspace", nothing},
                              {"Replace", nothing},
                              {"Strip", nothing}};

void check_model(const Node& model) {
  model.at("type").require("BPE");
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const Node affix = model.at(key);
    if (!affix.is_null()) affix.require("");
  }
  const Node dropout = model.at("dropout");
  if (!dropout.is_null()) dropout.require(0);
}

// Which of the two kinds it is, or an Error that says what does not fit.
void decide_kind(const Node& root, Pipeline& pipeline) {
  Vocabulary& vocabulary = pipeline.vocabulary;
  const Node fallback = root.at("model").at("byte_fallback");
  if (pipeline.byte_level) {
    vocabulary.kind = Vocabulary::Kind::byte_bpe;
    vocabulary.add_space_prefix = false;
    if (!root.at("normalizer").is_null() && (pipeline.prepends || pipeline.replaces)) {
      throw root.at("normalizer").error("none before ByteLevel");
    }
    if (pipeline.metaspace)
      throw root.at("pre_tokenizer").error("ByteLevel or Metaspace, not both");
    if (fallback.flag_or(false)) throw fallback.error("false, with ByteLevel");
    return;
  }
  vocabulary.kind = Vocabulary::Kind::sentencepiece;
  if (!fallback.flag_or(false)) throw fallback.error("true, or the pre-tokenizer ByteLevel");
  if (!vocabulary.split_patterns.empty()) {
    throw root.at("pre_tokenizer").error("none but Metaspace, without ByteLevel");
  }
  if (pipeline.metaspace == pipeline.replaces || (pipeline.metaspace && pipeline.prepends)) {
    throw root.at("normalizer").error("Replace of spaces, or Metaspace instead");
  }
  if (pipeline.replaces) vocabulary.add_space_prefix = pipeline.prepends;
}

struct AddedToken {
  int64_t id;
  std::string text;
  int32_t type;
};

// Flags matter for tokens that are found in the text, which special ones never are.
AddedToken added_token(const Node& node, bool has_normalizer) {
  const bool special = node.at("special").flag_or(false);
  for (const char* key : {"single_word", "lstrip", "rstrip"}) {
    if (!special && node.at(key).flag_or(false)) throw node.at(key).error("false");
  }
  if (!special && has_normalizer && node.at("normalized").flag_or(true)) {
    throw node.at("normalized").error("false, where there is a normalizer");
  }
  const Node text = node.at("content");
  if (text.text().empty()) throw text.error("a text that is not empty");
  return {node.at("id").id(), text.text(), special ? control : user_defined};
}

// Puts pieces at their ids. Ids may have holes, but no more of them than tokens.
class Pieces {
 public:
  Pieces(Vocabulary& vocabulary, size_t token_count, const std::string& path)
      : vocabulary_(vocabulary), id_end_(2 * token_count + 256), path_(path) {
    ids_.reserve(token_count);
  }

  void add(const std::string& piece, int64_t id, int32_t type) {
    const auto [place, is_new] = ids_.emplace(piece, id);
    if (!is_new) refuse(piece, id, fmt::format("'{}' at {} too", piece, place->second));
    if (id < 0 || static_cast<uint64_t>(id) >= id_end_) {
      refuse(piece, id, fmt::format("an id outside 0 to {}", id_end_ - 1));
    }
    const auto index = static_cast<size_t>(id);
    if (index >= vocabulary_.pieces.size()) {
      vocabulary_.pieces.resize(index + 1);
      vocabulary_.types.resize(index + 1, unused);
      taken_.resize(index + 1);
    }
    if (taken_[index]) refuse(piece, id, "'" + vocabulary_.pieces[index] + "' there");
    taken_[index] = true;
    vocabulary_.pieces[index] = piece;
    vocabulary_.types[index] = type;
  }

  // An added token may stand in the model's vocabulary too.
  void add_token(const AddedToken& token) {
    const auto found = ids_.find(token.text);
    if (found == ids_.end()) return add(token.text, token.id, token.type);
    if (found->second != token.id || !is_first(token)) {
      refuse(token.text, token.id, fmt::format("'{}' at {} too", token.text, found->second));
    }
    vocabulary_.types[static_cast<size_t>(token.id)] = token.type;
  }

  int32_t find(const std::string& piece) const {  // -1 where there is none
    const auto found = ids_.find(piece);
    return found == ids_.end() ? -1 : static_cast<int32_t>(found->second);
  }

 private:
  [[noreturn]] void refuse(const std::string& piece, int64_t id, const std::string& found) const {
    throw bad_input(path_, fmt::format("one id for each piece, and '{}' at {}", piece, id), found);
  }

  bool is_first(const AddedToken& token) const {
    const int32_t type = vocabulary_.types[static_cast<size_t>(token.id)];
    return type != control && type != user_defined;
  }

  Vocabulary& vocabulary_;
  const size_t id_end_;
  const std::string& path_;
  std::unordered_map<std::string, int64_t> ids_;
  std::vector<bool> taken_;
};

// A byte_fallback vocabulary must have all bytes: else one missing changes how its character is
// cut.
void mark_bytes(Vocabulary& vocabulary, const Pieces& pieces, const std::string& path) {
  for (int value = 0; value < 256; ++value) {
    const std::string piece = fmt::format("<0x{:02X}>", value);
    const int32_t id = pieces.find(piece);
    if (id < 0) throw bad_input(path, "model.vocab with the byte " + piece, "none");
    vocabulary.types[static_cast<size_t>(id)] = byte;
  }
}

struct SpecialNames {
  const char *bos, *eos;
};

constexpr SpecialNames kSpecialNames[] = {
    {"<s>", "</s>"},
    {"<|begin_of_text|>", "<|end_of_text|>"},
    {"<|endoftext|>", "<|endoftext|>"},
    {"<\uff5cbegin\u2581of\u2581sentence\uff5c>", "<\uff5cend\u2581of\u2581sentence\uff5c>"}};

// The file names no eos at all, and a bos in a template only.
void name_special_tokens(Pipeline& pipeline, const Pieces& pieces) {
  Vocabulary& vocabulary = pipeline.vocabulary;
  vocabulary.add_bos = vocabulary.bos_id >= 0;
  for (const SpecialNames& names : kSpecialNames) {
    const int32_t bos = pieces.find(names.bos);
    if (bos < 0 || (vocabulary.bos_id >= 0 && vocabulary.bos_id != bos)) continue;
    vocabulary.bos_id = bos;
    vocabulary.eos_id = pieces.find(names.eos);
    return;
  }
}

void fill(const Node& root, const TokenizerDocument& document, Pipeline& pipeline,
          const std::string& path) {
  Vocabulary& vocabulary = pipeline.vocabulary;
  const Node added = root.at("added_tokens");
  const std::vector<Node> tokens = added.is_null() ? std::vector<Node>() : added.items();
  const size_t count = document.vocab.size() + tokens.size();
  Pieces pieces(vocabulary, count, path);
  for (const auto& [piece, id] : document.vocab) pieces.add(piece, id, normal);
  const bool has_normalizer = pipeline.prepends || pipeline.replaces;
  for (const Node& token : tokens) pieces.add_token(added_token(token, has_normalizer));
  if (vocabulary.pieces.empty()) throw bad_input(path, "model.vocab with pieces", "none");
  if (const Node unknown_token = root.at("model").at("unk_token"); !unknown_token.is_null()) {
    vocabulary.unknown_id = pieces.find(unknown_token.text());
    if (vocabulary.unknown_id < 0) throw unknown_token.error("a piece of model.vocab");
    vocabulary.types[static_cast<size_t>(vocabulary.unknown_id)] = unknown;
  }
  if (!pipeline.bos.empty() && pieces.find(pipeline.bos) != vocabulary.bos_id) {
    throw bad_input(path, fmt::format("'{}' at {}", pipeline.bos, vocabulary.bos_id), "another id");
  }
  if (vocabulary.kind == Vocabulary::Kind::sentencepiece) mark_bytes(vocabulary, pieces, path);
  name_special_tokens(pipeline, pieces);
}

// bos_token and the like: a text, an object with it, or null.
void apply_special_token(const Node& token, const Vocabulary& vocabulary, int32_t& id) {
  if (token.is_null()) return;
  const Node content = token.value().is_object() ? token.at("content") : token;
  const auto found = std::find(vocabulary.pieces.begin(), vocabulary.pieces.end(), content.text());
  if (found == vocabulary.pieces.end() || found->empty()) {
    throw content.error("a piece of the vocabulary");
  }
  id = static_cast<int32_t>(found - vocabulary.pieces.begin());
}

}  // namespace

Vocabulary parse_tokenizer_json(std::span<const std::byte> bytes, const std::string& path) {
  TokenizerDocument document = read_tokenizer_document(bytes, path);
  const Node root(document.rest, "tokenizer.json", path);
  Pipeline pipeline;
  Vocabulary& vocabulary = pipeline.vocabulary;
  vocabulary.bos_id = vocabulary.eos_id = vocabulary.unknown_id = -1;
  const Node model = root.at("model");
  check_model(model);
  apply_steps(root.at("normalizer"), kNormalizers, "normalizers", pipeline);
  apply_steps(root.at("pre_tokenizer"), kPreTokenizers, "pretokenizers", pipeline);
  apply_steps(root.at("post_processor"), kPostProcessors, "processors", pipeline);
  apply_steps(root.at("decoder"), pipeline.byte_level ? kByteDecoders : kPieceDecoders, "decoders",
              pipeline);
  decide_kind(root, pipeline);
  vocabulary.ignore_merges = model.at("ignore_merges").flag_or(false);
  fill(root, document, pipeline, path);
  if (document.merges.empty() && !pipeline.byte_level) {
    throw bad_input(path, "model.merges", "none");
  }
  vocabulary.merges = std::move(document.merges);
  return std::move(vocabulary);
}

void apply_tokenizer_config(std::span<const std::byte> bytes, const std::string& path,
                            Vocabulary& vocabulary) {
  const TokenizerDocument document = read_tokenizer_document(bytes, path);
  const Node root(document.rest, "tokenizer_config.json", path);
  apply_special_token(root.at("bos_token"), vocabulary, vocabulary.bos_id);
  apply_special_token(root.at("eos_token"), vocabulary, vocabulary.eos_id);
  vocabulary.add_bos = root.at("add_bos_token").flag_or(vocabulary.add_bos);
}

Vocabulary open_tokenizer_folder(const std::string& folder) {
  const auto root = std::filesystem::path(folder);
  const std::string path = (root / "tokenizer.json").string();
  Vocabulary vocabulary = parse_tokenizer_json(map_file(path).bytes, path);
  const auto config = root / "tokenizer_config.json";
  if (std::filesystem::exists(config)) {
    apply_tokenizer_config(map_file(config.string()).bytes, config.string(), vocabulary);
  }
  return vocabulary;
}

}  // namespace thermocline
