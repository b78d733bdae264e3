#include "runtime/rank_weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>

#include "models/cli.h"
#include "runtime/part_loader.h"
#include "runtime/weight_parts.h"
#include "runtime/weight_room.h"

namespace thermocline {
namespace {

// All but the FFN.
LayerWeights load_dense(const PartLoader& loader, const WeightPlan& plan, uint32_t layer) {
  LayerWeights weights;
  weights.attention_norm = loader.norm(NormVector::attention_norm, layer);
  weights.ffn_norm = loader.norm(NormVector::ffn_norm, layer);
  weights.q = loader.matrix(plan.part(Matrix::q, layer));
  weights.k = loader.matrix(plan.part(Matrix::k, layer));
  weights.v = loader.matrix(plan.part(Matrix::v, layer));
  weights.o = loader.matrix(plan.part(Matrix::o, layer));
  return weights;
}

// What is read in one go lies in one piece. SiLU wants up wherever it wants gate: their rows lie
// side by side (row_pairs.h). A ReLU's gate is read alone, of all neurons; up and down of few.
// Between what is read, other rows would be prefetched in vain.
void load_ffn(const PartLoader& loader, const WeightPlan& plan, FfnActivation activation,
              uint32_t layer, LayerWeights& weights) {
  const WeightPart gate = plan.part(Matrix::gate, layer), up = plan.part(Matrix::up, layer);
  if (activation == FfnActivation::silu) {
    auto pair = loader.side_by_side(std::array{gate, up});
    weights.gate = std::move(pair[0]);
    weights.up = std::move(pair[1]);
  } else {
    weights.gate = loader.matrix(gate);
    weights.up = loader.matrix(up);
  }
  weights.down_t = loader.matrix(plan.part(Matrix::down_t, layer));
}

using TieredParts = std::array<WeightPart, kTieredMatrices.size()>;

// The FFN of a rank in tiers.
class TierLoader {
 public:
  TierLoader(const PartLoader& loader, const WeightPlan& plan, const RankShare& share,
             Backend& backend, const TierOptions& options)
      : loader_(loader), share_(share), backend_(backend), options_(options) {
    for (uint32_t layer = share.layers.begin; layer < share.layers.end(); ++layer) {
      parts_.push_back({plan.part(Matrix::up, layer), plan.part(Matrix::down_t, layer)});
    }
  }

  // Room on the disk for a file that is not there yet.
  std::unique_ptr<BundleFile> reserve() const {
    std::vector<uint64_t> bytes;
    for (const TieredParts& parts : parts_) bytes.push_back(bundle_bytes(parts));
    return std::make_unique<BundleFile>(
        path(), lay_out_bundles(bytes, share_.neurons.count, alignment_in(options_.folder)),
        identity());
  }

  void fill(BundleFile& file) const {
    if (!file.is_made()) {
      pack_all(file.layout(), [&](uint32_t layer, int first, std::span<const std::byte> bundles) {
        file.write(layer, static_cast<uint32_t>(first), bundles);
      });
      file.finish();
    } else if (loader_.checks_finite()) {  // who made it may not have looked
      pack_all(file.layout(), [](uint32_t, int, std::span<const std::byte>) {});
    }
  }

  std::shared_ptr<BundleStore> store(const BundleFile& file, uint64_t hot_max) const {
    return std::make_shared<BundleStore>(backend_, share_.pool(), file, hot_max, options_.engine,
                                         options_.host != nullptr);
  }

  void place(const BundleStore& store, LayerWeights& weights, uint32_t local_layer) const {
    WeightMatrix* matrices[] = {&weights.up, &weights.down_t};
    uint64_t offset = 0;
    for (size_t i = 0; i < kTieredMatrices.size(); ++i) {
      const WeightPart& part = parts_[local_layer][i];
      matrices[i]->view =
          store.view(local_layer, part.dtype, static_cast<int>(part.cols.count), offset);
      offset += part.row_bytes();
    }
  }

 private:
  static uint64_t bundle_bytes(const TieredParts& parts) {
    uint64_t bytes = 0;
    for (const WeightPart& part : parts) bytes += part.row_bytes();
    return bytes;
  }

  std::string path() const {
    return fmt::format("{}/ffn-{}-rank{}.bundles", options_.folder, options_.weight_hash,
                       share_.rank);
  }

  std::string identity() const {
    std::string text = fmt::format(
        "weights {}, rows as cpu_layout.h packs them (1), layers {} to {}, neurons {} to {}",
        options_.weight_hash, share_.layers.begin, share_.layers.end(), share_.neurons.begin,
        share_.neurons.end());
    for (const TieredParts& parts : parts_)
      for (const WeightPart& part : parts) text += fmt::format(" {}", facts(part.dtype).name);
    return text;
  }

  // Calls take(layer, first neuron, bundles) for all of them, on the backend's threads.
  template <class Take>
  void pack_all(const BundleLayout& layout, Take take) const {
    Progress progress("bundles", parts_.size(), "layers");
    for (uint32_t layer = 0; layer < parts_.size(); ++layer) {
      const uint64_t stride = layout.strides[layer];
      const auto at_once = static_cast<int>(std::max<uint64_t>(1, kStagingBytes / stride));
      backend_.run_on_host(static_cast<int>(share_.neurons.count), [&](int begin, int end) {
        std::vector<std::byte> bundles;
        for (int first = begin; first < end; first += at_once) {
          const int last = std::min(end, first + at_once);
          bundles.assign(static_cast<uint64_t>(last - first) * stride, std::byte{});
          loader_.pack(parts_[layer], first, last, stride, bundles.data());
          take(layer, first, bundles);
        }
      });
      progress.update(layer + 1);
    }
  }

