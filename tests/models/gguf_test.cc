// GGUF: what is read, and everything that is refused.
#include <catch2/catch.hpp>

#include "models/checkpoint.h"
#include "tests/file_bytes.h"
#include "tests/gguf_parts.h"
#include "tests/models/parse_bytes.h"
#include "tests/support.h"

namespace thermocline::test {
namespace {

using Catch::Matchers::Contains;

std::unique_ptr<Checkpoint> parse(const std::string& bytes) { return parse_bytes("gguf", bytes); }

std::string refused(const GgufFile& file) {
  return input_error([&] { parse(file.bytes()); });
}

// The array type and a nest of `depth` arrays of one u32.
Bytes nested_array(int depth) {
  Bytes value;
  value.put(kGgufArray);
  for (int i = 1; i < depth; ++i) value.put(kGgufArray).put<uint64_t>(1);
  return value.put(kGgufU32).put<uint64_t>(1).put<uint32_t>(7);
}

}  // namespace

TEST_CASE("a GGUF vocabulary without tensors opens") {
  const std::string path = data_file("ggml-vocab-llama-spm.gguf");
  if (path.empty()) return;
  const auto checkpoint = open_checkpoint(path);
  CHECK(checkpoint->vocabulary_only());
  CHECK(checkpoint->shape().layer_count == 32);
  CHECK(checkpoint->shape().ffn_dim == 11008);
  CHECK(checkpoint->shape().head_dim == 128);
  CHECK(checkpoint->shape().vocab_size == 32000);
  CHECK(checkpoint->shape().norm_epsilon == 1e-5f);
  const Vocabulary& vocabulary = checkpoint->vocabulary();
  CHECK(vocabulary.kind == Vocabulary::Kind::sentencepiece);
  REQUIRE(vocabulary.pieces.size() == 32000);
  CHECK(vocabulary.pieces[2] == "</s>");
  CHECK(vocabulary.pieces[13] == "<0x0A>");
  CHECK(vocabulary.types[13] == 6);
  CHECK(vocabulary.scores[260] == -1.0f);
  CHECK(vocabulary.bos_id == 1);
  CHECK(vocabulary.eos_id == 2);
}

TEST_CASE("a GGUF model has the shape, tensors and values that were written") {
  const DType dtype = GENERATE(DType::f32, DType::f16, DType::bf16, DType::q8_0, DType::q4_0,
                               DType::q4_1, DType::q5_0, DType::q5_1);
  ModelShape shape = small_shape();
  shape.tied_embeddings = GENERATE(false, true);
  for (const uint32_t version : {2, 3}) {
    GgufFile file = small_gguf(dtype, shape);
    file.version = version;
    const auto checkpoint = parse(file.bytes());
    CHECK(checkpoint->shape() == shape);
    CHECK(checkpoint->vocabulary().kind == Vocabulary::Kind::none);
    CHECK(checkpoint->tensors().size() == file.tensors.size());
    const TensorView& down = checkpoint->get("blk.1.ffn_down.weight", 64, 160);
    CHECK(down.dtype == dtype);
    const std::string expected = encoded(dtype, made_values(down.name, 64, 160));
    REQUIRE(down.bytes.size() == expected.size());
    CHECK(std::memcmp(down.bytes.data(), expected.data(), expected.size()) == 0);
    CHECK(checkpoint->get("blk.0.ffn_norm.weight", 1, 64).dtype == DType::f32);
  }
}

TEST_CASE("GGUF keys: widths, defaults and names") {
  GgufFile file = small_gguf(DType::f32);
  file.remove("llama.rope.freq_base");
  file.remove("llama.attention.head_count_kv");
  file.set_u64("llama.context_length", 48);
  file.set_text("llama.hidden_activation", "relu");
  file.set("some.nested", nested_array(3));
  for (uint32_t layer = 0; layer < 2; ++layer) {
    for (const char* name : {"attn_k.weight", "attn_v.weight"}) {
      file.tensor("blk." + std::to_string(layer) + "." + name).dimensions = {64, 32};
    }
  }
  const auto checkpoint = parse(file.bytes());
  CHECK(checkpoint->shape().rope_theta == 10000.0f);
  CHECK(checkpoint->shape().kv_head_count == 4);
  CHECK(checkpoint->shape().activation == FfnActivation::relu);
  CHECK(checkpoint->shape().context_length == 48);
  file.alignment = 64;
  file.set_u32("general.alignment", 64);
  CHECK(parse(file.bytes())->tensors().size() == file.tensors.size());
}

TEST_CASE("a GGUF file cut at any byte is refused") {
  check_truncations(small_gguf(DType::q4_0, narrow_shape()).bytes(), parse);
  check_truncations(small_vocabulary_gguf().bytes(), parse);
}

TEST_CASE("hostile lengths in a GGUF file are refused before memory is asked for") {
  const GgufFile file = small_gguf(DType::q4_0, narrow_shape());
  size_t data_bytes = 0;
  for (const GgufFile::Tensor& tensor : file.tensors) data_bytes += tensor.data.size();
  const std::string bytes = file.bytes();
  check_hostile_lengths(bytes, bytes.size() - data_bytes, parse);
  GgufFile vocabulary = small_vocabulary_gguf();
  vocabulary.set("some.nested", nested_array(4));
  check_hostile_lengths(vocabulary.bytes(), 1200, parse);
}

TEST_CASE("GGUF: other versions and byte orders are named") {
  GgufFile file = small_gguf(DType::f32);
  file.version = 1;
  CHECK_THAT(refused(file), Contains("version 2 or 3") && Contains("version 1"));
  file.version = 4;
  CHECK_THAT(refused(file), Contains("version 4"));
  file.version = 0x03000000;
  CHECK_THAT(refused(file), Contains("big-endian"));
}

TEST_CASE("GGUF: a type that is not read is named with its tensor and the types that are") {
  GgufFile file = small_gguf(DType::f32);
  file.tensor("blk.1.attn_v.weight").type = 11;
  CHECK_THAT(refused(file), Contains("blk.1.attn_v.weight") && Contains("Q3_K") &&
                                Contains("F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K"));
  file.tensor("blk.1.attn_v.weight").type = 4711;
  CHECK_THAT(refused(file), Contains("ggml type 4711"));
}

TEST_CASE("GGUF: damaged key-value pairs are refused") {
  GgufFile file = small_gguf(DType::f32);
  file.set("a.nest", nested_array(4));
  CHECK_NOTHROW(parse(file.bytes()));
  file.set("a.nest", nested_array(5));
  CHECK_THAT(refused(file), Contains("nested at most 4 deep"));
  file.set("a.nest", nested_array(200000));
  CHECK_THAT(refused(file), Contains("nested at most 4 deep"));
  file.set_bool("a.nest", 2);
  CHECK_THAT(refused(file), Contains("a bool of 0 or 1"));
  file.set("a.nest", Bytes().put<uint32_t>(13));
  CHECK_THAT(refused(file), Contains("value type from 0 to 12"));
  file.remove("a.nest");
  file.pairs.push_back(file.pairs.front());
  CHECK_THAT(refused(file), Contains("a key that is new") && Contains("general.architecture"));
}

TEST_CASE("GGUF: keys of another type, missing or out of range are named") {
  GgufFile file = small_gguf(DType::f32);
  file.set_text("llama.block_count", "two");
  CHECK_THAT(refused(file), Contains("llama.block_count") && Contains("an integer, found string"));
  file.set_u64("llama.block_count", uint64_t{1} << 32);
  CHECK_THAT(refused(file), Contains("0 to 4294967295"));
  file.set("llama.block_count", Bytes().put<uint32_t>(5).put<int32_t>(-2));
  CHECK_THAT(refused(file), Contains("found -2"));
  file.set_u32("llama.block_count", 0);
  CHECK_THAT(refused(file), Contains("layer_count"));
  file.remove("llama.block_count");
  CHECK_THAT(refused(file), Contains("the GGUF key llama.block_count"));
  file = small_gguf(DType::f32);
  file.set_f32("llama.rope.freq_base", std::nanf(""));
  CHECK_THAT(refused(file), Contains("a finite number"));
}

TEST_CASE("GGUF: what would change results and is not computed is refused") {
  struct Case {
    const char* key;
    Bytes value;
    const char* message;
  };
  const Case cases[] = {
      {"general.architecture", Bytes().put(kGgufString).text("qwen2"),
       "general.architecture llama"},
      {"llama.hidden_activation", Bytes().put(kGgufString).text("gelu"), "silu, relu or fatrelu"},
      {"llama.expert_count", Bytes().put(kGgufU32).put<uint32_t>(8), "a dense FFN"},
      {"thermocline.provenance", Bytes().put(kGgufString).text("unreal"), "or synthetic"},
      {"llama.rope.dimension_count", Bytes().put(kGgufU32).put<uint32_t>(8), "as wide as a key"},
      {"llama.attention.value_length", Bytes().put(kGgufU32).put<uint32_t>(8), "as wide as a key"},
      {"general.alignment", Bytes().put(kGgufU32).put<uint32_t>(12), "a multiple of 8"},
      {"general.alignment", Bytes().put(kGgufU32).put<uint32_t>(0), "a multiple of 8"},
      {"tokenizer.ggml.model", Bytes().put(kGgufString).text("bert"), "llama, gpt2 or no_vocab"},
  };
  for (const Case& bad : cases) {
    GgufFile file = small_gguf(DType::f32);
    file.set(bad.key, bad.value);
    CHECK_THAT(refused(file), Contains(bad.message));
  }
}

TEST_CASE("GGUF: rotary embedding scaled linearly or pair by pair becomes divisors") {
  GgufFile file = small_gguf(DType::f32);
  file.set_text("llama.rope.scaling.type", "linear");
  CHECK(parse(file.bytes())->shape().rope_divisors.empty());
  file.set_f32("llama.rope.scaling.factor", 4.0f);
  CHECK(parse(file.bytes())->shape().rope_divisors == std::vector<float>(8, 4.0f));
  file.remove("llama.rope.scaling.type");  // as llama.cpp reads it
  CHECK(parse(file.bytes())->shape().rope_divisors == std::vector<float>(8, 4.0f));
  file.set_text("llama.rope.scaling.type", "none");
  CHECK(parse(file.bytes())->shape().rope_divisors.empty());
  const std::vector<float> divisors = {1, 1, 1, 1.5f, 2, 8, 8, 8};
  file.tensors.push_back({"rope_freqs.weight", {8}, 0, encoded(DType::f32, divisors)});
  const auto checkpoint = parse(file.bytes());
  CHECK(checkpoint->shape().rope_divisors == divisors);
  CHECK(checkpoint->find("rope_freqs.weight") == nullptr);
}

TEST_CASE("GGUF: rotary scaling that is not computed or makes no sense is refused") {
  GgufFile file = small_gguf(DType::f32);
  file.set_text("llama.rope.scaling.type", "yarn");
  file.set_f32("llama.rope.scaling.factor", 4.0f);
  CHECK_THAT(refused(file), Contains("none or linear") && Contains("found yarn"));
  file.set_text("llama.rope.scaling.type", "linear");
  for (const float factor : {0.0f, -2.0f}) {
    file.set_f32("llama.rope.scaling.factor", factor);
    CHECK_THAT(refused(file), Contains("llama.rope.scaling.factor above 0"));
  }
  file.remove("llama.rope.scaling.factor");
  file.set_f32("llama.rope.scaling.attn_factor", 1.2f);
  CHECK_THAT(refused(file), Contains("attn_factor 1"));
  file.remove("llama.rope.scaling.attn_factor");
  const std::string eight(8 * 4, '\0');
  file.tensors.push_back({"rope_freqs.weight", {8}, 0, eight});
  CHECK_THAT(refused(file), Contains("rope divisors above 0"));
  file.tensors.back() = {"rope_freqs.weight", {7}, 0, std::string(7 * 4, '\0')};
  CHECK_THAT(refused(file), Contains("rope_freqs.weight of 1 x 8 in f32, found 1 x 7"));
  file.tensors.back() = {"rope_freqs.weight", {8}, 1, std::string(8 * 2, '\0')};
  CHECK_THAT(refused(file), Contains("in f16"));
}

TEST_CASE("GGUF: FATReLU comes with its threshold") {
  GgufFile file = small_gguf(DType::f32);
  file.set_text("llama.hidden_activation", "fatrelu");
  CHECK_THAT(refused(file), Contains("llama.hidden_activation_threshold"));
  file.set_f32("llama.hidden_activation_threshold", 0.01f);
  CHECK(parse(file.bytes())->shape().activation == FfnActivation::fatrelu);
  CHECK(parse(file.bytes())->shape().fatrelu_threshold == 0.01f);
}

TEST_CASE("GGUF: tensors that do not fit are refused") {
  const auto damaged = [](auto damage) {
    GgufFile file = small_gguf(DType::q8_0);
    damage(file.tensor("blk.0.ffn_gate.weight"));
    return refused(file);
  };
  using Tensor = GgufFile::Tensor;
  CHECK_THAT(damaged([](Tensor& t) { t.dimensions = {}; }), Contains("1 to 4 dimensions"));
  CHECK_THAT(damaged([](Tensor& t) { t.dimensions = {32, 1, 1, 1, 1}; }), Contains("1 to 4"));
  CHECK_THAT(damaged([](Tensor& t) {
               t.dimensions = {64, 0};
             }),
             Contains("dimensions from 1 on, found one of 0"));
  CHECK_THAT(damaged([](Tensor& t) {
               t.dimensions = {32, 1ull << 33, 1ull << 33};
             }),
             Contains("fits into 64 bits"));
  CHECK_THAT(damaged([](Tensor& t) {
               t.dimensions = {32, 1ull << 62};
             }),
             Contains("fits into 64 bits"));
  CHECK_THAT(damaged([](Tensor& t) { t.dimensions = {48, 4}; }), Contains("a multiple of 32"));
  CHECK_THAT(damaged([](Tensor& t) { t.dimensions = {64, 1000000}; }), Contains("bytes of data"));
  CHECK_THAT(damaged([](Tensor& t) { t.name = std::string(65, 'x'); }), Contains("at most 64"));
  CHECK_THAT(damaged([](Tensor& t) { t.name = "output.weight"; }), Contains("two named"));
  CHECK_THAT(damaged([](Tensor& t) { t.dimensions = {64, 200}; }), Contains("shared with"));
}

TEST_CASE("GGUF: offsets are multiples of the alignment and inside the file") {
  GgufFile file = small_gguf(DType::f32);
  file.alignment = 8;  // but the file does not say so
  file.tensor("blk.0.attn_norm.weight").data.resize(64 * 4 + 8);
  CHECK_THAT(refused(file), Contains("a multiple of 32"));
  file = small_gguf(DType::f32);
  file.tensors.back().data.pop_back();
  CHECK_THAT(refused(file), Contains("output.weight") && Contains("bytes of data"));
}

TEST_CASE("GGUF: a vocabulary whose parts disagree is refused") {
  const auto with = [](const char* key, const Bytes& value) {
    GgufFile file = small_vocabulary_gguf();
    file.set(key, value);
    return refused(file);
  };
  const Bytes one_score = Bytes().put(kGgufArray).put(kGgufF32).put<uint64_t>(1).put(0.5f);
  CHECK_THAT(with("tokenizer.ggml.scores", one_score), Contains("scores of 277 tokens"));
  const Bytes number = Bytes().put(kGgufU32).put<uint32_t>(277);
  CHECK_THAT(with("tokenizer.ggml.bos_token_id", number), Contains("below 277"));
  CHECK_THAT(with("tokenizer.ggml.tokens", number), Contains("an array of strings, found u32"));
  const Bytes wide = Bytes().put(kGgufArray).put(kGgufU64).put<uint64_t>(1).put(UINT64_MAX);
  CHECK_THAT(with("tokenizer.ggml.token_type", wide), Contains("integers of 32 bits"));
  GgufFile file = small_vocabulary_gguf();
  file.remove("tokenizer.ggml.tokens");
  CHECK_THAT(refused(file), Contains("tokenizer.ggml.tokens"));
}

}  // namespace thermocline::test
