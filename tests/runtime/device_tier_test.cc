// Tiers device and host: places hold what they should, the budget holds, and no hot set changes a
// result: to the bit where both parts run on the CPU, within rounding on CUDA's kernels.
#include <catch2/catch.hpp>
#include <cstring>
#include <random>

#include "models/error.h"
#include "runtime/kernels/cpu_layout.h"
#include "runtime/live_policies.h"
#include "runtime/tiers/device_tier.h"
#include "runtime/tiers/tier_layout.h"
#include "tests/backends/all_backends.h"
#include "tests/runtime/hot_sets.h"
#include "tests/runtime/local_run.h"
#include "tests/runtime/random_weights.h"
#include "tests/support.h"

namespace thermocline::test {
namespace {

constexpr NeuronPool kPool{3, 4, 16, 150};

std::unique_ptr<Backend> cpu(int threads = 1) {
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

const std::vector<std::array<DType, 3>> kTypes(4, {DType::q4_0, DType::q4_0, DType::q8_0});
const std::vector<std::array<DType, 3>> kMixedTypes = {{DType::f32, DType::f32, DType::f32},
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
bool device_is_right(Backend& device, const DeviceTier& tier, const Bundles& bundles,
                     uint64_t hot_max) {
  std::vector<bool> taken(hot_max);
  bool right = true;
  for (uint32_t layer = 0; layer < kPool.layer_count; ++layer) {
    const auto hot = fetched(device, tier.hot_on_device(layer), kPool.words_per_layer());
    right &= std::equal(hot.begin(), hot.end(), tier.hot(layer).begin());
    uint32_t hot_count = 0;
    std::vector<WeightView> views;
    for (const BundleRow row : {kGateRow, kUpRow, kDownRow})
      views.push_back(tier.device_rows(layer, row));
    const auto places = fetched(device, views[0].places, kPool.neuron_count);
    for_each_neuron(kPool.neuron_count, hot, [&](uint32_t n) {
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
    right &= hot_count + tier.cold_count(layer) == kPool.neuron_count;
    for (size_t w = 0; w < hot.size(); ++w) right &= (hot[w] & tier.cold(layer)[w]) == 0;
  }
  return right;
}

}  // namespace

TEST_CASE("whatever is hot, a device has it in its places, and the host has the rest", "[tiers]") {
  const uint64_t budget = GENERATE(0, 1, 200, 600, 5000);
  const auto& types = GENERATE(true, false) ? kTypes : kMixedTypes;
  const Bundles bundles(kPool, types);
  const uint64_t hot_max = std::min<uint64_t>(budget, kPool.total());
  for (auto& [name, device] : all_backends(1)) {
    INFO(name << ", budget " << budget);
    const auto host = cpu();
    DeviceTier tier(*device, *host, kPool, bundles.rows, budget);
    std::mt19937_64 random(5);
    HotSet hot = random_hot(kPool, hot_max, random);
    tier.set_hot(&hot);
    bool right = true, reached = true;
    for (int pass = 0; pass < 30; ++pass) {
      tier.begin_pass();
      right &= device_is_right(*device, tier, bundles, hot_max);
      if (pass % 4 == 3) {  // nothing moves any more: all that is wanted is hot
        tier.wait_for_moves();
        tier.begin_pass();
        right &= device_is_right(*device, tier, bundles, hot_max);
        for (uint32_t layer = 0; layer < kPool.layer_count; ++layer)
          for (uint32_t n = 0; n < kPool.neuron_count; ++n)
            reached &= (tier.hot(layer)[n / 64] >> n % 64 & 1) ==
                       hot.contains(layer * kPool.neuron_count + n);
      }
      hot = pass % 7 == 6 ? random_hot(kPool, hot_max, random) : changed(hot, random);
    }
    CHECK(right);
    CHECK(reached);
    const uint64_t place = tier.size().place_bytes;
    CHECK(tier.size().hot_bytes == hot_max * place);
    CHECK(tier.counters().moved_bytes <= tier.counters().moved_count * place);
    CHECK(tier.counters().moved_count >= hot_max);
  }
}

TEST_CASE("a bundle that leaves while it moves gives its place up, and may come back", "[tiers]") {
  HotPlaces places(NeuronPool{0, 1, 0, 64}, 1);
  const auto words = [](uint64_t bits) { return std::vector<uint64_t>{bits}; };
  std::vector<uint32_t> came;
  const auto follow = [&](uint64_t bits) {
    came.clear();
    const auto hot = words(bits);
    places.follow(hot, [&](uint32_t, uint32_t neuron) { came.push_back(neuron); });
  };
  using Admission = HotPlaces::Admission;
  uint32_t place = 9;
  follow(1);
  CHECK(came == std::vector<uint32_t>{0});
  CHECK(places.admit(0, 0, &place) == Admission::starts);
  CHECK(place == 0);
  follow(2);  // neuron 0 left while it moved: its place is written to still
  CHECK(places.admit(0, 1, &place) == Admission::has_no_place);
  CHECK_FALSE(places.has_free_place());
  follow(1);  // and came back
  CHECK(places.admit(0, 0, &place) == Admission::is_on_its_way);
  follow(2);
  CHECK_FALSE(places.arrive(0, 0, 0));
  CHECK(places.resident()[0] == 0);
  CHECK(places.admit(0, 1, &place) == Admission::starts);
  CHECK(places.arrive(0, 1, place));
  CHECK(places.resident()[0] == 2);
  follow(0);
  CHECK(places.resident()[0] == 0);
  CHECK(places.has_free_place());
}

namespace {

ModelShape small_shape(FfnActivation activation) {
  return {.layer_count = 3,
          .model_dim = 64,
          .ffn_dim = 256,
          .head_count = 4,
          .kv_head_count = 2,
          .head_dim = 16,
          .vocab_size = 80,
          .context_length = 96,
          .activation = activation};
}

// Two tasks in flight, prompts in chunks, teacher-forced and decoded tokens.
LocalRunOptions three_tasks(const std::string& layout) {
  LocalRunOptions options;
  options.layout = layout;
  options.threads = 2;
  options.batch = 2;
  options.chunk_max = 3;
  options.silu_threshold = 0.1f;
  options.tasks = {{0, 0, {1, 5, 9, 20, 33}, {4, 8, 15, 16, 23}, 0},
                   {1, 1, {1, 7, 7, 2}, {3, 1, 4, 1, 5, 9, 2, 6}, 0},
                   {2, 2, {1, 2}, {4, 2, 4, 2}, 0}};
  return options;
}

// For emulated GPUs, which are slow.
ModelShape tiny_shape(FfnActivation activation) {
  ModelShape shape = small_shape(activation);
  shape.layer_count = 2;
  shape.ffn_dim = 96;
  return shape;
}
LocalRunOptions two_tasks(const std::string& layout) {
  LocalRunOptions options = three_tasks(layout);
  options.threads = 1;
  options.tasks = {{0, 0, {1, 5, 9, 20}, {4, 8}, 0}, {1, 1, {1, 7}, {3, 1, 4}, 0}};
  return options;
}

// `options` with the FFN on device and host, under a budget in percent.
LocalRunResult run_side_by_side(const WeightSource& source, LocalRunOptions options,
                                uint64_t percent) {
  const ModelShape& shape = source.shape();
  const uint64_t bundle = bundle_bytes(shape, bundle_types(source));
  options.side_by_side = true;
  options.tiers.budget = bundle * shape.neuron_count() * percent / 100;
  options.tiers.bundle_bytes = bundle;
  std::vector<Mover*> movers(8);
  options.observer = [&](const Partition& partition, uint32_t rank) {
    auto mover = std::make_unique<Mover>();
    const NeuronPool pool = partition.ranks[rank].pool();
    mover->count = pool.total() * percent / 100;
    mover->hot = random_hot(pool, mover->count, mover->random);
    movers[rank] = mover.get();
    return mover;
  };
  options.hot = [&](uint32_t rank) { return &movers[rank]->hot; };
  return run_locally(source, options);
}

void check_counters(const LocalRunResult& result, uint64_t percent) {
  const TierCounters& counters = result.tiers[0];
  CHECK(counters.needed > 0);
  CHECK(counters.here <= counters.needed);
  CHECK((percent > 0 || counters.here == 0));
  CHECK((percent == 0 || counters.moved_count > 0));
  const SideBySideTimes& times = result.side_by_side[0];
  CHECK(times.pass_count > 0);
  CHECK(times.larger_ns >= std::max(times.device_ns, times.host_ns));
  CHECK(times.both_ns > 0);
}

}  // namespace

TEST_CASE("device and host on the CPU change no bit, whatever moves", "[tiers]") {
  const auto activation = GENERATE(FfnActivation::relu, FfnActivation::silu);
  for (const DType dtype : {DType::f32, DType::q4_0}) {
    const RandomWeights source(small_shape(activation), dtype);
    for (const char* layout : {"pp1,tp1", "pp1,tp2", "pp2,tp1"}) {
      for (const char* predictor : {"exact", "sign:threshold=0.48"}) {
        LocalRunOptions options = three_tasks(layout);
        options.predictor = predictor;
        options.magnitudes_every = std::string(predictor) == "exact" ? 3 : 0;
        const LocalRunResult whole = run_locally(source, options);
        for (const uint64_t percent : {0, 30, 100}) {
          INFO(facts(dtype).name << " " << layout << " " << predictor << ", " << percent << " %");
          const LocalRunResult tiered = run_side_by_side(source, options, percent);
          CHECK(tiered.logits == whole.logits);
          CHECK(tiered.active == whole.active);
          CHECK(tiered.candidates == whole.candidates);
          CHECK(tiered.magnitudes == whole.magnitudes);
          check_counters(tiered, percent);
        }
      }
    }
  }
}

TEST_CASE("device and host on CUDA's kernels and the CPU agree with either, within rounding",
          "[cuda][tiers]") {
  struct Case {
    FfnActivation activation;
    DType dtype;
    const char *layout, *predictor;
  };
  const Case run =
      GENERATE(Case{FfnActivation::relu, DType::f32, "pp1,tp1", "exact"},
               Case{FfnActivation::relu, DType::q4_0, "pp1,tp1", "sign:threshold=0.48"},
               Case{FfnActivation::silu, DType::q4_0, "pp1,tp1", "exact"},
               Case{FfnActivation::relu, DType::q4_0, "pp1,tp2", "exact"});
  const RandomWeights source(tiny_shape(run.activation), run.dtype);
  LocalRunOptions options = two_tasks(run.layout);
  options.predictor = run.predictor;
  const LocalRunResult on_cpu = run_locally(source, options);
  options.backend = [] { return make_emulated_cuda_backend(); };
  const LocalRunResult on_cuda = run_locally(source, options);
  // Emulated GPUs are slow: all budgets for one of the cases, one of them for the others.
  const bool all = run.dtype == DType::f32;
  for (const uint64_t percent :
       all ? std::vector<uint64_t>{0, 30, 100} : std::vector<uint64_t>{30}) {
    INFO(facts(run.dtype).name << " " << run.layout << " " << run.predictor << ", " << percent
                               << " %");
    const LocalRunResult tiered = run_side_by_side(source, options, percent);
    // Inputs of quantised weights are in fixed point on the CPU and f32 on a GPU.
    const double tolerance = run.dtype == DType::f32 ? 1e-5 : 3e-4;
    CHECK(relative_difference(on_cpu.logits, tiered.logits) < tolerance);
    CHECK(relative_difference(on_cuda.logits, tiered.logits) < tolerance);
    size_t differ = 0;
    for (size_t i = 0; i < tiered.active.size(); ++i)
      differ += tiered.active[i] != on_cuda.active[i];
    CHECK(differ <= tiered.active.size() / 1000);
    check_counters(tiered, percent);
  }
}

TEST_CASE("magnitudes of both parts are the neurons' own", "[cuda][tiers]") {
  const RandomWeights source(tiny_shape(FfnActivation::silu), DType::f32);
  LocalRunOptions options = two_tasks("pp1,tp1");
  options.magnitudes_every = 2;
  const LocalRunResult whole = run_locally(source, options);
  options.backend = [] { return make_emulated_cuda_backend(); };
  const LocalRunResult tiered = run_side_by_side(source, options, 40);
  CHECK(relative_difference(whole.magnitudes, tiered.magnitudes) < 1e-5);
}

TEST_CASE("what does not fit on device or host is refused before anything is read", "[tiers]") {
  struct Unread final : WeightSource {
    RandomWeights weights{small_shape(FfnActivation::relu), DType::f32};
    const ModelShape& shape() const override { return weights.shape(); }
    DType dtype(Matrix, uint32_t) const override { return DType::f32; }
    std::string provenance() const override { return "synthetic"; }
    std::string hash() const override { return weights.hash(); }
    void read(Matrix, uint32_t, const MatrixSlice&, std::byte*) const override { FAIL("read"); }
    void read(NormVector, uint32_t, float*) const override { FAIL("read"); }
  };
  const Unread source;
  const Partition partition = make_partition(source.shape(), DType::f32, {1, 1}, {1});
  const auto host = cpu();
  TierOptions tiers;
  tiers.host = host.get();
  tiers.bundle_bytes = bundle_bytes(source.shape(), DType::f32);
  tiers.reserved_bytes = uint64_t{1} << 50;
  CHECK_THROWS_WITH(
      load_rank_weights(source, partition, 0, *cpu(), false, tiers),
      Catch::Contains("of KV cache take 1.00 PiB") && Catch::Contains("a smaller --budget"));
}

TEST_CASE("tiers that there are, and what is said of others", "[tiers]") {
  CHECK(parse_tier_layout("", "") == TierLayout::one);
  CHECK(parse_tier_layout("", "folder") == TierLayout::host_disk);
  CHECK(parse_tier_layout("host,disk", "folder") == TierLayout::host_disk);
  CHECK(parse_tier_layout("device,host", "") == TierLayout::device_host);
  CHECK_THROWS_WITH(parse_tier_layout("host,disk", ""), Catch::Contains("needs --disk-tier"));
  CHECK_THROWS_WITH(parse_tier_layout("device,host", "folder"),
                    Catch::Contains("expected no --disk-tier"));
  for (const char* wrong : {"host,device", "device", "device,host,disk", "device, host", "gpu,cpu"})
    CHECK_THROWS_WITH(parse_tier_layout(wrong, ""),
                      Catch::Contains(wrong) && Catch::Contains("device,host (all bundles") &&
                          Catch::Contains("host,disk (with --disk-tier FOLDER)"));
  const BackendEntry& on_cores = backends().by_name("cpu");
  CHECK_NOTHROW(require_device_tier("cpu", on_cores));
  CHECK_THROWS_WITH(require_device_tier("auto", on_cores),
                    Catch::Contains("no GPU can be used here") && Catch::Contains("--backend cpu"));
}

namespace {

// Two layers of f32 bundles, 192 MiB, with a quarter as budget.
struct LargeBundles {
  static constexpr NeuronPool kPool{0, 2, 0, 8192};
  static constexpr uint64_t kRowBytes = 4096, kHotMax = 4096;
  std::vector<std::byte> memory = std::vector<std::byte>(kPool.total() * 3 * kRowBytes);
  std::vector<BundleRows> layers;

  LargeBundles() {
    for (uint32_t layer = 0; layer < kPool.layer_count; ++layer) {
      BundleRows rows;
      for (size_t i = 0; i < rows.size(); ++i)
        rows[i] = {DType::f32, kPool.neuron_count, kRowBytes / sizeof(float), 3 * kRowBytes,
                   memory.data() + layer * kPool.neuron_count * 3 * kRowBytes + i * kRowBytes};
      layers.push_back(rows);
    }
  }
};

void follow_random_sets(DeviceTier& tier) {
  std::mt19937_64 random(2);
  for (int pass = 0; pass < 8; ++pass) {
    tier.follow(random_hot(LargeBundles::kPool, LargeBundles::kHotMax, random).words());
    if (pass % 2 == 1) tier.wait_for_moves();
  }
  tier.wait_for_moves();
}

}  // namespace

TEST_CASE("a device tier on the host holds its budget, and what is stated beside it", "[tiers]") {
  const LargeBundles bundles;
  const auto device = cpu(), host = cpu();
  const uint64_t before = resident_bytes();
  DeviceTier tier(*device, *host, LargeBundles::kPool, bundles.layers, LargeBundles::kHotMax);
  follow_random_sets(tier);
  const uint64_t held = resident_bytes() - before;
#ifdef THERMOCLINE_SANITIZED
  const uint64_t slack = uint64_t{64} << 20;  // what a sanitizer notes of memory is resident too
#else
  const uint64_t slack = uint64_t{16} << 20;  // huge pages, and what says where bundles are
#endif
  INFO("held " << held << ", stated " << tier.size().total());
  CHECK(tier.size().hot_bytes == uint64_t{48} << 20);
  CHECK(tier.size().total() < uint64_t{54} << 20);
  CHECK(held >= tier.size().hot_bytes);
  CHECK(held <= tier.size().total() + slack);
}

// The bytes that a GPU's memory shrinks by are those of the budget and what is stated beside it.
TEST_CASE("the budget is what the device really holds", "[cuda][gpu]") {
  const BackendEntry* entry = backends().by_name_or_null("cuda");
  if (entry == nullptr || !entry->unusable().empty()) {
    WARN("skipped: no GPU can be used here: " << (entry == nullptr ? "built without CUDA"
                                                                   : entry->unusable()));
    return;
  }
  const auto device = entry->make({1, {}, 0});
  const auto host = cpu();
  const LargeBundles bundles;
  const auto warm = device->make_mover(1024, 16);  // what CUDA takes with a first kernel and stream
  const uint64_t before = device->free_bytes();
  DeviceTier tier(*device, *host, LargeBundles::kPool, bundles.layers, LargeBundles::kHotMax);
  follow_random_sets(tier);
  const uint64_t held = before - device->free_bytes();
  const uint64_t granule = uint64_t{2} << 20;  // in which CUDA gives memory, for each allocation
  INFO("held " << held << ", stated " << tier.size().total());
  CHECK(tier.size().hot_bytes == uint64_t{48} << 20);
  CHECK(held >= tier.size().hot_bytes);
  CHECK(held <= tier.size().total() + 4 * granule);
}

}  // namespace thermocline::test
