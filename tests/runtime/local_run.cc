#include "tests/runtime/local_run.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <optional>

#include "models/error.h"
#include "runtime/load_together.h"

namespace thermocline::test {
namespace {

// Ranks write into different places of one array.
class Gatherer final : public StepObserver {
 public:
  Gatherer(LocalRunResult& result, const ModelShape& shape, const NeuronPool& pool, bool root)
      : result_(result), shape_(shape), pool_(pool), root_(root) {}

  void on_step(const StepInfo& info, const StepTimes&, const StepData& data) override {
    uint8_t* step = result_.active.data() + step_ * shape_.neuron_count();
    for_each_bit(pool_, data.active, [&](uint32_t flat) {
      const uint64_t layer = pool_.layer_begin + flat / pool_.neuron_count;
      step[layer * shape_.ffn_dim + pool_.neuron_begin + flat % pool_.neuron_count] = 1;
    });
    if (root_) result_.steps.push_back(info);
    if (!data.magnitudes.empty()) add_magnitudes(data.magnitudes);
    ++step_;
  }
  void on_task_end(const TaskRecord& task) override {
    if (root_) result_.records.push_back(task);
  }

 private:
  void add_magnitudes(std::span<const float> values) {
    TC_CHECK(values.size() == pool_.total(), "magnitudes of another pool");
    float* step = result_.magnitudes.data() + step_ * shape_.neuron_count();
    for (uint32_t layer = 0; layer < pool_.layer_count; ++layer) {
      const uint64_t to = uint64_t{pool_.layer_begin + layer} * shape_.ffn_dim + pool_.neuron_begin;
      std::copy_n(values.data() + uint64_t{layer} * pool_.neuron_count, pool_.neuron_count,
                  step + to);
    }
  }

  LocalRunResult& result_;
  const ModelShape& shape_;
  NeuronPool pool_;
  bool root_;
  uint64_t step_ = 0;
};

// Bits of the passes' steps, into the rank's places of (step, layer, neuron).
void add_bits(std::vector<uint8_t>& all, std::span<const uint64_t> words, const ModelShape& shape,
              const NeuronPool& pool, uint64_t first_step) {
  for (uint64_t t = 0; t * pool.words_per_step() < words.size(); ++t) {
    uint8_t* step = all.data() + (first_step + t) * shape.neuron_count();
    for_each_bit(pool, words.subspan(t * pool.words_per_step(), pool.words_per_step()),
                 [&](uint32_t flat) {
                   const uint64_t layer = pool.layer_begin + flat / pool.neuron_count;
                   step[layer * shape.ffn_dim + pool.neuron_begin + flat % pool.neuron_count] = 1;
                 });
  }
}

std::unique_ptr<ActivationPredictor> predictor_of(const std::string& text,
                                                  const WeightSource& source,
                                                  const RankShare& share, Backend& backend) {
  constexpr uint32_t kRowMax = 64;  // of any test's forward
  const PredictorSpec spec = parse_predictor_spec(text);
  const ModelSpec model;
  return spec.entry->make(spec.values, {source, model, share, backend, kRowMax});
}

// A rank's audit, and what it is about.
struct Audit {
  Decoder exact;
  PredictorAudit audit;

