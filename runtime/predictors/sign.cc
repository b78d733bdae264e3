// Sign bits of gate rows and inputs, compared: SparseInfer (arXiv 2411.12692), without training.
//
// A gate is a sum of products, each of which is positive where weight and input have the same sign.
// If products were alike in size, a gate would be positive where more than half of them are: so a
// neuron is a candidate where at least threshold * model_dim signs agree. The signs of a gate row
// are one bit a weight, 4 to 5 times less than its 4-bit codes, and are taken once, at load.
// Goals: integers alone, so the same candidates on every machine and backend.
#include <cmath>
#include <vector>

#include "models/quantize.h"
#include "runtime/kernels/signs.h"
#include "runtime/predictor.h"

namespace thermocline {
namespace {

constexpr uint64_t kStagingBytes = uint64_t{1} << 20;  // of gate rows read at once, by a thread

double threshold_of(const PredictorValues& values) {
  return number_of(values, "sign", "threshold", 0.0, 1.0);
}

// Signs of gate rows, in host memory until all of a layer are there.
class SignReader {
 public:
  explicit SignReader(const PredictorContext& context)
      : context_(context), cols_(context.source.shape().model_dim) {}

  uint64_t words_per_row() const { return static_cast<uint64_t>(sign_words(int_cols())); }

  std::vector<uint64_t> read(uint32_t layer) const {
    std::vector<uint64_t> signs(context_.share.neurons.count * words_per_row());
    context_.backend.run_on_host(
        static_cast<int>(context_.share.neurons.count),
        [&](int begin, int end) { read_rows(layer, begin, end, signs.data()); });
    return signs;
  }

 private:
  int int_cols() const { return static_cast<int>(cols_); }

  void read_rows(uint32_t layer, int begin, int end, uint64_t* signs) const {
    const DType dtype = context_.source.dtype(Matrix::gate, layer);
    const uint64_t row_bytes = bytes_of(dtype, cols_);
    const int at_once = static_cast<int>(std::max<uint64_t>(1, kStagingBytes / row_bytes));
    std::vector<std::byte> rows;
    std::vector<float> values(cols_);
    for (int first = begin; first < end; first += at_once) {
      const int last = std::min(end, first + at_once);
      rows.resize(static_cast<uint64_t>(last - first) * row_bytes);
      const uint64_t from = context_.share.neurons.begin + static_cast<uint64_t>(first);
      context_.source.read(Matrix::gate, layer,
                           {from, from + static_cast<uint64_t>(last - first), 0, cols_},
                           rows.data());
      for (int r = first; r < last; ++r) {
        dequantize(dtype, rows.data() + static_cast<uint64_t>(r - first) * row_bytes, cols_,
                   values.data());
        signs_of(values.data(), int_cols(), signs + static_cast<uint64_t>(r) * words_per_row());
      }
    }
  }

  const PredictorContext& context_;
  uint64_t cols_;
};

class Sign final : public ActivationPredictor {
 public:
  Sign(double threshold, const PredictorContext& context)
      : backend_(context.backend),
        threshold_(threshold),
        rows_(static_cast<int>(context.share.neurons.count)),
        cols_(static_cast<int>(context.source.shape().model_dim)) {
    const SignReader reader(context);
    const RankShare& share = context.share;
    for (uint32_t layer = share.layers.begin; layer < share.layers.end(); ++layer) {
      const std::vector<uint64_t> signs = reader.read(layer);
      const uint64_t bytes = signs.size() * sizeof(uint64_t);
      layers_.push_back(backend_.allocate(bytes));
      backend_.upload(layers_.back().get(), signs.data(), bytes);
      byte_count_ += bytes;
    }
    backend_.wait();
  }

  void predict(uint32_t layer, const PredictorView& x, uint64_t* candidates,
               uint64_t stride) override {
    const auto* signs = reinterpret_cast<const uint64_t*>(layers_[layer].get());
    backend_.match_signs({signs, rows_, cols_, differing_max(), x.normed, candidates, stride});
  }

  double threshold() const override { return threshold_; }
  uint64_t byte_count() const override { return byte_count_; }

 private:
  // Agreeing signs reach threshold * cols.
  int differing_max() const { return cols_ - static_cast<int>(std::ceil(threshold_ * cols_)); }

  Backend& backend_;
  double threshold_;
  int rows_, cols_;
  std::vector<std::shared_ptr<std::byte>> layers_;  // (neurons, words) each
  uint64_t byte_count_ = 0;
};

void check(const PredictorValues& values, const ModelSpec&, const ModelShape&) {
  threshold_of(values);
}

std::unique_ptr<ActivationPredictor> make(const PredictorValues& values,
                                          const PredictorContext& context) {
  return std::make_unique<Sign>(threshold_of(values), context);
}

const std::vector<PredictorParameter> kParameters = {
    {"threshold", "0.5", "share of the signs of a gate row and its input that agree, from 0 to 1"}};

THERMOCLINE_PREDICTOR(sign, "compares sign bits of gate rows and inputs, as SparseInfer does",
                      kParameters, check, make);

}  // namespace
}  // namespace thermocline
