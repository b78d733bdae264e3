#include "runtime/kernels/cuda_layout.h"

#include <cstring>

namespace thermocline {

void cuda_pack_row(DType dtype, int cols, const std::byte* from, std::byte* to) {
  const size_t block_bytes = facts(dtype).bytes_per_block;
  const size_t blocks = static_cast<size_t>(cols) / facts(dtype).items_per_block;
  if (facts(dtype).items_per_block == 1) {
    std::memcpy(to, from, blocks * block_bytes);
    return;
  }
  for (int p = 0; p < kPlanesMax; ++p) {
    const Plane& plane = plane_of(dtype, p);
    const size_t bytes = static_cast<size_t>(plane.bytes);
    std::byte* out = to + blocks * static_cast<size_t>(bytes_before(dtype, p));
    for (size_t b = 0; b < blocks && bytes > 0; ++b)
      std::memcpy(out + b * bytes, from + b * block_bytes + plane.from, bytes);
  }
}

}  // namespace thermocline
