// The loop closes: counters of live policies equal the replay's of the trace of the same run.
#include <catch2/catch.hpp>
#include <mutex>

#include "runtime/live_policies.h"
#include "sim/replay.h"
#include "tests/runtime/local_run.h"
#include "tests/runtime/random_weights.h"
#include "tests/support.h"
#include "traces/profile.h"

namespace thermocline::test {
namespace {

ModelShape shape_of(FfnActivation activation) {
  return {.layer_count = 4,
          .model_dim = 48,
          .ffn_dim = 200,
          .head_count = 6,
          .kv_head_count = 3,
          .head_dim = 8,
          .vocab_size = 80,
          .context_length = 96,
          .activation = activation};
}

std::vector<int32_t> tokens_from(uint32_t seed, uint32_t count) {
  std::vector<int32_t> tokens;
  for (uint32_t i = 0; i < count; ++i) tokens.push_back((seed + 11 * i * i) % 80);
  return tokens;
}

TraceHeader header_of(const WeightSource& source, const Partition& partition) {
  TraceHeader header;
  header.version = "test";
  header.shape = source.shape();
  header.ffn_types = bundle_types(source);
  header.model = "random";
  header.weight_provenance = source.provenance();
  header.weight_hash = source.hash();
  const ActivationRule rule = make_activation_rule(source.shape(), 0.3f);
  header.activation_rule = rule.text();
  header.activation_thresholds = rule.thresholds;
  header.prompts = "counted";
  header.layout = partition.layout.text();
  header.config_json = "{}";
  header.pools = partition.pools();
  return header;
}

// The shards are finished one by one here, since ranks have left when the run returns.
LocalRunResult record(const WeightSource& source, const std::string& layout, uint32_t seed,
                      const std::string& path, const LivePolicyOptions* live,
                      const std::string& profile, std::vector<HotSetStats>& totals) {
  LocalRunOptions options;
  options.layout = layout;
  options.prompt = tokens_from(seed, 40);
  options.forced = tokens_from(seed + 5, 30);
  options.silu_threshold = 0.3f;
  options.logits = false;
  struct Shard final : StepObserver {
    std::unique_ptr<TraceWriter> writer;
    std::unique_ptr<LivePolicies> live;
    std::function<void(const LivePolicies&)> done;
    void on_step(const StepInfo& info, const StepTimes& times, const StepData& data) override {
      writer->append(info, times, data);
      if (live) live->on_step(info, times, data);
    }
    void on_task_end(const TaskRecord& task) override {
      writer->end_task(task);
      writer->finish();
      if (live) done(*live);
    }
  };
  std::mutex mutex;
  options.observer = [&](const Partition& partition,
                         uint32_t rank) -> std::unique_ptr<StepObserver> {
    auto shard = std::make_unique<Shard>();
    shard->writer = create_shard(path, header_of(source, partition), rank);
    if (live != nullptr) {
      const NeuronPool pool = partition.ranks[rank].pool();
      shard->live = std::make_unique<LivePolicies>(
          *live, KnownActivity{load_profile(profile, pool, source.shape(), source.hash()), {}},
          source.shape(), bundle_types(source));
      shard->done = [&](const LivePolicies& policies) {
        // One rank's stats, as a job of one rank gathers them.
        run_local_ranks(1, [&](Comm& comm) {
          const auto results = policies.results(comm);
          const std::lock_guard lock(mutex);
          totals.resize(results.size());
          for (size_t i = 0; i < results.size(); ++i) add_pool(totals[i], results[i].stats);
        });
      };
    }
    return shard;
  };
  const LocalRunResult result = run_locally(source, options);
  write_master(path);
  return result;
}

TEST_CASE("live counters equal the replay's, exactly") {
  const RandomWeights source(shape_of(GENERATE(FfnActivation::relu, FfnActivation::silu)));
  const std::string layout = GENERATE("pp1,tp1", "pp1,tp3", "pp2,tp2");
  const TempDir folder;
  std::vector<HotSetStats> totals;
  record(source, layout, 3, folder / "profile.h5", nullptr, "", totals);

  const uint64_t bundle = bundle_bytes(source.shape(), DType::f32);
  const uint64_t all = ffn_bytes(source.shape(), DType::f32);
  LivePolicyOptions live;
  std::string names = "ewma:halflife=4";  // and every policy that can run live
  for (const PolicyEntry* entry : policies().entries()) {
    if (!entry->needs_future) names += "," + entry->name;
  }
  live.policies = parse_policies(names);
  live.budgets = {all / 10, all / 3, all};
  live.migration_bytes = 20 * bundle;
  const auto run =
      record(source, layout, 4, folder / "test.h5", &live, folder / "profile.h5", totals);

  const auto trace = open_trace(folder / "test.h5");
  const auto profile = open_trace(folder / "profile.h5");
  ReplayOptions options;
  options.policies = live.policies;
  options.budgets.assign(live.budgets.begin(), live.budgets.end());
  options.migration_bytes = live.migration_bytes;
  const ReplayResult replayed = replay(*trace, profile.get(), options);
  REQUIRE(replayed.rows.size() == 3 * live.policies.size());
  REQUIRE(totals.size() == replayed.rows.size());
  for (size_t i = 0; i < totals.size(); ++i) {
    INFO(layout << " row " << i << ": " << replayed.rows[i].policy.label());
    CHECK(totals[i] == replayed.rows[i].total);
    CHECK(totals[i].step_count == 70);
    CHECK(totals[i].needed > 0);
  }
  CHECK(totals[0].admitted > 0);  // ewma moved something

  // The trace holds what the engine's ranks saw.
  StepBlock block;
  trace->read(whole_model(trace->header()), 0, trace->step_count(), block);
  REQUIRE(block.step_count == 70);
  std::vector<uint8_t> active(run.active.size());
  for (uint64_t step = 0; step < block.step_count; ++step) {
    for_each_bit(block.pool, block.step(step).words,
                 [&](uint32_t flat) { active[step * source.shape().neuron_count() + flat] = 1; });
  }
  CHECK(active == run.active);
  CHECK(trace->tasks().size() == 1);
  CHECK(trace->tasks()[0].prompt_tokens == 40);
}

TEST_CASE("live policies change no bit of the result") {
  const RandomWeights source(shape_of(FfnActivation::relu));
  const TempDir folder;
  std::vector<HotSetStats> totals;
  record(source, "pp1,tp3", 3, folder / "profile.h5", nullptr, "", totals);
  LocalRunOptions options;
  options.layout = "pp1,tp3";
  options.prompt = tokens_from(4, 40);
  options.forced = tokens_from(9, 30);
  const auto bare = run_locally(source, options);
  LivePolicyOptions live;
  live.policies = parse_policies("fixed,ewma");
  live.budgets = {ffn_bytes(source.shape(), DType::f32) / 4};
  live.migration_bytes = 1 << 20;
  options.observer = [&](const Partition& partition, uint32_t rank) {
    const NeuronPool pool = partition.ranks[rank].pool();
    return std::make_unique<LivePolicies>(
        live,
        KnownActivity{load_profile(folder / "profile.h5", pool, source.shape(), source.hash()), {}},
        source.shape(), DType::f32);
  };
  CHECK(run_locally(source, options).logits == bare.logits);
}

TEST_CASE("a profile of another model or of other weights is refused") {
  const RandomWeights source(shape_of(FfnActivation::relu));
  const TempDir folder;
  std::vector<HotSetStats> totals;
  record(source, "pp1,tp1", 3, folder / "p.h5", nullptr, "", totals);
  ModelShape larger = source.shape();
  larger.ffn_dim = 208;
  const NeuronPool pool{0, 4, 0, 200};
  CHECK_THROWS_WITH(load_profile(folder / "p.h5", pool, larger, source.hash()),
                    Catch::Contains("4 layers of 208 neurons"));
  CHECK_THROWS_WITH(load_profile(folder / "p.h5", pool, source.shape(), "ffff"),
                    Catch::Contains("ffff"));
}

TEST_CASE("a failing observer on one rank ends all ranks with its message") {
  const RandomWeights source(shape_of(FfnActivation::relu));
  struct Failing final : StepObserver {
    void on_step(const StepInfo& info, const StepTimes&, const StepData&) override {
      if (info.position == 50) throw work_failed("disk full");
    }
  };
  LocalRunOptions options;
  options.layout = "pp2,tp2";
  options.prompt = tokens_from(4, 40);
  options.forced = tokens_from(9, 30);
  options.observer = [](const Partition&, uint32_t rank) -> std::unique_ptr<StepObserver> {
    if (rank == 2) return std::make_unique<Failing>();
    struct Idle final : StepObserver {
      void on_step(const StepInfo&, const StepTimes&, const StepData&) override {}
    };
    return std::make_unique<Idle>();
  };
  CHECK_THROWS_WITH(run_locally(source, options), "disk full");
}

}  // namespace
}  // namespace thermocline::test
