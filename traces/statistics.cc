#include "traces/statistics.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <utility>

#include "models/error.h"
#include "models/units.h"
#include "traces/layer_counter.h"
#include "traces/profile.h"
#include "traces/sequences.h"

namespace thermocline {
namespace {

std::optional<double> ratio(uint64_t part, uint64_t whole) {
  if (whole == 0) return std::nullopt;
  return static_cast<double>(part) / static_cast<double>(whole);
}

std::optional<double> mean_of(double sum, uint64_t count) {
  if (count == 0) return std::nullopt;
  return sum / static_cast<double>(count);
}

// Calls work(0) ... work(count - 1), each on one of `threads` threads. The first exception that one
// throws is thrown here, after all have ended.
void for_each_index(uint32_t count, uint32_t threads, const std::function<void(uint32_t)>& work) {
  if (std::min(count, threads) <= 1) {
    for (uint32_t i = 0; i < count; ++i) work(i);
    return;
  }
  std::atomic<uint32_t> next = 0;
  std::exception_ptr problem;
  std::mutex mutex;
  const auto run = [&] {
    try {
      for (uint32_t i; (i = next++) < count;) work(i);
    } catch (...) {
      const std::lock_guard lock(mutex);
      if (!problem) problem = std::current_exception();
    }
  };
  {
    std::vector<std::jthread> others;
    for (uint32_t i = 1; i < std::min(count, threads); ++i) others.emplace_back(run);
    run();
  }
  if (problem) std::rethrow_exception(problem);
}

// What one sequence adds up to over the layers that were counted so far.
struct SequenceSums {
  FiringHistogram histogram;
  Carried carried;
};

// What is known of the layers that were counted.
struct CountedLayers {
  explicit CountedLayers(const StatisticsOptions& options) : sums(options) {}

  std::vector<ActivityStatistics> layers;
  LayerSums sums;
  FiringHistogram firings;              // over all sequences
  std::vector<SequenceSums> sequences;  // in the order of their ends
};

// `width`: neurons of a layer.
void add_steps(ActivityStatistics& result, const LayerSums& sums, uint64_t width) {
  for (size_t i = 0; i < sums.both.size(); ++i) {
    result.overlap.push_back(ratio(sums.both[i], sums.first[i]));
  }
  for (size_t i = 0; i < sums.unions.size(); ++i) {
    result.unions.push_back(ratio(sums.in_union[i], sums.unions[i] * width));
    result.fresh.push_back(ratio(sums.in_fresh[i], sums.freshes[i] * width));
  }
}

void add_sequences(ActivityStatistics& result, const LayerSums& sums, const SequenceMeans& means) {
  for (size_t i = 0; i < kTaskDistances.size(); ++i) {
    result.task_overlap.push_back(mean_of(sums.shared[i], sums.pairs[i]));
    result.half_task_overlap.push_back(mean_of(sums.half_shared[i], sums.half_pairs[i]));
  }
  result.sequence_overlap = result.task_overlap[0];
  result.half_next_overlap = result.half_task_overlap[0];
  result.half_overlap = mean_of(sums.halves, sums.half_count);
  result.sequence_share_80 = mean_of(means.share_80, means.shares);
  result.own_coverage = mean_of(means.own, means.coverages);
  result.past_coverage = mean_of(means.past, means.coverages);
}

void add_predictions(ActivityStatistics& result, const LayerSums& sums, uint64_t active,
                     uint64_t chances) {
  result.predicted = ratio(sums.predicted, chances);
  result.recall = ratio(sums.foreseen, active);
  result.precision = ratio(sums.foreseen, sums.predicted);
  result.false_positives = ratio(sums.predicted - sums.foreseen, chances - active);
}

// What all layers that are counted together have in common.
struct Frame {
  uint64_t width = 0;  // neurons of a layer
  uint64_t step_count = 0;
  bool has_predicted = false;
};

ActivityStatistics statistics_from(const LayerSums& sums, const SequenceMeans& means,
                                   const FiringHistogram& firings, const Frame& frame) {
  ActivityStatistics result;
  const uint64_t active = firings.firings(), chances = firings.neurons() * frame.step_count;
  result.mean_activity = ratio(active, chances);
  result.share_80 = firings.share_of_80_percent();
  result.carried = firings.carried(kCarriedPoints);
  add_steps(result, sums, frame.width);
  add_sequences(result, sums, means);
  if (frame.has_predicted) add_predictions(result, sums, active, chances);
  return result;
}

// Counts some layers of a trace, from its first step to its last, into a CountedLayers.
class PoolCounter {
 public:
  PoolCounter(const NeuronPool& pool, const StatisticsOptions& options, uint32_t threads,
              CountedLayers& into)
      : pool_(pool), threads_(threads), into_(into) {
    for (uint32_t i = 0; i < pool.layer_count; ++i) {
      layers_.emplace_back(pool.neuron_count, options);
    }
  }

