// GGUF versions 2 and 3 (ggml docs/gguf.md): the file format of llama.cpp, in one file or split.
//
// A file may hold a vocabulary and no tensors.
#include "models/gguf_file.h"
#include "models/gguf_model.h"

namespace thermocline {
namespace {

bool matches_gguf(std::span<const std::byte> bytes, std::string_view) {
  return has_magic(bytes, kGgufMagic);
}

std::unique_ptr<Checkpoint> parse_gguf(const CheckpointFile& file, const Neighbours& neighbours) {
  return parse_gguf_model(file, neighbours, {kGgufMagic, FfnActivation::silu});
}

}  // namespace

THERMOCLINE_CHECKPOINT_FORMAT(
    gguf, "GGUF v2, v3 (llama.cpp), also split: F32, F16, BF16, Q4_0 to Q8_0, Q4_K, Q5_K, Q6_K",
    matches_gguf, parse_gguf);

}  // namespace thermocline
