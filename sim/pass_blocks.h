// PassBlocks: a trace's bits in blocks that end where passes over the weights do.
//
// Steps with the same pass number shared one pass: the positions of a prompt's chunk, or requests
// that decoded together. What a pass reads is the union of their active sets.
// Goals: the trace's own blocks are read whole, and once for each pass over the trace; bounded
//   memory; unions made once for all policies.
// Thread-safety: next() belongs to one thread; const methods may be called from any.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "models/neuron.h"
#include "traces/trace.h"

namespace thermocline {

struct PassRange {
  uint64_t begin = 0;  // the first step
  uint32_t count = 0;
};

// Consecutive steps of the same pass number. A decode step begins a new pass where the step before
// it was of the same task, since no pass decodes two tokens of one.
std::vector<PassRange> passes_of(std::span<const StepInfo> infos);

// Neurons of one pool that some step of a pass needed.
struct PassUnion {
  std::vector<uint64_t> words;  // as those of a step
  uint32_t needed = 0;
};

class PassBlocks {
 public:
  PassBlocks(const TraceReader& trace, const std::vector<NeuronPool>& pools,
             const std::vector<StepInfo>& infos);

  // The next block; false after the last.
  bool next();

  uint64_t begin() const { return begin_; }  // the block's first step
  uint64_t step_count() const { return end_ - begin_; }
  std::span<const PassRange> passes() const { return passes_; }  // of the block
  ActiveStep step(uint32_t pool, uint64_t step) const;           // of the trace's step
  const PassUnion& union_of(uint32_t pool, size_t pass) const;   // of a pass of several steps

 private:
  void read_to(uint64_t end);
  void join_passes();

  const TraceReader& trace_;
  const std::vector<NeuronPool>& pools_;
  std::vector<PassRange> all_;  // of the trace
  size_t next_pass_ = 0;
  uint64_t stride_;  // steps that are read at a time
  uint64_t begin_ = 0, end_ = 0, read_end_ = 0;
  std::span<const PassRange> passes_;
  std::vector<std::vector<uint64_t>> words_;    // by pool: steps [begin_, read_end_)
  std::vector<std::vector<PassUnion>> unions_;  // by pool, of each pass of the block
  StepBlock chunk_;
};

}  // namespace thermocline
