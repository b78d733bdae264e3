// Tensors that are made in chunks of rows and written in order, by as many threads as there are.
//
// Goals: memory is a few chunks a thread, whatever the tensors' size; the same bytes for any number
//   of threads. The first failure of a thread ends the work and is thrown.
// Thread-safety: `fill` is called from many threads at once; the rest belongs to the caller's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "models/dtype.h"
#include "models/gguf_output.h"
#include "models/shape.h"

namespace thermocline {

// Writes rows [begin, end), each `stride` bytes after the last.
using FillRows = std::function<void(uint64_t begin, uint64_t end, std::byte* out, uint64_t stride)>;

// A matrix in the making; a vector is one row.
struct RowSource {
  DType dtype;
  uint64_t rows, cols;
  FillRows fill;
};

// A tensor of the file: rows of a matrix, or the bundles of a layer.
struct OutputTensor {
  std::string name;
  uint32_t ggml_type;
  std::vector<uint64_t> dimensions;  // the fastest first
  uint64_t rows, row_bytes;
  FillRows fill;
  uint64_t row_multiple = 1;        // `fill` is asked for so many rows at a time, but for the last
  std::function<void()> done = {};  // after its last row was written, on the caller's thread

  uint64_t byte_count() const { return rows * row_bytes; }
};

OutputTensor plain_tensor(const std::string& name, RowSource source);

// Row i: gate row i | up row i | down row i | zeros up to `stride` bytes (models/gguf_model.h).
OutputTensor bundle_tensor(const std::string& name, RowSource gate, RowSource up, RowSource down_t,
                           uint64_t stride);

// Bytes from one bundle to the next: a multiple of a disk's page of 4096 where that costs less than
// 5 %, else of its sector of 512, so that a direct read takes one bundle and little more.
uint64_t bundle_stride(uint64_t bundle_bytes);

// Names the tensors in `output`, begins it and writes their data. `progress` hears the bytes of
// data that are written, on the caller's thread. Errors: interrupted() (models/cli.h), whatever
// `fill` throws, what GgufOutput throws.
void stream_tensors(GgufOutput& output, const std::vector<OutputTensor>& tensors,
                    uint32_t thread_count, const std::function<void(uint64_t)>& progress = {});

}  // namespace thermocline
