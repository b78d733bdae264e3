#include "runtime/part_loader.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <cmath>

#include "models/error.h"
#include "models/quantize.h"

namespace thermocline {
namespace {

// Large matrices lie in huge pages: a step streams all of them, and page walks cost.
constexpr uint64_t kHugePage = uint64_t{2} << 20;

}  // namespace

WeightVector PartLoader::norm(NormVector vector, uint32_t layer) const {
  std::vector<float> values(source_.shape().model_dim);
  source_.read(vector, layer, values.data());
  WeightVector placed{backend_.allocate(values.size() * sizeof(float))};
  backend_.upload(placed.memory.get(), values.data(), values.size() * sizeof(float));
  const auto bad = std::find_if_not(values.begin(), values.end(),
                                    [](float value) { return std::isfinite(value); });
  if (check_finite_ && bad != values.end()) {
    const bool layered = vector != NormVector::output_norm;
    throw Error(ErrorKind::input, fmt::format("{}{}: weight {} is {}",
                                              layered ? fmt::format("layer {}, ", layer) : "",
                                              name_of(vector), bad - values.begin(), *bad));
  }
  return placed;
}

std::shared_ptr<std::byte> PartLoader::allocate(uint64_t bytes) const {
  auto memory = backend_.allocate(bytes);
  // A hint: where the kernel has no huge pages, small ones serve.
  if (backend_.uses_host_memory() && bytes >= kHugePage) {
    ::madvise(memory.get(), bytes, MADV_HUGEPAGE);
  }
  return memory;
}

WeightMatrix PartLoader::place(const WeightPart& part, const std::shared_ptr<std::byte>& memory,
                               uint64_t offset, uint64_t stride) const {
  WeightMatrix loaded{{part.dtype, static_cast<int>(part.rows.count),
                       static_cast<int>(part.cols.count), stride, memory.get() + offset},
                      memory};
  const auto rows_at_once = static_cast<int>(
      std::max<uint64_t>(1, kStagingBytes / std::max<uint64_t>(part.row_bytes(), 1)));
  backend_.run_on_host(loaded.view.rows, [&](int begin, int end) {
    std::vector<std::byte> staging;
    for (int first = begin; first < end; first += rows_at_once) {
      const int last = std::min(end, first + rows_at_once);
      read(part, first, last, staging);
      backend_.place_rows(loaded.view, first, last, staging.data());
    }
  });
  return loaded;
}

void PartLoader::read(const WeightPart& part, int first, int last,
                      std::vector<std::byte>& rows) const {
  rows.resize(static_cast<uint64_t>(last - first) * part.row_bytes());
  source_.read(part.matrix, part.layer,
               {part.rows.begin + static_cast<uint64_t>(first),
                part.rows.begin + static_cast<uint64_t>(last), part.cols.begin, part.cols.end()},
               rows.data());
  if (check_finite_) check(part, first, rows);
}

void PartLoader::check(const WeightPart& part, int first_row, const std::vector<std::byte>& rows) {
  std::vector<float> values(part.cols.count);
  const uint64_t row_bytes = part.row_bytes();
  for (uint64_t r = 0; r * row_bytes < rows.size(); ++r) {
    dequantize(part.dtype, rows.data() + r * row_bytes, values.size(), values.data());
    for (size_t c = 0; c < values.size(); ++c) {
      if (std::isfinite(values[c])) continue;
      throw Error(ErrorKind::input,
                  fmt::format("{}: the weight in row {}, column {} is {}", part.text(),
                              part.rows.begin + static_cast<uint64_t>(first_row) + r,
                              part.cols.begin + c, values[c]));
    }
  }
}

}  // namespace thermocline
