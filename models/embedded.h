// Files that the program carries, so that it does something real wherever it is copied to: the
// trained demo model (models/demo/README.md) and the demo study.
//
// Non-goals: what the bytes mean (models/checkpoint.h, sim/study.h).
// Thread-safety: constants.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>

namespace thermocline {

// What a user writes for the demo model wherever a checkpoint or a tokenizer is asked for.
inline constexpr std::string_view kDemoModel = "preset:demo";
// What a user writes for the demo study.
inline constexpr std::string_view kDemoStudy = "demo";

std::span<const std::byte> demo_model_bytes();  // models/demo/demo.gguf
std::string_view demo_study_text();             // sim/studies/demo.toml

}  // namespace thermocline
