// Tiers device and host: places hold what they should, the budget holds, and no hot set changes a
// result: to the bit where both parts run on the CPU, within rounding on CUDA's kernels.
#include <catch2/catch.hpp>
#include <random>

#include "models/error.h"
#include "runtime/live_policies.h"
#include "runtime/tiers/device_tier.h"
#include "runtime/tiers/tier_layout.h"
#include "tests/backends/all_backends.h"
#include "tests/runtime/device_bundles.h"
#include "tests/runtime/hot_sets.h"
#include "tests/runtime/local_run.h"
#include "tests/runtime/random_weights.h"
#include "tests/runtime/tier_runs.h"
#include "tests/support.h"

namespace thermocline::test {
namespace {}  // namespace

TEST_CASE("whatever is hot, a device has it in its places, and the host has the rest", "[tiers]") {
  const uint64_t budget = GENERATE(0, 1, 200, 600, 5000);
  const auto& types = GENERATE(true, false) ? kTypes : kMixedTypes;
  const Bundles bundles(kPool, types);
  const uint64_t hot_max = std::min<uint64_t>(budget, kPool.total());
  for (auto& [name, device] : all_backends(1)) {
    INFO(name << ", budget " << budget);
    const auto host = cpu();
    DeviceTier tier(*device, *host, kPool, std::make_unique<WholeBundles>(bundles.rows), budget);
    std::mt19937_64 random(5);
    HotSet hot = random_hot(kPool, hot_max, random);
    tier.set_hot(&hot);
    bool right = true, reached = true;
    for (int pass = 0; pass < 30; ++pass) {
      tier.begin_pass();
      right &= device_is_right(*device, tier, bundles, kPool, hot_max);
      if (pass % 4 == 3) {  // nothing moves any more: all that is wanted is hot
        tier.wait_for_moves();
        tier.begin_pass();
        right &= device_is_right(*device, tier, bundles, kPool, hot_max);
        reached &= is_all_hot(tier, hot);
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

namespace {

// 64 bundles and as many places as asked for; what is brought does not arrive by itself.
struct FewPlaces {
  struct Started {
    uint32_t neuron, place;
    bool operator==(const Started&) const = default;
  };
  HotPlaces places;
  std::vector<Started> started;    // by the last call
  std::vector<uint32_t> given_up;  // likewise
  uint64_t not_ready = 0;          // bits of neurons

  explicit FewPlaces(uint64_t count) : places(NeuronPool{0, 1, 0, 64}, count) {}
  void follow(uint64_t bits) {
    given_up.clear();
    const std::vector<uint64_t> hot = {bits};
    places.follow(hot, [&](uint32_t, uint32_t neuron) { given_up.push_back(neuron); });
    admit();
  }
  void admit() {
    started.clear();
    places.admit_waiting([&](uint32_t, uint32_t neuron) { return (not_ready >> neuron & 1) == 0; },
                         [&](uint32_t, uint32_t neuron, uint32_t place) {
                           started.push_back({neuron, place});
                         });
  }
  uint64_t resident() const { return places.resident()[0]; }
};
using Started = std::vector<FewPlaces::Started>;

}  // namespace

TEST_CASE("a bundle that leaves while it moves gives its place up, and may come back", "[tiers]") {
  FewPlaces one(1);
  one.follow(1);
  CHECK(one.started == Started{{0, 0}});
  one.follow(2);  // neuron 0 left while it moved: its place is written to still
  CHECK(one.started.empty());
  CHECK(one.places.any_waits());
  one.follow(1);  // and came back
  CHECK(one.started.empty());
  CHECK(one.given_up == std::vector<uint32_t>{1});
  CHECK_FALSE(one.places.any_waits());
  one.follow(2);
  CHECK_FALSE(one.places.arrive(0, 0, 0));
  CHECK(one.resident() == 0);
  one.admit();
  CHECK(one.started == Started{{1, 0}});
  CHECK(one.places.arrive(0, 1, 0));
  CHECK(one.resident() == 2);
  one.follow(0);
  CHECK(one.resident() == 0);
}

TEST_CASE("a place that is held is nobody else's, and what is not ready lets others pass",
          "[tiers]") {
  FewPlaces two(2);
  two.follow(0b11);
  REQUIRE(two.started == Started{{0, 0}, {1, 1}});
  for (const auto& [neuron, place] : Started(two.started)) two.places.arrive(0, neuron, place);
  two.places.hold(0);
  two.places.hold(1);
  two.follow(0b1100);  // both left: cold at once, their places are read still
  CHECK(two.resident() == 0);
  CHECK(two.started.empty());
  two.not_ready = 0b100;
  two.places.let_go(1);
  two.admit();
  CHECK(two.started == Started{{3, 1}});
  two.follow(0b1001);  // neuron 0 comes back, to another place than the one that is held
  CHECK(two.given_up == std::vector<uint32_t>{2});
  CHECK(two.started.empty());
  two.places.let_go(0);
  two.admit();
  CHECK(two.started == Started{{0, 0}});
  CHECK_FALSE(two.places.any_waits());
}

namespace {

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
          "[cuda][tiers][long]") {
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
    check_agrees(tiered, on_cpu, on_cuda, run.dtype);
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
  CHECK(parse_tier_layout("device,host,disk", "folder") == TierLayout::device_host_disk);
  for (const char* with_disk : {"host,disk", "device,host,disk"})
    CHECK_THROWS_WITH(parse_tier_layout(with_disk, ""),
                      Catch::Contains(with_disk) && Catch::Contains("needs --disk-tier"));
  CHECK_THROWS_WITH(parse_tier_layout("device,host", "folder"),
                    Catch::Contains("expected no --disk-tier"));
  for (const char* wrong :
       {"host,device", "device", "device,disk", "disk,host,device", "device, host", "gpu,cpu"})
    CHECK_THROWS_WITH(parse_tier_layout(wrong, ""),
                      Catch::Contains(wrong) && Catch::Contains("device,host (all bundles") &&
                          Catch::Contains("host,disk (with --disk-tier FOLDER)"));
  const BackendEntry& on_cores = backends().by_name("cpu");
  CHECK_NOTHROW(require_device_tier(TierLayout::device_host, "cpu", on_cores));
  CHECK_THROWS_WITH(require_device_tier(TierLayout::device_host_disk, "auto", on_cores),
                    Catch::Contains("--tiers device,host,disk: ") &&
                        Catch::Contains("no GPU can be used here") &&
                        Catch::Contains("--backend cpu"));
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
  DeviceTier tier(*device, *host, LargeBundles::kPool,
                  std::make_unique<WholeBundles>(bundles.layers), LargeBundles::kHotMax);
  follow_random_sets(tier);
  const uint64_t held = resident_bytes() - before;
  INFO("held " << held << ", stated " << tier.size().total());
  CHECK(tier.size().hot_bytes == uint64_t{48} << 20);
  CHECK(tier.size().total() < uint64_t{54} << 20);
  CHECK(held >= tier.size().hot_bytes);
  CHECK(held <= tier.size().total() + resident_slack(tier.size().total()));
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
  DeviceTier tier(*device, *host, LargeBundles::kPool,
                  std::make_unique<WholeBundles>(bundles.layers), LargeBundles::kHotMax);
  follow_random_sets(tier);
  const uint64_t held = before - device->free_bytes();
  const uint64_t granule = uint64_t{2} << 20;  // in which CUDA gives memory, for each allocation
  INFO("held " << held << ", stated " << tier.size().total());
  CHECK(tier.size().hot_bytes == uint64_t{48} << 20);
  CHECK(held >= tier.size().hot_bytes);
  CHECK(held <= tier.size().total() + 4 * granule);
}

}  // namespace thermocline::test