  const PartLoader& loader_;
  const RankShare& share_;
  Backend& backend_;
  const TierOptions& options_;
  std::vector<TieredParts> parts_;  // by layer
};

std::shared_ptr<DeviceTier> make_device_tier(const RankWeights& weights, const RankShare& share,
                                             Backend& device, const TierOptions& tiers,
                                             uint64_t hot_max) {
  std::vector<BundleRows> rows;
  for (const LayerWeights& layer : weights.layers)
    rows.push_back({layer.gate.view, layer.up.view, layer.down_t.view});
  std::unique_ptr<HostBundles> bundles;
  if (weights.tiers != nullptr) {
    bundles = std::make_unique<StoredBundles>(std::move(rows), weights.tiers);
  } else {
    bundles = std::make_unique<WholeBundles>(std::move(rows));
  }
  return std::make_shared<DeviceTier>(device, *tiers.host, share.pool(), std::move(bundles),
                                      hot_max);
}

void load_store(const TierLoader& loader, const BundleFile& file, const RankShare& share,
                uint64_t hot_max, RankWeights& weights) {
  weights.tiers = loader.store(file, hot_max);
  for (uint32_t i = 0; i < share.layers.count; ++i)
    loader.place(*weights.tiers, weights.layers[i], i);
}

}  // namespace

uint64_t RankWeights::dense_bytes() const {
  uint64_t total = head.byte_count();
  for (const LayerWeights& layer : layers) total += layer.dense_byte_count();
  return total;
}

uint64_t RankWeights::total_bytes() const {
  const bool shared = head.memory == token_embedding.memory;
  uint64_t total = dense_bytes() + (shared ? 0 : token_embedding.byte_count());
  for (const LayerWeights& layer : layers) {
    total += layer.gate.byte_count();
    if (tiers == nullptr) total += layer.up.byte_count() + layer.down_t.byte_count();
  }
  if (device_tier != nullptr) total += device_tier->size().hot_bytes;
  return tiers == nullptr ? total : total + tiers->hot_bytes();
}

struct WeightLoad::State {
  State(const WeightSource& from, const Partition& partition, uint32_t rank, Backend& device,
        bool check_finite, TierOptions options)
      : source(from),
        backend(device),
        tiers(std::move(options)),
        share(partition.ranks[rank]),
        plan(from, partition, rank),
        hot_max(hot_max_of(share, tiers, from.shape())),
        loader(from, device, check_finite),
        ffn_loader(from, ffn_backend(), check_finite) {
    if (!tiers.folder.empty()) tier_loader.emplace(ffn_loader, plan, share, ffn_backend(), tiers);
  }

  Backend& ffn_backend() const { return tiers.host != nullptr ? *tiers.host : backend; }

  uint64_t host_bytes() const {
    return host_bytes_of(plan, share, source.shape(), backend, tiers, hot_max);
  }

  const WeightSource& source;
  Backend& backend;
  const TierOptions tiers;
  const RankShare share;
  const WeightPlan plan;
  const HotMax hot_max;
  const PartLoader loader, ffn_loader;
  std::optional<TierLoader> tier_loader;  // where there is a disk tier
  std::unique_ptr<BundleFile> file;       // its, once it is reserved
};

WeightLoad::WeightLoad(const WeightSource& source, const Partition& partition, uint32_t rank,
                       Backend& backend, bool check_finite, const TierOptions& tiers)
    : state_(std::make_unique<State>(source, partition, rank, backend, check_finite, tiers)),
      host_bytes_(state_->host_bytes()) {}

WeightLoad::~WeightLoad() {
  if (made_bundles()) state_->file->remove_new();
}

void WeightLoad::reserve_bundles() {
  if (state_->tier_loader.has_value()) state_->file = state_->tier_loader->reserve();
}

void WeightLoad::make_bundles() {
  if (state_->file != nullptr) state_->tier_loader->fill(*state_->file);
}

bool WeightLoad::made_bundles() const { return state_->file != nullptr && state_->file->is_new(); }

void WeightLoad::keep_bundles() { state_->file.reset(); }

RankWeights WeightLoad::load() {
  const State& s = *state_;
  RankWeights weights;
  for (uint32_t layer = s.share.layers.begin; layer < s.share.layers.end(); ++layer) {
    weights.layers.push_back(load_dense(s.loader, s.plan, layer));
    LayerWeights& of_layer = weights.layers.back();
    if (s.tier_loader.has_value()) {
      of_layer.gate = s.ffn_loader.matrix(s.plan.part(Matrix::gate, layer));
    } else {
      load_ffn(s.ffn_loader, s.plan, s.source.shape().activation, layer, of_layer);
    }
  }
  if (s.tier_loader.has_value())
    load_store(*s.tier_loader, *s.file, s.share, s.hot_max.host, weights);
  if (s.tiers.host != nullptr)
    weights.device_tier = make_device_tier(weights, s.share, s.backend, s.tiers, s.hot_max.device);
  if (s.plan.first_stage())
    weights.token_embedding = s.loader.matrix(s.plan.part(Matrix::token_embedding, 0));
  if (s.plan.last_stage()) {
    const bool shared = s.source.shape().tied_embeddings && s.plan.first_stage();
    weights.head = shared ? weights.token_embedding : s.loader.matrix(s.plan.part(Matrix::head, 0));
    weights.output_norm = s.loader.norm(NormVector::output_norm, 0);
  }
  return weights;
}

RankWeights load_rank_weights(const WeightSource& source, const Partition& partition, uint32_t rank,
                              Backend& backend, bool check_finite, const TierOptions& tiers) {
  WeightLoad load(source, partition, rank, backend, check_finite, tiers);
  load.reserve_bundles();
  load.make_bundles();
  RankWeights weights = load.load();
  load.keep_bundles();
  return weights;
}

}  // namespace thermocline
