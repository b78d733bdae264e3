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
constexpr int kSteps = 9;  // of the three tasks

TraceHeader header_for(const Partition& partition) {
  TraceHeader header = fixture_header(kShape.layer_count, kShape.ffn_dim, partition.pools());
  header.shape = kShape;
  return header;
}

// When a GPU is lost: so many calls after the end of a step, or after the run has begun.
struct Loss {
  int after_step = -1;
  int64_t calls = 0;
};

// Records, moves what the tier follows, and loses the rank's GPU.
struct LosingRecorder final : StepObserver {
  Mover mover;
  Recorder recorder;
  const LostGpu* gpu;  // null: another rank's is lost
  Loss loss;
  int step_count = 0;
  LosingRecorder(const std::string& path, const TraceHeader& header, uint32_t rank,
                 const LostGpu* its_gpu, const Loss& when)
      : recorder(path, header, rank, nullptr), gpu(its_gpu), loss(when) {
    const NeuronPool& pool = header.pools[rank];
    mover.count = pool.total() / 3;
    mover.hot = random_hot(pool, mover.count, mover.random);
  }
  void on_step(const StepInfo& info, const StepTimes& times, const StepData& data) override {
    recorder.on_step(info, times, data);
    mover.on_step(info, times, data);
    if (gpu != nullptr && step_count++ == loss.after_step) gpu->lose_after(loss.calls);
  }
  void on_task_end(const TaskRecord& task) override { recorder.on_task_end(task); }
};

// A run with the FFN on device and host, each rank on an emulated GPU of its own.
class RecordedRun {
 public:
  // The last rank's GPU is lost.
  RecordedRun(const std::string& layout, int ranks, const std::string& path, const LostGpu& gpu,
              const Loss& loss) {
    options_.layout = layout;
    options_.chunk_max = 3;
    options_.tasks = {{0, 0, {1, 5}, {4}, 0}, {1, 1, {1, 7}, {3}, 0}, {2, 2, {1, 2}, {4}, 0}};
    options_.side_by_side = true;
    options_.tiers.bundle_bytes = bundle_bytes(kShape, bundle_types(source_));
    options_.tiers.budget = options_.tiers.bundle_bytes * kShape.neuron_count() / 3;
    options_.backend = [this] { return make_emulated_cuda_backend_on(next_device_++); };
    options_.observer = [=, this, &gpu](const Partition& partition, uint32_t rank) {
      const bool loses = rank + 1 == static_cast<uint32_t>(ranks);
      auto observer = std::make_unique<LosingRecorder>(path, header_for(partition), rank,
                                                       loses ? &gpu : nullptr, loss);
      movers_[rank] = &observer->mover;
      return observer;
    };
    options_.hot = [this](uint32_t rank) { return &movers_[rank]->hot; };
  }

  void run() { run_locally(source_, options_); }

 private:
  const RandomWeights source_{kShape, DType::f32};
  LocalRunOptions options_;
  std::atomic<int> next_device_ = 0;
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

// A third of the losses come while the run is set up, the others in its steps; how many calls there
// are varies with what moves when, so that losses are counted from steps.
Loss loss_at(int point, int points) {
  const int first = points / 3, step = point - first;
  return step < 0 ? Loss{-1, 3 * point} : Loss{step % (kSteps - 1), 3 * step % 13};
}

void lose_a_device_everywhere(const std::string& layout, int ranks, int points) {
  uint64_t steps_most = 0;
  for (int point = 0; point < points; ++point) {
    const TempDir folder;
    const Loss loss = loss_at(point, points);
    const LostGpu lost(ranks - 1, loss.after_step < 0 ? loss.calls : LostGpu::kNever);
    INFO(layout << ", lost " << loss.calls << " calls after step " << loss.after_step);
    const Failure failure =
        failure_of([&] { RecordedRun(layout, ranks, folder / "t.h5", lost, loss).run(); });
    CHECK(failure.kind == ErrorKind::failed);
    CHECK_THAT(failure.message, Contains("cuda device " + std::to_string(ranks - 1) + ": ") &&
                                    Contains(": unspecified launch failure"));
    CHECK(lost.calls_left() < 0);
    steps_most = std::max(steps_most, check_left_behind(folder / "t.h5", ranks));
  }
  CHECK(steps_most >= 6);
}

}  // namespace

TEST_CASE("a GPU that is lost at any moment ends the run with an error that names it",
          "[cuda][tiers][long]") {
  lose_a_device_everywhere("pp1,tp1", 1, 24);
}

TEST_CASE("a GPU that one of two ranks loses ends both, which never hang", "[cuda][tiers][long]") {
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
