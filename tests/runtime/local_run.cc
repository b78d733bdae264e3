#include "tests/runtime/local_run.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>

namespace thermocline::test {
namespace {

// Ranks write into different places of one array.
class Gatherer final : public StepObserver {
 public:
  Gatherer(LocalRunResult& result, const ModelShape& shape, const NeuronPool& pool, bool root)
      : result_(result), shape_(shape), pool_(pool), root_(root) {}

  void on_step(const StepInfo& info, const StepTimes&, const StepData& data) override {
    uint8_t* step = result_.active.data() + step_++ * shape_.neuron_count();
    for_each_bit(pool_, data.active, [&](uint32_t flat) {
      const uint64_t layer = pool_.layer_begin + flat / pool_.neuron_count;
      step[layer * shape_.ffn_dim + pool_.neuron_begin + flat % pool_.neuron_count] = 1;
    });
    if (root_) result_.steps.push_back(info);
  }

 private:
  LocalRunResult& result_;
  const ModelShape& shape_;
  NeuronPool pool_;
  bool root_;
  uint64_t step_ = 0;
};

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
  const uint64_t steps =
      options.prompt.size() + std::max<uint64_t>(options.forced.size(), options.new_token_max);
  result.active.resize(steps * shape.neuron_count());
  result.step_counts.resize(rank_count);
  run_local_ranks(static_cast<int>(rank_count), [&](Comm& comm) {
    const auto rank = static_cast<uint32_t>(comm.rank());
    ThreadPool pool(options.threads);
    Decoder decoder(comm, shape, result.partition,
                    load_rank_weights(source, result.partition, rank, pool),
                    make_activation_rule(shape, options.silu_threshold), pool,
                    {options.chunk_max, static_cast<uint32_t>(steps)});
    Gatherer gatherer(result, shape, decoder.neuron_pool(), rank == 0);
    EngineHooks hooks;
    hooks.observers = {&gatherer};
    std::unique_ptr<StepObserver> more;
    if (options.observer) {
      more = options.observer(result.partition, rank);
      hooks.observers.push_back(more.get());
    }
    hooks.all_logits = options.logits;
    if (options.logits && rank == 0) {
      hooks.on_logits = [&](std::span<const float> row) {
        result.logits.insert(result.logits.end(), row.begin(), row.end());
      };
    }
    Engine engine(comm, shape, result.partition, decoder, hooks,
                  {{}, shape.context_length, options.chunk_max, options.interrupted});
    const TaskResult task =
        engine.run({0, 0, options.prompt, options.forced, options.new_token_max});
    result.step_counts[rank] = task.step_count;
    if (rank == 0) result.task = task;
  });
  result.active.resize(result.task.step_count * shape.neuron_count());
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
