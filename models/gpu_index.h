// GpuIndex: which neurons PowerInfer keeps on the GPU, from its *.gpuidx file.
//
// Format (powerinfer.md section 1.6): a GGUF container with magic PWRI and architecture
//   generic.gpu_index; per layer blk.N.gpu_idx I32 (ffn_dim), 1 = on the GPU, and blk.N.gpu_bucket
//   I32 (k), the same neurons as a sorted list; split.vram_capacity, the budget in bytes.
// Goals: the two forms are checked against each other. Non-goals: PowerInfer's models
//   (models/formats/powerinfer.cc), how the neurons were chosen.
// Thread-safety: pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace thermocline {

struct GpuIndex {
  uint32_t ffn_dim = 0;                            // of every layer
  std::vector<std::vector<uint32_t>> hot_neurons;  // by layer, ascending
  std::optional<uint64_t> vram_capacity;           // bytes that the split was made for

  uint64_t hot_count() const;
};

// True for a container of that magic and architecture, whatever else is in it.
bool is_gpu_index(std::span<const std::byte> bytes, const std::string& path);

GpuIndex parse_gpu_index(std::span<const std::byte> bytes, const std::string& path);

}  // namespace thermocline
