// model convert: every type, both layouts, what is kept, and what ends it.
#include "models/convert.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cerrno>
#include <cmath>
#include <cstring>

#include "models/checkpoint.h"
#include "models/cli.h"
#include "models/gguf_file.h"
#include "models/mapped_file.h"
#include "models/quantize.h"
#include "models/weights.h"
#include "tests/file_bytes.h"
#include "tests/gguf_parts.h"
#include "tests/models/failures.h"
#include "tests/models/parse_bytes.h"
#include "tests/support.h"

namespace thermocline::test {
namespace {

using Catch::Matchers::Contains;

constexpr const char* kMatrices[] = {"token_embd.weight", "blk.1.attn_q.weight",
                                     "blk.0.ffn_gate.weight", "blk.1.ffn_down.weight",
                                     "output.weight"};

// Dimensions that all types' blocks of 256 divide.
ModelShape wide_shape() {
  ModelShape shape = small_shape();
  shape.model_dim = 256;
  shape.head_dim = 64;
  shape.ffn_dim = 512;
  return shape;
}

std::string bytes_of_row(const TensorView& tensor, uint64_t row) {
  return {reinterpret_cast<const char*>(tensor.row(row)), tensor.row_bytes()};
}

std::vector<float> row_values(const TensorView& tensor, uint64_t row) {
  std::vector<float> values(tensor.cols);
  dequantize(tensor.dtype, tensor.row(row), tensor.cols, values.data());
  return values;
}

ConvertOptions to(DType dtype, GgufLayout layout = GgufLayout::plain, uint32_t threads = 3) {
  return {.dtype = dtype, .layout = layout, .thread_count = threads};
}

std::string read_all(const WeightSource& weights, Matrix matrix, uint32_t layer) {
  const auto [rows, cols] = size_of(matrix, weights.shape());
  std::string bytes(rows * bytes_of(weights.dtype(matrix, layer), cols), '\0');
  weights.read(matrix, layer, {0, rows, 0, cols}, reinterpret_cast<std::byte*>(bytes.data()));
  return bytes;
}

DType any_type() { return static_cast<DType>(GENERATE(range(0, kDTypeCount))); }

}  // namespace

TEST_CASE("conversion rounds each row once, from the values of the source") {
  const DType from = GENERATE(DType::f32, DType::bf16, DType::q8_0);
  const DType dtype = any_type();
  const TempDir folder;
  write_file(folder / "in.gguf", small_gguf(from, wide_shape()).bytes());
  const Conversion result = convert_checkpoint(folder / "in.gguf", folder / "out.gguf", to(dtype));
  CHECK(result.notes.empty());
  CHECK(result.tensor_count == 21);
  CHECK(result.bytes_out == std::filesystem::file_size(folder / "out.gguf"));
  const auto in = open_checkpoint(folder / "in.gguf"), out = open_checkpoint(folder / "out.gguf");
  CHECK(out->shape() == in->shape());
  for (const char* name : kMatrices) {
    const TensorView& source = *in->find(name);
    const TensorView& found = out->get(name, source.rows, source.cols);
    REQUIRE(found.dtype == dtype);
    for (uint64_t row = 0; row < source.rows; ++row) {
      const std::string expected =
          from == dtype ? bytes_of_row(source, row) : encoded(dtype, row_values(source, row));
      REQUIRE(bytes_of_row(found, row) == expected);
    }
  }
  const TensorView& norm = out->get("blk.1.ffn_norm.weight", 1, 256);
  CHECK(norm.dtype == DType::f32);
  CHECK(row_values(norm, 0) == row_values(*in->find("blk.1.ffn_norm.weight"), 0));
}

TEST_CASE("rows that are no whole blocks fall back as llama.cpp's do, with a note") {
  CHECK(fitting_type(DType::q4_k, 512) == DType::q4_k);
  CHECK(fitting_type(DType::q4_k, 160) == DType::q5_0);
  CHECK(fitting_type(DType::q5_k, 160) == DType::q5_1);
  CHECK(fitting_type(DType::q6_k, 160) == DType::q8_0);
  CHECK(fitting_type(DType::q6_k, 172) == DType::f16);
  CHECK(fitting_type(DType::q4_0, 172) == DType::f16);
  CHECK(fitting_type(DType::bf16, 171) == DType::bf16);
  ModelShape shape = wide_shape();
  shape.ffn_dim = 160;
  const TempDir folder;
  write_file(folder / "in.gguf", small_gguf(DType::f32, shape).bytes());
  const Conversion result =
      convert_checkpoint(folder / "in.gguf", folder / "out.gguf", to(DType::q6_k));
  REQUIRE(result.notes.size() == 1);
  CHECK(result.notes[0] ==
        "2 tensors in q8_0, since rows of 160 are no whole blocks of q6_k: "
        "blk.0.ffn_down.weight, ...");
  CHECK(open_checkpoint(folder / "out.gguf")->find("blk.0.ffn_down.weight")->dtype == DType::q8_0);
}

TEST_CASE("the same bytes come from any number of threads") {
  const auto layout = GENERATE(GgufLayout::plain, GgufLayout::bundles);
  const TempDir folder;
  write_file(folder / "in.gguf", small_gguf(DType::f16, wide_shape()).bytes());
  convert_checkpoint(folder / "in.gguf", folder / "one.gguf", to(DType::q4_0, layout, 1));
  convert_checkpoint(folder / "in.gguf", folder / "many.gguf", to(DType::q4_0, layout, 7));
  CHECK(read_file(folder / "one.gguf") == read_file(folder / "many.gguf"));
}

TEST_CASE("keys, vocabulary, rotary scaling and provenance of a GGUF source are kept") {
  GgufFile file = small_gguf(DType::f32, wide_shape());
  set_small_vocabulary(file);
  file.tensor("token_embd.weight").dimensions = {256, 7};
  file.set_text("general.name", "a name");
  file.set_text("thermocline.provenance", "synthetic");
  file.set_u64("some.count", 1ull << 40);
  file.set_f32("llama.rope.scaling.factor", 4.0f);
  file.set_text("llama.hidden_activation", "fatrelu");
  file.set_f32("llama.hidden_activation_threshold", 0.01f);
  file.tensors.push_back({"rope_freqs.weight", {32}, 0, std::string(32 * 4, '\x40')});
  const TempDir folder;
  for (const char* name : {"one.gguf", "two.gguf", "three.gguf"}) {
    if (name == std::string("two.gguf")) file.remove_tensor("rope_freqs.weight");
    if (name == std::string("three.gguf")) file.remove("llama.rope.scaling.factor");
    write_file(folder / "in.gguf", file.bytes());
    convert_checkpoint(folder / "in.gguf", folder / name, to(DType::f16));
    const auto in = open_checkpoint(folder / "in.gguf"), out = open_checkpoint(folder / name);
    CHECK(out->shape() == in->shape());
    CHECK(out->vocabulary().pieces == in->vocabulary().pieces);
    CHECK(out->vocabulary().scores == in->vocabulary().scores);
    CHECK(open_weights(parse_model_spec(folder / name))->provenance() == "synthetic");
    const MappedFile mapped = map_file(folder / name);
    const thermocline::GgufFile parsed = parse_gguf_file(mapped.bytes, name, kGgufMagic);
    CHECK(parsed.metadata.text("general.name") == "a name");
    CHECK(parsed.metadata.large_count("some.count") == 1ull << 40);
    CHECK(parsed.metadata.count("general.file_type") == 1);
  }
}

TEST_CASE("PowerInfer's predictors and threshold survive conversion") {
  const TempDir folder;
  write_file(folder / "in.gguf", small_powerinfer(DType::f16).bytes());
  convert_checkpoint(folder / "in.gguf", folder / "out.gguf", to(DType::q8_0));
  const auto out = open_checkpoint(folder / "out.gguf");
  CHECK(out->predictor_threshold() == -0.25f);
  CHECK(out->shape().activation == FfnActivation::relu);
  CHECK(out->get("blk.1.fc2.weight", 160, 32).dtype == DType::q8_0);
  CHECK(out->get("blk.1.ffn_down_t.weight", 160, 64).dtype == DType::q8_0);
}

TEST_CASE("llama2.c's and split models convert as one GGUF file does") {
  const TempDir folder;
  write_file(folder / "in.gguf", small_gguf(DType::f32).bytes());
  write_file(folder / "in.bin", small_llama2c());
  const auto parts = split_gguf(small_gguf(DType::f32), 2);
  write_file(folder / "in-00001-of-00002.gguf", parts[0].bytes());
  write_file(folder / "in-00002-of-00002.gguf", parts[1].bytes());
  convert_checkpoint(folder / "in.gguf", folder / "whole.gguf", to(DType::q8_0));
  for (const char* name : {"in.bin", "in-00002-of-00002.gguf"}) {
    convert_checkpoint(folder / name, folder / "out.gguf", to(DType::q8_0));
    const auto whole = open_weights(parse_model_spec(folder / "whole.gguf"));
    const auto out = open_weights(parse_model_spec(folder / "out.gguf"));
    for (const Matrix matrix : {Matrix::token_embedding, Matrix::q, Matrix::gate, Matrix::down_t}) {
      CHECK(read_all(*out, matrix, 1) == read_all(*whole, matrix, 1));
    }
  }
}

TEST_CASE("bundles hold what a rank would get, rounded once along model_dim", "[long]") {
  const DType from = GENERATE(DType::f32, DType::q4_0);
  const DType dtype = any_type();
  const bool by_neuron = GENERATE(false, true);
  const ModelShape shape = wide_shape();
  const TempDir folder;
  write_file(folder / "in.gguf",
             by_neuron ? small_powerinfer(from, shape).bytes() : small_gguf(from, shape).bytes());
  const Conversion result =
      convert_checkpoint(folder / "in.gguf", folder / "out.gguf", to(dtype, GgufLayout::bundles));
  CHECK(result.bundle_bytes == 3 * bytes_of(dtype, 256));
  CHECK(result.bundle_stride % 512 == 0);
  const auto in = open_checkpoint(folder / "in.gguf");
  const auto out = open_weights(parse_model_spec(folder / "out.gguf"));
  CHECK(bundle_types(*out) == BundleTypes(dtype));
  for (const auto& [matrix, name] :
       {std::pair{Matrix::gate, "blk.1.ffn_gate.weight"}, {Matrix::up, "blk.1.ffn_up.weight"}}) {
    std::string expected;
    for (uint64_t row = 0; row < shape.ffn_dim; ++row) {
      const TensorView& tensor = *in->find(name);
      expected +=
          from == dtype ? bytes_of_row(tensor, row) : encoded(dtype, row_values(tensor, row));
    }
    CHECK(read_all(*out, matrix, 1) == expected);
  }
  std::string expected;
  for (uint64_t neuron = 0; neuron < shape.ffn_dim; ++neuron) {
    std::vector<float> column;
    if (by_neuron) {
      const TensorView& down_t = *in->find("blk.1.ffn_down_t.weight");
      column = row_values(down_t, neuron);
      if (from == dtype) {
        expected += bytes_of_row(down_t, neuron);
        continue;
      }
    } else {
      const TensorView& down = *in->find("blk.1.ffn_down.weight");
      for (uint64_t row = 0; row < down.rows; ++row)
        column.push_back(row_values(down, row)[neuron]);
    }
    expected += encoded(dtype, column);
  }
  CHECK(read_all(*out, Matrix::down_t, 1) == expected);
}

TEST_CASE("bundles of 4096 where that is cheap, else of 512") {
  CHECK(bundle_stride(13824) == 13824);  // 70B in q4_0: 27 sectors
  CHECK(bundle_stride(49152) == 49152);  // 70B in f16
  CHECK(bundle_stride(26112) == 26112);  // 70B in q8_0: 51 sectors
  CHECK(bundle_stride(98304 - 100) == 98304);
  CHECK(bundle_stride(20160) == 20480);  // 70B in q6_k: 5 pages, 1.6 %
  CHECK(bundle_stride(6912) == 7168);    // 7B in q4_0
  CHECK(bundle_stride(100) == 512);
}

TEST_CASE("one direct read takes one bundle") {
  const TempDir folder;
  const ModelShape shape = wide_shape();
  write_file(folder / "in.gguf", small_gguf(DType::f32, shape).bytes());
  const Conversion result = convert_checkpoint(folder / "in.gguf", folder / "out.gguf",
                                               to(DType::q8_0, GgufLayout::bundles));
  const auto out = open_checkpoint(folder / "out.gguf");
  const TensorView& gate = *out->find("blk.1.ffn_gate.weight");
  const auto offset = static_cast<uint64_t>(gate.bytes.data() - out->files()[0].bytes.data());
  CHECK(offset % 4096 == 0);
  const int file = ::open((folder / "out.gguf").c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC);
  if (file < 0) {
    WARN("skipped: no direct reads on this file system: " << std::strerror(errno));
    return;
  }
  void* memory = nullptr;
  REQUIRE(::posix_memalign(&memory, 4096, result.bundle_stride) == 0);
  const std::unique_ptr<void, decltype(&std::free)> owner(memory, std::free);
  for (const uint64_t neuron : {0, 1, 77, 511}) {
    const auto at = static_cast<off_t>(offset + neuron * result.bundle_stride);
    const ssize_t count = ::pread(file, memory, result.bundle_stride, at);
    if (count < 0 && errno == EINVAL && result.bundle_stride % 4096 != 0) {
      WARN("skipped: this disk reads whole pages only");
      break;
    }
    REQUIRE(count == static_cast<ssize_t>(result.bundle_stride));
    const char* bundle = static_cast<const char*>(memory);
    uint64_t begin = 0;
    for (const char* name :
         {"blk.1.ffn_gate.weight", "blk.1.ffn_up.weight", "blk.1.ffn_down_t.weight"}) {
      const std::string expected = bytes_of_row(*out->find(name), neuron);
      CHECK(std::string(bundle + begin, expected.size()) == expected);
      begin += expected.size();
    }
  }
  ::close(file);
}

TEST_CASE("a NaN or an infinity is refused with its tensor and row") {
  const bool bundles = GENERATE(false, true);
  for (const char* name : {"blk.1.attn_v.weight", "blk.1.ffn_down.weight"}) {
    for (const float bad : {std::nanf(""), -HUGE_VALF}) {
      GgufFile file = small_gguf(DType::f32);
      GgufFile::Tensor& tensor = file.tensor(name);
      tensor.data.replace((5 * tensor.dimensions[0] + 3) * 4, 4,
                          reinterpret_cast<const char*>(&bad), 4);
      const TempDir folder;
      write_file(folder / "in.gguf", file.bytes());
      const std::string message = input_error([&] {
        convert_checkpoint(folder / "in.gguf", folder / "out.gguf",
                           to(DType::q8_0, bundles ? GgufLayout::bundles : GgufLayout::plain));
      });
      CHECK_THAT(message, Contains(name) && Contains("in row 5") && Contains("finite weights"));
      CHECK(std::distance(std::filesystem::directory_iterator(folder.path()), {}) == 1);
    }
  }
  GgufFile file = small_gguf(DType::q8_0);  // the scale of a block, though the bytes are copied
  file.tensor("blk.0.ffn_up.weight").data.replace(68, 2, "\x00\x7e", 2);
  const TempDir folder;
  write_file(folder / "in.gguf", file.bytes());
  CHECK_THAT(input_error([&] {
               convert_checkpoint(folder / "in.gguf", folder / "out.gguf", to(DType::q8_0));
             }),
             Contains("blk.0.ffn_up.weight") && Contains("nan in row 1"));
}

TEST_CASE("the input is never the output") {
  const TempDir folder;
  write_file(folder / "in.gguf", small_gguf(DType::f32).bytes());
  std::filesystem::create_symlink("in.gguf", folder / "link.gguf");
  for (const char* out : {"in.gguf", "link.gguf"}) {
    const Failure failure =
        failure_of([&] { convert_checkpoint(folder / "in.gguf", folder / out, to(DType::q8_0)); });
    CHECK(failure.kind == ErrorKind::usage);
    CHECK_THAT(failure.message, Contains("not the input"));
  }
  CHECK(read_file(folder / "in.gguf") == small_gguf(DType::f32).bytes());
}

TEST_CASE("a conversion that cannot write says so and leaves nothing") {
  const TempDir folder;
  write_file(folder / "in.gguf", small_gguf(DType::f32).bytes());
  const auto convert = [&](const std::string& out) {
    convert_checkpoint(folder / "in.gguf", out, to(DType::q8_0));
  };
  const Failure failure = failure_of([&] { convert(folder / "absent/out.gguf"); });
  CHECK(failure.kind == ErrorKind::failed);
  CHECK_THAT(failure.message, Contains("absent/out.gguf: cannot write"));
  // A limit on the size of files stands in for a full disk.
  const int outcome = outcome_in_child([&] {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit = {20000, 20000};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    try {
      convert(folder / "out.gguf");
    } catch (const Error& error) {
      return error.kind() == ErrorKind::failed &&
                     std::string(error.what()).find("out.gguf: cannot") != std::string::npos
                 ? 0
                 : 1;
    }
    return 2;
  });
  CHECK(outcome == 0);
  CHECK(std::distance(std::filesystem::directory_iterator(folder.path()), {}) == 1);
}

TEST_CASE("an interrupted conversion leaves nothing and says how to go on") {
  const TempDir folder;
  write_file(folder / "in.gguf", small_gguf(DType::f32).bytes());
  const int outcome = outcome_in_child([&] {
    install_interrupt_handler();
    ::raise(SIGTERM);
    try {
      convert_checkpoint(folder / "in.gguf", folder / "out.gguf", to(DType::q8_0));
    } catch (const Error& error) {
      return error.kind() == ErrorKind::failed &&
                     std::string(error.what()).find("interrupted") != std::string::npos
                 ? 0
                 : 1;
    }
    return 2;
  });
  CHECK(outcome == 0);
  CHECK(std::distance(std::filesystem::directory_iterator(folder.path()), {}) == 1);
}

}  // namespace thermocline::test
