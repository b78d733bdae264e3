// cpu_unpack_row undoes cpu_pack_row, for any bytes.
#include <catch2/catch.hpp>
#include <random>
#include <vector>

#include "runtime/kernels/cpu_layout.h"

using namespace thermocline;

TEST_CASE("a row that was packed for the CPU is unpacked to the very bytes of the file") {
  std::mt19937_64 random(7);
  for (int type = 0; type < kDTypeCount; ++type) {
    const auto dtype = static_cast<DType>(type);
    const int block = static_cast<int>(facts(dtype).items_per_block);
    for (int blocks = 1; blocks <= 40; ++blocks) {
      INFO(facts(dtype).name << ", " << blocks << " blocks");
      const int cols = blocks * block;
      std::vector<std::byte> file(bytes_of(dtype, static_cast<uint64_t>(cols)));
      for (std::byte& byte : file) byte = static_cast<std::byte>(random());
      std::vector<std::byte> packed(file.size()), unpacked(file.size(), std::byte{0xa5});
      cpu_pack_row(dtype, cols, file.data(), packed.data());
      cpu_unpack_row(dtype, cols, packed.data(), unpacked.data());
      CHECK(unpacked == file);
      if (block > 1 && blocks > 1) CHECK(packed != file);
    }
  }
}
