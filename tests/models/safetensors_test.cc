// Hugging Face checkpoints: tensors where the file has them, shards, and damage of every kind.
#include <fmt/format.h>

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "models/checkpoint.h"
#include "models/cli.h"
#include "models/convert.h"
#include "models/mapped_file.h"
#include "models/safetensors_header.h"
#include "models/tokenizer.h"
#include "models/weights.h"
#include "tests/hf_files.h"
#include "tests/models/parse_bytes.h"
#include "tests/support.h"

namespace thermocline::test {
namespace {

using Catch::Matchers::Contains;
using Files = std::map<std::string, std::string>;

constexpr const char* kIndex = "model.safetensors.index.json";
constexpr const char* kFirstShard = "model-00001-of-00003.safetensors";

Files config_beside(const ModelShape& shape = small_shape()) {
  return {{"config.json", hf_config(shape)}};
}

std::unique_ptr<Checkpoint> parse(const SafetensorsFile& file,
                                  const ModelShape& shape = small_shape()) {
  return parse_bytes("safetensors", file.bytes(), config_beside(shape));
}

std::string refusal(const SafetensorsFile& file, const Files& beside = config_beside()) {
  return input_error([&] { parse_bytes("safetensors", file.bytes(), beside); });
}

// The three shards of the small model, with config.json.
Files sharded_model() {
  Files files = sharded(small_safetensors(DType::bf16));
  files.merge(config_beside());
  return files;
}

std::unique_ptr<Checkpoint> parse_sharded(const Files& files) {
  return parse_bytes("safetensors", files.at(kIndex), files);
}

std::string refusal(const Files& files) {
  return input_error([&] { parse_sharded(files); });
}

// Rows of the view in their order, as one string.
std::string rows_of(const TensorView& view) {
  std::string rows;
  for (uint64_t row = 0; row < view.rows; ++row) {
    rows.append(reinterpret_cast<const char*>(view.row(row)), view.row_bytes());
  }
  return rows;
}

// Each tensor has the bytes that the GGUF file of the same made values has.
void check_made_tensors(const Checkpoint& checkpoint, DType dtype) {
  const GgufFile same = small_gguf(dtype, checkpoint.shape());
  CHECK(checkpoint.tensors().size() == same.tensors.size());
  for (const GgufFile::Tensor& tensor : same.tensors) {
    INFO(tensor.name);
    const uint64_t rows = tensor.dimensions.size() == 2 ? tensor.dimensions[1] : 1;
    const TensorView& found = checkpoint.get(tensor.name, rows, tensor.dimensions[0]);
    CHECK(found.dtype == dtype);
    CHECK(rows_of(found) == encoded(dtype, made_values(tensor.name, rows, found.cols)));
  }
}

// One tensor "t" under the given fields, and the message of its refusal.
std::string header_refusal(const std::string& header, const std::string& data) {
  const std::string bytes = safetensors_bytes(header, data);
  return input_error([&] { parse_safetensors(std::as_bytes(std::span(bytes)), "FILE"); });
}

std::string entry(const std::string& name, const std::string& shape, const std::string& offsets,
                  const std::string& type = "F32") {
  return fmt::format(R"("{}":{{"dtype":"{}","shape":{},"data_offsets":{}}})", name, type, shape,
                     offsets);
}

}  // namespace

TEST_CASE("a safetensors file gives the tensors of the same GGUF file, q and k in our row order") {
  const DType dtype = GENERATE(DType::f32, DType::f16, DType::bf16);
  const auto checkpoint = parse(small_safetensors(dtype));
  CHECK(checkpoint->shape() == small_shape());
  check_made_tensors(*checkpoint, dtype);
}

TEST_CASE("tensors are views into the file, whatever its alignment") {
  std::string bytes = small_safetensors(DType::f32).bytes();
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), sizeof length);
  bytes.insert(8 + length, 3, ' ');  // the data then lies at odd addresses
  length += 3;
  std::memcpy(bytes.data(), &length, sizeof length);
  const auto checkpoint = parse_bytes("safetensors", bytes, config_beside());
  check_made_tensors(*checkpoint, DType::f32);
  const auto file = checkpoint->files().at(0).bytes;
  for (const TensorView& tensor : checkpoint->tensors()) {
    CHECK(tensor.bytes.data() >= file.data());
    CHECK(tensor.bytes.data() + tensor.bytes.size() <= file.data() + file.size());
  }
}

