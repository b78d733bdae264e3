#include "traces/rethreshold.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <cmath>

#include "models/bit_sums.h"
#include "models/error.h"
#include "models/hash.h"
#include "traces/magnitude_codes.h"
#include "traces/profile.h"

namespace thermocline {
namespace {

constexpr int kBinShift = 16;        // below: all but sign, exponent and 7 bits of the mantissa
constexpr uint32_t kBins = 1 << 15;  // of magnitudes by layer
constexpr uint32_t kCodes = 256;     // of magnitudes by neuron

uint32_t bin_of(float magnitude) { return std::bit_cast<uint32_t>(magnitude) >> kBinShift; }
// The largest magnitude of a bin.
float end_of(uint32_t bin) {
  return std::bit_cast<float>((bin << kBinShift) | ((uint32_t{1} << kBinShift) - 1));
}

// The first place up to which at least `percent` of the counts lie.
template <class Counts>
uint32_t place_of(const Counts& counts, uint32_t size, double percent) {
  uint64_t total = 0, below = 0;
  for (uint32_t i = 0; i < size; ++i) total += counts[i];
  const double wanted = percent / 100 * static_cast<double>(total);
  for (uint32_t i = 0; i < size; ++i) {
    below += counts[i];
    if (static_cast<double>(below) >= wanted) return i;
  }
  return size - 1;
}

// Steps of a trace that have magnitudes, as a trace.
class Rethresholded final : public TraceReader {
 public:
  Rethresholded(std::unique_ptr<TraceReader> source, const ActivationCut& cut)
      : source_(std::move(source)), cut_(cut), header_(source_->header()) {
    header_.has_predicted = false;
    header_.activation_rule = "abs(act)>" + cut.text();
    for (uint64_t row = 0; row < source_->magnitude_steps().size(); ++row) rows_.push_back(row);
    place_thresholds();
    select_steps();
  }

  const TraceHeader& header() const override { return header_; }
  uint64_t step_count() const override { return rows_.size(); }
  bool finished() const override { return source_->finished(); }
  const std::vector<std::string>& missing() const override { return source_->missing(); }
  bool holds(uint32_t rank) const override { return source_->holds(rank); }
  uint64_t file_bytes() const override { return source_->file_bytes(); }
  const std::vector<TaskRecord>& tasks() const override { return tasks_; }
  std::vector<StepInfo> steps() const override { return steps_; }

  std::vector<StepTimes> times(uint32_t rank) const override {
    const std::vector<StepTimes> all = source_->times(rank);
    std::vector<StepTimes> times;
    for (const uint64_t step : source_->magnitude_steps()) times.push_back(all[step]);
    return times;
  }

  std::vector<uint32_t> popcounts(uint64_t step_begin, uint64_t step_count) const override {
    const NeuronPool whole = whole_model(header_);
    std::vector<uint32_t> counts;
    StepBlock block;
    for (uint64_t step = step_begin; step < step_begin + step_count; ++step) {
      read(whole, step, 1, block);
      for (uint32_t layer = 0; layer < whole.layer_count; ++layer) {
        const uint64_t words = whole.words_per_layer();
        counts.push_back(
            static_cast<uint32_t>(bit_sums().count(block.words.data() + layer * words, words)));
      }
    }
    return counts;
  }

  void read(const NeuronPool& pool, uint64_t step_begin, uint64_t step_count,
            StepBlock& block) const override {
    TC_CHECK(step_begin <= rows_.size() && step_count <= rows_.size() - step_begin, "steps");
    block.pool = pool;
    block.step_begin = step_begin;
    block.step_count = step_count;
    block.words.assign(step_count * pool.words_per_step(), 0);
    std::vector<float> magnitudes;
    for (uint64_t i = 0; i < step_count; ++i) {
      source_->read_magnitudes(pool, step_begin + i, 1, magnitudes);
      for (uint32_t layer = 0; layer < pool.layer_count; ++layer) {
        set_bits(pool, layer, magnitudes.data() + uint64_t{layer} * pool.neuron_count,
                 block.words.data() + i * pool.words_per_step() +
                     uint64_t{layer} * pool.words_per_layer());
      }
    }
  }

  void read_predicted(const NeuronPool&, uint64_t, uint64_t, StepBlock&) const override {
    throw Error(ErrorKind::input, "a moved activation threshold has no predicted neurons");
  }

  const std::vector<uint64_t>& magnitude_steps() const override { return rows_; }
  void read_magnitudes(const NeuronPool& pool, uint64_t row_begin, uint64_t row_count,
                       std::vector<float>& magnitudes) const override {
    source_->read_magnitudes(pool, row_begin, row_count, magnitudes);
  }

  std::string hash() const override {
    Fnv1a hash;
    hash.add(source_->hash());
    hash.add(header_.activation_rule);
    return hash.hex();
  }

 private:
  float threshold(uint32_t layer, uint32_t neuron) const {
    return cut_.by_neuron ? of_neurons_[uint64_t{layer} * header_.shape.ffn_dim + neuron]
                          : header_.activation_thresholds[layer];
  }

