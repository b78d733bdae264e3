#include "models/synthetic.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <string>

#include "models/activity_model.h"
#include "models/counter_random.h"
#include "models/error.h"
#include "models/firing_rates.h"
#include "models/gaussian_blocks.h"
#include "models/hash.h"
#include "models/synthetic_plan.h"

namespace thermocline {
namespace {

// Part of the hash: a change of any element is a new generator.
constexpr uint32_t kGeneratorVersion = 2;

constexpr uint32_t kConstantDim = SyntheticPlan::kConstantDim;
static_assert(kConstantDim == kGaussianBlockItems);

// Streams of a seed: 16 for each layer, one for each matrix and these.
constexpr uint32_t kStreamsPerLayer = 16;
constexpr uint32_t kSignStream = 14;  // of the output norm
constexpr uint32_t kRateStream = 15;  // of the firing rates

bool of_layer(Matrix matrix) { return matrix != Matrix::token_embedding && matrix != Matrix::head; }

uint32_t stream_of(Matrix matrix, uint32_t layer) {
  return (of_layer(matrix) ? layer * kStreamsPerLayer : 0) + static_cast<uint32_t>(matrix);
}

// The neurons of a layer take its rates in random order, one from each of ffn_dim equal parts of
// the distribution: the layer has its mean and its spread exactly, however small it is.
double rate_quantile(const ModelSpec& spec, uint32_t layer, uint64_t index) {
  const RandomStream stream(spec.seed, layer * kStreamsPerLayer + kRateStream);
  const uint32_t place = stream.permuted(static_cast<uint32_t>(index), spec.shape.ffn_dim);
  return (place + 0.5) / spec.shape.ffn_dim;
}

struct BlockRange {
  uint32_t begin, end;  // in blocks of 32 columns
};

// The Gaussian elements of one matrix: rows and columns fall into a few kinds, each with a standard
// deviation of its own. None where it is zero.
using Encoders = std::vector<std::optional<GaussianBlocks>>;

class SyntheticWeights final : public WeightSource {
 public:
  explicit SyntheticWeights(const ModelSpec& spec)
      : spec_(spec), activity_(spec), plan_(spec.shape, activity_) {}

  const ModelShape& shape() const override { return spec_.shape; }
  DType dtype(Matrix, uint32_t) const override { return spec_.dtype; }
  std::string provenance() const override { return "synthetic"; }
  std::string hash() const override;
  void read(Matrix matrix, uint32_t layer, const MatrixSlice& slice, std::byte* out) const override;
  void read(NormVector vector, uint32_t layer, float* out) const override;

 private:
  // What one call of read writes from.
  struct Source {
    Matrix matrix;
    uint32_t layer;
    Encoders encoders;  // by kind
  };

  std::vector<double> std_devs(Matrix matrix, uint32_t layer) const;  // by kind
  size_t kind(Matrix matrix, uint32_t layer, uint64_t row, uint32_t block) const;
  double constant(Matrix matrix, uint32_t layer, uint64_t row) const;
  double rotary_constant(Matrix matrix, uint32_t layer, uint64_t row) const;
  void read_blocks(const Source& source, uint64_t row, BlockRange range, std::byte* out) const;
  void read_run(const Source& source, uint64_t row, BlockRange range, std::byte* out) const;

