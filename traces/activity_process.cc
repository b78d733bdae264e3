#include "traces/activity_process.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>

#include "models/counter_random.h"
#include "models/error.h"
#include "models/hash.h"

namespace thermocline {
namespace {

// Part of the hash: a change of any bit is a new generator.
constexpr uint32_t kGeneratorVersion = 1;

// Streams of a seed: kStreamsPerLayer for each layer; the last of layer 0's are of no layer.
constexpr uint32_t kStreamsPerLayer = 16;
enum Stream : uint32_t {
  kLastingOrder,  // of a layer's rates
  kTopicOrder,    // the same under a topic, by topic
  kTopicMask,     // which neurons a topic redraws
  kLean,
  kChain,  // by task
  kGuess,  // by task
  kSwing,  // by task; of no layer
  kTopic,  // of a task; of no layer
};
uint32_t stream_of(Stream stream, uint32_t layer = 0) { return layer * kStreamsPerLayer + stream; }

constexpr uint32_t kNumbersPerBlock = RandomStream::kBytesPerBlock / sizeof(uint32_t);

// Numbers of one row of a stream, 32 bits each, one after the other.
class Numbers {
 public:
  Numbers(uint64_t seed, uint32_t stream, uint32_t row) : stream_(seed, stream), row_(row) {}

  uint32_t next() {
    if (used_ == kNumbersPerBlock) {
      uint8_t bytes[RandomStream::kBytesPerBlock];
      stream_.blocks(row_, block_++, 1, bytes);
      std::memcpy(numbers_, bytes, sizeof numbers_);
      used_ = 0;
    }
    return numbers_[used_++];
  }
  // Below `size`.
  uint32_t next_below(uint32_t size) {
    return static_cast<uint32_t>(uint64_t{next()} * size >> 32);
  }

