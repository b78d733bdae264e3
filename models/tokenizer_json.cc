#include "models/tokenizer_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <unordered_map>

#include "models/error.h"
#include "models/json_reader.h"
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

bool flag_or(const JsonView& view, const char* key, bool fallback) {
  const auto member = view.find(key);
  return member ? member->flag() : fallback;
}

// Any other value would change the tokens and is not computed here.
void require(const JsonView& view, const char* key, const Json& honoured) {
  const JsonView member = view.at(key);
  if (member.value() != honoured) member.refuse(honoured.dump());
}

std::vector<JsonView> items(const JsonView& list) {
  std::vector<JsonView> views;
  for (size_t i = 0; i < list.size(); ++i) views.push_back(list.at(i));
  return views;
}

int64_t id_of(const JsonView& view) {
  const uint64_t id = view.count();
  if (id > INT32_MAX) view.refuse("a token's id");
  return static_cast<int64_t>(id);
}

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
  void (*apply)(const JsonView& node, Pipeline& pipeline);
};
using Steps = std::vector<Step>;

std::string names_of(const Steps& steps) {
  std::string names;
  for (const Step& step : steps) names += std::string(step.type) + ", ";
  return names + "Sequence";
}

// A step, or a Sequence of steps under `list`.
void apply_steps(const JsonView& node, const Steps& steps, const char* list, Pipeline& pipeline) {
  const JsonView type = node.at("type");
  if (type.text() == "Sequence") {
    for (const JsonView& step : items(node.at(list))) apply_steps(step, steps, list, pipeline);
    return;
  }
  for (const Step& step : steps) {
    if (step.type == type.text()) return step.apply(node, pipeline);
  }
  type.refuse(names_of(steps));
}

void prepend(const JsonView& node, Pipeline& pipeline) {
  require(node, "prepend", std::string(kPieceSpace));
  if (pipeline.prepends) node.refuse("one Prepend");
  pipeline.prepends = true;
}

void replace(const JsonView& node, Pipeline& pipeline) {
  require(node, "pattern", {{"String", " "}});
  require(node, "content", std::string(kPieceSpace));
  pipeline.replaces = true;
}

void check_before_bytes(const JsonView& node, const Pipeline& pipeline) {
  if (pipeline.byte_level) node.refuse("ByteLevel as the last pre-tokenizer");
}

void split(const JsonView& node, Pipeline& pipeline) {
  check_before_bytes(node, pipeline);
  require(node, "behavior", "Isolated");
  if (flag_or(node, "invert", false)) node.at("invert").refuse("false");
  pipeline.vocabulary.split_patterns.push_back(node.at("pattern").at("Regex").text());
}

void digits(const JsonView& node, Pipeline& pipeline) {
  check_before_bytes(node, pipeline);
  const bool each = flag_or(node, "individual_digits", false);
  pipeline.vocabulary.split_patterns.push_back(each ? "\\p{N}" : "\\p{N}+");
}

void byte_level(const JsonView& node, Pipeline& pipeline) {
  check_before_bytes(node, pipeline);
  require(node, "add_prefix_space", false);
  if (flag_or(node, "use_regex", true)) {
    pipeline.vocabulary.split_patterns.push_back(kByteLevelPattern);
  }
  pipeline.byte_level = true;
}

void metaspace(const JsonView& node, Pipeline& pipeline) {
  if (pipeline.metaspace) node.refuse("one Metaspace");
  require(node, "replacement", std::string(kPieceSpace));
  require(node, "split", false);
  const JsonView scheme = node.at("prepend_scheme");
  const std::string& name = scheme.text();
  if (name != "always" && name != "first" && name != "never") {
    scheme.refuse("always, first or never");
  }
  pipeline.metaspace = true;
  pipeline.vocabulary.add_space_prefix = name != "never";
  pipeline.vocabulary.space_prefix =
      name == "first" ? SpacePrefix::at_start_where_missing : SpacePrefix::where_missing;
}

// The text with or without one token before it.
void post_template(const JsonView& node, Pipeline& pipeline) {
  const JsonView single = node.at("single");
  const std::vector<JsonView> parts = items(single);
  if (parts.empty() || parts.size() > 2 || !pipeline.bos.empty()) {
    single.refuse("the text, perhaps after one special token");
  }
  require(parts.back().at("Sequence"), "id", "A");
  if (parts.size() == 1) return;
  const std::string& name = parts[0].at("SpecialToken").at("id").text();
  const JsonView tokens = node.at("special_tokens").at(name).at("ids");
  if (tokens.size() != 1) tokens.refuse("one token");
  pipeline.vocabulary.bos_id = static_cast<int32_t>(id_of(tokens.at(0)));
  pipeline.bos = name;
}

void nothing(const JsonView&, Pipeline&) {}

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

void check_model(const JsonView& model) {
  require(model, "type", "BPE");
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (model.find(key)) require(model, key, "");
  }
  if (model.find("dropout")) require(model, "dropout", 0);
}