TEST_CASE("an index and its shards are one checkpoint, which keeps all its files") {
  const auto checkpoint = parse_sharded(sharded_model());
  check_made_tensors(*checkpoint, DType::bf16);
  CHECK(checkpoint->files().size() == 5);  // the index, config.json, three shards
}

TEST_CASE("a head is shared where config.json says so and the file has none") {
  ModelShape tied = small_shape();
  tied.tied_embeddings = true;
  CHECK(parse(small_safetensors(DType::f16, tied), tied)->shape().tied_embeddings);
  // The file's own head is used.
  const auto both = parse(small_safetensors(DType::f16), tied);
  CHECK_FALSE(both->shape().tied_embeddings);
  CHECK(both->find("output.weight") != nullptr);
  // Neither: weights.cc asks for the tensor by name.
  const TempDir folder;
  write_file(folder / "model.safetensors", small_safetensors(DType::f16, tied).bytes());
  write_file(folder / "config.json", hf_config(small_shape()));
  const std::string message =
      input_error([&] { open_weights(parse_model_spec(folder / "model.safetensors")); });
  CHECK_THAT(message, Contains("tensor output.weight of 7 x 64, found no such tensor"));
}

TEST_CASE("a folder, its index and a file of any name are opened") {
  const TempDir folder;
  for (const auto& [name, bytes] : sharded_model()) write_file(folder / name, bytes);
  check_made_tensors(*open_checkpoint(folder.path()), DType::bf16);
  check_made_tensors(*open_checkpoint(folder / kIndex), DType::bf16);
  CHECK_THAT(input_error([&] { open_checkpoint(folder / kFirstShard); }),
             Contains("one shard of several") && Contains(kIndex));
  const TempDir single;
  write_file(single / "config.json", hf_config(small_shape()));
  write_file(single / "model.safetensors", small_safetensors(DType::f32).bytes());
  write_file(single / "other.safetensors", small_safetensors(DType::f16).bytes());
  check_made_tensors(*open_checkpoint(single.path()), DType::f32);
  check_made_tensors(*open_checkpoint(single / "other.safetensors"), DType::f16);
}

TEST_CASE("weights of a safetensors folder are those of the same GGUF file") {
  const TempDir folder;
  for (const auto& [name, bytes] : sharded_model()) write_file(folder / name, bytes);
  write_file(folder / "same.gguf", small_gguf(DType::bf16).bytes());
  const auto hf = open_weights(parse_model_spec(folder.path()));
  const auto gguf = open_weights(parse_model_spec(folder / "same.gguf"));
  for (int matrix = 0; matrix <= static_cast<int>(Matrix::down_t); ++matrix) {
    const auto m = static_cast<Matrix>(matrix);
    const auto [rows, cols] = size_of(m, hf->shape());
    std::string found(rows * cols * 2, '\0'), expected = found;
    hf->read(m, 0, {0, rows, 0, cols}, reinterpret_cast<std::byte*>(found.data()));
    gguf->read(m, 0, {0, rows, 0, cols}, reinterpret_cast<std::byte*>(expected.data()));
    INFO("matrix " << matrix);
    CHECK(found == expected);
  }
}

