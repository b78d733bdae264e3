// Trace statistics against their definitions, computed one neuron at a time.
#include "traces/statistics.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <functional>
#include <map>
#include <numeric>
#include <set>

#include "models/bit_sums.h"
#include "tests/sim/memory_trace.h"
#include "tests/support.h"
#include "traces/top_fifth.h"

namespace thermocline::test {
namespace {

// The trace as sets, sequence by sequence: active[sequence][step][layer].
using Sets = std::vector<std::vector<std::vector<std::set<uint32_t>>>>;

Sets sets_of(const MemoryTrace& trace, uint32_t position_min) {
  Sets sets;
  std::optional<uint32_t> task;
  for (uint64_t i = 0; i < trace.step_count(); ++i) {
    const StepInfo& info = trace.steps_[i];
    if (task != info.task) sets.emplace_back();
    task = info.task;
    if (info.position < position_min) continue;
    sets.back().emplace_back(trace.header_.shape.layer_count);
    for_each_bit(trace.whole_.pool, trace.whole_.step(i).words, [&](uint32_t flat) {
      const uint32_t width = trace.header_.shape.ffn_dim;
      sets.back().back()[flat / width].insert(flat % width);
    });
  }
  std::erase_if(sets, [](const auto& sequence) { return sequence.empty(); });
  return sets;
}

uint64_t shared(const std::set<uint32_t>& a, const std::set<uint32_t>& b) {
  return static_cast<uint64_t>(
      std::count_if(a.begin(), a.end(), [&](uint32_t neuron) { return b.contains(neuron); }));
}

std::set<uint32_t> union_of(const std::vector<std::vector<std::set<uint32_t>>>& sequence,
                            size_t begin, size_t end, uint32_t layer) {
  std::set<uint32_t> result;
  for (size_t i = begin; i < end; ++i) {
    result.insert(sequence[i][layer].begin(), sequence[i][layer].end());
  }
  return result;
}

struct Slow {
  const Sets& sets;
  uint32_t width;
  std::vector<uint32_t> layers;  // that are taken together

  template <class Visit>  // visit(sequence, layer)
  void each(Visit visit) const {
    for (const auto& sequence : sets) {
      for (const uint32_t layer : layers) visit(sequence, layer);
    }
  }

  double mean_activity() const {
    double fired = 0, chances = 0;
    each([&](const auto& sequence, uint32_t layer) {
      for (const auto& step : sequence) {
        fired += static_cast<double>(step[layer].size());
        chances += width;
      }
    });
    return fired / chances;
  }

  double overlap(size_t lag) const {
    double both = 0, first = 0;
    each([&](const auto& sequence, uint32_t layer) {
      for (size_t i = 0; i + lag < sequence.size(); ++i) {
        both += static_cast<double>(shared(sequence[i][layer], sequence[i + lag][layer]));
        first += static_cast<double>(sequence[i][layer].size());
      }
    });
    return both / first;
  }

  double in_union(size_t window) const {
    double sum = 0, count = 0;
    each([&](const auto& sequence, uint32_t layer) {
      for (size_t i = 0; i + window <= sequence.size(); ++i) {
        sum += static_cast<double>(union_of(sequence, i, i + window, layer).size());
        count += width;
      }
    });
    return sum / count;
  }

  double fresh(size_t window) const {
    double sum = 0, count = 0;
    each([&](const auto& sequence, uint32_t layer) {
      for (size_t i = window; i < sequence.size(); ++i) {
        const auto known = union_of(sequence, i - window, i, layer);
        const auto& now = sequence[i][layer];
        sum += static_cast<double>(now.size() - shared(now, known));
        count += width;
      }
    });
    return sum / count;
  }

  double share_80() const {
    std::vector<double> counts;
    for (const uint32_t layer : layers) {
      for (uint32_t neuron = 0; neuron < width; ++neuron) {
        double fired = 0;
        for (const auto& sequence : sets) {
          for (const auto& step : sequence) fired += step[layer].contains(neuron);
        }
        counts.push_back(fired);
      }
    }
    std::sort(counts.rbegin(), counts.rend());
    double total = 0, sum = 0;
    for (const double value : counts) total += value;
    size_t taken = 0;
    while (sum < 0.8 * total - 1e-9) sum += counts[taken++];
    return static_cast<double>(taken) / static_cast<double>(counts.size());
  }

  // Firings by neuron of one layer in steps begin, begin + stride ... of a sequence.
  std::vector<double> counts(size_t sequence, uint32_t layer, size_t begin, size_t stride) const {
    std::vector<double> result(width);
    for (size_t i = begin; i < sets[sequence].size(); i += stride) {
      for (const uint32_t neuron : sets[sequence][i][layer]) ++result[neuron];
    }
    return result;
  }

