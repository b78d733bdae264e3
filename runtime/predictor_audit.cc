#include "runtime/predictor_audit.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "models/error.h"
#include "runtime/engine.h"

namespace thermocline {
namespace {

double ratio(uint64_t part, uint64_t whole, double where_none) {
  return whole == 0 ? where_none : static_cast<double>(part) / static_cast<double>(whole);
}

// log(sum(exp(x))), without overflow.
double log_sum_exp(std::span<const float> x) {
  const double largest = *std::max_element(x.begin(), x.end());
  double sum = 0;
  for (const float value : x) sum += std::exp(value - largest);
  return largest + std::log(sum);
}

uint64_t ones(uint64_t word) { return static_cast<uint64_t>(std::popcount(word)); }

}  // namespace

void PredictorCounts::add(const PredictorCounts& other) {
  neurons += other.neurons;
  candidates += other.candidates;
  active += other.active;
  both += other.both;
}

double PredictorCounts::recall() const { return ratio(both, active, 1); }
double PredictorCounts::precision() const { return ratio(both, candidates, 1); }
double PredictorCounts::candidate_share() const { return ratio(candidates, neurons, 0); }
double PredictorCounts::active_share() const { return ratio(active, neurons, 0); }

void LogitErrors::add(std::span<const float> run, std::span<const float> exact) {
  const double run_total = log_sum_exp(run), exact_total = log_sum_exp(exact);
  double step_divergence = 0;
  for (size_t i = 0; i < exact.size(); ++i) {
    largest = std::max(largest, std::fabs(double{run[i]} - double{exact[i]}));
    const double expected = exact[i] - exact_total;  // log of a probability
    step_divergence += std::exp(expected) * (expected - (run[i] - run_total));
  }
  divergence += std::max(step_divergence, 0.0);  // rounding may leave it a little below
  const auto top = [](std::span<const float> x) {
    return std::max_element(x.begin(), x.end()) - x.begin();
  };
  agreed_tops += top(run) == top(exact) ? 1 : 0;
  ++step_count;
}

double LogitErrors::mean_divergence() const {
  return step_count == 0 ? 0 : divergence / static_cast<double>(step_count);
}
double LogitErrors::top1_agreement() const { return ratio(agreed_tops, step_count, 1); }

PredictorCounts PredictorAuditResult::whole() const {
  PredictorCounts sum;
  for (const PredictorCounts& layer : layers) sum.add(layer);
  return sum;
}

PredictorAudit::PredictorAudit(Comm& comm, const Partition& partition, const ModelShape& shape,
                               Decoder& run, Decoder& exact)
    : comm_(comm), partition_(partition), shape_(shape), run_(run), exact_(exact) {
  result_.layers.resize(shape.layer_count);
}

void PredictorAudit::on_pass(std::span<const DecoderRow> rows) {
  count_words(rows.size());
  rows_.assign(rows.begin(), rows.end());
  for (DecoderRow& row : rows_) row.magnitudes = nullptr;
  words_.resize(rows.size() * exact_.neuron_pool().words_per_step());
  exact_.forward(rows_, words_);
  compare_logits(static_cast<uint32_t>(rows.size()));
}

// Without a predictor, every neuron is looked at.
void PredictorAudit::count_words(size_t row_count) {
  const NeuronPool& pool = run_.neuron_pool();
  const std::span<const uint64_t> candidates = run_.candidate_words(), active = run_.exact_words();
  TC_CHECK(active.size() == row_count * pool.words_per_step(), "the exact gate of the same rows");
  const uint64_t words_per_layer = pool.words_per_layer();
  for (uint64_t i = 0; i < active.size(); ++i) {
    const uint64_t layer = i % pool.words_per_step() / words_per_layer;
    PredictorCounts& counts = result_.layers[pool.layer_begin + layer];
    counts.active += ones(active[i]);
    if (candidates.empty()) continue;
    counts.candidates += ones(candidates[i]);
    counts.both += ones(candidates[i] & active[i]);
  }
  for (uint64_t layer = 0; layer < pool.layer_count; ++layer) {
    result_.layers[pool.layer_begin + layer].neurons += row_count * pool.neuron_count;
  }
}

void PredictorAudit::compare_logits(uint32_t row_count) {
  const auto rank = static_cast<uint32_t>(comm_.rank());
  const bool root = rank == 0;
  const size_t whole = size_t{row_count} * shape_.vocab_size;
  const auto gather = [&](Decoder& decoder, std::vector<float>& logits) {
    if (partition_.last_stage(rank)) {
      mine_.resize(size_t{row_count} * partition_.ranks[rank].vocab.count);
      decoder.logits(0, row_count, mine_.data());
    }
    logits.resize(root ? whole : 0);
    gather_vocabulary(comm_, partition_, shape_.vocab_size, mine_.data(), row_count, logits.data());
  };
  gather(run_, run_logits_);
  gather(exact_, exact_logits_);
  if (!root) return;
  for (size_t from = 0; from < whole; from += shape_.vocab_size) {
    result_.logits.add(std::span(run_logits_).subspan(from, shape_.vocab_size),
                       std::span(exact_logits_).subspan(from, shape_.vocab_size));
  }
}

PredictorAuditResult PredictorAudit::finish() {
  std::vector<PredictorCounts>& mine = result_.layers;
  if (run_.predictor() == nullptr) {
    for (PredictorCounts& layer : mine) {
      layer.candidates = layer.neurons;
      layer.both = layer.active;
    }
  }
  std::vector<PredictorCounts> all(mine.size() * static_cast<size_t>(comm_.size()));
  comm_.all_gather(mine.data(), mine.size() * sizeof(PredictorCounts), all.data());
  std::fill(mine.begin(), mine.end(), PredictorCounts{});
  for (size_t i = 0; i < all.size(); ++i) mine[i % mine.size()].add(all[i]);
  return std::move(result_);
}

}  // namespace thermocline