 private:
  RandomStream stream_;
  uint32_t row_, block_ = 0, used_ = kNumbersPerBlock;
  uint32_t numbers_[kNumbersPerBlock] = {};
};

// The first number of a block.
uint32_t number_at(uint64_t seed, uint32_t stream, uint32_t row, uint32_t block) {
  uint8_t bytes[RandomStream::kBytesPerBlock];
  RandomStream(seed, stream).blocks(row, block, 1, bytes);
  uint32_t number;
  std::memcpy(&number, bytes, sizeof number);
  return number;
}

// A probability that has 16 digits: 1 becomes the largest below it.
uint32_t probability_of(double share) {
  return std::min(static_cast<uint32_t>(std::lround(share * kProbabilityOne)), kProbabilityOne - 1);
}

uint32_t share_of(double share, double one) {
  return static_cast<uint32_t>(std::lround(share * one));
}

// One rate from each of `count` equal parts of the distribution. Rates are at least 1e-4, 7 of
// 65536, and at most 1 minus that (models/firing_rates.h).
std::vector<uint16_t> strata_of(const FiringRates& rates, uint32_t count) {
  std::vector<uint16_t> strata;
  for (uint32_t i = 0; i < count; ++i) {
    const double rate = normal_cdf(rates.bias((i + 0.5) / count));
    strata.push_back(static_cast<uint16_t>(probability_of(rate)));
  }
  return strata;
}

// Fisher and Yates.
void shuffle(std::vector<uint16_t>& values, Numbers numbers) {
  for (auto i = static_cast<uint32_t>(values.size()); i > 1; --i) {
    std::swap(values[i - 1], values[numbers.next_below(i)]);
  }
}

double mean_of(const std::vector<uint16_t>& rates) {
  uint64_t sum = 0;
  for (const uint16_t rate : rates) sum += rate;
  return static_cast<double>(sum) / static_cast<double>(rates.size()) / kProbabilityOne;
}

ModelSpec without_drift(ModelSpec spec) {
  spec.regime.drift = 0;
  return spec;
}

// A Philox block of both, so that no text repeats the draws of another model.
uint64_t mixed(uint64_t rate_seed, uint64_t text_seed) {
  return philox2x64({rate_seed, text_seed}, kGeneratorVersion)[0];
}

constexpr double kKeepSteps = 4096;  // rho in so many steps: a digit less is a word less to draw

}  // namespace

double ActivityProcess::redraw_share_of(double drift) { return 1 - std::sqrt(1 - drift / 0.8); }

ActivityProcess::ActivityProcess(const ModelSpec& spec, const ActivityProcessOptions& options,
                                 const BitKernels& kernels)
    : spec_(spec),
      options_(options),
      kernels_(kernels),
      pool_{0, spec.shape.layer_count, 0, spec.shape.ffn_dim},
      model_(without_drift(spec)),
      keep_(static_cast<uint16_t>(share_of(spec.regime.correlation, kKeepSteps) *
                                  (kProbabilityOne / static_cast<uint32_t>(kKeepSteps)))),
      redraw_(probability_of(redraw_share_of(spec.regime.drift))),
      swing_(share_of(options.swing, kProbabilityOne)),
      swing_turn_(static_cast<uint32_t>(
          std::min(std::ldexp(1 / options.swing_steps, 32), double{UINT32_MAX}))),
      steps_seed_(mixed(spec.seed, options.text_seed)),
      layers_(pool_.layer_count) {
  TC_CHECK(options.swing >= 0 && options.swing <= 1 && options.swing_steps >= 1, "swing");
  std::map<double, std::vector<uint16_t>> known;  // many models have one value for all layers
  for (uint32_t layer = 0; layer < pool_.layer_count; ++layer) {
    const FiringRates& rates = model_.within(layer);
    auto found = known.find(rates.mean());
    if (found == known.end()) {
      found = known.emplace(rates.mean(), strata_of(rates, pool_.neuron_count)).first;
    }
    layers_[layer].strata = found->second;
    draw_lasting(layer);
    if (options.predictor) set_alarm(layer, *options.predictor);
  }
}

void ActivityProcess::draw_lasting(uint32_t layer) {
  Layer& state = layers_[layer];
  const uint32_t groups = bit_groups(pool_.neuron_count);
  state.lasting = state.strata;
  shuffle(state.lasting, {spec_.seed, stream_of(kLastingOrder, layer), 0});
  if (swing_ > 0) {
    Numbers numbers(spec_.seed, stream_of(kLean, layer), 0);
    for (uint32_t i = 0; i < pool_.words_per_layer(); ++i) {
      const uint64_t low = numbers.next(), high = numbers.next();
      state.leaning.push_back(high << 32 | low);
    }
  }
  for (int side = 0; side < (swing_ > 0 ? 2 : 1); ++side) {
    state.planes[side].resize(groups * kProbabilityDigits * kGroupWords);
  }
  state.state.resize(groups * kGroupWords);
  state.chains.resize(groups * kGeneratorWords * kGroupWords);
  if (options_.predictor) state.guessers.resize(state.chains.size());
  state.rates = state.lasting;
  lay_planes(layer);
}

void ActivityProcess::set_alarm(uint32_t layer, const PredictorQuality& quality) {
  const double mean = mean_of(layers_[layer].strata);
  const double alarm =
      quality.recall * mean * (1 - quality.precision) / (quality.precision * (1 - mean));
  if (alarm > 1) {
    const double least = quality.recall * mean / (quality.recall * mean + 1 - mean);
    throw bad_usage(fmt::format(
        "a predictor of recall {:g}: expected a precision of at least {:.3f}, which guessing "
        "every inactive neuron of layer {} gives, found {:g}",
        quality.recall, least, layer, quality.precision));
  }
  layers_[layer].alarm = probability_of(alarm);
}

void ActivityProcess::start_task(uint32_t task) {
  task_ = task;
  step_ = 0;
  up_ = (number_at(steps_seed_, stream_of(kSwing), task, 0) & 1) != 0;
  const bool turns = redraw_ > 0 && topic_ != topic_of(task);
  topic_ = topic_of(task);
  for (uint32_t layer = 0; layer < pool_.layer_count; ++layer) {
    if (turns) {
      take_topic(layer);
      lay_planes(layer);
    }
    seed_generators(layer);
  }
}

uint32_t ActivityProcess::topic_of(uint32_t task) const {
  if (options_.topic_count == 0) return task;
  const uint64_t number = number_at(options_.text_seed, stream_of(kTopic), task, 0);
  return static_cast<uint32_t>(number * options_.topic_count >> 32);
}

// Topics that tasks share belong to the model; a task's own to its text.
void ActivityProcess::take_topic(uint32_t layer) {
  Layer& state = layers_[layer];
  const uint64_t seed = options_.topic_count > 0 ? spec_.seed : steps_seed_;
  std::vector<uint16_t> redrawn = state.strata;
  shuffle(redrawn, {seed, stream_of(kTopicOrder, layer), *topic_});
  Numbers mask(seed, stream_of(kTopicMask, layer), *topic_);
  uint32_t number = 0;
  for (uint32_t i = 0; i < pool_.neuron_count; ++i) {
    number = i % 2 == 0 ? mask.next() : number >> 16;
    state.rates[i] = (number & 65535) < redraw_ ? redrawn[i] : state.lasting[i];
  }
}

bool ActivityProcess::leans(uint32_t layer, uint32_t neuron) const {
  const std::vector<uint64_t>& leaning = layers_[layer].leaning;
  return !leaning.empty() && (leaning[neuron / 64] >> neuron % 64 & 1) != 0;
}

// The rates of draws while z is +1 (`up`) or -1.
std::vector<uint16_t> ActivityProcess::swung(const Layer& layer, bool up) const {
  std::vector<uint16_t> rates = layer.rates;
  for (uint32_t i = 0; i < pool_.neuron_count; ++i) {
    const uint32_t rate = rates[i], room = std::min(rate, kProbabilityOne - 1 - rate);
    const uint32_t change = static_cast<uint32_t>(uint64_t{room} * swing_ >> kProbabilityDigits);
    const bool leans = (layer.leaning[i / 64] >> i % 64 & 1) != 0;
    rates[i] = static_cast<uint16_t>(leans == up ? rate + change : rate - change);
  }
  return rates;
}

void ActivityProcess::lay_planes(uint32_t layer) {
  Layer& state = layers_[layer];
  if (swing_ == 0) return fill_planes(state.rates, state.planes[0].data());
  for (const bool up : {false, true}) fill_planes(swung(state, up), state.planes[up].data());
}

// Each word's generator starts from a block of its own.
void ActivityProcess::seed_generators(uint32_t layer) {
  const auto seed = [&](Stream stream, std::vector<uint64_t>& generators) {
    const RandomStream source(steps_seed_, stream_of(stream, layer));
    uint64_t block[kGroupWords][kGeneratorWords];
    static_assert(sizeof block[0] == RandomStream::kBytesPerBlock);
    for (uint32_t group = 0; group < bit_groups(pool_.neuron_count); ++group) {
      source.blocks(task_, group * kGroupWords, kGroupWords, reinterpret_cast<uint8_t*>(block));
      uint64_t* to = generators.data() + group * kGeneratorWords * kGroupWords;
      for (uint32_t i = 0; i < kGeneratorWords; ++i) {
        for (uint32_t word = 0; word < kGroupWords; ++word) *to++ = block[word][i];
      }
    }
  };
  seed(kChain, layers_[layer].chains);
  if (options_.predictor) seed(kGuess, layers_[layer].guessers);
}

// Whether z changes sign before this step; block 0 is its first sign's.
bool ActivityProcess::swings_at(uint32_t step) const {
  return step > 0 && number_at(steps_seed_, stream_of(kSwing), task_, step) < swing_turn_;
}

// How many of the next steps have the z of the first of them.
uint32_t ActivityProcess::steps_alike(uint32_t step_count) const {
  if (swing_ == 0) return step_count;
  uint32_t alike = 1;
  while (alike < step_count && !swings_at(step_ + alike)) ++alike;
  return alike;
}

void ActivityProcess::next(uint32_t step_count, std::span<uint64_t> active,
                           std::span<uint64_t> predicted) {
  TC_CHECK(topic_.has_value(), "steps of a task that was started");
  const uint64_t words = step_count * pool_.words_per_step();
  TC_CHECK(active.size() == words, "room for the steps");
  TC_CHECK(predicted.size() == (options_.predictor ? words : 0), "room for the guesses");
  for (uint32_t done = 0; done < step_count;) {
    if (swing_ > 0 && swings_at(step_)) up_ = !up_;
    const uint32_t alike = steps_alike(step_count - done);
    const uint64_t begin = done * pool_.words_per_step();
    advance(alike, active.data() + begin, options_.predictor ? predicted.data() + begin : nullptr);
    done += alike;
  }
}

void ActivityProcess::advance(uint32_t step_count, uint64_t* active, uint64_t* predicted) {
  const uint64_t stride = pool_.words_per_step();
  for (uint32_t layer = 0; layer < pool_.layer_count; ++layer) {
    Layer& state = layers_[layer];
    const uint64_t offset = uint64_t{layer} * pool_.words_per_layer();
    const std::vector<uint64_t>& planes = state.planes[swing_ > 0 && up_];
    kernels_.chain({pool_.neuron_count, step_count, keep_, step_ == 0, planes.data(),
                    state.chains.data(), state.state.data(), active + offset, stride});
    if (predicted == nullptr) continue;
    kernels_.guess({pool_.neuron_count, step_count, probability_of(options_.predictor->recall),
                    state.alarm, active + offset, state.guessers.data(), predicted + offset,
                    stride});
  }
  step_ += step_count;
}

std::string ActivityProcess::weight_hash() const {
  const ModelShape& shape = spec_.shape;
  Fnv1a hash;
  hash.add("synthetic activity");
  for (const uint32_t value :
       {kGeneratorVersion, shape.layer_count, shape.model_dim, shape.ffn_dim, shape.head_count,
        shape.kv_head_count, shape.head_dim, shape.vocab_size, shape.context_length,
        static_cast<uint32_t>(shape.activation), static_cast<uint32_t>(spec_.dtype),
        uint32_t{keep_}, redraw_, options_.topic_count, swing_, swing_ > 0 ? swing_turn_ : 0}) {
    hash.add_value(value);
  }
  hash.add_value(spec_.seed);
  for (const Layer& layer : layers_) {
    for (const uint16_t rate : layer.strata) hash.add_value(rate);
  }
  return hash.hex();
}

// Of one neuron, the covariance of its activity C(k) = rho C(k-1) + (1-rho)^2 (s w)^2 r^k / (1 -
// rho r), C(0) = pi (1-pi), w = min(pi, 1-pi); r = 1 - 2/D is the correlation of z at adjacent
// steps. The second term: a draw follows z, and so does what is remembered of the draws before.
double ActivityProcess::overlap(uint32_t lag) const {
  const double rho = keep_share(), r = 1 - 2 / options_.swing_steps;
  double swung = 0, both = 0, first = 0;
  for (uint32_t k = 1; k <= lag; ++k) {
    swung = rho * swung + (1 - rho) * (1 - rho) * std::pow(r, k) / (1 - rho * r);
  }
  for (uint32_t layer = 0; layer < pool_.layer_count; ++layer) {
    both += model_.within(layer).mean_of([&](double bias) {
      const double rate = normal_cdf(bias);
      const double swing = options_.swing * std::min(rate, 1 - rate);
      return rate * rate + std::pow(rho, lag) * rate * (1 - rate) + swung * swing * swing;
    });
    first += model_.within(layer).mean_of([](double bias) { return normal_cdf(bias); });
  }
  return both / first;
}

std::optional<double> ActivityProcess::in_union(uint32_t window) const {
  if (swing_ > 0) return std::nullopt;
  return model_.in_union(window);
}

std::optional<double> ActivityProcess::fresh(uint32_t window) const {
  if (swing_ > 0) return std::nullopt;
  return model_.fresh(window);
}

double ActivityProcess::task_overlap() const {
  const double again = options_.topic_count > 0 ? 1.0 / options_.topic_count : 0;
  return 1 - (1 - again) * spec_.regime.drift;
}

double ActivityProcess::redraw_share() const { return redraw_ / double{kProbabilityOne}; }

double ActivityProcess::keep_share() const { return keep_ / double{kProbabilityOne}; }

}  // namespace thermocline
