#include "sim/tier_needs.h"

#include <bit>

#include "models/error.h"

namespace thermocline {
namespace {

uint32_t bits_of(uint64_t word) { return static_cast<uint32_t>(std::popcount(word)); }

}  // namespace

void count_needs(const NeuronPool& pool, std::span<const uint64_t> active,
                 std::span<const uint64_t> device_hot, std::span<const uint64_t> host_hot,
                 std::span<LayerNeeds> needs) {
  const size_t words = pool.words_per_layer();
  TC_CHECK(active.size() == pool.words_per_step() && device_hot.size() == active.size() &&
               host_hot.size() == active.size() && needs.size() == pool.layer_count,
           "needs of another pool");
  for (size_t layer = 0; layer < needs.size(); ++layer) {
    LayerNeeds sum;
    for (size_t w = layer * words; w < (layer + 1) * words; ++w) {
      const uint64_t below = active[w] & ~device_hot[w];
      sum.device += bits_of(active[w] & device_hot[w]);
      sum.host += bits_of(below & host_hot[w]);
      sum.disk += bits_of(below & ~host_hot[w]);
      sum.on_device += bits_of(device_hot[w]);
    }
    needs[layer] = sum;
  }
}

uint32_t count_passed(std::span<const uint64_t> device_before, std::span<const uint64_t> device_hot,
                      std::span<const uint64_t> host_hot) {
  TC_CHECK(device_before.size() == device_hot.size() && host_hot.size() == device_hot.size(),
           "hot sets of another pool");
  uint32_t count = 0;
  for (size_t w = 0; w < device_hot.size(); ++w) {
    count += bits_of(device_hot[w] & ~device_before[w] & ~host_hot[w]);
  }
  return count;
}

}  // namespace thermocline
