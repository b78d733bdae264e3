// Converts a checkpoint of any readable format to GGUF, in another element type or another layout.
//
// Goals: tensors stream through in chunks of rows, so that memory does not grow with the model; one
//   rounding, from the values of the source; same type, same bytes; keys of a GGUF source are kept.
// Matrices become `dtype`, or where their rows are not whole blocks of it the type that llama.cpp
//   falls back to (q4_k: q5_0, q5_k: q5_1, q6_k: q8_0, and then f16). Vectors stay f32.
// Thread-safety: different outputs may be written at once.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "models/dtype.h"
#include "models/gguf_writer.h"

namespace thermocline {

struct ConvertOptions {
  DType dtype = DType::q4_0;
  GgufLayout layout = GgufLayout::plain;
  std::string name = {};  // general.name; empty: the source's, else that of its file
  uint32_t thread_count = 1;
  std::function<void(uint64_t done, uint64_t total)> progress =
      {};  // bytes written; caller's thread
};

struct Conversion {
  uint64_t tensor_count = 0;   // of the output
  uint64_t element_count = 0;  // of the matrices and vectors that went in
  uint64_t bytes_in = 0, bytes_out = 0;
  uint64_t bundle_bytes = 0, bundle_stride = 0;  // of the layout `bundles`; else 0
  std::vector<std::string> notes;                // tensors in another type than was asked for
};

// The type of a matrix with rows of `cols`.
DType fitting_type(DType dtype, uint64_t cols);

// Errors: whatever open_checkpoint refuses; a NaN or an infinity, with tensor and row; OUT among
// the files of IN; work_failed (no space, interrupted), which leaves nothing behind.
Conversion convert_checkpoint(const std::string& in, const std::string& out,
                              const ConvertOptions& options);

}  // namespace thermocline
