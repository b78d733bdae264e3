// ModelSpec: what the user wrote after --model, parsed.
//
// "PATH" or "preset:NAME[,layers=N][,type=q4_0][,seed=S][,activity=0.28]". Unknown keys are errors.
// Thread-safety: plain data.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "models/dtype.h"
#include "models/shape.h"

namespace thermocline {

struct ModelSpec {
  std::string text;  // as written
  std::string path;  // empty for a preset
  const ShapePreset* preset = nullptr;
  ModelShape shape;           // preset's shape with `layers` applied; unset for a path
  DType dtype = DType::q4_0;  // type of the matrices of a preset; ignored for a path
  uint64_t seed = 1;
  float activity_mean = 0.0f;

  bool synthetic() const { return preset != nullptr; }
};

ModelSpec parse_model_spec(std::string_view text);

}  // namespace thermocline