TEST_CASE("predictors stored with the model are read, kept by a conversion, and checked") {
  const ModelShape shape = small_shape();
  SafetensorsFile file = small_safetensors(DType::f32);
  const std::string prefix = "model.layers.1.mlp.predictor.";
  add_hf_tensor(file, prefix + "fc1.weight", "blk.1.fc1.weight", 8, shape.model_dim, DType::f32);
  CHECK_THAT(refusal(file), Contains("blk.1.fc2.weight") && Contains("no such tensor"));
  add_hf_tensor(file, prefix + "fc2.weight", "blk.1.fc2.weight", shape.ffn_dim, 8, DType::f32);
  const TempDir folder;
  write_file(folder / "model.safetensors", file.bytes());
  write_file(folder / "config.json",
             hf_config(shape, R"(,"thermocline":{"provenance":"trained-demo",)"
                              R"("predictor_threshold":0.25})"));
  convert_checkpoint(folder.path(), folder / "out.gguf", {.dtype = DType::f32});
  for (const std::string& path : {folder.path(), folder / "out.gguf"}) {
    INFO(path);
    const auto model = open_checkpoint(path);
    CHECK(model->provenance() == "trained-demo");
    CHECK(model->predictor_threshold() == 0.25f);
    CHECK(model->find("blk.0.fc1.weight") == nullptr);
    CHECK(rows_of(model->get("blk.1.fc2.weight", shape.ffn_dim, 8)) ==
          encoded(DType::f32, made_values("blk.1.fc2.weight", shape.ffn_dim, 8)));
  }
  file.tensor(prefix + "fc2.weight").shape = {shape.ffn_dim * 2, 4};
  CHECK_THAT(refusal(file), Contains("blk.1.fc2.weight"));
}

TEST_CASE("the vocabulary is that of tokenizer.json, where there is one") {
  Files files = sharded_model();
  CHECK(parse_sharded(files)->vocabulary().kind == Vocabulary::Kind::none);
  const std::string made = std::string(THERMOCLINE_SOURCE_DIR) + "/tests/oracles/tokenizers/";
  const MappedFile file = map_file(made + "byte_bpe.json");
  const auto bytes = file.bytes;
  files["tokenizer.json"] = {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  const auto checkpoint = parse_sharded(files);
  CHECK(checkpoint->vocabulary().kind == Vocabulary::Kind::byte_bpe);
  CHECK(checkpoint->files().size() == 6);
  files["tokenizer_config.json"] = R"({"add_bos_token":false})";
  CHECK(parse_sharded(files)->files().size() == 7);
  CHECK_FALSE(parse_sharded(files)->vocabulary().add_bos);
  files["tokenizer.json"] = "{}";
  const auto unreadable = parse_sharded(files);  // the weights are no worse for it
  CHECK(unreadable->vocabulary().kind == Vocabulary::Kind::none);
  CHECK_THAT(unreadable->vocabulary().refusal, Contains("tokenizer.json"));
  CHECK_THAT(input_error([&] { tokenizer_of(*unreadable); }),
             Contains("tokenizer.json") && Contains("--tokenizer"));
}

namespace {

// What the library says to each `name` in the folder that it is to read, and its own copy of it.
constexpr const char* kReadAndWrite = R"(import numpy, pathlib, safetensors, sys
names = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
folder = pathlib.Path(sys.argv[1])
for path in sorted(folder.glob("*.good")):
    kept, copy = [], {}
    for name, tensor in safetensors.deserialize(path.read_bytes()):
        kept.append(numpy.frombuffer(bytes(tensor["data"]), numpy.uint8))
        copy[name] = safetensors.TensorSpec(
            dtype=names[tensor["dtype"]], shape=tensor["shape"],
            data_ptr=kept[-1].ctypes.data, data_len=kept[-1].nbytes)
    path.with_suffix(".copy").write_bytes(safetensors.serialize(copy, {"format": "pt"}))
for path in sorted(folder.glob("*.bad")):
    try:
        safetensors.deserialize(path.read_bytes())
        print("accepted", path.name)
    except safetensors.SafetensorError:
        pass
print("done"))";

}  // namespace

