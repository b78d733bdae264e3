// A device that is lost in the middle of a run: an Error that names it, at once, on all ranks; what
// was recorded up to then is whole, and a run can go on from it.
#include <atomic>
#include <catch2/catch.hpp>
#include <random>

#include "models/error.h"
#include "runtime/recorder.h"
#include "runtime/tiers/device_tier.h"
#include "tests/emulated/cuda.h"
#include "tests/models/failures.h"
#include "tests/runtime/hot_sets.h"
#include "tests/runtime/local_run.h"
#include "tests/runtime/random_weights.h"
#include "tests/support.h"
#include "tests/traces/trace_fixture.h"

namespace thermocline::test {
namespace {

using Catch::Matchers::Contains;

constexpr ModelShape kShape = {.layer_count = 2,
                               .model_dim = 64,
                               .ffn_dim = 96,
                               .head_count = 4,
                               .kv_head_count = 2,
                               .head_dim = 16,
                               .vocab_size = 80,
                               .context_length = 96,
                               .activation = FfnActivation::relu};

TraceHeader header_for(const Partition& partition) {
  TraceHeader header = fixture_header(kShape.layer_count, kShape.ffn_dim, partition.pools());
  header.shape = kShape;
  return header;
}

// Records, moves what the tier follows, and notes how many calls the GPU had left at the last end
// of a task.
struct RecordingMover final : StepObserver {
  Mover mover;
  Recorder recorder;
  const LostGpu& gpu;
  std::atomic<int64_t>& calls_left;
  RecordingMover(const std::string& path, const TraceHeader& header, uint32_t rank,
                 const LostGpu& on, std::atomic<int64_t>& left)
      : recorder(path, header, rank, nullptr), gpu(on), calls_left(left) {
    const NeuronPool& pool = header.pools[rank];
    mover.count = pool.total() / 3;
    mover.hot = random_hot(pool, mover.count, mover.random);
  }
  void on_step(const StepInfo& info, const StepTimes& times, const StepData& data) override {
    recorder.on_step(info, times, data);
    mover.on_step(info, times, data);
  }
  void on_task_end(const TaskRecord& task) override {
    recorder.on_task_end(task);
    calls_left = gpu.calls_left();
  }
};

// A run with the FFN on device and host, each rank on an emulated GPU of its own.
class RecordedRun {
 public:
  RecordedRun(const std::string& layout, const std::string& path, const LostGpu& gpu) {
    options_.layout = layout;
    options_.chunk_max = 3;
    options_.tasks = {{0, 0, {1, 5}, {4}, 0}, {1, 1, {1, 7}, {3}, 0}, {2, 2, {1, 2}, {4}, 0}};
    options_.side_by_side = true;
    options_.tiers.bundle_bytes = bundle_bytes(kShape, bundle_types(source_));
    options_.tiers.budget = options_.tiers.bundle_bytes * kShape.neuron_count() / 3;
    options_.backend = [this] { return make_emulated_cuda_backend_on(next_device_++); };
    options_.observer = [this, path, &gpu](const Partition& partition, uint32_t rank) {
      auto observer =
          std::make_unique<RecordingMover>(path, header_for(partition), rank, gpu, calls_left_);
      movers_[rank] = &observer->mover;
      return observer;
    };
    options_.hot = [this](uint32_t rank) { return &movers_[rank]->hot; };
  }

  void run() { run_locally(source_, options_); }
  int64_t calls_left() const { return calls_left_; }

 private:
  const RandomWeights source_{kShape, DType::f32};
  LocalRunOptions options_;
  std::atomic<int> next_device_ = 0;
  std::atomic<int64_t> calls_left_ = 0;
  Mover* movers_[2] = {};
};

// Every shard that was begun can be read, up to the step from which a run goes on; the most steps.
uint64_t check_left_behind(const std::string& path, int ranks) {
  uint64_t steps = 0;
  for (int rank = 0; rank < ranks; ++rank) {
    const auto shard = InterruptedShard::take(path, static_cast<uint32_t>(rank));
    if (shard == nullptr) continue;
    steps = std::max(steps, shard->step_count());
    const ResumePoint point = shard->point(shard->step_count(), shard->task_count());
    uint64_t seen = 0;
    shard->replay(
        point, [&](const auto&, const auto&, const auto&) { ++seen; }, [](const auto&) {});
    CHECK(seen == point.step_count);
  }
  return steps;
}

// That a run without loss makes on a GPU.
int64_t calls_of(const std::string& layout, int device) {
  constexpr int64_t kMany = int64_t{1} << 40;
  const TempDir folder;
  const LostGpu none(device, kMany);
  RecordedRun run(layout, folder / "t.h5", none);
  run.run();
  return kMany - run.calls_left();
}

void lose_a_device_everywhere(const std::string& layout, int ranks, int points) {
  const int64_t calls = calls_of(layout, ranks - 1);
  uint64_t steps_most = 0;
  for (int i = 0; i < points; ++i) {
    const TempDir folder;
    const LostGpu lost(ranks - 1, calls * i / points);
    INFO(layout << ", lost after " << calls * i / points << " of " << calls << " calls");
    const Failure failure = failure_of([&] { RecordedRun(layout, folder / "t.h5", lost).run(); });
    CHECK(failure.kind == ErrorKind::failed);
    CHECK_THAT(failure.message, Contains("cuda device " + std::to_string(ranks - 1) + ": ") &&
                                    Contains(": unspecified launch failure"));
    CHECK(lost.calls_left() < 0);
    steps_most = std::max(steps_most, check_left_behind(folder / "t.h5", ranks));
  }
  CHECK(steps_most >= 6);  // of nine
}

}  // namespace

TEST_CASE("a GPU that is lost at any moment ends the run with an error that names it",
          "[cuda][tiers]") {
  lose_a_device_everywhere("pp1,tp1", 1, 24);
}

TEST_CASE("a GPU that one of two ranks loses ends both, which never hang", "[cuda][tiers]") {
  lose_a_device_everywhere("pp1,tp2", 2, 12);
  lose_a_device_everywhere("pp2,tp1", 2, 12);
}

TEST_CASE("the thread that moves bundles ends when its GPU is lost, and the next pass says so",
          "[cuda][tiers]") {
  const NeuronPool pool{0, 1, 0, 64};
  constexpr int kCols = 64;
  std::vector<std::byte> memory(64 * 3 * kCols * sizeof(float));
  BundleRows rows;
  for (size_t i = 0; i < rows.size(); ++i)
    rows[i] = {DType::f32, 64, kCols, 3 * kCols * sizeof(float),
               memory.data() + i * kCols * sizeof(float)};
  const auto device = make_emulated_cuda_backend();
  const auto host = backends().by_name("cpu").make({1, {}, 0});
  DeviceTier tier(*device, *host, pool, std::make_unique<WholeBundles>(std::vector{rows}), 16);
  std::mt19937_64 random(1);
  const HotSet hot = random_hot(pool, 16, random);
  tier.set_hot(&hot);
  const LostGpu lost(0, 1);  // of the mover's; a first pass has nothing to publish
  tier.begin_pass();
  const Failure waiting = failure_of([&] { tier.wait_for_moves(); });
  CHECK_THAT(waiting.message, Contains("cuda device 0: ") && Contains("moves"));
  const Failure next = failure_of([&] { tier.begin_pass(); });
  CHECK(next.message == waiting.message);
}

}  // namespace thermocline::test