  // How much of each neuron is in the top fifth: places are handed out from the most active down,
  // and those that tie for what is left share it.
  static std::vector<double> places(const std::vector<double>& counts) {
    const double all = std::max<double>(std::floor(static_cast<double>(counts.size()) / 5), 1);
    std::vector<double> result;
    for (const double mine : counts) {
      const auto more = static_cast<double>(
          std::count_if(counts.begin(), counts.end(), [&](double c) { return c > mine; }));
      const auto same = static_cast<double>(std::count(counts.begin(), counts.end(), mine));
      result.push_back(std::clamp((all - more) / same, 0.0, 1.0));
    }
    return result;
  }

  static double dot(const std::vector<double>& a, const std::vector<double>& b) {
    double sum = 0;
    for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
    return sum;
  }

  // Between all steps of each sequence and of the sequence `ahead` after it.
  double task_overlap(size_t ahead) const {
    double sum = 0, count = 0;
    for (size_t s = 0; s + ahead < sets.size(); ++s) {
      for (const uint32_t layer : layers) {
        const auto a = places(counts(s, layer, 0, 1)), b = places(counts(s + ahead, layer, 0, 1));
        sum += dot(a, b) / std::max<double>(std::floor(width / 5), 1);
        ++count;
      }
    }
    return sum / count;
  }

  // The firings of the most active `percent` of neurons, a part of one where that is no number.
  double carried(double percent) const {
    std::vector<double> fired;
    for (const uint32_t layer : layers) {
      std::vector<double> of_layer(width);
      for (size_t s = 0; s < sets.size(); ++s) {
        const auto more = counts(s, layer, 0, 1);
        std::transform(more.begin(), more.end(), of_layer.begin(), of_layer.begin(), std::plus<>());
      }
      fired.insert(fired.end(), of_layer.begin(), of_layer.end());
    }
    std::sort(fired.rbegin(), fired.rend());
    double left = percent / 100 * static_cast<double>(fired.size()), sum = 0;
    for (const double count : fired) {
      sum += count * std::clamp(left, 0.0, 1.0);
      left -= 1;
    }
    return sum / std::accumulate(fired.begin(), fired.end(), 0.0);
  }

  // Between the even steps of each sequence and the odd ones of the sequence `ahead` after it.
  double half_overlap(size_t ahead) const {
    double sum = 0, count = 0;
    for (size_t s = 0; s + ahead < sets.size(); ++s) {
      if (sets[s + ahead].size() < 2) continue;
      for (const uint32_t layer : layers) {
        const auto a = places(counts(s, layer, 0, 2)), b = places(counts(s + ahead, layer, 1, 2));
        sum += dot(a, b) / std::max<double>(std::floor(width / 5), 1);
        ++count;
      }
    }
    return sum / count;
  }