TEST_CASE("the safetensors library reads what these tests write, and refuses what we refuse") {
  const std::string python = oracle_python();
  if (python.empty()) return;
  const TempDir folder;
  write_file(folder / "config.json", hf_config(small_shape()));
  write_file(folder / "script.py", kReadAndWrite);
  const DType types[] = {DType::f32, DType::f16, DType::bf16};
  for (const DType dtype : types) {
    write_file(folder / fmt::format("{}.good", facts(dtype).name),
               small_safetensors(dtype).bytes());
  }
  // Not among them: a blank before '{', which the format forbids and the library lets pass.
  const std::string bad[] = {
      safetensors_bytes("{" + entry("t", "[1]", "[0,5]") + "}", "abcd"),
      safetensors_bytes("{" + entry("t", "[2]", "[0,4]") + "}", "abcd"),
      safetensors_bytes("{" + entry("t", "[4611686018427387905]", "[0,4]") + "}", "abcd"),
      safetensors_bytes("{" + entry("t", "[1]", "[4,8]") + "}", "abcdefgh"),
      safetensors_bytes("{" + entry("t", "[1]", "[0,4]") + "}", "abcdefgh"),
      safetensors_bytes("{" + entry("a", "[1]", "[0,4]") + "," + entry("b", "[1]", "[2,6]") + "}",
                        "abcdef"),
      safetensors_bytes(R"({"__metadata__":{"a":1}})", ""),
      Bytes().put<uint64_t>(100000001).append("{}").str()};
  int number = 0;
  for (const std::string& bytes : bad) {
    input_error([&] { parse_safetensors(std::as_bytes(std::span(bytes)), "FILE"); });
    write_file(folder / fmt::format("{}.bad", number++), bytes);
  }
  const auto result =
      run_command(fmt::format("{} {} {}", python, folder / "script.py", folder.path()));
  CHECK(result.output == "done\n");
  CHECK(result.exit_code == 0);
  for (const DType dtype : types) {
    const auto copy = open_checkpoint(folder / fmt::format("{}.copy", facts(dtype).name));
    check_made_tensors(*copy, dtype);
  }
}

TEST_CASE("old tables of rotary frequencies are passed over") {
  SafetensorsFile file = small_safetensors(DType::f16);
  auto& table = file.tensor("model.layers.1.self_attn.rotary_emb.inv_freq");
  table.shape = {8};
  table.data.resize(32);
  CHECK(parse(file)->tensors().size() == small_gguf(DType::f16).tensors.size());
}

TEST_CASE("tensors that no LLaMA decoder has are refused by name") {
  for (const char* name :
       {"model.layers.0.self_attn.q_proj.bias", "score.weight",
        "model.layers.01.mlp.up_proj.weight", "model.layers.x.mlp.up_proj.weight", "model.layers.0",
        "model.layers.", "model.layers.-1.mlp.up_proj.weight",
        "model.layers.4294967296.mlp.up_proj.weight"}) {
    SafetensorsFile file = small_safetensors(DType::f16);
    file.tensor(name).shape = {1};
    file.tensor(name).data.resize(4);
    CHECK_THAT(refusal(file), Contains("a LLaMA decoder, found " + std::string(name)));
  }
}

TEST_CASE("shapes that do not fit config.json are refused") {
  SafetensorsFile file = small_safetensors(DType::f32);
  auto& q = file.tensor("model.layers.0.self_attn.q_proj.weight");
  q.shape = {40, 64};  // two heads and a half
  q.data.resize(40 * 64 * 4);
  CHECK_THAT(refusal(file), Contains("q_proj.weight") && Contains("whole heads of 16, found 40"));
  file = small_safetensors(DType::f32);
  file.tensor("model.norm.weight").shape = {4, 4, 4};
  CHECK_THAT(refusal(file), Contains("model.norm.weight") && Contains("found [4, 4, 4]"));
  file.tensor("model.norm.weight").shape = {};
  file.tensor("model.norm.weight").data.resize(4);
  CHECK_THAT(refusal(file), Contains("one or two dimensions"));
  file.tensor("model.norm.weight").shape = {0, 64};
  file.tensor("model.norm.weight").data.clear();
  CHECK_THAT(refusal(file), Contains("found [0, 64]"));
  file = small_safetensors(DType::f32);
  file.remove("model.embed_tokens.weight");
  CHECK_THAT(refusal(file), Contains("tensor model.embed_tokens.weight, found no such tensor"));
  CHECK_THAT(refusal(small_safetensors(DType::f32), Files{}), Contains("config.json beside it"));
}

