// ModelSpec: what the user wrote after --model, parsed.
//
// "PATH", "preset:demo" (the trained model that the program carries, opened like a file) or
// "preset:NAME[,KEY=VALUE...]": a shape with synthetic weights. Keys of such a preset:
//   layers=N, type=q4_0, seed=S;
//   take=first|even: which layers of the whole model the N stand for: its first, or N at even
//     distances over its depth;
//   regime=NAME (models/activity_regime.h), and then, over the regime's own: activity=M, share=S,
//     correlation=R, drift=D, profile=flat|teal|spread.
// Unknown keys are errors; the order of keys does not matter.
// Thread-safety: plain data.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "models/activity_regime.h"
#include "models/dtype.h"
#include "models/shape.h"

namespace thermocline {

struct ModelSpec {
  std::string text;  // as written
  std::string path;  // what open_checkpoint takes; empty for synthetic weights
  const ShapePreset* preset = nullptr;
  ModelShape shape;           // preset's shape with `layers` applied; unset for a path
  DType dtype = DType::q4_0;  // type of the matrices of a preset; ignored for a path
  uint64_t seed = 1;
  bool take_even = false;   // layers at even distances over the whole model's depth
  ActivityRegime regime{};  // of synthetic weights, with what the keys override

  bool synthetic() const { return preset != nullptr; }
};

ModelSpec parse_model_spec(std::string_view text);

}  // namespace thermocline
