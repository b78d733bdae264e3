#include "sim/future_uses.h"

#include <algorithm>

#include "models/parallel.h"
#include "traces/bit_transpose.h"
#include "traces/profile.h"

namespace thermocline {

uint64_t future_uses_bytes(uint64_t neuron_count, uint64_t step_count) {
  return (step_count + 63) / 64 * neuron_count * sizeof(uint64_t);
}

FutureUses future_uses(const TraceReader& trace, const NeuronPool& pool, uint32_t thread_count) {
  FutureUses uses{pool, trace.step_count(), {}};
  uses.words.resize((uses.step_count + 63) / 64 * pool.total());
  const uint32_t row_words = pool.words_per_layer();
  for_each_block(trace, pool, 0, uses.step_count, [&](const StepBlock& block) {
    const uint64_t stride = pool.words_per_step();
    const uint64_t groups = (block.step_count + 63) / 64;  // blocks begin at multiples of 64
    for_each_parallel(pool.layer_count, thread_count, [&](size_t layer) {
      std::vector<uint64_t> columns(uint64_t{64} * row_words);
      for (uint64_t group = 0; group < groups; ++group) {
        const uint64_t* rows = block.words.data() + group * 64 * stride + layer * row_words;
        const uint64_t count = std::min<uint64_t>(64, block.step_count - group * 64);
        columns_of_rows(rows, stride, static_cast<uint32_t>(count), row_words, columns.data());
        const uint64_t row = (block.step_begin / 64 + group) * pool.total();
        std::copy_n(columns.begin(), pool.neuron_count,
                    uses.words.begin() + static_cast<ptrdiff_t>(row + layer * pool.neuron_count));
      }
    });
  });
  return uses;
}

}  // namespace thermocline
