// Bundles of random bytes for tests of device tiers, and what a device then should hold.
//
// Thread-safety: plain data and pure functions.
#pragma once

#include <algorithm>
#include <array>
#include <random>
#include <vector>

#include "runtime/kernels/cpu_layout.h"
#include "runtime/tiers/device_tier.h"

namespace thermocline::test {

constexpr NeuronPool kPool{3, 4, 16, 150};

inline std::unique_ptr<Backend> cpu(int threads = 1) {
  return backends().by_name("cpu").make({threads, RankOnHost{}, 0});
}

// Random bytes as the bundles of a pool, types by layer; the host's memory as the CPU wants it.
struct Bundles {
  static constexpr int kCols = 64;
  std::vector<std::vector<std::byte>> memory;    // by layer
  std::vector<std::array<DType, 3>> types;       // by layer: gate, up, down_t
  std::vector<BundleRows> rows;                  // by layer
  std::vector<std::vector<std::byte>> in_files;  // by layer, the rows as files have them

  Bundles(const NeuronPool& pool, std::vector<std::array<DType, 3>> of) : types(std::move(of)) {
    std::mt19937_64 random(1);
    for (uint32_t layer = 0; layer < pool.layer_count; ++layer) {
      const uint64_t stride = bytes(layer, 3);
      in_files.emplace_back(stride * pool.neuron_count);
      for (std::byte& byte : in_files.back()) byte = static_cast<std::byte>(random());
      memory.emplace_back(in_files.back().size());
      BundleRows of_layer;
      for (size_t i = 0; i < 3; ++i) {
        of_layer[i] = {types[layer][i], static_cast<int>(pool.neuron_count), kCols, stride,
                       memory.back().data() + bytes(layer, i)};
        for (uint32_t n = 0; n < pool.neuron_count; ++n)
          cpu_pack_row(types[layer][i], kCols, file_row(layer, n, i),
                       const_cast<std::byte*>(of_layer[i].row(static_cast<int>(n))));
      }
      rows.push_back(of_layer);
    }
  }
  // Of the first `count` rows of a bundle.
  uint64_t bytes(uint32_t layer, size_t count) const {
    uint64_t sum = 0;
    for (size_t i = 0; i < count; ++i) sum += bytes_of(types[layer][i], kCols);
    return sum;
  }
  const std::byte* file_row(uint32_t layer, uint32_t neuron, size_t i) const {
    return in_files[layer].data() + neuron * bytes(layer, 3) + bytes(layer, i);
  }
};

inline const std::vector<std::array<DType, 3>> kTypes(4, {DType::q4_0, DType::q4_0, DType::q8_0});
inline const std::vector<std::array<DType, 3>> kMixedTypes = {
    {DType::f32, DType::f32, DType::f32},
    {DType::q4_0, DType::q5_1, DType::q8_0},
    {DType::bf16, DType::q4_1, DType::q5_0},
    {DType::q8_0, DType::f16, DType::q4_0}};

template <class T>
std::vector<T> fetched(Backend& backend, const T* from, size_t count) {
  std::vector<T> values(count);
  backend.download(values.data(), from, count * sizeof(T));
  return values;
}

// What lies on the device: the bits of what is hot, in places of their own within the budget, and
// there the rows of the bundles, as the device packs them.
inline bool device_is_right(Backend& device, const DeviceTier& tier, const Bundles& bundles,
                            const NeuronPool& pool, uint64_t hot_max) {
  std::vector<bool> taken(hot_max);
  bool right = true;
  for (uint32_t layer = 0; layer < pool.layer_count; ++layer) {
    const auto hot = fetched(device, tier.hot_on_device(layer), pool.words_per_layer());
    right &= std::equal(hot.begin(), hot.end(), tier.hot(layer).begin());
    uint32_t hot_count = 0;
    std::vector<WeightView> views;
    for (const BundleRow row : {kGateRow, kUpRow, kDownRow})
      views.push_back(tier.device_rows(layer, row));
    const auto places = fetched(device, views[0].places, pool.neuron_count);
    for_each_neuron(pool.neuron_count, hot, [&](uint32_t n) {
      ++hot_count;
      right &= places[n] < hot_max && !taken[places[n]];
      if (places[n] < hot_max) taken[places[n]] = true;
      for (size_t i = 0; i < views.size(); ++i) {
        const WeightView& view = views[i];
        const auto bytes = bytes_of(view.dtype, static_cast<uint64_t>(view.cols));
        std::vector<std::byte> expected(bytes);
        device.pack_row(view.dtype, view.cols, bundles.file_row(layer, n, i), expected.data());
        right &= fetched(device, view.data + places[n] * view.stride, bytes) == expected;
      }
    });
    right &= hot_count + tier.cold_count(layer) == pool.neuron_count;
    for (size_t w = 0; w < hot.size(); ++w) right &= (hot[w] & tier.cold(layer)[w]) == 0;
  }
  return right;
}

// Whether all of a hot set, and nothing else, is hot on the device.
inline bool is_all_hot(const DeviceTier& tier, const HotSet& hot) {
  const NeuronPool& pool = hot.pool();
  bool all = true;
  for (uint32_t layer = 0; layer < pool.layer_count; ++layer)
    for (uint32_t n = 0; n < pool.neuron_count; ++n)
      all &= (tier.hot(layer)[n / 64] >> n % 64 & 1) == hot.contains(layer * pool.neuron_count + n);
  return all;
}

}  // namespace thermocline::test
