#include "runtime/staged_rows.h"

namespace thermocline {

std::vector<uint64_t> in_any_row(const NeuronPool& pool, const NeuronMask& mask, size_t row_count) {
  std::vector<uint64_t> any(pool.words_per_layer());
  for (size_t t = 0; t < row_count; ++t)
    for (size_t w = 0; w < any.size(); ++w)
      any[w] |= mask.words == nullptr ? pool.full_word(w) : mask.words[t * mask.stride + w];
  return any;
}

void StagedRows::read_ahead(uint32_t layer, const NeuronMask& likely, size_t row_count,
                            std::span<const uint64_t> within) {
  std::vector<uint64_t> any = in_any_row(pool_, likely, row_count);
  for (size_t w = 0; w < within.size(); ++w) any[w] &= within[w];
  store_.read_ahead(layer, any);
}

uint64_t StagedRows::scale(uint32_t layer, const WeightView& up, const NeuronMask& computed,
                           size_t row_count, const float* x, float* hidden) {
  store_.request(layer, in_any_row(pool_, computed, row_count));
  backend_.scale_by_rows(up, within(computed, row_count, store_.here()), x, hidden);
  const uint64_t waited = store_.wait();
  backend_.scale_by_rows(up, within(computed, row_count, store_.coming()), x, hidden);
  return waited;
}

// Those of a mask that are in `words`, for each row.
NeuronMask StagedRows::within(const NeuronMask& mask, size_t row_count,
                              std::span<const uint64_t> words) {
  part_.resize(row_count * words.size());
  for (size_t i = 0; i < part_.size(); ++i) {
    const size_t t = i / words.size(), w = i % words.size();
    part_[i] = words[w] & (mask.words == nullptr ? ~uint64_t{0} : mask.words[t * mask.stride + w]);
  }
  return {part_.data(), words.size()};
}

}  // namespace thermocline
