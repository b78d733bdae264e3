// Hugging Face checkpoints: an index or a shard and what lies beside it, in one input; parse, and
// read every row of what was accepted.
//
// The input is the file that is opened, then those of kNames, with kSeparator between.
#include <array>
#include <string_view>

#include "models/checkpoint.h"
#include "models/error.h"
#include "tests/fuzz/fuzz.h"
#include "tests/hf_files.h"

namespace thermocline::fuzz {
namespace {

constexpr std::string_view kSeparator = "\n====\n";
constexpr std::array<std::string_view, 3> kNames = {"config.json", "a.safetensors",
                                                    "b.safetensors"};

// The parts, each in a block of its own size, so that a sanitizer sees one byte too far.
std::vector<std::vector<std::byte>> parts_of(std::string_view input) {
  std::vector<std::vector<std::byte>> parts;
  while (parts.size() <= kNames.size()) {
    const size_t end = std::min(input.find(kSeparator), input.size());
    const auto part = std::as_bytes(std::span(input.substr(0, end)));
    parts.emplace_back(part.begin(), part.end());
    if (end == input.size()) break;
    input.remove_prefix(end + kSeparator.size());
  }
  return parts;
}

uint8_t touch(const Checkpoint& checkpoint) {
  uint8_t all = 0;
  for (const TensorView& tensor : checkpoint.tensors()) {
    for (uint64_t row = 0; row < tensor.rows; ++row) {
      for (uint64_t at = 0; at < tensor.row_bytes(); ++at) {
        all ^= static_cast<uint8_t>(tensor.row(row)[at]);
      }
    }
  }
  return all;
}

std::string joined(const std::vector<std::string>& parts) {
  std::string all;
  for (const std::string& part : parts) all.append(all.empty() ? "" : kSeparator).append(part);
  return all;
}

}  // namespace

std::vector<std::string> seeds() {
  ModelShape narrow = test::small_shape();
  narrow.layer_count = 1;
  narrow.model_dim = narrow.ffn_dim = 8;
  narrow.head_count = narrow.kv_head_count = 2;
  narrow.head_dim = 4;
  const test::SafetensorsFile whole = test::small_safetensors(DType::bf16, narrow);
  test::SafetensorsFile first, second;
  std::string map;
  for (size_t i = 0; i < whole.tensors.size(); ++i) {
    (i % 2 == 0 ? first : second).tensors.push_back(whole.tensors[i]);
    map += fmt::format(R"({}"{}":"{}.safetensors")", i == 0 ? "" : ",", whole.tensors[i].name,
                       i % 2 == 0 ? "a" : "b");
  }
  const std::string scaled = test::hf_config(
      narrow, R"(,"hidden_act":"relu","rope_scaling":{"rope_type":"llama3","factor":8,)"
              R"("low_freq_factor":1,"high_freq_factor":4,"original_max_position_embeddings":32})");
  test::SafetensorsFile predicted = whole;
  const std::string predictor = "model.layers.0.mlp.predictor.";
  test::add_hf_tensor(predicted, predictor + "fc1.weight", "fc1", 2, 8, DType::bf16);
  test::add_hf_tensor(predicted, predictor + "fc2.weight", "fc2", 8, 2, DType::bf16);
  const std::string noted = test::hf_config(
      narrow, R"(,"thermocline":{"provenance":"trained-demo","predictor_threshold":0.5})");
  return {joined({whole.bytes(), test::hf_config(narrow)}), joined({predicted.bytes(), noted}),
          joined({fmt::format(R"({{"metadata":{{}},"weight_map":{{{}}}}})", map), scaled,
                  first.bytes(), second.bytes()})};
}

}  // namespace thermocline::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace thermocline;
  const auto parts = fuzz::parts_of({reinterpret_cast<const char*>(data), size});
  const Neighbours neighbours = [&](const std::string& name) -> std::optional<CheckpointFile> {
    for (size_t i = 1; i < parts.size(); ++i) {
      if (fuzz::kNames[i - 1] == name) return CheckpointFile{name, nullptr, parts[i]};
    }
    return {};
  };
  try {
    const CheckpointFile file{"input", nullptr, parts[0]};
    volatile uint8_t kept =
        fuzz::touch(*checkpoint_formats().by_name("safetensors").parse(file, neighbours));
    (void)kept;
  } catch (const Error&) {
  }
  return 0;
}
