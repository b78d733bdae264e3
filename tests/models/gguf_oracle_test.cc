// The gguf package reads what we write, and we read what it writes.
#include <catch2/catch.hpp>
#include <cstring>
#include <nlohmann/json.hpp>
#include <sstream>

#include "models/checkpoint.h"
#include "models/cli.h"
#include "models/convert.h"
#include "models/embedded.h"
#include "models/gguf_file.h"
#include "models/mapped_file.h"
#include "models/quantize.h"
#include "tests/file_bytes.h"
#include "tests/gguf_parts.h"
#include "tests/support.h"

namespace thermocline::test {
namespace {

using nlohmann::json;

const std::string kOracles = std::string(THERMOCLINE_SOURCE_DIR) + "/tests/oracles/";

std::vector<float> values_of(const TensorView& tensor) {
  std::vector<float> values(tensor.rows * tensor.cols);
  dequantize(tensor.dtype, tensor.bytes.data(), values.size(), values.data());
  return values;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// Every tensor of the package's file against the values that the package gives it.
void check_every_type(const std::string& path) {
  const MappedFile mapped = map_file(path);
  const thermocline::GgufFile file = parse_gguf_file(mapped.bytes, path, kGgufMagic);
  std::map<std::string, TensorView> tensors;
  for (const GgufTensor& tensor : file.tensors) tensors.emplace(tensor.name, view_of(tensor, path));
  for (const DTypeFacts& type : kDTypeFacts) {
    const std::string name(type.ggml_name);
    INFO(name);
    REQUIRE(tensors.contains(name));
    CHECK(facts(tensors.at(name).dtype).name == type.name);
    CHECK(same_bits(values_of(tensors.at(name)), values_of(tensors.at(name + ".values"))));
  }
  CHECK(tensors.size() == 2 * kDTypeCount);
}

// What the package finds in a file.
struct Found {
  json keys;
  std::vector<json> tensors;  // name, type, dimensions
  std::vector<float> values;
};

Found read_by_package(const std::string& python, const std::string& path) {
  const std::string facts = path + ".jsonl", values = path + ".f32";
  const CommandResult result =
      run_command("PYTHONDONTWRITEBYTECODE=1 '" + python + "' '" + kOracles + "read_gguf.py' '" +
                  path + "' '" + facts + "' '" + values + "'");
  INFO(result.output);
  REQUIRE(result.exit_code == 0);
  Found found;
  std::istringstream lines(read_file(facts));
  std::string line;
  std::getline(lines, line);
  found.keys = json::parse(line).at("keys");
  while (std::getline(lines, line)) found.tensors.push_back(json::parse(line));
  const std::string bytes = read_file(values);
  found.values.resize(bytes.size() / sizeof(float));
  std::memcpy(found.values.data(), bytes.data(), bytes.size());
  return found;
}

// Names, types, row lengths and every value.
void check_tensors(const Found& found, const Checkpoint& ours) {
  REQUIRE(found.tensors.size() == ours.tensors().size());
  std::vector<float> values;
  for (size_t t = 0; t < found.tensors.size(); ++t) {
    const TensorView& tensor = ours.tensors()[t];
    CHECK(found.tensors[t].at("name") == tensor.name);
    CHECK(found.tensors[t].at("type") == facts(tensor.dtype).ggml_name);
    CHECK(found.tensors[t].at("dimensions").at(0) == tensor.cols);
    const std::vector<float> more = values_of(tensor);
    values.insert(values.end(), more.begin(), more.end());
  }
  CHECK(same_bits(found.values, values));
}

ModelShape wide_shape() {
  ModelShape shape = small_shape();
  shape.model_dim = shape.ffn_dim = 256;
  shape.head_dim = 64;
  return shape;
}

}  // namespace

TEST_CASE("a file with a tensor of every type reads as the gguf package dequantises it") {
  check_every_type(kOracles + "gguf_types/all_types.gguf");
}

TEST_CASE("what the gguf package writes now reads the same") {
  const std::string python = oracle_python();
  if (python.empty()) return;
  const TempDir folder;
  const std::string path = folder / "all_types.gguf";
  const CommandResult result = run_command("PYTHONDONTWRITEBYTECODE=1 '" + python + "' '" +
                                           kOracles + "make_gguf_types.py' '" + path + "'");
  INFO(result.output);
  REQUIRE(result.exit_code == 0);
  check_every_type(path);
}

TEST_CASE("the gguf package reads every type that model convert writes, with equal values") {
  const std::string python = oracle_python();
  if (python.empty()) return;
  const TempDir folder;
  GgufFile source = small_gguf(DType::f32, wide_shape());
  set_small_vocabulary(source);
  write_file(folder / "in.gguf", source.bytes());
  for (int i = 0; i < kDTypeCount; ++i) {
    const DType dtype = static_cast<DType>(i);
    INFO(facts(dtype).name);
    const std::string path = folder / (std::string(facts(dtype).name) + ".gguf");
    convert_checkpoint(folder / "in.gguf", path, {.dtype = dtype});
    const Found found = read_by_package(python, path);
    CHECK(found.keys.at("general.architecture") == "llama");
    CHECK(found.keys.at("llama.feed_forward_length") == 256);
    CHECK(found.keys.at("tokenizer.ggml.tokens") == json(small_vocabulary()));
    check_tensors(found, *open_checkpoint(path));
  }
}

TEST_CASE("the gguf package opens the demo model and finds its weights and its vocabulary") {
  const std::string python = oracle_python();
  if (python.empty()) return;
  const TempDir folder;  // what the package found is written beside the file
  write_file(folder / "demo.gguf", read_file(THERMOCLINE_SOURCE_DIR "/models/demo/demo.gguf"));
  const Found found = read_by_package(python, folder / "demo.gguf");
  const auto ours = open_checkpoint(std::string(kDemoModel));
  check_tensors(found, *ours);
  CHECK(found.keys.at("general.name") == "thermocline-demo");
  CHECK(found.keys.at("thermocline.provenance") == "trained-demo");
  CHECK(found.keys.at("tokenizer.ggml.model") == "gpt2");
  CHECK(found.keys.at("tokenizer.ggml.pre") == "llama-bpe");
  CHECK(found.keys.at("tokenizer.ggml.tokens") == json(ours->vocabulary().pieces));
}

TEST_CASE("the gguf package opens a file of bundles and finds their bytes") {
  const std::string python = oracle_python();
  if (python.empty()) return;
  const TempDir folder;
  write_file(folder / "in.gguf", small_gguf(DType::f32, wide_shape()).bytes());
  const Conversion conversion =
      convert_checkpoint(folder / "in.gguf", folder / "out.gguf",
                         {.dtype = DType::q4_0, .layout = GgufLayout::bundles});
  const Found found = read_by_package(python, folder / "out.gguf");
  CHECK(found.keys.at("thermocline.bundle.stride") == conversion.bundle_stride);
  CHECK(found.keys.at("general.alignment") == 4096);
  const auto ours = open_checkpoint(folder / "out.gguf");
  size_t at = 0;
  int bundles = 0;
  for (const json& tensor : found.tensors) {
    const std::string name = tensor.at("name");
    const uint64_t count =
        tensor.at("dimensions").at(0).get<uint64_t>() *
        (tensor.at("dimensions").size() > 1 ? tensor.at("dimensions").at(1).get<uint64_t>() : 1);
    if (tensor.at("type") == "I8") {
      ++bundles;
      const std::string layer = name.substr(0, name.find("ffn_bundle"));
      const auto* stored =
          reinterpret_cast<const int8_t*>(ours->find(layer + "ffn_gate.weight")->bytes.data());
      bool same = true;
      // The padding of the last bundle lies behind the last row.
      for (uint64_t i = 0; i < count - conversion.bundle_stride; ++i) {
        same = same && found.values[at + i] == static_cast<float>(stored[i]);
      }
      CHECK(same);
    }
    at += count;
  }
  CHECK(bundles == 2);
}

}  // namespace thermocline::test
