#include "runtime/weight_room.h"

#include <fmt/format.h>

#include <algorithm>

#include "models/error.h"
#include "models/units.h"
#include "sim/policy.h"

namespace thermocline {
namespace {

void refuse_what_cannot_run(const std::vector<WeightPart>& parts, const ModelShape& shape,
                            const Backend& backend) {
  for (const WeightPart& part : parts) {
    const std::string reason =
        backend.refusal_of_matrix(part.dtype, static_cast<int>(part.cols.count));
    if (!reason.empty()) throw bad_usage(part.text() + ": " + reason);
  }
  const std::string reason = backend.refusal_of_attention(
      static_cast<int>(shape.head_dim), static_cast<int>(shape.head_count / shape.kv_head_count));
  if (!reason.empty()) throw bad_usage("attention: " + reason);
}

// Returns what the backend's memory will have to hold, bytes.
uint64_t refuse_what_has_no_room(const std::vector<WeightPart>& parts, const Backend& backend,
                                 const TierOptions& tiers, uint64_t hot_bytes) {
  const bool tiered = !tiers.folder.empty();
  if (tiered && !backend.has_tiers()) {
    throw bad_usage("--disk-tier: " + backend.describe() +
                    " holds all weights; --tiers device,host,disk has the cores read the FFN from "
                    "a disk, --backend cpu all of a run");
  }
  const auto is_tiered = [&](const WeightPart& part) {
    return tiered && std::ranges::find(kTieredMatrices, part.matrix) != kTieredMatrices.end();
  };
  uint64_t total = hot_bytes;
  for (const WeightPart& part : parts) total += is_tiered(part) ? 0 : part.byte_count();
  if (total <= backend.free_bytes()) return total;
  throw work_failed(fmt::format(
      "the weights of this rank take {}, but {} has {} free: more ranks (mpirun -n), fewer layers, "
      "a smaller --model type, {}",
      format_bytes(total), backend.describe(), format_bytes(backend.free_bytes()),
      tiered ? "or a smaller --budget" : "or --disk-tier"));
}

// What tiers on a device and a host take, bytes.
struct TwoMemories {
  std::string_view tiers;  // "device,host,disk"
  DeviceTierSize device;
  uint64_t on_host = 0;  // bundles, or gate rows and the places of a store
  std::string_view of_host;
};

// The dense part and hot bundles on one backend, what is cold there on the other. Returns what the
// host will have to hold, bytes.
uint64_t refuse_what_has_no_room(const std::vector<WeightPart>& parts, const Backend& device,
                                 const TwoMemories& memories, const TierOptions& options) {
  uint64_t dense = 0;
  for (const WeightPart& part : parts) dense += is_ffn(part.matrix) ? 0 : part.byte_count();
  const DeviceTierSize& tier = memories.device;
  const uint64_t on_device = dense + tier.total() + options.reserved_bytes;
  if (on_device > device.free_bytes()) {
    throw work_failed(fmt::format(
        "--tiers {}: {} of dense weights, {} of hot bundles, {} to find and move them and "
        "{} of KV cache take {}, but {} has {} free: a smaller --budget or --batch, more ranks "
        "(mpirun -n), fewer layers",
        memories.tiers, format_bytes(dense), format_bytes(tier.hot_bytes),
        format_bytes(tier.index_bytes + tier.move_bytes), format_bytes(options.reserved_bytes),
        format_bytes(on_device), device.describe(), format_bytes(device.free_bytes())));
  }
  const uint64_t on_host = memories.on_host + (device.uses_host_memory() ? on_device : 0);
  if (on_host <= options.host->free_bytes()) return on_host;
  throw work_failed(fmt::format(
      "--tiers {}: {} take {} of host memory, which has {} free: more ranks (mpirun -n), fewer "
      "layers, a smaller --model type, or {}",
      memories.tiers, memories.of_host, format_bytes(on_host),
      format_bytes(options.host->free_bytes()),
      options.folder.empty() ? "--tiers device,host,disk" : "a smaller --host-budget"));
}

// Rows of these matrices of a neuron, of any layer of the rank.
template <size_t N>
uint64_t largest_bundle(const WeightPlan& plan, const Range& layers,
                        const std::array<Matrix, N>& of) {
  uint64_t largest = 0;
  for (uint32_t layer = layers.begin; layer < layers.end(); ++layer) {
    uint64_t bytes = 0;
    for (const Matrix matrix : of) bytes += plan.part(matrix, layer).row_bytes();
    largest = std::max(largest, bytes);
  }
  return largest;
}

// What the host has of the FFN. A hot bundle is counted as budgets count it.
uint64_t bytes_on_host(const std::vector<WeightPart>& parts, const WeightPlan& plan,
                       const RankShare& share, const TierOptions& tiers, uint64_t hot_max) {
  const bool tiered = !tiers.folder.empty();
  uint64_t bytes = 0;
  for (const WeightPart& part : parts) {
    const bool is_here = tiered ? part.matrix == Matrix::gate : is_ffn(part.matrix);
    bytes += is_here ? part.byte_count() : 0;
  }
  if (!tiered) return bytes;
  const uint64_t place_bytes = largest_bundle(plan, share.layers, kTieredMatrices);
  const StorePlaces places = store_places(share.pool(), place_bytes, hot_max, true);
  return bytes + places.hot * tiers.bundle_bytes + (places.total() - places.hot) * place_bytes;
}

uint64_t refuse_side_by_side(const std::vector<WeightPart>& parts, const WeightPlan& plan,
                             const RankShare& share, const ModelShape& shape, const Backend& device,
                             const TierOptions& tiers, const HotMax& hot_max) {
  refuse_what_cannot_run(parts, shape, *tiers.host);
  const bool tiered = !tiers.folder.empty();
  constexpr std::array kBundle = {Matrix::gate, Matrix::up, Matrix::down_t};
  const uint64_t place_bytes = largest_bundle(plan, share.layers, kBundle);
  const TwoMemories memories{
      tiered ? "device,host,disk" : "device,host",
      device_tier_size(device, share.pool(), place_bytes, hot_max.device),
      bytes_on_host(parts, plan, share, tiers, hot_max.host),
      tiered ? "gate rows, hot bundles and staging of this rank" : "all bundles of this rank"};
  return refuse_what_has_no_room(parts, device, memories, tiers);
}

}  // namespace

HotMax hot_max_of(const RankShare& share, const TierOptions& tiers, const ModelShape& shape) {
  const auto bundles = [&](const HotBudget& budget) {
    const NeuronPool pool = share.pool();
    return bundles_of_rank(budget, share.rank, tiers.bundle_bytes, pool, pool.total(),
                           shape.neuron_count());
  };
  if (tiers.host == nullptr) return {0, tiers.folder.empty() ? 0 : bundles(tiers.budget)};
  return {bundles(tiers.budget), tiers.folder.empty() ? 0 : bundles(tiers.host_budget)};
}

uint64_t host_bytes_of(const WeightPlan& plan, const RankShare& share, const ModelShape& shape,
                       const Backend& backend, const TierOptions& tiers, const HotMax& hot_max) {
  const auto parts = plan.parts();
  refuse_what_cannot_run(parts, shape, backend);
  if (tiers.host != nullptr)
    return refuse_side_by_side(parts, plan, share, shape, backend, tiers, hot_max);
  const uint64_t bytes =
      refuse_what_has_no_room(parts, backend, tiers, hot_max.host * tiers.bundle_bytes);
  return backend.uses_host_memory() ? bytes : 0;
}

}  // namespace thermocline