  // Of each later sequence's firings: by its own top fifth, or by that of all sequences before.
  double coverage(bool own) const {
    double shares = 0, sequences = 0;
    for (size_t s = 1; s < sets.size(); ++s) {
      double carried = 0, fired = 0;
      for (const uint32_t layer : layers) {
        const auto now = counts(s, layer, 0, 1);
        std::vector<double> before(width);
        for (size_t earlier = 0; earlier < s; ++earlier) {
          const auto more = counts(earlier, layer, 0, 1);
          std::transform(more.begin(), more.end(), before.begin(), before.begin(), std::plus<>());
        }
        carried += dot(places(own ? now : before), now);
        fired += std::accumulate(now.begin(), now.end(), 0.0);
      }
      if (fired == 0) continue;
      shares += carried / fired;
      ++sequences;
    }
    return shares / sequences;
  }
};

void check_sequences(const ActivityStatistics& found, const Slow& slow) {
  CHECK(found.half_overlap.value() == Approx(slow.half_overlap(0)));
  CHECK(found.half_next_overlap.value() == Approx(slow.half_overlap(1)));
  CHECK(found.own_coverage.value() == Approx(slow.coverage(true)));
  CHECK(found.past_coverage.value() == Approx(slow.coverage(false)));
  CHECK(*found.own_coverage >= *found.past_coverage);  // to the last bit
  for (size_t i = 0; i < kTaskDistances.size(); ++i) {
    INFO("tasks apart " << kTaskDistances[i]);
    const double all = slow.task_overlap(kTaskDistances[i]);
    const double half = slow.half_overlap(kTaskDistances[i]);
    CHECK(found.task_overlap[i].has_value() == std::isfinite(all));
    CHECK(found.half_task_overlap[i].has_value() == std::isfinite(half));
    if (found.task_overlap[i]) CHECK(*found.task_overlap[i] == Approx(all));
    if (found.half_task_overlap[i]) CHECK(*found.half_task_overlap[i] == Approx(half));
  }
}

void check(const ActivityStatistics& found, const Slow& slow, const StatisticsOptions& options) {
  CHECK(found.mean_activity.value() == Approx(slow.mean_activity()));
  CHECK(found.share_80.value() == Approx(slow.share_80()));
  REQUIRE(found.carried.size() == 100);
  for (const size_t percent : {1, 7, 50, 99, 100}) {
    CHECK(found.carried[percent - 1] == Approx(slow.carried(static_cast<double>(percent))));
  }
  double shares = 0;
  for (const auto& sequence : slow.sets) {
    const Sets alone = {sequence};
    shares += Slow{alone, slow.width, slow.layers}.share_80();
  }
  CHECK(found.sequence_share_80.value() == Approx(shares / static_cast<double>(slow.sets.size())));
  for (size_t i = 0; i < options.lags.size(); ++i) {
    INFO("lag " << options.lags[i]);
    const double expected = slow.overlap(options.lags[i]);
    CHECK(found.overlap[i].has_value() == std::isfinite(expected));
    if (found.overlap[i]) CHECK(*found.overlap[i] == Approx(expected));
  }
  for (size_t i = 0; i < options.windows.size(); ++i) {
    INFO("window " << options.windows[i]);
    CHECK(found.unions[i].value() == Approx(slow.in_union(options.windows[i])));
    CHECK(found.fresh[i].value() == Approx(slow.fresh(options.windows[i])));
  }
  check_sequences(found, slow);
}

// Cuts the steps into sequences of random lengths.
void cut_into_tasks(MemoryTrace& trace, Lcg& random, uint32_t least = 12) {
  uint32_t task = 0, position = 0, length = least + random.below(10);
  for (StepInfo& info : trace.steps_) {
    if (position == length) {
      ++task;
      position = 0;
      length = least + random.below(10);
    }
    info.task = task;
    info.position = position++;
  }
}

TEST_CASE("trace statistics are what their definitions say, on random traces") {
  for (uint64_t seed = 1; seed <= 12; ++seed) {
    Lcg random(seed);
    const uint32_t width = 5 + random.below(140);
    const TraceHeader header = memory_header(2, width, {{0, 2, 0, width}});
    MemoryTrace trace = random_trace(seed, header, 60, seed % 2 == 0 ? 7 : 0);
    cut_into_tasks(trace, random);
    StatisticsOptions options;
    options.position_min = static_cast<uint32_t>(seed % 3);
    options.lags = {1, 2, 5, 30};
    options.windows = {1, 3, 5};
    const TraceStatistics found = statistics_of(trace, options);
    const Sets sets = sets_of(trace, options.position_min);
    INFO("seed " << seed << " width " << width);
    CHECK(found.sequence_count == sets.size());
    REQUIRE(found.layers.size() == 2);
    check(found.layers[0], {sets, width, {0}}, options);
    check(found.layers[1], {sets, width, {1}}, options);
    check(found.whole, {sets, width, {0, 1}}, options);
    CHECK(*found.whole.sequence_overlap ==
          Approx((*found.layers[0].sequence_overlap + *found.layers[1].sequence_overlap) / 2));
  }
}

TEST_CASE("drift over many tasks is what its definition says") {
  Lcg random(3);
  constexpr uint32_t width = 33;
  MemoryTrace trace = random_trace(9, memory_header(2, width, {{0, 2, 0, width}}), 120, 5);
  cut_into_tasks(trace, random, 1);  // some of a single step
  StatisticsOptions options;
  options.lags = {1};
  options.windows = {2};
  const TraceStatistics found = statistics_of(trace, options);
  const Sets sets = sets_of(trace, 0);
  REQUIRE(sets.size() > 12);
  check(found.layers[1], {sets, width, {1}}, options);
  check(found.whole, {sets, width, {0, 1}}, options);
}

// Every figure, so that two results can be compared to the last bit.
std::vector<std::optional<double>> all_of(const ActivityStatistics& of) {
  std::vector<std::optional<double>> all = {
      of.mean_activity,     of.share_80,     of.sequence_share_80, of.sequence_overlap,
      of.half_next_overlap, of.half_overlap, of.own_coverage,      of.past_coverage,
      of.predicted,         of.recall,       of.precision,         of.false_positives};
  for (const auto* shares :
       {&of.overlap, &of.unions, &of.fresh, &of.task_overlap, &of.half_task_overlap}) {
    all.insert(all.end(), shares->begin(), shares->end());
  }
  all.insert(all.end(), of.carried.begin(), of.carried.end());
  return all;
}

void check_same(const TraceStatistics& a, const TraceStatistics& b) {
  CHECK(a.step_count == b.step_count);
  CHECK(a.sequence_count == b.sequence_count);
  REQUIRE(a.layers.size() == b.layers.size());
  CHECK(all_of(a.whole) == all_of(b.whole));
  for (size_t i = 0; i < a.layers.size(); ++i) CHECK(all_of(a.layers[i]) == all_of(b.layers[i]));
}

// The same steps in another order.
MemoryTrace in_order(const MemoryTrace& trace, const std::vector<uint64_t>& order) {
  const uint64_t stride = trace.whole_.pool.words_per_step();
  PoolSteps steps = trace.whole_;
  for (uint64_t i = 0; i < order.size(); ++i) {
    const auto from = trace.whole_.step(order[i]).words;
    std::copy(from.begin(), from.end(),
              steps.words.begin() + static_cast<std::ptrdiff_t>(i * stride));
  }
  MemoryTrace result(trace.header_, steps);
  for (uint64_t i = 0; i < order.size(); ++i) result.steps_[i] = trace.steps_[order[i]];
  return result;
}

// As a batched run records them: at most `at_once` tasks are open, and each next step is one of
// theirs.
std::vector<uint64_t> alternating(const MemoryTrace& trace, Lcg& random, uint32_t at_once) {
  std::vector<std::vector<uint64_t>> waiting, open;
  for (uint64_t i = 0; i < trace.steps_.size(); ++i) {
    if (i == 0 || trace.steps_[i].task != trace.steps_[i - 1].task) waiting.emplace_back();
    waiting.back().push_back(i);
  }
  std::reverse(waiting.begin(), waiting.end());
  for (auto& steps : waiting) std::reverse(steps.begin(), steps.end());
  std::vector<uint64_t> order;
  while (!open.empty() || !waiting.empty()) {
    if (open.size() < at_once && !waiting.empty()) {
      open.push_back(waiting.back());
      waiting.pop_back();
    }
    const size_t next = random.below(static_cast<uint32_t>(open.size()));
    order.push_back(open[next].back());
    open[next].pop_back();
    if (open[next].empty()) open.erase(open.begin() + static_cast<std::ptrdiff_t>(next));
  }
  return order;
}

// The tasks one after the other, as they end in `trace`.
std::vector<uint64_t> by_completion(const MemoryTrace& trace) {
  std::map<uint32_t, std::vector<uint64_t>> tasks;
  for (uint64_t i = 0; i < trace.steps_.size(); ++i) tasks[trace.steps_[i].task].push_back(i);
  std::vector<std::vector<uint64_t>> ends;
  for (const auto& [task, steps] : tasks) ends.push_back(steps);
  std::sort(ends.begin(), ends.end(),
            [](const auto& a, const auto& b) { return a.back() < b.back(); });
  std::vector<uint64_t> order;
  for (const auto& steps : ends) order.insert(order.end(), steps.begin(), steps.end());
  return order;
}

TEST_CASE("tasks that alternate count as they do one after the other") {
  for (uint64_t seed = 1; seed <= 6; ++seed) {
    Lcg random(seed);
    const uint32_t width = 20 + random.below(100);
    MemoryTrace trace = random_trace(seed, memory_header(3, width, {{0, 3, 0, width}}), 300, 11);
    cut_into_tasks(trace, random, 1);
    const MemoryTrace batched = in_order(trace, alternating(trace, random, 2 + random.below(6)));
    const MemoryTrace serial = in_order(batched, by_completion(batched));
    StatisticsOptions options;
    options.position_min = static_cast<uint32_t>(seed % 3);
    INFO("seed " << seed);
    const TraceStatistics expected = statistics_of(serial, options);
    CHECK(expected.sequence_count > 9);
    check_same(statistics_of(batched, options), expected);
    CHECK(all_of(expected.whole) != all_of(statistics_of(trace, options).whole));
  }
}

TEST_CASE("threads, passes and steps as they happen change no figure") {
  Lcg random(8);
  const NeuronPool pool{0, 5, 0, 70};
  MemoryTrace trace = random_trace(4, memory_header(5, 70, {pool}), 700, 13);
  cut_into_tasks(trace, random, 5);
  const TraceStatistics expected = statistics_of(trace);
  const uint32_t threads = GENERATE(2u, 3u, 16u);
  check_same(statistics_of(trace, {}, {}, {.threads = threads}), expected);
  // A layer takes 4 to 5 kB: two of the five fit, or one.
  for (const auto& [bytes_max, passes] : {std::pair{10000, 3}, std::pair{6000, 5}}) {
    int calls = 0;  // the trace is a single block
    uint64_t last = 0;
    const auto progress = [&calls, &last](uint64_t done) {
      ++calls;
      CHECK(done > last);
      last = done;
    };
    const CountingLimits limits{threads, static_cast<uint64_t>(bytes_max)};
    check_same(statistics_of(trace, {}, progress, limits), expected);
    CHECK(calls == passes);
    CHECK(last == 700);
  }
  CHECK_THROWS_AS(statistics_of(trace, {}, {}, {.threads = threads, .bytes_max = 1000}), Error);
  StatisticsCounter counter(pool, {});
  for (uint64_t i = 0; i < 700; ++i) counter.add(trace.steps_[i], trace.whole_.step(i).words);
  check_same(counter.finish(), expected);
}

TEST_CASE("what progress throws ends the counting") {
  const MemoryTrace trace = random_trace(4, memory_header(5, 70, {{0, 5, 0, 70}}), 70, 0);
  const auto interrupt = [](uint64_t) { throw work_failed("interrupted"); };
  CHECK_THROWS_AS(statistics_of(trace, {}, interrupt), Error);
}

// A trace whose predicted bits are the active bits of another.
class PredictedTrace final : public TraceReader {
 public:
  PredictedTrace(const MemoryTrace& active, const MemoryTrace& predicted)
      : active_(active), predicted_(predicted), header_(active.header_) {
    header_.has_predicted = true;
  }
  const TraceHeader& header() const override { return header_; }
  uint64_t step_count() const override { return active_.step_count(); }
  bool finished() const override { return true; }
  const std::vector<std::string>& missing() const override { return active_.missing(); }
  bool holds(uint32_t rank) const override { return active_.holds(rank); }
  uint64_t file_bytes() const override { return 0; }
  const std::vector<TaskRecord>& tasks() const override { return active_.tasks(); }
  std::vector<StepInfo> steps() const override { return active_.steps(); }
  std::vector<StepTimes> times(uint32_t rank) const override { return active_.times(rank); }
  std::vector<uint32_t> popcounts(uint64_t begin, uint64_t count) const override {
    return active_.popcounts(begin, count);
  }
  void read(const NeuronPool& pool, uint64_t begin, uint64_t count,
            StepBlock& block) const override {
    active_.read(pool, begin, count, block);
  }
  void read_predicted(const NeuronPool& pool, uint64_t begin, uint64_t count,
                      StepBlock& block) const override {
    predicted_.read(pool, begin, count, block);
  }
  const std::vector<uint64_t>& magnitude_steps() const override {
    return active_.magnitude_steps();
  }
  void read_magnitudes(const NeuronPool& pool, uint64_t begin, uint64_t count,
                       std::vector<float>& magnitudes) const override {
    active_.read_magnitudes(pool, begin, count, magnitudes);
  }
  std::string hash() const override { return active_.hash(); }

