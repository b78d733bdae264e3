#include "runtime/rank_weights.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>

#include "models/cli.h"
#include "models/error.h"
#include "models/quantize.h"
#include "models/units.h"
#include "sim/policy.h"

namespace thermocline {
namespace {

// Large matrices lie in huge pages: a step streams all of them, and page walks cost.
constexpr uint64_t kHugePage = uint64_t{2} << 20;
constexpr uint64_t kStagingBytes = uint64_t{1} << 20;  // read at once, by a thread

std::string_view name_of(Matrix matrix) {
  constexpr std::string_view kNames[] = {
      "token_embedding", "head", "q", "k", "v", "o", "gate", "up", "down_t"};
  return kNames[static_cast<int>(matrix)];
}

std::string_view name_of(NormVector vector) {
  constexpr std::string_view kNames[] = {"attention_norm", "ffn_norm", "output_norm"};
  return kNames[static_cast<int>(vector)];
}

// The rows of a neuron that lie in its bundle on disk, where there are tiers.
constexpr std::array kTieredMatrices = {Matrix::up, Matrix::down_t};

bool is_ffn(Matrix matrix) {
  return matrix == Matrix::gate || matrix == Matrix::up || matrix == Matrix::down_t;
}

bool has_layers(Matrix matrix) {
  return matrix != Matrix::token_embedding && matrix != Matrix::head;
}

// A rank's part of a matrix.
struct Part {
  Matrix matrix;
  uint32_t layer;
  DType dtype;
  Range rows, cols;

  uint64_t row_bytes() const { return bytes_of(dtype, cols.count); }
  uint64_t byte_count() const { return rows.count * row_bytes(); }
  std::string text() const {
    return has_layers(matrix) ? fmt::format("layer {}, {}", layer, name_of(matrix))
                              : std::string(name_of(matrix));
  }
};

// Which parts a rank holds.
class Plan {
 public:
  Plan(const WeightSource& source, const Partition& partition, uint32_t rank)
      : source_(source), shape_(source.shape()), share_(partition.ranks[rank]) {}

  Part part(Matrix matrix, uint32_t layer) const {
    const uint32_t q_rows_per_kv_head = shape_.q_dim() / shape_.kv_head_count;
    const Range all{0, shape_.model_dim};
    const Range q{share_.kv_heads.begin * q_rows_per_kv_head,
                  share_.kv_heads.count * q_rows_per_kv_head};
    const Range kv{share_.kv_heads.begin * shape_.head_dim,
                   share_.kv_heads.count * shape_.head_dim};
    const auto with = [&](Range rows, Range cols) {
      return Part{matrix, layer, source_.dtype(matrix, layer), rows, cols};
    };
    switch (matrix) {
      case Matrix::q:
        return with(q, all);
      case Matrix::k:
      case Matrix::v:
        return with(kv, all);
      case Matrix::o:
        return with(all, q);
      case Matrix::token_embedding:
      case Matrix::head:
        return with(share_.vocab, all);
      default:
        return with(share_.neurons, all);
    }
  }

  std::vector<Part> parts(bool first_stage, bool last_stage) const {
    std::vector<Part> all;
    for (uint32_t layer = share_.layers.begin; layer < share_.layers.end(); ++layer) {
      for (const Matrix matrix :
           {Matrix::q, Matrix::k, Matrix::v, Matrix::o, Matrix::gate, Matrix::up, Matrix::down_t}) {
        all.push_back(part(matrix, layer));
      }
    }
    const bool shared = shape_.tied_embeddings && first_stage;
    if (first_stage) all.push_back(part(Matrix::token_embedding, 0));
    if (last_stage && !shared) all.push_back(part(Matrix::head, 0));
    return all;
  }