  // `active` and `predicted`: (rows, layer_count, words_per_layer); the latter is empty where there
  // is none.
  void run(const std::vector<SequenceEvent>& events, std::span<const uint64_t> active,
           std::span<const uint64_t> predicted) {
    std::vector<uint64_t> ended;  // numbers of sequences
    uint32_t slot_count = 0;
    for (const SequenceEvent& event : events) {
      slot_count = std::max(slot_count, event.slot + 1);
      if (event.kind == SequenceEvent::Kind::end) ended.push_back(event.at);
    }
    // Here and not where they are used, so that the memory of one pass serves the next.
    for (LayerCounter& layer : layers_) layer.open_slots(slot_count);
    if (!ended.empty() && into_.sequences.size() <= ended.back()) {
      into_.sequences.resize(ended.back() + 1);
    }
    std::vector<std::vector<Carried>> carried(layers_.size());  // (layer_count, ended.size())
    for_each_index(pool_.layer_count, threads_, [&](uint32_t layer) {
      carried[layer] = run_layer(layer, events, active, predicted);
    });
    for (const std::vector<Carried>& of_layer : carried) {  // sums of quotients: in this order
      for (size_t i = 0; i < ended.size(); ++i) into_.sequences[ended[i]].carried.add(of_layer[i]);
    }
  }

  void finish(const Frame& frame) {
    for (const LayerCounter& layer : layers_) {
      FiringHistogram firings;
      firings.add(layer.total());
      into_.layers.push_back(statistics_from(layer.sums(), layer.means(), firings, frame));
      into_.sums.add(layer.sums());
      into_.firings.add(firings);
    }
  }

 private:
  std::vector<Carried> run_layer(uint32_t layer, const std::vector<SequenceEvent>& events,
                                 std::span<const uint64_t> active,
                                 std::span<const uint64_t> predicted) {
    std::vector<Carried> carried;
    for (const SequenceEvent& event : events) {
      if (event.kind == SequenceEvent::Kind::end) {
        LayerCounter::Ended ended = layers_[layer].end(event);
        carried.push_back(ended.carried);
        const std::lock_guard lock(mutex_);
        into_.sequences[event.at].histogram.add(ended.histogram);
        continue;
      }
      const uint64_t row = event.at * pool_.layer_count + layer;
      const auto cut = [this, row](std::span<const uint64_t> words) {
        return words.empty() ? nullptr : words.data() + row * pool_.words_per_layer();
      };
      layers_[layer].step(event, cut(active), cut(predicted));
    }
    return carried;
  }

  NeuronPool pool_;
  uint32_t threads_;
  CountedLayers& into_;
  std::mutex mutex_;  // of histograms in into_.sequences, whose sums have no order
  std::vector<LayerCounter> layers_;
};

TraceStatistics trace_statistics(CountedLayers counted, const StatisticsOptions& options,
                                 const Frame& frame) {
  SequenceMeans means;
  for (size_t i = 0; i < counted.sequences.size(); ++i) {
    means.add(counted.sequences[i].histogram);
    if (i > 0) means.add(counted.sequences[i].carried);
  }
  TraceStatistics result;
  result.options = options;
  result.step_count = frame.step_count;
  result.sequence_count = counted.sequences.size();
  result.has_predicted = frame.has_predicted;
  result.whole = statistics_from(counted.sums, means, counted.firings, frame);
  result.layers = std::move(counted.layers);
  return result;
}

void check_options(const StatisticsOptions& options) {
  for (const uint32_t lag : options.lags) TC_CHECK(lag > 0, "a lag of 0");
  for (const uint32_t window : options.windows) TC_CHECK(window > 0, "a window of 0");
}

// The steps of a trace as events. A task ends with the last step that names it.
class StepEvents {
 public:
  StepEvents(const TraceReader& reader, uint32_t position_min)
      : steps_(reader.steps()), position_min_(position_min), last_(steps_.size()) {
    std::unordered_map<uint32_t, uint64_t> last;
    for (uint64_t i = 0; i < steps_.size(); ++i) last[steps_[i].task] = i;
    for (const auto& [task, step] : last) last_[step] = true;
  }