 private:
  const MemoryTrace &active_, &predicted_;
  TraceHeader header_;
};

// Of layers [begin, end), steps from position_min on.
void check_predictions(const ActivityStatistics& found, const MemoryTrace& active,
                       const MemoryTrace& predicted, uint32_t begin, uint32_t end) {
  double both = 0, fired = 0, said = 0, chances = 0;
  for (uint64_t i = 0; i < active.step_count(); ++i) {
    if (active.steps_[i].position < 2) continue;
    for (uint32_t layer = begin; layer < end; ++layer) {
      const ActiveSet a = active.whole_.step(i).layer(layer);
      const ActiveSet p = predicted.whole_.step(i).layer(layer);
      for (uint32_t neuron = 0; neuron < active.header_.shape.ffn_dim; ++neuron, ++chances) {
        both += a.contains(neuron) && p.contains(neuron);
        fired += a.contains(neuron);
        said += p.contains(neuron);
      }
    }
  }
  CHECK(found.predicted.value() == Approx(said / chances));
  CHECK(found.recall.value() == Approx(both / fired));
  CHECK(found.precision.value() == Approx(both / said));
  CHECK(found.false_positives.value() == Approx((said - both) / (chances - fired)));
}

TEST_CASE("a predictor's shares are what their definitions say") {
  Lcg random(5);
  const TraceHeader header = memory_header(3, 77, {{0, 3, 0, 77}});
  MemoryTrace active = random_trace(1, header, 90, 0);
  const MemoryTrace predicted = random_trace(2, header, 90, 0);
  cut_into_tasks(active, random);
  StatisticsOptions options;
  options.position_min = 2;
  const PredictedTrace trace(active, predicted);
  const TraceStatistics found = statistics_of(trace, options);
  CHECK(found.has_predicted);
  check_predictions(found.whole, active, predicted, 0, 3);
  for (uint32_t i = 0; i < 3; ++i) check_predictions(found.layers[i], active, predicted, i, i + 1);
  check_same(statistics_of(trace, options, {}, {.threads = 2, .bytes_max = 20000}), found);
  const TraceStatistics without = statistics_of(active, options);
  CHECK(!without.has_predicted);
  CHECK(!without.whole.recall.has_value());
  const TraceStatistics perfect = statistics_of(PredictedTrace(active, active), options);
  CHECK(*perfect.whole.recall == 1);
  CHECK(*perfect.whole.precision == 1);
  CHECK(*perfect.whole.false_positives == 0);
}

TEST_CASE("sums over rows of bits are the same in every version") {
  Lcg random(6);
  const size_t size = GENERATE(1, 7, 8, 33, 448);
  std::vector<uint64_t> a(size), b(size);
  for (auto* row : {&a, &b}) {
    for (uint64_t& word : *row) word = uint64_t{random.next()} << 32 | random.next();
  }
  uint64_t in_a = 0, in_both = 0, in_any = 0;
  for (size_t i = 0; i < 64 * size; ++i) {
    const bool of_a = a[i / 64] >> i % 64 & 1, of_b = b[i / 64] >> i % 64 & 1;
    in_a += of_a;
    in_both += of_a && of_b;
    in_any += of_a || of_b;
  }
  CHECK(std::string(all_bit_sums()[0].name) == "plain");
  for (const BitSums& sums : all_bit_sums()) {
    INFO(sums.name << ", " << size << " words");
    CHECK(sums.count(a.data(), size) == in_a);
    CHECK(sums.count_both(a.data(), b.data(), size) == in_both);
    std::vector<uint64_t> joined = a;
    CHECK(sums.widen(joined.data(), b.data(), size) == in_any);
    CHECK(joined[0] == (a[0] | b[0]));
    std::vector<uint64_t> planes(kBitPlanes * size), carry = a;
    std::vector<uint32_t> counts(64 * size, 5);
    sums.add(planes.data(), carry.data(), 1, size);
    carry = b;
    sums.add(planes.data(), carry.data(), 2, size);
    sums.flush(planes.data(), counts.data(), size);
    for (size_t i = 0; i < counts.size(); ++i) {
      REQUIRE(counts[i] == 5 + (a[i / 64] >> i % 64 & 1) + (b[i / 64] >> i % 64 & 1));
    }
    CHECK(planes == std::vector<uint64_t>(kBitPlanes * size));
  }
}

TEST_CASE("eight rows at once are added up as they would be one by one, in every version") {
  Lcg random(8);
  const size_t size = GENERATE(1, 7, 8, 33, 448), stride = size + 3;
  constexpr uint32_t kTimes = 31;  // to the most that planes hold
  std::vector<uint64_t> rows(kTimes * kRowsAtOnce * stride);
  for (uint64_t& word : rows) word = ~(uint64_t{random.next()} << 32 & random.next());
  std::vector<uint32_t> expected(64 * size, 3);
  for (size_t row = 0; row < kTimes * kRowsAtOnce; ++row) {
    for (size_t i = 0; i < 64 * size; ++i) {
      expected[i] += rows[row * stride + i / 64] >> i % 64 & 1;
    }
  }
  for (const BitSums& sums : all_bit_sums()) {
    INFO(sums.name << ", " << size << " words");
    std::vector<uint64_t> planes(kBitPlanes * size);
    std::vector<uint32_t> counts(64 * size, 3);
    for (uint32_t i = 0; i < kTimes; ++i) {
      sums.add_rows(planes.data(), rows.data() + i * kRowsAtOnce * stride, stride, size);
    }
    sums.flush(planes.data(), counts.data(), size);
    CHECK(counts == expected);
    CHECK(planes == std::vector<uint64_t>(kBitPlanes * size));
  }
}

TEST_CASE("a bit counter counts past what its planes hold") {
  Lcg random(7);
  const uint32_t neurons = GENERATE(1u, 64u, 130u);
  BitCounter counter(neurons);
  for (int round = 0; round < 2; ++round) {
    std::vector<uint32_t> expected(neurons);
    const size_t words = (neurons + 63) / 64;
    std::vector<uint64_t> rows;  // not added yet
    for (uint32_t i = 0; i < 3 * kBitPlaneSum + 5; ++i) {
      std::vector<uint64_t> row(words);
      for (uint32_t neuron = 0; neuron < neurons; ++neuron) {
        const bool set = neuron % 3 == 0 || random.below(3) == 0;  // some always: full planes
        row[neuron / 64] |= uint64_t{set} << neuron % 64;
        expected[neuron] += set;
      }
      rows.insert(rows.end(), row.begin(), row.end());
      if (random.below(20) != 0) continue;
      if (random.below(8) == 0) counter.counts();  // may be asked at any time
      counter.add(rows.data(), words, rows.size() / words - 1);
      counter.add(rows.data() + rows.size() - words);
      rows.clear();
    }
    counter.add(rows.data(), words, rows.size() / words);
    const auto counts = counter.counts();
    CHECK(std::vector<uint32_t>(counts.begin(), counts.end()) == expected);
    counter.clear();
  }
}

TEST_CASE("the top fifth of large counts is found too") {
  Lcg random(9);
  for (const uint32_t limit : {1u, 2047u, 2048u, 1u << 22, ~0u}) {
    std::vector<uint32_t> counts(103);
    for (uint32_t& count : counts) count = random.below(limit);
    std::vector<uint32_t> sorted = counts;
    std::sort(sorted.rbegin(), sorted.rend());
    INFO("counts below " << limit);
    CHECK(top_fifth(counts).last == sorted[19]);
  }
}

// Ten neurons, two sequences of three and two steps.
TEST_CASE("trace statistics of a trace that fits on a page") {
  MemoryTrace trace(memory_header(1, 10, {{0, 1, 0, 10}}),
                    PoolSteps{{0, 1, 0, 10}, 5, std::vector<uint64_t>(5)});
  const std::vector<std::vector<uint32_t>> active = {
      {0, 1, 2, 3}, {0, 1, 4}, {0, 5}, {0, 1, 9}, {0, 9}};
  for (uint64_t i = 0; i < 5; ++i) {
    for (const uint32_t neuron : active[i]) trace.whole_.set(i, neuron);
    trace.steps_[i].task = i < 3 ? 7 : 8;
    trace.steps_[i].position = static_cast<uint32_t>(i < 3 ? i : i - 3);
  }
  StatisticsOptions options;
  options.lags = {1, 2, 3};
  options.windows = {1, 2, 3, 4};
  const ActivityStatistics found = statistics_of(trace, options).whole;
  CHECK(*found.mean_activity == 14.0 / 50);
  // Firings 5 3 1 1 1 1 2 (neurons 0 1 2 3 4 5 9) sum to 14: 5 + 3 + 2 + 1 + 1 reach 11.2.
  CHECK(*found.share_80 == 5.0 / 10);
  // 3 2 1 1 1 1 of the first sequence (7.2 of 9), 2 1 2 of the second (4 of 5).
  CHECK(*found.sequence_share_80 == Approx((5.0 / 10 + 2.0 / 10) / 2));
  CHECK(*found.overlap[0] == (2.0 + 1 + 2) / (4 + 3 + 3));
  CHECK(*found.overlap[1] == 1.0 / 4);
  CHECK(!found.overlap[2].has_value());
  CHECK(*found.unions[1] == (5.0 + 4 + 3) / 30);
  CHECK(*found.unions[2] == 6.0 / 10);
  CHECK(!found.unions[3].has_value());
  CHECK(*found.fresh[0] == (1.0 + 1 + 0) / 30);
  CHECK(*found.fresh[1] == 1.0 / 10);
  // The two most active of the first sequence are 0 and 1; 0 and 9 of the second.
  CHECK(*found.sequence_overlap == 1.0 / 2);
  // The even steps of the first have 0, and a quarter each of 1, 2, 3 and 5; its odd step two
  // thirds each of 0, 1 and 4. The even step of the second: of 0, 1 and 9; its odd step: 0 and 9.
  CHECK(*found.half_overlap == Approx(((2.0 / 3 + 1.0 / 6) / 2 + (2.0 / 3 + 2.0 / 3) / 2) / 2));
  CHECK(*found.half_next_overlap == Approx(1.0 / 2));
  // Of the second's firings 2 1 2 (neurons 0 1 9), its own top fifth has 4, that of the first 3.
  CHECK(*found.own_coverage == 4.0 / 5);
  CHECK(*found.past_coverage == 3.0 / 5);
}

TEST_CASE("neurons that tie for the most active fifth share its places") {
  // One place of five: neurons 1 and 2 tie for it in a, neuron 2 holds it in b.
  CHECK(top_fifth_overlap(std::vector<uint32_t>{0, 4, 4, 1, 0},
                          std::vector<uint32_t>{0, 0, 9, 1, 0}) == 0.5);
  CHECK(top_fifth_overlap(std::vector<uint32_t>{3, 3, 3, 3, 3},
                          std::vector<uint32_t>{3, 3, 3, 3, 3}) == Approx(0.2));
  CHECK(top_fifth_overlap(std::vector<uint32_t>{1, 2, 3, 4, 5},
                          std::vector<uint32_t>{0, 0, 0, 0, 1}) == 1);
}

TEST_CASE("a top fifth carries firings, and neurons that tie share its places") {
  const std::vector<uint32_t> counts = {7, 1, 0, 2, 0};
  CHECK(top_fifth_firings(counts, counts) == 7);
  CHECK(top_fifth_firings(std::vector<uint32_t>{0, 4, 4, 1, 0}, counts) == 0.5);
  CHECK(top_fifth_firings(std::vector<uint32_t>{0, 0, 0, 0, 0}, counts) == 2);  // 10 / 5
  CHECK(top_fifth_firings(std::vector<uint32_t>{0, 0, 1, 0, 0}, counts) == 0);
}

// Each sequence repeats one block of steps; `moves` shifts all neurons from sequence to sequence.
MemoryTrace repeated_trace(bool moves) {
  constexpr uint32_t width = 100, steps = 40, sequences = 4;
  Lcg random(5);
  MemoryTrace trace(memory_header(2, width, {{0, 2, 0, width}}),
                    PoolSteps{{0, 2, 0, width},
                              uint64_t{steps} * sequences,
                              std::vector<uint64_t>(uint64_t{steps} * sequences * 4)});
  for (uint32_t step = 0; step < steps; ++step) {
    for (uint32_t flat = 0; flat < 2 * width; ++flat) {
      const uint32_t neuron = flat % width;
      if (random.below(100) >= 100 - neuron) continue;  // neuron 0 always fires, the last seldom
      for (uint32_t i = 0; i < sequences; ++i) {
        const uint32_t there = moves ? (neuron + 30 * i) % width : neuron;
        trace.whole_.set(uint64_t{i} * steps + step, flat / width * width + there);
      }
    }
  }
  for (uint32_t i = 0; i < steps * sequences; ++i) {
    trace.steps_[i].task = i / steps;
    trace.steps_[i].position = i % steps;
  }
  return trace;
}

TEST_CASE("sequences that are alike leave nothing to follow, others do") {
  const ActivityStatistics alike = statistics_of(repeated_trace(false)).whole;
  CHECK(*alike.own_coverage == *alike.past_coverage);
  CHECK(*alike.half_overlap == Approx(*alike.half_next_overlap));
  CHECK(*alike.sequence_overlap > 0.9);
  const ActivityStatistics moved = statistics_of(repeated_trace(true)).whole;
  CHECK(*moved.own_coverage == Approx(*alike.own_coverage));
  CHECK(*moved.own_coverage > *moved.past_coverage + 0.1);
  CHECK(*moved.half_overlap == Approx(*alike.half_overlap));
  CHECK(*moved.half_next_overlap < 0.1);
}

TEST_CASE("coverages want a sequence before, halves want two steps") {
  MemoryTrace trace = repeated_trace(false);
  for (StepInfo& step : trace.steps_) step.task = 0;
  const ActivityStatistics one = statistics_of(trace).whole;
  CHECK(one.half_overlap.has_value());
  CHECK(!one.half_next_overlap.has_value());
  CHECK(!one.own_coverage.has_value());
  CHECK(!one.past_coverage.has_value());
  for (size_t i = 0; i < trace.steps_.size(); ++i) trace.steps_[i].task = static_cast<uint32_t>(i);
  const ActivityStatistics single = statistics_of(trace).whole;
  CHECK(!single.half_overlap.has_value());
  CHECK(!single.half_next_overlap.has_value());
  CHECK(*single.own_coverage >= *single.past_coverage);
}

TEST_CASE("a trace without steps or firings has no ratios") {
  MemoryTrace silent(memory_header(1, 10, {{0, 1, 0, 10}}),
                     PoolSteps{{0, 1, 0, 10}, 2, std::vector<uint64_t>(2)});
  const TraceStatistics found = statistics_of(silent);
  CHECK(*found.whole.mean_activity == 0);
  CHECK(!found.whole.share_80.has_value());
  CHECK(!found.whole.overlap[0].has_value());
  CHECK(*found.whole.unions[0] == 0);
  silent.steps_[1].task = 1;
  CHECK(!statistics_of(silent).whole.own_coverage.has_value());
  MemoryTrace empty(memory_header(1, 10, {{0, 1, 0, 10}}), PoolSteps{{0, 1, 0, 10}, 0, {}});
  const TraceStatistics none = statistics_of(empty);
  CHECK(none.step_count == 0);
  CHECK(!none.whole.mean_activity.has_value());
}

}  // namespace
}  // namespace thermocline::test
