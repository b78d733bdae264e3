// Two small matrices score the neurons, as PowerInfer's predictors do: fc2 act(fc1 x).
//
// The matrices come from the model's own file or from one of their own (models/predictor_file.h),
// which says what x and act are. A neuron is a candidate where its score reaches the threshold.
// Every rank computes fc1 whole and the rows of fc2 that are its neurons'.
#include <algorithm>
#include <limits>
#include <vector>

#include "models/error.h"
#include "models/predictor_file.h"
#include "runtime/predictor.h"

namespace thermocline {
namespace {

// The file that is asked for, else the model's own.
PredictorFile open(const PredictorValues& values, const ModelSpec& model, const ModelShape& shape) {
  const std::string& file = values.at("file");
  if (file.empty() && model.synthetic()) {
    throw bad_usage(
        "predictor 'lowrank': synthetic weights have none of their own; expected "
        "file=PATH, which `thermocline model predictor` writes");
  }
  return open_predictor(file.empty() ? model.path : file, shape);
}

float threshold_of(const PredictorValues& values, const PredictorFile& file) {
  if (values.at("threshold").empty()) return file.threshold;
  constexpr double kLargest = std::numeric_limits<float>::max();
  return static_cast<float>(number_of(values, "lowrank", "threshold", -kLargest, kLargest));
}

class LowRank final : public ActivationPredictor {
 public:
  LowRank(float threshold, const PredictorFile& file, const PredictorContext& context)
      : backend_(context.backend),
        threshold_(threshold),
        input_(file.input),
        activation_(file.activation),
        neurons_(static_cast<int>(context.share.neurons.count)) {
    const RankShare& share = context.share;
    uint64_t rank_max = 0;
    for (uint32_t layer = share.layers.begin; layer < share.layers.end(); ++layer) {
      const PredictorLayer& from = file.layers[layer];
      layers_.push_back({place(from.fc1, 0, from.fc1.rows, file.path),
                         place(from.fc2, share.neurons.begin, share.neurons.count, file.path)});
      rank_max = std::max(rank_max, from.fc1.rows);
    }
    projected_ = backend_.allocate(context.row_max * rank_max * sizeof(float));
    scores_ = backend_.allocate(context.row_max * share.neurons.count * sizeof(float));
  }

  void predict(uint32_t layer, const PredictorView& x, uint64_t* candidates,
               uint64_t stride) override {
    const Layer& weights = layers_[layer];
    auto* projected = reinterpret_cast<float*>(projected_.get());
    auto* scores = reinterpret_cast<float*>(scores_.get());
    const Product first[] = {{weights.fc1.view, projected}};
    backend_.multiply(first, input_ == PredictorInput::normed ? x.normed : x.residual,
                      x.token_count);
    if (activation_ == PredictorActivation::relu) {
      const auto count = static_cast<uint64_t>(x.token_count);
      backend_.relu(projected, count * static_cast<uint64_t>(weights.fc1.view.rows));
    }
    const Product second[] = {{weights.fc2.view, scores}};
    backend_.multiply(second, projected, x.token_count);
    backend_.mark_reached(scores, neurons_, threshold_, candidates, stride);
  }

  double threshold() const override { return threshold_; }
  uint64_t byte_count() const override { return byte_count_; }

 private:
  struct Placed {
    std::shared_ptr<std::byte> memory;
    WeightView view;
  };
  struct Layer {
    Placed fc1, fc2;
  };

  // Rows [begin, begin + count) of the tensor.
  Placed place(const TensorView& tensor, uint64_t begin, uint64_t count, const std::string& path) {
    const int cols = static_cast<int>(tensor.cols);
    const std::string reason = backend_.refusal_of_matrix(tensor.dtype, cols);
    if (!reason.empty()) throw bad_usage(path + ": " + tensor.name + ": " + reason);
    const uint64_t row_bytes = tensor.row_bytes();
    Placed placed{backend_.allocate(count * row_bytes),
                  {tensor.dtype, static_cast<int>(count), cols, row_bytes, nullptr}};
    placed.view.data = placed.memory.get();
    const auto place_rows = [&](int first, int last) {
      const int at_once = tensor.contiguous() ? last - first : 1;
      for (int r = first; r < last; r += at_once) {
        backend_.place_rows(placed.view, r, r + at_once,
                            tensor.row(begin + static_cast<uint64_t>(r)));
      }
    };
    backend_.run_on_host(static_cast<int>(count), place_rows);
    byte_count_ += count * row_bytes;
    return placed;
  }

  Backend& backend_;
  float threshold_;
  PredictorInput input_;
  PredictorActivation activation_;
  int neurons_;
  std::vector<Layer> layers_;
  std::shared_ptr<std::byte> projected_, scores_;  // (row_max, largest rank), (row_max, neurons)
  uint64_t byte_count_ = 0;
};

void check(const PredictorValues& values, const ModelSpec& model, const ModelShape& shape) {
  threshold_of(values, open(values, model, shape));
}

std::unique_ptr<ActivationPredictor> make(const PredictorValues& values,
                                          const PredictorContext& context) {
  const PredictorFile file = open(values, context.model, context.source.shape());
  return std::make_unique<LowRank>(threshold_of(values, file), file, context);
}

const std::vector<PredictorParameter> kParameters = {
    {"file", "", "where fc1 and fc2 are; without it, the model's own"},
    {"threshold", "", "score from which on a neuron is a candidate; without it, the file's"}};

THERMOCLINE_PREDICTOR(lowrank, "scores neurons by two small matrices, as PowerInfer does",
                      kParameters, check, make);

}  // namespace
}  // namespace thermocline
