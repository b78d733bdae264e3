// GGUF checkpoints, plain and split, and PowerInfer's: parse, and use what was accepted as a
// program would.
//
// An input is one file, or several between separators: the parts of a split model in their order.
#include "models/checkpoint.h"
#include "models/error.h"
#include "models/gguf_split.h"
#include "models/predictor_file.h"
#include "models/tokenizer.h"
#include "tests/file_bytes.h"
#include "tests/fuzz/fuzz.h"
#include "tests/gguf_parts.h"
#include "tests/models/small_tokenizers.h"

namespace thermocline::fuzz {
namespace {

constexpr std::string_view kSeparator = "|part|";

// Every byte of every tensor, so that a sanitizer sees one that lies outside the input.
uint8_t touch(const Checkpoint& checkpoint) {
  uint8_t all = 0;
  for (const TensorView& tensor : checkpoint.tensors()) {
    for (const std::byte value : tensor.bytes) all ^= static_cast<uint8_t>(value);
  }
  return all;
}

void use(const Checkpoint& checkpoint) {
  volatile uint8_t kept = touch(checkpoint);
  (void)kept;
  if (checkpoint.vocabulary().kind == Vocabulary::Kind::none) return;
  const auto tokenizer = make_tokenizer(checkpoint.vocabulary(), "input");
  (void)tokenizer->decode_all(tokenizer->encode(" the ban\xff\u00e9\u2581 <s><0x41>"));
}

std::string joined(const std::vector<test::GgufFile>& parts) {
  std::string all;
  for (const test::GgufFile& part : parts) {
    if (!all.empty()) all += kSeparator;
    all += part.bytes();
  }
  return all;
}

std::vector<CheckpointFile> files_of(std::span<const std::byte> bytes) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  std::vector<size_t> begins = {0}, ends;
  for (size_t at; (at = text.find(kSeparator, begins.back())) != std::string_view::npos;) {
    ends.push_back(at);
    begins.push_back(at + kSeparator.size());
  }
  ends.push_back(text.size());
  std::vector<CheckpointFile> files;
  for (uint32_t i = 0; i < begins.size(); ++i) {
    // Copies of exactly their size, so that a sanitizer sees one byte too far.
    const auto block = std::make_shared<std::vector<std::byte>>(bytes.begin() + begins[i],
                                                                bytes.begin() + ends[i]);
    const auto count = static_cast<uint32_t>(begins.size());
    files.push_back({gguf_part_name("input", i, count), block, *block});
  }
  return files;
}

// Alone, as a file of predictors of the narrow model.
void parse_predictors(const CheckpointFile& file) {
  try {
    const PredictorFile predictor = parse_predictor(file.bytes, file.path, test::narrow_shape());
    for (const PredictorLayer& layer : predictor.layers) layer.fc2.row(layer.fc2.rows - 1);
  } catch (const Error&) {
  }
}

void parse(const std::vector<CheckpointFile>& files) {
  parse_predictors(files[0]);
  const Neighbours neighbours = [&](const std::string& name) -> std::optional<CheckpointFile> {
    for (const CheckpointFile& file : files) {
      if (file.path == name) return file;
    }
    return {};
  };
  for (const char* format : {"gguf", "powerinfer"}) {
    const CheckpointFormat& known = checkpoint_formats().by_name(format);
    if (!known.matches(files[0].bytes, files[0].path)) continue;
    use(*known.parse(files[0], neighbours));
  }
}

}  // namespace

std::vector<std::string> seeds() {
  const ModelShape narrow = test::narrow_shape();
  test::GgufFile tied = test::small_gguf(DType::f16, narrow);
  tied.remove_tensor("output.weight");
  tied.set_text("llama.hidden_activation", "relu");
  tied.set_u32("general.alignment", 32);
  test::GgufFile scaled = test::small_gguf(DType::f32, narrow);
  scaled.set_text("llama.rope.scaling.type", "linear");
  scaled.set_f32("llama.rope.scaling.factor", 2.0f);
  scaled.tensors.push_back({"rope_freqs.weight", {8}, 0, std::string(32, '\x40')});
  test::GgufFile predictor = test::small_powerinfer(DType::q4_0, narrow);
  predictor.magic = "GGUF";
  predictor.set_text("thermocline.predictor.input", "normed");
  predictor.set_text("thermocline.predictor.activation", "identity");
  return {predictor.bytes(),
          test::small_gguf(DType::q4_0, narrow).bytes(),
          test::small_vocabulary_gguf().bytes(),
          test::byte_bpe_gguf().bytes(),
          tied.bytes(),
          scaled.bytes(),
          joined(test::split_gguf(test::small_gguf(DType::q8_0, narrow), 2)),
          test::small_bundles(DType::q4_0, 64, narrow).bytes(),
          test::small_powerinfer(DType::q4_0, narrow).bytes()};
}

}  // namespace thermocline::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace thermocline;
  try {
    fuzz::parse(fuzz::files_of(fuzz::as_bytes(data, size)));
  } catch (const Error&) {
  }
  return 0;
}