  Audit(Comm& comm, const Partition& partition, const ModelShape& shape, Decoder& run,
        Backend& backend, const DecoderOptions& options)
      : exact(comm, shape, partition, run.weights(), run.rule(), backend, options),
        audit(comm, partition, shape, run, exact) {}
};

void follow_hot(const RankWeights& weights, const LocalRunOptions& options, uint32_t rank) {
  const bool three = weights.tiers != nullptr && weights.device_tier != nullptr;
  const auto& of_store = three ? options.host_hot : options.hot;
  if (weights.tiers != nullptr && of_store) weights.tiers->set_hot(of_store(rank));
  if (weights.device_tier != nullptr && options.hot)
    weights.device_tier->set_hot(options.hot(rank));
}

void keep_tier_counters(const Decoder& decoder, uint32_t rank, LocalRunResult& result) {
  if (decoder.weights().tiers) result.tiers[rank] = decoder.weights().tiers->counters();
  if (decoder.side_by_side() == nullptr) return;
  result.host_tiers[rank] = result.tiers[rank];
  result.tiers[rank] = decoder.side_by_side()->tier().counters();
  result.side_by_side[rank] = decoder.side_by_side()->times();
}

std::vector<TaskInput> tasks_of(const LocalRunOptions& options) {
  if (options.tasks.empty()) {
    return {{0, 0, options.prompt, options.forced, options.new_token_max}};
  }
  return options.tasks;
}

// One rank of the run. Its observer and its passes write into the rank's places of `result`.
void run_on_rank(Comm& comm, const WeightSource& source, const LocalRunOptions& options,
                 const std::vector<TaskInput>& tasks, uint32_t position_max,
                 LocalRunResult& result) {
  const ModelShape& shape = source.shape();
  const auto rank = static_cast<uint32_t>(comm.rank());
  const auto backend =
      options.backend
          ? options.backend()
          : backends().by_name("cpu").make({options.threads, {comm.rank(), comm.size()}, 0});
  TierOptions tiers = options.tiers;
  std::unique_ptr<Backend> host;
  if (options.side_by_side) {
    host = backends().by_name("cpu").make({options.threads, {comm.rank(), comm.size()}, 0});
    tiers.host = host.get();
  }
  DecoderOptions decoder_options{std::max(options.chunk_max, options.batch),
                                 position_max,
                                 options.batch,
                                 options.audit,
                                 options.check_finite,
                                 options.audit};
  Decoder decoder(
      comm, shape, result.partition,
      load_together(comm, source, result.partition, *backend, options.check_finite, tiers).weights,
      make_activation_rule(shape, options.silu_threshold), *backend, decoder_options);
  decoder.use_predictor(
      predictor_of(options.predictor, source, result.partition.ranks[rank], *backend));
  Gatherer gatherer(result, shape, decoder.neuron_pool(), rank == 0);
  EngineHooks hooks;
  hooks.observers = {&gatherer};
  std::unique_ptr<StepObserver> more;
  if (options.observer) {
    more = options.observer(result.partition, rank);
    hooks.observers.push_back(more.get());
  }
  if (options.lookahead != "exact" && decoder.weights().tiers != nullptr) {
    decoder.use_lookahead(
        predictor_of(options.lookahead, source, result.partition.ranks[rank], *backend));
  }
  follow_hot(decoder.weights(), options, rank);
  std::optional<Audit> audit;
  decoder_options.audit_gate = false;
  if (options.audit) {
    audit.emplace(comm, result.partition, shape, decoder, *backend, decoder_options);
  }
  uint64_t step = 0;
  hooks.on_pass = [&](std::span<const DecoderRow> rows) {
    add_bits(result.candidates, decoder.candidate_words(), shape, decoder.neuron_pool(), step);
    add_bits(result.exact, decoder.exact_words(), shape, decoder.neuron_pool(), step);
    step += rows.size();
    if (audit) audit->audit.on_pass(rows);
  };
  hooks.all_logits = options.logits;
  if (options.logits && rank == 0) {
    hooks.on_logits = [&](std::span<const float> row) {
      result.logits.insert(result.logits.end(), row.begin(), row.end());
    };
  }
  Engine engine(comm, shape, result.partition, decoder, hooks,
                {options.stop, shape.context_length, options.chunk_max, options.interrupted,
                 options.batch, options.magnitudes_every, 0, 0, options.sampling});
  const std::vector<TaskResult> results = engine.run(tasks);
  for (const TaskResult& task : results) result.step_counts[rank] += task.step_count;
  keep_tier_counters(decoder, rank, result);
  result.sent[rank] = engine.sent();
  const PredictorAuditResult audited = audit ? audit->audit.finish() : PredictorAuditResult{};
  if (rank != 0) return;
  result.audit = audited;
  result.tasks = results;
}

}  // namespace

LocalRunResult run_locally(const WeightSource& source, const LocalRunOptions& options) {
  const ModelShape& shape = source.shape();
  const auto count_of = [&](char kind) {
    return static_cast<uint32_t>(std::stoi(options.layout.substr(options.layout.find(kind) + 2)));
  };
  const uint32_t rank_count = count_of('p') * count_of('t');
  LocalRunResult result;
  result.partition = make_partition(shape, longest_block(source, Matrix::o),
                                    parse_layout(options.layout, rank_count),
                                    parse_rank_weights(options.rank_weights, rank_count));
  const std::vector<TaskInput> tasks = tasks_of(options);
  uint64_t steps = 0, position_max = 0;
  for (const TaskInput& task : tasks) {
    const uint64_t longest =
        task.prompt.size() + std::max<uint64_t>(task.forced.size(), task.new_token_max);
    position_max = std::max(position_max, longest);
    steps += longest;
  }
  result.active.resize(steps * shape.neuron_count());
  result.candidates.resize(result.active.size());
  result.exact.resize(result.active.size());
  if (options.magnitudes_every > 0) result.magnitudes.assign(result.active.size(), -1.0f);
  result.step_counts.resize(rank_count);
  result.tiers.resize(rank_count);
  result.host_tiers.resize(rank_count);
  result.sent.resize(rank_count);
  result.side_by_side.resize(rank_count);
  run_local_ranks(static_cast<int>(rank_count), [&](Comm& comm) {
    run_on_rank(comm, source, options, tasks, static_cast<uint32_t>(position_max), result);
  });
  result.task = result.tasks.front();
  result.active.resize(result.steps.size() * shape.neuron_count());
  result.candidates.resize(result.active.size());
  result.exact.resize(result.active.size());
  if (options.magnitudes_every > 0) result.magnitudes.resize(result.active.size());
  return result;
}

double relative_difference(const std::vector<float>& a, const std::vector<float>& b) {
  REQUIRE(a.size() == b.size());
  REQUIRE(!a.empty());
  double difference = 0, largest = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference = std::max(difference, std::fabs(double{a[i]} - double{b[i]}));
    largest = std::max(largest, std::fabs(double{a[i]}));
  }
  return difference / largest;
}

}  // namespace thermocline::test
