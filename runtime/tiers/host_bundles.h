// HostBundles: where a device tier's bundles are on the host.
//
// WholeBundles: all of them lie in host memory. StoredBundles: gate rows do, up and down rows are a
//   BundleStore's, which has some of them in memory and all of them in a file.
// Goals: a device tier neither waits for a disk nor reads a place that is used again meanwhile.
// Non-goals: which bundles move (DeviceTier), who computes with them (side_by_side.h).
// Thread-safety: one thread, between passes; what is held may be read from any.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "runtime/kernels/weight_view.h"
#include "runtime/tiers/bundle_store.h"

namespace thermocline {

// A layer's bundles: rows of gate, up and down_t, in host memory as the CPU's kernels want them.
using BundleRows = std::array<WeightView, 3>;
enum BundleRow : int { kGateRow, kUpRow, kDownRow };
// The rows of one of them; the first null: they are not in memory.
using HeldRows = std::array<const std::byte*, 3>;

class HostBundles {
 public:
  explicit HostBundles(std::vector<BundleRows> layers) : layers_(std::move(layers)) {}
  virtual ~HostBundles() = default;

  const std::vector<BundleRows>& layers() const { return layers_; }  // of the pool

  // The rows of a bundle, which stay until let_go(). Where they are not in memory they are on their
  // way, or will be when there is room: asked for again in a later pass, or given up by forget().
  virtual HeldRows hold(uint32_t layer, uint32_t neuron) = 0;
  virtual void let_go(const HeldRows& rows) = 0;
  virtual void forget(uint32_t layer, uint32_t neuron) = 0;
  virtual void wait() = 0;  // for what is on its way

 private:
  std::vector<BundleRows> layers_;
};

class WholeBundles final : public HostBundles {
 public:
  using HostBundles::HostBundles;
  HeldRows hold(uint32_t layer, uint32_t neuron) override {
    const BundleRows& rows = layers()[layer];
    const int row = static_cast<int>(neuron);
    return {rows[kGateRow].row(row), rows[kUpRow].row(row), rows[kDownRow].row(row)};
  }
  void let_go(const HeldRows&) override {}
  void forget(uint32_t, uint32_t) override {}
  void wait() override {}
};

class StoredBundles final : public HostBundles {
 public:
  // A bundle of the store is an up row, and behind it a down row; views of both are the store's.
  StoredBundles(std::vector<BundleRows> layers, std::shared_ptr<BundleStore> store)
      : HostBundles(std::move(layers)), store_(std::move(store)) {}

  HeldRows hold(uint32_t layer, uint32_t neuron) override {
    const BundleRows& rows = layers()[layer];
    const std::byte* bundle = store_->hold(layer, neuron);
    if (bundle == nullptr) return {};
    const auto up_bytes = bytes_of(rows[kUpRow].dtype, static_cast<uint64_t>(rows[kUpRow].cols));
    return {rows[kGateRow].row(static_cast<int>(neuron)), bundle, bundle + up_bytes};
  }
  void let_go(const HeldRows& rows) override { store_->let_go(rows[kUpRow]); }
  void forget(uint32_t layer, uint32_t neuron) override { store_->forget(layer, neuron); }
  void wait() override { store_->wait_for_moves(); }

 private:
  std::shared_ptr<BundleStore> store_;
};

}  // namespace thermocline