TEST_CASE("an index and its shards must agree") {
  Files files = sharded_model();
  files.erase(kFirstShard);
  CHECK_THAT(refusal(files), Contains(kFirstShard) && Contains("no such file"));

  files = sharded_model();  // a tensor is not where the index says
  SafetensorsFile other;
  files[kFirstShard] = other.bytes();
  CHECK_THAT(refusal(files), Contains(kFirstShard) && Contains("as the index says"));

  files = sharded_model();  // a shard holds what the index does not list
  files[kFirstShard] = files["model-00002-of-00003.safetensors"];
  CHECK_THAT(refusal(files), Contains("the index puts into this shard"));

  const auto with_map = [](const std::string& map) {
    Files files = sharded_model();
    files[kIndex] = fmt::format(R"({{"weight_map":{}}})", map);
    return files;
  };
  CHECK_THAT(refusal(with_map("{}")), Contains("weight_map: expected an object"));
  CHECK_THAT(refusal(with_map("[]")), Contains("found array"));
  CHECK_THAT(refusal(with_map(R"({"a":1})")),
             Contains("weight_map of a: expected a text, found 1"));
  CHECK_THAT(refusal(with_map(R"({"a":"x.safetensors","a":"y.safetensors"})")), Contains("again"));
  CHECK_THAT(refusal(with_map(fmt::format(R"({{"a":"{}"}})", kIndex))), Contains("*.safetensors"));
  files = sharded_model();
  files[kIndex] = "{}";
  CHECK_THAT(refusal(files), Contains("the field weight_map"));
}

TEST_CASE("an index names files of its own folder alone") {
  const TempDir folder;
  std::filesystem::create_directory(folder / "in");
  write_file(folder / "x.safetensors", small_safetensors(DType::f16).bytes());
  write_file(folder / "in/config.json", hf_config(small_shape()));
  for (const char* name : {"../x.safetensors", "/x.safetensors", "in/x.safetensors"}) {
    write_file(folder / ("in/" + std::string(kIndex)),
               fmt::format(R"({{"weight_map":{{"model.norm.weight":"{}"}}}})", name));
    CHECK_THAT(input_error([&] { open_checkpoint(folder / "in"); }), Contains(name));
  }
}

TEST_CASE("headers that lie are refused with what they say") {
  const std::string four(4, '\0'), eight(8, '\0');
  const auto one = [](const std::string& fields) { return "{" + fields + "}"; };
  const auto two = [](const std::string& a, const std::string& b) {
    return "{" + a + "," + b + "}";
  };
  CHECK_THAT(header_refusal(one(entry("t", "[1]", "[0,5]")), four),
             Contains("FILE: tensor t: data_offsets: expected a part of the 4 bytes"));
  CHECK_THAT(header_refusal(one(entry("t", "[1]", "[5,4]")), four), Contains("found [5, 4)"));
  CHECK_THAT(header_refusal(one(entry("t", "[1]", "[18446744073709551612,4]")), four),
             Contains("a part of"));
  CHECK_THAT(header_refusal(one(entry("t", "[2]", "[0,4]")), four), Contains("8 bytes, as shape"));
  CHECK_THAT(header_refusal(one(entry("t", "[4611686018427387905]", "[0,4]")), four),
             Contains("fit into 64 bits"));
  CHECK_THAT(header_refusal(one(entry("t", "[4294967296,4294967296]", "[0,0]")), ""),
             Contains("fit into 64 bits"));
  CHECK_THAT(header_refusal(one(entry("t", "[-1]", "[0,4]")), four), Contains("shape[0]"));
  CHECK_THAT(header_refusal(one(entry("t", "[1.0]", "[0,4]")), four), Contains("found 1.0"));
  CHECK_THAT(header_refusal(one(entry("t", "[1]", "[0,4,4]")), four), Contains("two offsets"));
  CHECK_THAT(header_refusal(one(entry("t", "[1]", "[0,4]", "I32")), four),
             Contains("one of the types F32, F16, BF16, found \"I32\""));
  CHECK_THAT(header_refusal(two(entry("a", "[1]", "[0,4]"), entry("b", "[1]", "[0,4]")), four),
             Contains("tensor b: expected data from byte 4 on"));
  CHECK_THAT(header_refusal(two(entry("a", "[1]", "[0,4]"), entry("b", "[1]", "[2,6]")), eight),
             Contains("from byte 4 on, where the tensor before ends, found byte 2"));
  CHECK_THAT(header_refusal(one(entry("t", "[1]", "[4,8]")), eight), Contains("from byte 0 on"));
  CHECK_THAT(header_refusal(one(entry("t", "[1]", "[0,4]")), eight), Contains("4 bytes of data"));
  CHECK_THAT(header_refusal(two(entry("t", "[1]", "[0,4]"), entry("t", "[1]", "[4,8]")), eight),
             Contains("'t' again"));
  CHECK_THAT(header_refusal(one(R"("t":{"dtype":"F32","shape":[1]})"), four),
             Contains("the field data_offsets"));
  CHECK_THAT(
      header_refusal(one(R"("t":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"more":1})"), four),
      Contains("alone, found more"));
  CHECK_THAT(header_refusal(one(R"("t":7)"), ""), Contains("an object, found 7"));
  CHECK_THAT(header_refusal(one(R"("__metadata__":{"a":1})"), ""), Contains("a text, found 1"));
  CHECK_THAT(header_refusal(one(R"("__metadata__":"a")"), ""), Contains("an object of texts"));
  CHECK_THAT(header_refusal(" {}", ""), Contains("begins with '{'"));
  CHECK_THAT(header_refusal("", ""), Contains("begins with '{'"));
  CHECK_THAT(header_refusal("{} x", ""), Contains("FILE at byte 12: expected JSON"));
}

