// Tiers device, host and disk: a device has what is hot on it wherever on the host that comes from,
// nothing is read from a place that is used again, budgets hold, and no hot set changes a result.
#include <catch2/catch.hpp>

#include "models/error.h"
#include "runtime/tiers/tier_layout.h"
#include "tests/backends/all_backends.h"
#include "tests/runtime/device_bundles.h"
#include "tests/runtime/hot_sets.h"
#include "tests/runtime/random_weights.h"
#include "tests/runtime/tier_runs.h"
#include "tests/support.h"

namespace thermocline::test {
namespace {

using Catch::Contains;

// Bundles whose up and down rows lie in a file, too.
struct OnDisk {
  std::unique_ptr<BundleFile> file;
  std::shared_ptr<BundleStore> store;

  OnDisk(const std::string& path, const NeuronPool& pool, const Bundles& bundles, Backend& host,
         uint64_t hot_max) {
    std::vector<uint64_t> bytes;
    for (uint32_t layer = 0; layer < pool.layer_count; ++layer)
      bytes.push_back(bundles.bytes(layer, 3) - bundles.bytes(layer, 1));
    file = std::make_unique<BundleFile>(path, lay_out_bundles(bytes, pool.neuron_count, 512), "t");
    for (uint32_t layer = 0; layer < pool.layer_count && !file->is_made(); ++layer)
      for (uint32_t n = 0; n < pool.neuron_count; ++n) {
        std::vector<std::byte> bundle(file->layout().strides[layer]);
        const std::byte* up = bundles.rows[layer][kUpRow].row(static_cast<int>(n));
        std::copy_n(up, bytes[layer], bundle.data());
        file->write(layer, n, bundle);
      }
    file->finish();
    store = std::make_shared<BundleStore>(host, pool, *file, hot_max, "auto", true);
  }
  // Gate rows are in memory.
  std::unique_ptr<HostBundles> on_host(const Bundles& bundles) const {
    std::vector<BundleRows> rows;
    for (uint32_t layer = 0; layer < bundles.rows.size(); ++layer) {
      BundleRows of_layer = bundles.rows[layer];
      const uint64_t up_bytes = bundles.bytes(layer, 2) - bundles.bytes(layer, 1);
      of_layer[kUpRow] = store->view(layer, of_layer[kUpRow].dtype, Bundles::kCols, 0);
      of_layer[kDownRow] = store->view(layer, of_layer[kDownRow].dtype, Bundles::kCols, up_bytes);
      rows.push_back(of_layer);
    }
    return std::make_unique<StoredBundles>(std::move(rows), store);
  }
};

// A pass asks for some of what is cold on the device: right where that is what was written.
bool cold_rows_are_right(const DeviceTier& tier, BundleStore& store, const Bundles& bundles,
                         const NeuronPool& pool, std::mt19937_64& random) {
  bool right = true;
  for (uint32_t layer = 0; layer < pool.layer_count; ++layer) {
    std::vector<uint64_t> needed(tier.cold(layer).begin(), tier.cold(layer).end());
    for (uint64_t& word : needed) word &= random() & random();
    store.request(layer, needed);
    store.wait();
    for_each_neuron(pool.neuron_count, needed, [&](uint32_t n) {
      for (const BundleRow row : {kUpRow, kDownRow}) {
        const WeightView& view = tier.host_rows(layer, row);
        const std::byte* expected = bundles.rows[layer][row].row(static_cast<int>(n));
        right &= std::equal(expected, expected + bytes_of(view.dtype, Bundles::kCols),
                            view.row(static_cast<int>(n)));
      }
    });
    store.release();
  }
  return right;
}

}  // namespace

TEST_CASE("whatever is hot on device and host, each has it, and reads what was written",
          "[tiers]") {
  struct Budgets {
    uint64_t device, host;
  };
  const auto [on_device, on_host] =
      GENERATE(Budgets{0, 0}, Budgets{200, 0}, Budgets{1, 600}, Budgets{150, 400},
               Budgets{400, 150}, Budgets{600, 600});
  const auto& types = GENERATE(true, false) ? kTypes : kMixedTypes;
  const Bundles bundles(kPool, types);
  const TempDir folder;
  for (auto& [name, device] : all_backends(1)) {
    INFO(name << ", budgets " << on_device << " and " << on_host);
    const auto host = cpu();
    const OnDisk disk(folder / "bundles", kPool, bundles, *host, on_host);
    DeviceTier tier(*device, *host, kPool, disk.on_host(bundles), on_device);
    std::mt19937_64 random(5);
    HotSet of_device = random_hot(kPool, on_device, random);
    HotSet of_host = random_hot(kPool, on_host, random);
    tier.set_hot(&of_device);
    disk.store->set_hot(&of_host);
    bool right = true, reached = true;
    for (int pass = 0; pass < 24; ++pass) {
      disk.store->begin_pass();
      tier.begin_pass();
      right &= device_is_right(*device, tier, bundles, kPool, on_device);
      right &= cold_rows_are_right(tier, *disk.store, bundles, kPool, random);
      if (pass % 4 == 3) {
        tier.wait_for_moves();
        disk.store->begin_pass();
        tier.begin_pass();
        reached &= is_all_hot(tier, of_device);
        right &= device_is_right(*device, tier, bundles, kPool, on_device);
      }
      const bool other = pass % 5 == 4;
      of_device = other ? random_hot(kPool, on_device, random) : changed(of_device, random);
      of_host = other ? random_hot(kPool, on_host, random) : changed(of_host, random);
    }
    CHECK(right);
    CHECK(reached);
    CHECK(tier.size().hot_bytes == on_device * tier.size().place_bytes);
    CHECK(disk.store->hot_bytes() == on_host * disk.file->layout().stride_max());
    const TierCounters& counters = disk.store->counters();
    CHECK((counters.passed_count > 0) == (on_device > 0 && on_host < 600));
    CHECK(counters.passed_count <= counters.passed_bytes);
  }
}

TEST_CASE(
    "without anybody waiting, what the device wants gets there through a host that holds none",
    "[tiers]") {
  const Bundles bundles(kPool, kTypes);
  const TempDir folder;
  const auto host = cpu(), device = cpu();
  const OnDisk disk(folder / "bundles", kPool, bundles, *host, 0);
  DeviceTier tier(*device, *host, kPool, disk.on_host(bundles), 600);
  std::mt19937_64 random(7);
  const HotSet all = random_hot(kPool, 600, random);
  tier.set_hot(&all);
  CHECK(disk.store->passage_bytes() < 600 * disk.file->layout().stride_max());  // in turns
  int passes = 0;
  for (; passes < 100'000 && !is_all_hot(tier, all); ++passes) {
    disk.store->begin_pass();
    tier.begin_pass();
  }
  INFO(passes << " passes");
  CHECK(is_all_hot(tier, all));
  CHECK(device_is_right(*device, tier, bundles, kPool, 600));
  CHECK(disk.store->counters().passed_count == 600);
}

TEST_CASE("a bundle that waits for its place on the host is read once, to that", "[tiers]") {
  const Bundles bundles(kPool, kTypes);
  const TempDir folder;
  const auto host = cpu();
  const OnDisk disk(folder / "bundles", kPool, bundles, *host, 1);
  BundleStore& store = *disk.store;
  HotSet hot(kPool);
  const auto only = [&](uint32_t neuron) {
    hot = HotSet(kPool);
    hot.insert(neuron);  // of layer 0
  };
  only(3);
  store.set_hot(&hot);
  store.begin_pass();
  store.wait_for_moves();
  const std::byte* first = store.hold(0, 3);
  REQUIRE(first != nullptr);
  only(5);
  store.begin_pass();  // the only place is held
  CHECK(store.hold(0, 5) == nullptr);
  store.let_go(first);
  store.wait_for_moves();
  const std::byte* second = store.hold(0, 5);
  REQUIRE(second != nullptr);
  store.let_go(second);
  CHECK(store.counters().moved_count == 2);
  CHECK(store.counters().passed_count == 0);
  CHECK(store.hold(0, 7) == nullptr);  // nobody wants it here
  CHECK(store.counters().passed_count == 1);
  store.forget(0, 7);
  store.wait_for_moves();
}

namespace {

struct Percents {
  uint64_t device, host;
};

// `options` with the FFN on device, host and disk. Both hot sets are others in each step.
LocalRunResult run_on_three(const WeightSource& source, LocalRunOptions options,
                            const std::string& folder, Percents percents) {
  const uint64_t bundle = bundle_bytes(source.shape(), bundle_types(source));
  const uint64_t all = bundle * source.shape().neuron_count();
  options.side_by_side = true;
  options.tiers.folder = folder;
  options.tiers.weight_hash = source.hash() + options.layout;
  options.tiers.weight_hash += facts(source.dtype(Matrix::up, 0)).name;
  options.tiers.budget = all * percents.device / 100;
  options.tiers.host_budget = all * percents.host / 100;
  options.tiers.bundle_bytes = bundle;
  struct Movers final : StepObserver {
    Mover device, host;
    void on_step(const StepInfo& info, const StepTimes& times, const StepData& data) override {
      device.on_step(info, times, data);
      host.on_step(info, times, data);
    }
  };
  std::vector<Movers*> movers(8);
  options.observer = [&](const Partition& partition, uint32_t rank) {
    auto of_rank = std::make_unique<Movers>();
    const NeuronPool pool = partition.ranks[rank].pool();
    const auto begin = [&](Mover& mover, uint64_t percent) {
      mover.count = pool.total() * percent / 100;
      mover.hot = random_hot(pool, mover.count, mover.random);
    };
    begin(of_rank->device, percents.device);
    begin(of_rank->host, percents.host);
    movers[rank] = of_rank.get();
    return of_rank;
  };
  options.hot = [&](uint32_t rank) { return &movers[rank]->device.hot; };
  options.host_hot = [&](uint32_t rank) { return &movers[rank]->host.hot; };
  return run_locally(source, options);
}

void check_counters(const LocalRunResult& result, FfnActivation activation, Percents percents) {
  for (size_t rank = 0; rank < result.tiers.size(); ++rank) {
    const TierCounters &device = result.tiers[rank], &host = result.host_tiers[rank];
    CHECK(device.needed > 0);
    CHECK(device.here <= device.needed);
    CHECK((percents.device > 0 || device.here == 0));
    // What is cold on the device: with SiLU all candidates, active or not.
    CHECK(host.needed >= device.needed - device.here);
    if (activation == FfnActivation::relu) CHECK(host.needed == device.needed - device.here);
    CHECK((percents.host > 0 || host.here == 0));
    CHECK((percents.device == 100 || host.read_bytes > 0 || percents.host == 100));
  }
}

}  // namespace

TEST_CASE("device, host and disk on the CPU change no bit, whatever moves", "[tiers][long]") {
  const auto activation = GENERATE(FfnActivation::relu, FfnActivation::silu);
  const TempDir folder;
  struct Case {
    const char *layout, *predictor, *lookahead;
    std::vector<Percents> percents;
  };
  const Case cases[] = {
      {"pp1,tp1",
       "exact",
       "exact",
       {{0, 0}, {0, 100}, {100, 0}, {100, 100}, {30, 60}, {60, 30}, {30, 0}, {0, 30}}},
      {"pp1,tp1", "sign:threshold=0.48", "exact", {{30, 60}, {100, 0}}},
      {"pp1,tp1", "exact", "sign:threshold=0.48", {{0, 0}, {30, 60}}},
      {"pp1,tp2", "exact", "exact", {{30, 60}, {40, 0}}},
      {"pp2,tp1", "sign:threshold=0.48", "sign:threshold=0.48", {{30, 60}, {0, 40}}},
  };
  for (const DType dtype : {DType::f32, DType::q4_0}) {
    const RandomWeights source(small_shape(activation), dtype);
    for (const Case& run : cases) {
      LocalRunOptions options = three_tasks(run.layout);
      options.predictor = run.predictor;
      options.magnitudes_every = std::string(run.predictor) == "exact" ? 3 : 0;
      const LocalRunResult whole = run_locally(source, options);
      options.lookahead = run.lookahead;
      for (const Percents percents : run.percents) {
        INFO(facts(dtype).name << " " << run.layout << " " << run.predictor << " " << run.lookahead
                               << ", " << percents.device << " and " << percents.host << " %");
        const LocalRunResult tiered = run_on_three(source, options, folder / "", percents);
        CHECK(tiered.logits == whole.logits);
        CHECK(tiered.active == whole.active);
        CHECK(tiered.candidates == whole.candidates);
        CHECK(tiered.magnitudes == whole.magnitudes);
        check_counters(tiered, activation, percents);
        const bool reads_ahead = std::string(run.lookahead) != "exact";
        CHECK((tiered.host_tiers[0].ahead_used > 0) == reads_ahead);
      }
    }
  }
}

TEST_CASE("CUDA's kernels, the CPU and a disk agree with either alone, within rounding",
          "[cuda][tiers][long]") {
  struct Case {
    FfnActivation activation;
    DType dtype;
    const char *layout, *predictor, *lookahead;
    std::vector<Percents> percents;
  };
  const Case run = GENERATE(
      Case{FfnActivation::relu,
           DType::f32,
           "pp1,tp1",
           "exact",
           "exact",
           {{0, 0}, {30, 60}, {60, 0}, {100, 100}}},
      Case{FfnActivation::relu, DType::q4_0, "pp1,tp1", "sign:threshold=0.48", "exact", {{30, 60}}},
      Case{FfnActivation::silu, DType::q4_0, "pp1,tp1", "exact", "exact", {{30, 60}}},
      Case{FfnActivation::relu, DType::q4_0, "pp1,tp2", "exact", "sign:threshold=0.48", {{30, 60}}},
      Case{FfnActivation::relu, DType::f32, "pp2,tp1", "exact", "exact", {{30, 60}}});
  const TempDir folder;
  const RandomWeights source(tiny_shape(run.activation), run.dtype);
  LocalRunOptions options = two_tasks(run.layout);
  options.predictor = run.predictor;
  const LocalRunResult on_cpu = run_locally(source, options);
  options.backend = [] { return make_emulated_cuda_backend(); };
  const LocalRunResult on_cuda = run_locally(source, options);
  options.lookahead = run.lookahead;
  for (const Percents percents : run.percents) {
    INFO(facts(run.dtype).name << " " << run.layout << " " << run.predictor << ", "
                               << percents.device << " and " << percents.host << " %");
    const LocalRunResult tiered = run_on_three(source, options, folder / "", percents);
    check_agrees(tiered, on_cpu, on_cuda, run.dtype);
    check_counters(tiered, run.activation, percents);
  }
}

TEST_CASE("with three tiers both budgets are what memory really holds", "[tiers]") {
  // 96 MiB of up and down rows, 48 of gate rows; 24 MiB hot on the device, 32 on the host.
  constexpr NeuronPool pool{0, 2, 0, 8192};
  constexpr uint64_t row_bytes = 3072, on_device = 8192 * 1 / 3, on_host = 16384 / 3;
  const TempDir folder;
  auto file = std::make_unique<BundleFile>(
      folder / "bundles",
      lay_out_bundles(std::vector<uint64_t>(2, 2 * row_bytes), pool.neuron_count, 512), "t");
  const std::vector<std::byte> some(uint64_t{8192} * 2 * row_bytes, std::byte{1});
  for (uint32_t layer = 0; layer < 2; ++layer) file->write(layer, 0, some);
  file->finish();
  const std::vector<std::byte> gate(pool.neuron_count * row_bytes, std::byte{1});
  const auto host = cpu(), device = cpu();
  const uint64_t before = resident_bytes();
  const auto store = std::make_shared<BundleStore>(*host, pool, *file, on_host, "auto", true);
  std::vector<BundleRows> rows;
  for (uint32_t layer = 0; layer < 2; ++layer)
    rows.push_back({WeightView{DType::f32, 8192, 768, row_bytes, gate.data()},
                    store->view(layer, DType::f32, 768, 0),
                    store->view(layer, DType::f32, 768, row_bytes)});
  DeviceTier tier(*device, *host, pool, std::make_unique<StoredBundles>(rows, store), on_device);
  std::mt19937_64 random(2);
  std::vector<uint64_t> needed(pool.words_per_layer());
  for (int pass = 0; pass < 8; ++pass) {
    store->follow(random_hot(pool, on_host, random).words());
    tier.follow(random_hot(pool, on_device, random).words());
    for (uint32_t layer = 0; layer < 2; ++layer) {
      for (uint64_t& word : needed) word = random() & random() & random();
      store->request(layer, needed);
      store->wait();
      store->release();
    }
    if (pass % 2 == 1) tier.wait_for_moves();
  }
  tier.wait_for_moves();
  const uint64_t held = resident_bytes() - before;
  const uint64_t stated =
      tier.size().total() + store->hot_bytes() + store->staging_bytes() + store->passage_bytes();
  INFO("held " << held << ", stated " << stated);
  CHECK(tier.size().hot_bytes == on_device * 3 * row_bytes);
  CHECK(store->hot_bytes() == on_host * 2 * row_bytes);
  CHECK(held >= tier.size().hot_bytes + store->hot_bytes());
  CHECK(held <= stated + resident_slack(stated));
}

TEST_CASE("a host budget that does not fit is refused before anything is read", "[tiers]") {
  const RandomWeights source(small_shape(FfnActivation::relu), DType::f32);
  const Partition partition = make_partition(source.shape(), DType::f32, {1, 1}, {1});
  const TempDir folder;
  const auto host = cpu();
  TierOptions tiers;
  tiers.folder = folder / "";
  tiers.host = host.get();
  tiers.bundle_bytes = uint64_t{1} << 50;
  tiers.host_budget = uint64_t{4} << 50;
  CHECK_THROWS_WITH(load_rank_weights(source, partition, 0, *cpu(), false, tiers),
                    Contains("--tiers device,host,disk: gate rows, hot bundles and staging") &&
                        Contains("take 4.00 PiB") && Contains("a smaller --host-budget"));
  CHECK(std::filesystem::is_empty(folder / ""));
}

TEST_CASE("a host budget goes with three tiers and a policy, and with nothing else", "[tiers]") {
  using Layout = TierLayout;
  CHECK_NOTHROW(check_host_budget(Layout::device_host_disk, "1GiB", true));
  CHECK_NOTHROW(check_host_budget(Layout::device_host_disk, "", false));
  CHECK_NOTHROW(check_host_budget(Layout::device_host, "", true));
  CHECK_THROWS_WITH(check_host_budget(Layout::device_host_disk, "", true),
                    Contains("needs --host-budget"));
  CHECK_THROWS_WITH(check_host_budget(Layout::device_host_disk, "1GiB", false),
                    Contains("needs --policy"));
  for (const Layout layout : {Layout::one, Layout::host_disk, Layout::device_host})
    CHECK_THROWS_WITH(check_host_budget(layout, "1GiB", true),
                      Contains("expected --tiers device,host,disk"));
  const auto names = [](Layout layout) {
    const auto tiers = hot_tiers(layout);
    return std::vector<std::string>(tiers.begin(), tiers.end());
  };
  CHECK(names(Layout::one).empty());
  CHECK(names(Layout::host_disk) == std::vector<std::string>{"host"});
  CHECK(names(Layout::device_host) == std::vector<std::string>{"device"});
  CHECK(names(Layout::device_host_disk) == std::vector<std::string>{"device", "host"});
}

}  // namespace thermocline::test