 private:
  const WeightSource& source_;
  const ModelShape& shape_;
  const RankShare& share_;
};

void refuse_what_cannot_run(const std::vector<Part>& parts, const ModelShape& shape,
                            const Backend& backend) {
  for (const Part& part : parts) {
    const std::string reason =
        backend.refusal_of_matrix(part.dtype, static_cast<int>(part.cols.count));
    if (!reason.empty()) throw bad_usage(part.text() + ": " + reason);
  }
  const std::string reason = backend.refusal_of_attention(
      static_cast<int>(shape.head_dim), static_cast<int>(shape.head_count / shape.kv_head_count));
  if (!reason.empty()) throw bad_usage("attention: " + reason);
}

// Returns what the backend's memory will have to hold, bytes.
uint64_t refuse_what_has_no_room(const std::vector<Part>& parts, const Backend& backend,
                                 const TierOptions& tiers, uint64_t hot_bytes) {
  const bool tiered = !tiers.folder.empty();
  if (tiered && !backend.has_tiers()) {
    throw bad_usage("--disk-tier: " + backend.describe() +
                    " holds all weights; --tiers device,host,disk has the cores read the FFN from "
                    "a disk, --backend cpu all of a run");
  }
  const auto is_tiered = [&](const Part& part) {
    return tiered && std::ranges::find(kTieredMatrices, part.matrix) != kTieredMatrices.end();
  };
  uint64_t total = hot_bytes;
  for (const Part& part : parts) total += is_tiered(part) ? 0 : part.byte_count();
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
uint64_t refuse_what_has_no_room(const std::vector<Part>& parts, const Backend& device,
                                 const TwoMemories& memories, const TierOptions& options) {
  uint64_t dense = 0;
  for (const Part& part : parts) dense += is_ffn(part.matrix) ? 0 : part.byte_count();
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

class Loader {
 public:
  Loader(const WeightSource& source, Backend& backend, bool check_finite)
      : source_(source), backend_(backend), check_finite_(check_finite) {}

  bool checks_finite() const { return check_finite_; }

  WeightMatrix matrix(const Part& part) const {
    const auto memory = allocate(part.byte_count());
    return place(part, memory, 0, part.row_bytes());
  }

  // Matrices of the same rows, those of a row side by side.
  template <size_t N>
  std::array<WeightMatrix, N> bundle(const std::array<Part, N>& parts) const {
    uint64_t stride = 0, offset = 0;
    for (const Part& part : parts) stride += part.row_bytes();
    const auto memory = allocate(stride * parts[0].rows.count);
    std::array<WeightMatrix, N> matrices;
    for (size_t i = 0; i < N; offset += parts[i++].row_bytes()) {
      matrices[i] = place(parts[i], memory, offset, stride);
    }
    return matrices;
  }

  // Rows [first, last) of the parts side by side in host memory, `stride` bytes a row.
  template <size_t N>
  void pack(const std::array<Part, N>& parts, int first, int last, uint64_t stride,
            std::byte* to) const {
    std::vector<std::byte> rows;
    for (const Part& part : parts) {
      read(part, first, last, rows);
      const WeightView view{part.dtype, last - first, static_cast<int>(part.cols.count), stride,
                            to};
      backend_.place_rows(view, 0, last - first, rows.data());
      to += part.row_bytes();
    }
  }

  WeightVector norm(NormVector vector, uint32_t layer) const {
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

 private:
  std::shared_ptr<std::byte> allocate(uint64_t bytes) const {
    auto memory = backend_.allocate(bytes);
    // A hint: where the kernel has no huge pages, small ones serve.
    if (backend_.uses_host_memory() && bytes >= kHugePage) {
      ::madvise(memory.get(), bytes, MADV_HUGEPAGE);
    }
    return memory;
  }

  // Reads the part; threads take parts of its rows, and touch what they will compute with.
  WeightMatrix place(const Part& part, const std::shared_ptr<std::byte>& memory, uint64_t offset,
                     uint64_t stride) const {
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

  // Rows [first, last) of the part, as the file has them.
  void read(const Part& part, int first, int last, std::vector<std::byte>& rows) const {
    rows.resize(static_cast<uint64_t>(last - first) * part.row_bytes());
    source_.read(part.matrix, part.layer,
                 {part.rows.begin + static_cast<uint64_t>(first),
                  part.rows.begin + static_cast<uint64_t>(last), part.cols.begin, part.cols.end()},
                 rows.data());
    if (check_finite_) check(part, first, rows);
  }

  static void check(const Part& part, int first_row, const std::vector<std::byte>& rows) {
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

  const WeightSource& source_;
  Backend& backend_;
  bool check_finite_;
};

// All but the FFN.
LayerWeights load_dense(const Loader& loader, const Plan& plan, uint32_t layer) {
  LayerWeights weights;
  weights.attention_norm = loader.norm(NormVector::attention_norm, layer);
  weights.ffn_norm = loader.norm(NormVector::ffn_norm, layer);
  weights.q = loader.matrix(plan.part(Matrix::q, layer));
  weights.k = loader.matrix(plan.part(Matrix::k, layer));
  weights.v = loader.matrix(plan.part(Matrix::v, layer));
  weights.o = loader.matrix(plan.part(Matrix::o, layer));
  return weights;
}

void load_ffn(const Loader& loader, const Plan& plan, uint32_t layer, LayerWeights& weights) {
  auto bundle =
      loader.bundle(std::array{plan.part(Matrix::gate, layer), plan.part(Matrix::up, layer),
                               plan.part(Matrix::down_t, layer)});
  weights.gate = std::move(bundle[0]);
  weights.up = std::move(bundle[1]);
  weights.down_t = std::move(bundle[2]);
}

using TieredParts = std::array<Part, kTieredMatrices.size()>;

// The FFN of a rank in tiers.
class TierLoader {
 public:
  TierLoader(const Loader& loader, const Plan& plan, const RankShare& share, Backend& backend,
             const TierOptions& options)
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
      const Part& part = parts_[local_layer][i];
      matrices[i]->view =
          store.view(local_layer, part.dtype, static_cast<int>(part.cols.count), offset);
      offset += part.row_bytes();
    }
  }

 private:
  static uint64_t bundle_bytes(const TieredParts& parts) {
    uint64_t bytes = 0;
    for (const Part& part : parts) bytes += part.row_bytes();
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
      for (const Part& part : parts) text += fmt::format(" {}", facts(part.dtype).name);
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

  const Loader& loader_;
  const RankShare& share_;
  Backend& backend_;
  const TierOptions& options_;
  std::vector<TieredParts> parts_;  // by layer
};

// Hot bundles that the rank's budgets allow, in the memory of each backend.
struct HotMax {
  uint64_t device = 0, host = 0;
};
HotMax hot_max_of(const RankShare& share, const TierOptions& tiers, const ModelShape& shape) {
  const auto bundles = [&](const HotBudget& budget) {
    const NeuronPool pool = share.pool();
    return bundles_of_rank(budget, share.rank, tiers.bundle_bytes, pool, pool.total(),
                           shape.neuron_count());
  };
  if (tiers.host == nullptr) return {0, tiers.folder.empty() ? 0 : bundles(tiers.budget)};
  return {bundles(tiers.budget), tiers.folder.empty() ? 0 : bundles(tiers.host_budget)};
}

// Rows of these matrices of a neuron, of any layer of the rank.
template <size_t N>
uint64_t largest_bundle(const Plan& plan, const Range& layers, const std::array<Matrix, N>& of) {
  uint64_t largest = 0;
  for (uint32_t layer = layers.begin; layer < layers.end(); ++layer) {
    uint64_t bytes = 0;
    for (const Matrix matrix : of) bytes += plan.part(matrix, layer).row_bytes();
    largest = std::max(largest, bytes);
  }
  return largest;
}

// What the host has of the FFN. A hot bundle is counted as budgets count it.
uint64_t bytes_on_host(const std::vector<Part>& parts, const Plan& plan, const RankShare& share,
                       const TierOptions& tiers, uint64_t hot_max) {
  const bool tiered = !tiers.folder.empty();
  uint64_t bytes = 0;
  for (const Part& part : parts) {
    const bool is_here = tiered ? part.matrix == Matrix::gate : is_ffn(part.matrix);
    bytes += is_here ? part.byte_count() : 0;
  }
  if (!tiered) return bytes;
  const uint64_t place_bytes = largest_bundle(plan, share.layers, kTieredMatrices);
  const StorePlaces places = store_places(share.pool(), place_bytes, hot_max, true);
  return bytes + places.hot * tiers.bundle_bytes + (places.total() - places.hot) * place_bytes;
}

uint64_t refuse_side_by_side(const std::vector<Part>& parts, const Plan& plan,
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
        first_stage(partition.first_stage(rank)),
        last_stage(partition.last_stage(rank)),
        plan(from, partition, rank),
        hot_max(hot_max_of(share, tiers, from.shape())),
        loader(from, device, check_finite),
        ffn_loader(from, ffn_backend(), check_finite) {
    if (!tiers.folder.empty()) tier_loader.emplace(ffn_loader, plan, share, ffn_backend(), tiers);
  }

  Backend& ffn_backend() const { return tiers.host != nullptr ? *tiers.host : backend; }

  // Refuses what cannot be; returns what the rank takes of its host's memory.
  uint64_t host_bytes() const {
    const auto parts = plan.parts(first_stage, last_stage);
    refuse_what_cannot_run(parts, source.shape(), backend);
    if (tiers.host != nullptr) {
      return refuse_side_by_side(parts, plan, share, source.shape(), backend, tiers, hot_max);
    }
    const uint64_t bytes =
        refuse_what_has_no_room(parts, backend, tiers, hot_max.host * tiers.bundle_bytes);
    return backend.uses_host_memory() ? bytes : 0;
  }

  const WeightSource& source;
  Backend& backend;
  const TierOptions tiers;
  const RankShare share;
  const bool first_stage, last_stage;
  const Plan plan;
  const HotMax hot_max;
  const Loader loader, ffn_loader;
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
      load_ffn(s.ffn_loader, s.plan, layer, of_layer);
    }
  }
  if (s.tier_loader.has_value())
    load_store(*s.tier_loader, *s.file, s.share, s.hot_max.host, weights);
  if (s.tiers.host != nullptr)
    weights.device_tier = make_device_tier(weights, s.share, s.backend, s.tiers, s.hot_max.device);
  if (s.first_stage)
    weights.token_embedding = s.loader.matrix(s.plan.part(Matrix::token_embedding, 0));
  if (s.last_stage) {
    const bool shared = s.source.shape().tied_embeddings && s.first_stage;
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
