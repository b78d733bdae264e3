// GgufFile: the container of GGUF versions 2 and 3, whatever its keys and tensors mean.
//
// Format: ggml docs/gguf.md. magic | version | tensor count | pair count | pairs | tensor infos |
//   padding | tensor data, little-endian. PowerInfer writes the same under another magic.
// Goals: every length is checked against what is left; each tensor's bytes lie inside the file and
//   belong to it alone. Non-goals: what a model is (models/gguf_model.h), writing
//   (models/gguf_output.h).
// Thread-safety: const after construction. Tensors point into the file's bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "models/checkpoint.h"
#include "models/dtype.h"
#include "models/gguf_metadata.h"

namespace thermocline {

inline constexpr std::string_view kGgufMagic = "GGUF";
inline constexpr std::string_view kPowerInferMagic = "PWRI";
inline constexpr uint32_t kGgufAlignmentDefault = 32;

// ggml's numbers of element types that are no weights.
inline constexpr uint32_t kGgmlI8 = 24, kGgmlI32 = 26;

struct GgufTensor {
  std::string name;
  uint32_t ggml_type;
  std::vector<uint64_t> dimensions;  // 1 to 4, the fastest first; one may be 0
  std::span<const std::byte> bytes;  // all of them
};

struct GgufFile {
  std::string path;  // for messages
  GgufMetadata metadata;
  uint32_t alignment;
  std::vector<GgufTensor> tensors;
};

bool has_magic(std::span<const std::byte> bytes, std::string_view magic);

// Errors: anything malformed, a tensor of a type whose size is not known here.
GgufFile parse_gguf_file(std::span<const std::byte> bytes, const std::string& path,
                         std::string_view magic);

// The DType of ggml's number, where we read it.
std::optional<DType> dtype_of_ggml(uint32_t ggml_type);
// "Q4_K", or "ggml type 77".
std::string ggml_type_name(uint32_t ggml_type);

// As rows of weights: all dimensions but the first count rows. Errors: a type that is not read, no
// elements.
TensorView view_of(const GgufTensor& tensor, const std::string& path);

}  // namespace thermocline