// Which of the two kinds it is, or an Error that says what does not fit.
void decide_kind(const JsonView& model, const std::string& path, Pipeline& pipeline) {
  Vocabulary& vocabulary = pipeline.vocabulary;
  const bool byte_fallback = flag_or(model, "byte_fallback", false);
  const auto check = [&path](bool fits, const char* expected, const char* found) {
    if (!fits) throw bad_input(path, expected, found);
  };
  if (pipeline.byte_level) {
    vocabulary.kind = Vocabulary::Kind::byte_bpe;
    vocabulary.add_space_prefix = false;
    check(!pipeline.prepends && !pipeline.replaces, "ByteLevel alone", "a normalizer before it");
    check(!pipeline.metaspace, "ByteLevel alone", "Metaspace before it");
    check(!byte_fallback, "ByteLevel without byte_fallback", "both");
    return;
  }
  vocabulary.kind = Vocabulary::Kind::sentencepiece;
  check(byte_fallback, "model.byte_fallback or the pre-tokenizer ByteLevel", "neither");
  check(vocabulary.split_patterns.empty(), "no pre-tokenizer but Metaspace, without ByteLevel",
        "Split or Digits");
  check(pipeline.metaspace != pipeline.replaces && !(pipeline.metaspace && pipeline.prepends),
        "the normalizer Replace of spaces, or else Metaspace", "neither or both");
  if (pipeline.replaces) vocabulary.add_space_prefix = pipeline.prepends;
}

struct AddedToken {
  int64_t id;
  std::string text;
  int32_t type;
};

// Flags matter for tokens that are found in the text, which special ones never are.
AddedToken added_token(const JsonView& node, bool has_normalizer) {
  const bool special = flag_or(node, "special", false);
  for (const char* key : {"single_word", "lstrip", "rstrip"}) {
    if (!special && flag_or(node, key, false)) node.at(key).refuse("false");
  }
  if (!special && has_normalizer && flag_or(node, "normalized", true)) {
    node.refuse("normalized as false, where there is a normalizer");
  }
  const JsonView text = node.at("content");
  if (text.text().empty()) text.refuse("a text that is not empty");
  return {id_of(node.at("id")), text.text(), special ? control : user_defined};
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

void fill(const JsonView& root, const TokenizerDocument& document, Pipeline& pipeline,
          const std::string& path) {
  Vocabulary& vocabulary = pipeline.vocabulary;
  const auto added = root.find("added_tokens");
  const std::vector<JsonView> tokens = added ? items(*added) : std::vector<JsonView>();
  const size_t count = document.vocab.size() + tokens.size();
  Pieces pieces(vocabulary, count, path);
  for (const auto& [piece, id] : document.vocab) pieces.add(piece, id, normal);
  const bool has_normalizer = pipeline.prepends || pipeline.replaces;
  for (const JsonView& token : tokens) pieces.add_token(added_token(token, has_normalizer));
  if (vocabulary.pieces.empty()) throw bad_input(path, "model.vocab with pieces", "none");
  if (const auto unknown_token = root.at("model").find("unk_token")) {
    vocabulary.unknown_id = pieces.find(unknown_token->text());
    if (vocabulary.unknown_id < 0) unknown_token->refuse("a piece of model.vocab");
    vocabulary.types[static_cast<size_t>(vocabulary.unknown_id)] = unknown;
  }
  if (!pipeline.bos.empty() && pieces.find(pipeline.bos) != vocabulary.bos_id) {
    throw bad_input(path, fmt::format("'{}' at {}", pipeline.bos, vocabulary.bos_id), "another id");
  }
  if (vocabulary.kind == Vocabulary::Kind::sentencepiece) mark_bytes(vocabulary, pieces, path);
  name_special_tokens(pipeline, pieces);
}

// bos_token and the like: a text, an object with it, or null.
void apply_special_token(const JsonView& config, const char* key, const Vocabulary& vocabulary,
                         int32_t& id) {
  const auto token = config.find(key);
  if (!token) return;
  const JsonView content = token->value().is_object() ? token->at("content") : *token;
  const auto found = std::find(vocabulary.pieces.begin(), vocabulary.pieces.end(), content.text());
  if (found == vocabulary.pieces.end() || found->empty()) {
    content.refuse("a piece of the vocabulary");
  }
  id = static_cast<int32_t>(found - vocabulary.pieces.begin());
}

}  // namespace

Vocabulary parse_tokenizer_json(std::span<const std::byte> bytes, const std::string& path) {
  TokenizerDocument document = read_tokenizer_document(bytes, path);
  const JsonView root(document.rest, path);
  Pipeline pipeline;
  Vocabulary& vocabulary = pipeline.vocabulary;
  vocabulary.bos_id = vocabulary.eos_id = vocabulary.unknown_id = -1;
  const JsonView model = root.at("model");
  check_model(model);
  const auto apply = [&](const char* key, const Steps& steps, const char* list) {
    if (const auto step = root.find(key)) apply_steps(*step, steps, list, pipeline);
  };
  apply("normalizer", kNormalizers, "normalizers");
  apply("pre_tokenizer", kPreTokenizers, "pretokenizers");
  apply("post_processor", kPostProcessors, "processors");
  apply("decoder", pipeline.byte_level ? kByteDecoders : kPieceDecoders, "decoders");
  decide_kind(model, path, pipeline);
  vocabulary.ignore_merges = flag_or(model, "ignore_merges", false);
  fill(root, document, pipeline, path);
  if (document.merges.empty() && !pipeline.byte_level)
    throw bad_input(path, "model.merges", "none");
  vocabulary.merges = std::move(document.merges);
  return std::move(vocabulary);
}

void apply_tokenizer_config(std::span<const std::byte> bytes, const std::string& path,
                            Vocabulary& vocabulary) {
  const Json config = parse_json(bytes, path);
  const JsonView root(config, path);
  apply_special_token(root, "bos_token", vocabulary, vocabulary.bos_id);
  apply_special_token(root, "eos_token", vocabulary, vocabulary.eos_id);
  vocabulary.add_bos = flag_or(root, "add_bos_token", vocabulary.add_bos);
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