TEST_CASE("empty tensors and scalars are legal where nobody asks for them") {
  const std::string header =
      "{" + entry("empty", "[0,3]", "[0,0]") + "," + entry("scalar", "[]", "[0,4]") + "}   ";
  const std::string bytes = safetensors_bytes(header, "abcd");
  const auto entries = parse_safetensors(std::as_bytes(std::span(bytes)), "FILE");
  REQUIRE(entries.size() == 2);
  CHECK(entries[0].bytes.empty());
  CHECK(entries[1].bytes.size() == 4);
}

TEST_CASE("a header length is checked before anything is read") {
  for (const uint64_t length :
       {UINT64_MAX, UINT64_MAX - 7, uint64_t{1} << 63, uint64_t{100000001}}) {
    const std::string bytes = Bytes().put(length).append("{}").str();
    CHECK_THAT(input_error([&] { parse_bytes("safetensors", bytes); }),
               Contains("at most 100000000 bytes, found"));
  }
  const std::string bytes = Bytes().put<uint64_t>(100000000).append("{}").str();
  CHECK_THAT(input_error([&] { parse_bytes("safetensors", bytes); }), Contains("2 bytes left"));
}

TEST_CASE("safetensors cut at any byte, and lengths that lie, are refused") {
  ModelShape shape = small_shape();
  shape.layer_count = 1;
  shape.model_dim = shape.ffn_dim = 8;
  shape.head_count = shape.kv_head_count = 1;
  shape.head_dim = 8;
  const Files beside = config_beside(shape);
  const std::string bytes = small_safetensors(DType::f16, shape).bytes();
  const auto parse = [&](const std::string& damaged) {
    parse_bytes("safetensors", damaged, beside);
  };
  parse(bytes);
  check_truncations(bytes, parse);
  check_hostile_lengths(bytes, 600, parse);
}

TEST_CASE("an index, a shard and config.json cut at any byte are refused") {
  const Files whole = sharded_model();
  for (const char* name : {kIndex, "config.json"}) {
    const std::string bytes = whole.at(name);
    for (size_t size = 0; size < bytes.size(); ++size) {
      INFO(name << " cut to " << size);
      Files files = whole;
      files[name].resize(size);
      refusal(files);
    }
  }
  Files files = whole;
  for (std::string& shard = files[kFirstShard]; !shard.empty(); shard.resize(shard.size() / 2)) {
    shard.pop_back();
    CHECK_THAT(refusal(files), Contains(kFirstShard));
  }
}

}  // namespace thermocline::test