  ModelSpec spec_;
  ActivityModel activity_;
  SyntheticPlan plan_;
};

std::string SyntheticWeights::hash() const {
  const ModelShape& shape = spec_.shape;
  Fnv1a hash;
  hash.add("synthetic");
  for (const uint32_t value :
       {kGeneratorVersion, shape.layer_count, shape.model_dim, shape.ffn_dim, shape.head_count,
        shape.kv_head_count, shape.head_dim, shape.vocab_size, shape.context_length,
        static_cast<uint32_t>(shape.activation), uint32_t{shape.tied_embeddings},
        static_cast<uint32_t>(spec_.dtype)}) {
    hash.add_value(value);
  }
  for (const float value : {shape.fatrelu_threshold, shape.rope_theta, shape.norm_epsilon,
                            spec_.regime.correlation, spec_.regime.drift}) {
    hash.add_value(value);
  }
  hash.add_value(spec_.seed);
  for (uint32_t layer = 0; layer < shape.layer_count; ++layer) {
    hash.add_value(static_cast<float>(activity_.within(layer).mean()));
    hash.add_value(static_cast<float>(activity_.within(layer).concentration()));
  }
  return hash.hex();
}

// Of elements outside the constant's block. Rows of q and k and columns of o have kinds.
std::vector<double> SyntheticWeights::std_devs(Matrix matrix, uint32_t layer) const {
  const SyntheticDynamics& dynamics = plan_.dynamics();
  const double unit = plan_.unit_std_dev();
  switch (matrix) {
    case Matrix::token_embedding:
      return {1};
    case Matrix::head:
      return {dynamics.logit_std_dev * unit};
    case Matrix::q:
    case Matrix::k:
      return {0, dynamics.content_std_dev * unit, unit};
    case Matrix::v:
    case Matrix::gate:
    case Matrix::up:
      return {unit};
    case Matrix::o: {
      const auto& by_class = plan_.layer(layer).o_std_dev;
      return {by_class.begin(), by_class.end()};
    }
    case Matrix::down_t:
      return {plan_.layer(layer).down_std_dev};
  }
  return {};
}

size_t SyntheticWeights::kind(Matrix matrix, uint32_t layer, uint64_t row, uint32_t block) const {
  if (matrix == Matrix::o) {
    return plan_.head_class(layer, block * kGaussianBlockItems / spec_.shape.head_dim);
  }
  if (matrix != Matrix::q && matrix != Matrix::k) return 0;
  const auto index = static_cast<uint32_t>(row);
  const double content =
      matrix == Matrix::q ? plan_.query_content(layer, index) : plan_.key_content(index);
  return content == 0 ? 0 : content == 1 ? 2 : 1;
}

// The constant part of query or key, spread over the 32 columns that see 1.
double SyntheticWeights::rotary_constant(Matrix matrix, uint32_t layer, uint64_t row) const {
  const auto head = static_cast<uint32_t>(row / spec_.shape.head_dim);
  const auto pair = static_cast<uint32_t>(row % spec_.shape.head_dim / 2);
  const RotaryPair value =
      matrix == Matrix::q ? plan_.query_constant(layer, head, pair) : plan_.key_constant(pair);
  return (row % 2 == 0 ? value.even : value.odd) / kConstantDim;
}

// Each of the first 32 elements of a row, and all elements of the first 32 rows of o.
double SyntheticWeights::constant(Matrix matrix, uint32_t layer, uint64_t row) const {
  switch (matrix) {
    case Matrix::token_embedding:
      return 1;
    case Matrix::q:
    case Matrix::k:
      return rotary_constant(matrix, layer, row);
    case Matrix::gate: {
      const double bias = activity_.lasting(layer).bias(rate_quantile(spec_, layer, row));
      return (bias + activation_threshold(spec_.shape)) / kConstantDim;
    }
    default:
      return 0;  // nothing else reads the constant, and nothing writes to it
  }
}

// Blocks of one kind.
void SyntheticWeights::read_run(const Source& source, uint64_t row, BlockRange range,
                                std::byte* out) const {
  constexpr uint32_t kChunk = 64;  // 2 KiB of random bytes stay in the first-level cache
  const uint64_t block_bytes = bytes_of(spec_.dtype, kGaussianBlockItems);
  const auto& encoder = source.encoders[kind(source.matrix, source.layer, row, range.begin)];
  const RandomStream stream(spec_.seed, stream_of(source.matrix, source.layer));
  uint8_t random[kChunk * RandomStream::kBytesPerBlock];
  while (range.begin < range.end) {
    const uint32_t count = std::min(kChunk, range.end - range.begin);
    if (encoder.has_value()) {
      stream.blocks(static_cast<uint32_t>(row), range.begin, count, random);
      encoder->encode(random, count, out);
    } else {
      encode_equal_block(spec_.dtype, 0, out);
      for (uint32_t i = 1; i < count; ++i) std::memcpy(out + i * block_bytes, out, block_bytes);
    }
    range.begin += count;
    out += count * block_bytes;
  }
}

void SyntheticWeights::read_blocks(const Source& source, uint64_t row, BlockRange range,
                                   std::byte* out) const {
  const uint64_t block_bytes = bytes_of(spec_.dtype, kGaussianBlockItems);
  const bool is_o = source.matrix == Matrix::o;
  const bool constant_row = is_o && row < kConstantDim;
  while (range.begin < range.end && (constant_row || (!is_o && range.begin == 0))) {
    const auto value = static_cast<float>(constant(source.matrix, source.layer, row));
    encode_equal_block(spec_.dtype, value, out);
    ++range.begin;
    out += block_bytes;
  }
  while (range.begin < range.end) {
    BlockRange run = {range.begin, is_o ? range.begin + 1 : range.end};
    const size_t first = kind(source.matrix, source.layer, row, run.begin);
    while (run.end < range.end && kind(source.matrix, source.layer, row, run.end) == first) {
      ++run.end;
    }
    read_run(source, row, run, out);
    out += (run.end - run.begin) * block_bytes;
    range.begin = run.end;
  }
}

void SyntheticWeights::read(Matrix matrix, uint32_t layer, const MatrixSlice& slice,
                            std::byte* out) const {
  const MatrixSize size = size_of(matrix, spec_.shape);
  const uint32_t items = facts(spec_.dtype).items_per_block;
  TC_CHECK(slice.row_begin <= slice.row_end && slice.row_end <= size.rows, "rows of a slice");
  TC_CHECK(slice.col_begin <= slice.col_end && slice.col_end <= size.cols &&
               slice.col_begin % items == 0 && slice.col_end % items == 0,
           "columns of a slice");
  TC_CHECK(!of_layer(matrix) || layer < spec_.shape.layer_count, "layer " + std::to_string(layer));
  if (matrix == Matrix::head && spec_.shape.tied_embeddings) matrix = Matrix::token_embedding;

  Source source{matrix, layer, {}};
  for (const double std_dev : std_devs(matrix, layer)) {
    source.encoders.emplace_back();
    if (std_dev > 0) source.encoders.back().emplace(spec_.dtype, std_dev);
  }
  const BlockRange range = {
      static_cast<uint32_t>(slice.col_begin / kGaussianBlockItems),
      static_cast<uint32_t>((slice.col_end + kGaussianBlockItems - 1) / kGaussianBlockItems)};
  const uint64_t row_bytes = bytes_of(spec_.dtype, slice.col_end - slice.col_begin);
  const uint64_t covered_bytes =
      (range.end - range.begin) * bytes_of(spec_.dtype, kGaussianBlockItems);
  // Types without blocks may be cut anywhere: then the whole blocks are made, and a part is taken.
  std::vector<std::byte> covered(covered_bytes == row_bytes ? 0 : covered_bytes);
  const uint64_t skipped = bytes_of(spec_.dtype, slice.col_begin % kGaussianBlockItems);
  for (uint64_t row = slice.row_begin; row < slice.row_end; ++row) {
    read_blocks(source, row, range, covered.empty() ? out : covered.data());
    if (!covered.empty()) std::memcpy(out, covered.data() + skipped, row_bytes);
    out += row_bytes;
  }
}

// Gaussian coordinates come out with variance 1, and the constant as 1, or 0 before the head.
// With tied embeddings, logits would peak at the token itself; random signs keep it from that.
void SyntheticWeights::read(NormVector vector, uint32_t layer, float* out) const {
  const bool output = vector == NormVector::output_norm;
  TC_CHECK(output || layer < spec_.shape.layer_count, "layer " + std::to_string(layer));
  const double variance = output ? plan_.output_variance()
                          : vector == NormVector::ffn_norm
                              ? plan_.layer(layer).ffn_input_variance
                              : plan_.layer(layer).attention_input_variance;
  const double rms = plan_.rms(variance);
  const bool tied = output && spec_.shape.tied_embeddings;
  const double logit_scale = tied ? plan_.dynamics().logit_std_dev * plan_.unit_std_dev() : 1;
  const RandomStream signs(spec_.seed, kSignStream);
  uint8_t random[RandomStream::kBytesPerBlock];
  for (uint32_t i = 0; i < spec_.shape.model_dim; ++i) {
    if (i % sizeof random == 0) signs.blocks(0, i / sizeof random, 1, random);
    const bool negative = tied && random[i % sizeof random] < 128;
    const double gaussian = (negative ? -1 : 1) * logit_scale * rms / std::sqrt(variance);
    out[i] = static_cast<float>(i >= kConstantDim ? gaussian : output ? 0 : rms);
  }
}

}  // namespace

std::unique_ptr<WeightSource> make_synthetic_weights(const ModelSpec& spec) {
  TC_CHECK(spec.synthetic(), "'" + spec.text + "' is a file");
  return std::make_unique<SyntheticWeights>(spec);
}

std::vector<double> synthetic_firing_rates(const ModelSpec& spec, uint32_t layer) {
  TC_CHECK(layer < spec.shape.layer_count, "layer " + std::to_string(layer));
  const ActivityModel activity(spec);
  std::vector<double> rate(spec.shape.ffn_dim);
  for (uint32_t i = 0; i < rate.size(); ++i) {
    rate[i] = normal_cdf(activity.lasting(layer).bias(rate_quantile(spec, layer, i)));
  }
  return rate;
}

}  // namespace thermocline
