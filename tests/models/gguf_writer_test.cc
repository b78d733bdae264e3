// Weights written as GGUF read back the same, whatever their types, layout and vocabulary.
#include "models/gguf_writer.h"

#include <sys/stat.h>

#include <catch2/catch.hpp>
#include <cmath>

#include "models/cli.h"
#include "models/gguf_keys.h"
#include "models/mapped_file.h"
#include "tests/file_bytes.h"
#include "tests/models/failures.h"
#include "tests/support.h"

namespace thermocline::test {
namespace {

using Catch::Matchers::Contains;

constexpr Matrix kMatrices[] = {Matrix::token_embedding,
                                Matrix::head,
                                Matrix::q,
                                Matrix::k,
                                Matrix::v,
                                Matrix::o,
                                Matrix::gate,
                                Matrix::up,
                                Matrix::down_t};

std::string read_all(const WeightSource& weights, Matrix matrix, uint32_t layer) {
  const auto [rows, cols] = size_of(matrix, weights.shape());
  std::string bytes(rows * bytes_of(weights.dtype(matrix, layer), cols), '\0');
  weights.read(matrix, layer, {0, rows, 0, cols}, reinterpret_cast<std::byte*>(bytes.data()));
  return bytes;
}

std::vector<float> norm(const WeightSource& weights, NormVector vector, uint32_t layer) {
  std::vector<float> values(weights.shape().model_dim);
  weights.read(vector, layer, values.data());
  return values;
}

void check_same(const WeightSource& found, const WeightSource& expected) {
  CHECK(found.shape() == expected.shape());
  CHECK(found.provenance() == expected.provenance());
  for (uint32_t layer = 0; layer < expected.shape().layer_count; ++layer) {
    for (const Matrix matrix : kMatrices) {
      CHECK(found.dtype(matrix, layer) == expected.dtype(matrix, layer));
      CHECK(read_all(found, matrix, layer) == read_all(expected, matrix, layer));
    }
    for (const NormVector vector : {NormVector::attention_norm, NormVector::ffn_norm}) {
      CHECK(norm(found, vector, layer) == norm(expected, vector, layer));
    }
  }
  CHECK(norm(found, NormVector::output_norm, 0) == norm(expected, NormVector::output_norm, 0));
}

// Writes the vocabulary alone, reads it, and compares all that tokenizing depends on.
void check_vocabulary(const Vocabulary& expected) {
  const TempDir folder;
  GgufOutput output(folder / "out.gguf");
  output.set_text("general.architecture", "llama");
  set_vocabulary_keys(output, expected);
  output.begin();
  output.finish();
  const Vocabulary found = open_checkpoint(folder / "out.gguf")->vocabulary();
  CHECK(found.kind == expected.kind);
  CHECK(found.pieces == expected.pieces);
  if (expected.merges.empty()) CHECK(found.scores == expected.scores);
  CHECK(found.types == expected.types);
  CHECK(found.bos_id == expected.bos_id);
  CHECK(found.eos_id == expected.eos_id);
  CHECK(found.add_bos == expected.add_bos);
  CHECK(found.add_space_prefix == expected.add_space_prefix);
  CHECK(found.space_prefix == expected.space_prefix);
  CHECK(found.split_patterns == expected.split_patterns);
  CHECK(found.ignore_merges == expected.ignore_merges);
  REQUIRE(found.merges.size() == expected.merges.size());
  for (size_t i = 0; i < found.merges.size(); ++i) {
    CHECK(found.merges[i].left == expected.merges[i].left);
    CHECK(found.merges[i].right == expected.merges[i].right);
  }
}

}  // namespace

TEST_CASE("synthetic weights read back from GGUF as they were made, and stay synthetic") {
  const std::string type = GENERATE("f32", "f16", "bf16", "q8_0", "q4_0");
  const auto layout = GENERATE(GgufLayout::plain, GgufLayout::bundles);
  const auto source = open_weights(parse_model_spec("preset:tiny,layers=2,type=" + type));
  const TempDir folder;
  uint64_t done_last = 0, total_last = 1;
  GgufWriteOptions options{.name = "tiny", .description = "preset:tiny,seed=1", .layout = layout};
  options.thread_count = 2;
  options.progress = [&](uint64_t done, uint64_t total) {
    CHECK(done >= done_last);
    done_last = done;
    total_last = total;
  };
  write_gguf(*source, folder / "out.gguf", options);
  CHECK(done_last == total_last);
  const auto found = open_weights(parse_model_spec(folder / "out.gguf"));
  CHECK(found->provenance() == "synthetic");
  check_same(*found, *source);
  const MappedFile mapped = map_file(folder / "out.gguf");
  const auto parsed = parse_gguf_file(mapped.bytes, "out.gguf", kGgufMagic);
  CHECK(parsed.metadata.text("general.name") == "tiny");
  CHECK(parsed.metadata.text("general.description") == "preset:tiny,seed=1");
}

TEST_CASE("a checkpoint's weights are written as they are delivered") {
  const TempDir folder;
  ModelShape shape = small_shape();
  shape.activation = FfnActivation::fatrelu;
  shape.fatrelu_threshold = 0.03f;
  shape.tied_embeddings = GENERATE(false, true);
  GgufFile file = small_gguf(DType::q8_0, shape);
  file.set_text("llama.hidden_activation", "fatrelu");
  file.set_f32("llama.hidden_activation_threshold", 0.03f);
  file.tensors.push_back(
      {"rope_freqs.weight", {8}, 0, encoded(DType::f32, {1, 1, 1, 1.5f, 2, 8, 8, 8})});
  write_file(folder / "in.gguf", file.bytes());
  const auto source = open_weights(parse_model_spec(folder / "in.gguf"));
  CHECK(bundle_types(*source).down_t == DType::f16);
  for (const GgufLayout layout : {GgufLayout::plain, GgufLayout::bundles}) {
    write_gguf(*source, folder / "out.gguf", {.name = "", .description = "", .layout = layout});
    check_same(*open_weights(parse_model_spec(folder / "out.gguf")), *source);
  }
}

TEST_CASE("a SentencePiece vocabulary written to GGUF reads back the same") {
  const TempDir folder;
  GgufFile file = small_gguf(DType::f32);
  set_small_vocabulary(file);
  write_file(folder / "in.gguf", file.bytes());
  Vocabulary vocabulary = open_checkpoint(folder / "in.gguf")->vocabulary();
  check_vocabulary(vocabulary);
  vocabulary.scores.clear();
  vocabulary.merges = {{"h", "e"}, {"a", "n"}};
  vocabulary.ignore_merges = true;
  vocabulary.add_bos = false;
  for (const auto prefix :
       {Vocabulary::SpacePrefix::where_missing, Vocabulary::SpacePrefix::at_start_where_missing}) {
    vocabulary.space_prefix = prefix;
    check_vocabulary(vocabulary);
  }
}

TEST_CASE("a byte-level vocabulary written to GGUF reads back the same") {
  Vocabulary vocabulary;
  vocabulary.kind = Vocabulary::Kind::byte_bpe;
  vocabulary.pieces = {"a", "b", "\u0120", "ab", "\u0120ab", "<|end|>"};
  vocabulary.types = {1, 1, 1, 1, 1, 3};
  vocabulary.merges = {{"a", "b"}, {"\u0120", "ab"}};
  vocabulary.bos_id = vocabulary.unknown_id = -1;
  vocabulary.eos_id = 5;
  vocabulary.add_bos = vocabulary.add_space_prefix = false;
  vocabulary.split_patterns = {"[0-9]{2}", "\\p{L}+"};  // of no name
  check_vocabulary(vocabulary);
  vocabulary.ignore_merges = true;
  check_vocabulary(vocabulary);
  vocabulary.split_patterns = {
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|)"
      R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"};
  CHECK(gguf_split_name(vocabulary) == "llama-bpe");
  check_vocabulary(vocabulary);
}

TEST_CASE("a GGUF file that is not finished never appears under its name") {
  const TempDir folder;
  {
    GgufOutput output(folder / "out.gguf");
    output.add_tensor("t", 0, {4}, 16);
    output.begin();
    CHECK(std::filesystem::exists(folder / "out.gguf.tmp"));
  }
  CHECK(std::filesystem::is_empty(folder.path()));
}

TEST_CASE("a GGUF file larger than the disk is refused before its data is made") {
  const TempDir folder;
  GgufOutput output(folder / "out.gguf");
  output.add_tensor("t", 24, {uint64_t{1} << 50}, uint64_t{1} << 50);
  const Failure failure = failure_of([&] { output.begin(); });
  CHECK(failure.kind == ErrorKind::failed);
  CHECK_THAT(failure.message, Contains("out.gguf: cannot reserve"));
}

TEST_CASE("a GGUF file takes the place of regular files only") {
  const TempDir folder;
  std::filesystem::create_directory(folder / "folder");
  REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
  for (const char* name : {"folder", "pipe"}) {
    const Failure failure = failure_of([&] { GgufOutput output(folder / name); });
    CHECK(failure.kind == ErrorKind::failed);
    CHECK_THAT(failure.message, Contains("no regular file"));
    CHECK_FALSE(std::filesystem::exists(folder / (std::string(name) + ".tmp")));
  }
}

TEST_CASE("a name that GGUF has no room for is refused") {
  const TempDir folder;
  GgufOutput output(folder / "out.gguf");
  const Failure failure = failure_of([&] { output.add_tensor(std::string(65, 'n'), 0, {4}, 16); });
  CHECK_THAT(failure.message, Contains("64 bytes for a tensor's name"));
}

}  // namespace thermocline::test