  void add(uint64_t step_begin, uint64_t step_count, OpenSequences& open,
           std::vector<SequenceEvent>& events) const {
    for (uint64_t i = 0; i < step_count; ++i) {
      const StepInfo& info = steps_[step_begin + i];
      if (info.position >= position_min_) open.step(info.task, i, events);
      if (last_[step_begin + i]) open.end(info.task, events);
    }
  }

  // How many sequences are open at once.
  uint32_t slot_count() const {
    OpenSequences open;
    std::vector<SequenceEvent> events;
    for (uint64_t i = 0; i < steps_.size(); ++i) {
      add(i, 1, open, events);
      events.clear();
    }
    return open.slot_count();
  }

 private:
  std::vector<StepInfo> steps_;
  uint32_t position_min_;
  std::vector<bool> last_;  // by step: of its task
};

uint32_t layers_at_once(const NeuronPool& pool, uint32_t slot_count,
                        const StatisticsOptions& options, uint64_t bytes_max) {
  const uint64_t layer_bytes = LayerCounter::bytes_of(pool.neuron_count) +
                               slot_count * LayerCounter::slot_bytes_of(pool.neuron_count, options);
  if (layer_bytes > bytes_max) {
    throw work_failed(fmt::format(
        "counting one layer of {} neurons, {} tasks at once, takes {}: expected at most {}",
        pool.neuron_count, slot_count, format_bytes(layer_bytes), format_bytes(bytes_max)));
  }
  return static_cast<uint32_t>(std::min<uint64_t>(bytes_max / layer_bytes, pool.layer_count));
}

}  // namespace

class StatisticsCounter::State {
 public:
  State(const NeuronPool& pool, const StatisticsOptions& options)
      : pool_(pool), options_(options), counted_(options), counter_(pool, options, 1, counted_) {}

  void add(const StepInfo& info, std::span<const uint64_t> words) {
    TC_CHECK(words.size() == pool_.words_per_step(), "words of another pool");
    std::vector<SequenceEvent> events;
    if (task_ && *task_ != info.task) open_.end(*task_, events);
    task_ = info.task;
    if (info.position >= options_.position_min) open_.step(info.task, 0, events);
    counter_.run(events, words, {});
  }

  TraceStatistics finish() {
    std::vector<SequenceEvent> events;
    open_.end_all(events);
    counter_.run(events, {}, {});
    const Frame frame{pool_.neuron_count, open_.step_count(), false};
    counter_.finish(frame);
    return trace_statistics(std::move(counted_), options_, frame);
  }

 private:
  NeuronPool pool_;
  StatisticsOptions options_;
  std::optional<uint32_t> task_;
  OpenSequences open_;
  CountedLayers counted_;
  PoolCounter counter_;
};

StatisticsCounter::StatisticsCounter(const NeuronPool& pool, const StatisticsOptions& options) {
  check_options(options);
  state_ = std::make_unique<State>(pool, options);
}

StatisticsCounter::~StatisticsCounter() = default;

void StatisticsCounter::add(const StepInfo& info, std::span<const uint64_t> words) {
  state_->add(info, words);
}

TraceStatistics StatisticsCounter::finish() { return state_->finish(); }

TraceStatistics statistics_of(const TraceReader& reader, const StatisticsOptions& options,
                              const std::function<void(uint64_t)>& progress,
                              const CountingLimits& limits) {
  check_options(options);
  const NeuronPool whole = whole_model(reader.header());
  const StepEvents steps(reader, options.position_min);
  const uint32_t at_once = layers_at_once(whole, steps.slot_count(), options, limits.bytes_max);
  CountedLayers counted(options);
  Frame frame{whole.neuron_count, 0, reader.header().has_predicted};
  for (uint32_t begin = 0; begin < whole.layer_count; begin += at_once) {
    const uint32_t layers = std::min(at_once, whole.layer_count - begin);
    const NeuronPool pool{begin, layers, 0, whole.neuron_count};
    PoolCounter counter(pool, options, limits.threads, counted);
    OpenSequences open;
    for_each_predicted_block(
        reader, pool, 0, reader.step_count(),
        [&](const StepBlock& active, const StepBlock& predicted) {
          std::vector<SequenceEvent> events;
          steps.add(active.step_begin, active.step_count, open, events);
          counter.run(events, active.words, predicted.words);
          const uint64_t done = active.step_begin + active.step_count;
          // A pass over some of the layers is as much of the work.
          if (progress) progress((begin * reader.step_count() + layers * done) / whole.layer_count);
        });
    frame.step_count = open.step_count();
    counter.finish(frame);
  }
  return trace_statistics(std::move(counted), options, frame);
}

}  // namespace thermocline