  void set_bits(const NeuronPool& pool, uint32_t layer, const float* magnitudes,
                uint64_t* words) const {
    for (uint32_t i = 0; i < pool.neuron_count; ++i) {
      const float t = threshold(pool.layer_begin + layer, pool.neuron_begin + i);
      words[i / 64] |= uint64_t{magnitudes[i] > t} << (i % 64);
    }
  }

  void place_thresholds() {
    if (cut_.by_neuron) {
      place_by_neuron();
    } else if (cut_.percent.has_value()) {
      place_by_layer();
    } else {
      header_.activation_thresholds.assign(header_.shape.layer_count, cut_.value);
    }
  }

  // One layer at a time, so that memory stays small; rows are read once for each.
  void place_by_layer() {
    for (uint32_t layer = 0; layer < header_.shape.layer_count; ++layer) {
      std::vector<uint64_t> counts(kBins);
      for_each_row(layer, [&counts](const std::vector<float>& magnitudes) {
        for (const float magnitude : magnitudes) ++counts[bin_of(magnitude)];
      });
      header_.activation_thresholds[layer] = end_of(place_of(counts, kBins, *cut_.percent));
    }
  }

  // A layer's own threshold is then the mean of its neurons'.
  void place_by_neuron() {
    const uint32_t neurons = header_.shape.ffn_dim;
    for (uint32_t layer = 0; layer < header_.shape.layer_count; ++layer) {
      std::vector<uint32_t> counts(uint64_t{neurons} * kCodes);
      for_each_row(layer, [&counts](const std::vector<float>& magnitudes) {
        for (size_t i = 0; i < magnitudes.size(); ++i)
          ++counts[i * kCodes + log8_of(magnitudes[i])];
      });
      double sum = 0;
      for (uint32_t i = 0; i < neurons; ++i) {
        const uint32_t code = place_of(counts.data() + uint64_t{i} * kCodes, kCodes, *cut_.percent);
        of_neurons_.push_back(end_of_log8(static_cast<uint8_t>(code)));
        sum += of_neurons_.back();
      }
      header_.activation_thresholds[layer] = static_cast<float>(sum / neurons);
    }
  }

  template <class Visit>
  void for_each_row(uint32_t layer, Visit visit) const {
    const NeuronPool pool{layer, 1, 0, header_.shape.ffn_dim};
    std::vector<float> magnitudes;
    for (const uint64_t row : rows_) {
      source_->read_magnitudes(pool, row, 1, magnitudes);
      visit(magnitudes);
    }
  }

  // Tasks without a step that is left stay, with none.
  void select_steps() {
    const std::vector<StepInfo> all = source_->steps();
    tasks_ = source_->tasks();
    for (TaskRecord& task : tasks_) task.step_begin = task.step_count = task.prompt_tokens = 0;
    for (const uint64_t step : source_->magnitude_steps()) {
      const StepInfo& info = all[step];
      if (info.task < tasks_.size()) {
        TaskRecord& task = tasks_[info.task];
        if (task.step_count++ == 0) task.step_begin = static_cast<uint32_t>(steps_.size());
        task.prompt_tokens += info.phase == Phase::prefill;
      }
      steps_.push_back(info);
    }
  }

  std::unique_ptr<TraceReader> source_;
  ActivationCut cut_;
  TraceHeader header_;
  std::vector<uint64_t> rows_;     // 0, 1, 2, ...: every step has its magnitudes
  std::vector<float> of_neurons_;  // (layer_count, ffn_dim), by_neuron only
  std::vector<StepInfo> steps_;
  std::vector<TaskRecord> tasks_;
};

bool parse_number(std::string_view text, double& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc{} && end == text.data() + text.size() && std::isfinite(value);
}

}  // namespace

std::string ActivationCut::text() const {
  if (!percent.has_value()) return fmt::format("{}", value);
  return fmt::format("p{}{}", *percent, by_neuron ? "/neuron" : "");
}

ActivationCut parse_activation_cut(std::string_view text) {
  ActivationCut cut;
  std::string_view number = text;
  constexpr std::string_view kByNeuron = "/neuron";
  const bool percentile = number.starts_with('p');
  if (percentile) number.remove_prefix(1);
  if (percentile && number.ends_with(kByNeuron)) {
    cut.by_neuron = true;
    number.remove_suffix(kByNeuron.size());
  }
  double value = 0;
  const bool valid = parse_number(number, value) && value >= 0 && (!percentile || value <= 100);
  if (!valid) {
    throw Error(ErrorKind::usage,
                fmt::format("activation threshold '{}': expected a magnitude (0.1), a percentile "
                            "of each layer (p90) or of each neuron (p90/neuron)",
                            text));
  }
  if (percentile) cut.percent = value;
  cut.value = percentile ? 0.0f : static_cast<float>(value);
  return cut;
}

std::unique_ptr<TraceReader> rethreshold(std::unique_ptr<TraceReader> trace,
                                         const std::string& path, const ActivationCut& cut) {
  if (trace->magnitude_steps().empty()) {
    throw bad_input(path, "magnitudes, to move the activation threshold",
                    "none (run --record-magnitudes records them)");
  }
  return std::make_unique<Rethresholded>(std::move(trace), cut);
}

}  // namespace thermocline
