#include "sim/pass_blocks.h"

#include <algorithm>

#include "models/bit_sums.h"
#include "models/error.h"
#include "traces/profile.h"

namespace thermocline {
namespace {

constexpr uint64_t kBlockBytesMax = 16 << 20;  // of all pools' bits at a time
constexpr uint64_t kBlockStepsMax = 4096;
constexpr uint32_t kPassStepsMax = 1024;  // more than any chunk of a prompt times a batch

}  // namespace

std::vector<PassRange> passes_of(std::span<const StepInfo> infos) {
  std::vector<PassRange> passes;
  for (uint64_t step = 0; step < infos.size(); ++step) {
    const StepInfo& info = infos[step];
    bool begins = step == 0 || info.pass != infos[step - 1].pass;
    if (!begins) {
      begins = (info.phase == Phase::decode && info.task == infos[step - 1].task) ||
               passes.back().count == kPassStepsMax;
    }
    if (begins) passes.push_back({step, 0});
    ++passes.back().count;
  }
  return passes;
}

PassBlocks::PassBlocks(const TraceReader& trace, const std::vector<NeuronPool>& pools,
                       const std::vector<StepInfo>& infos)
    : trace_(trace),
      pools_(pools),
      all_(passes_of(infos)),
      words_(pools.size()),
      unions_(pools.size()) {
  uint64_t step_bytes = 1;
  for (const NeuronPool& pool : pools_) step_bytes += pool.words_per_step() * sizeof(uint64_t);
  stride_ = whole_blocks(std::clamp<uint64_t>(kBlockBytesMax / step_bytes, 1, kBlockStepsMax));
}

bool PassBlocks::next() {
  if (next_pass_ == all_.size()) return false;
  const uint64_t step_count = trace_.step_count();
  // What was read beyond the last block's end moves to the front.
  for (size_t pool = 0; pool < pools_.size(); ++pool) {
    const auto done = static_cast<ptrdiff_t>((end_ - begin_) * pools_[pool].words_per_step());
    words_[pool].erase(words_[pool].begin(), words_[pool].begin() + done);
  }
  begin_ = end_;
  const size_t first = next_pass_;
  do {
    read_to(std::min(step_count, (read_end_ / stride_ + 1) * stride_));
    while (next_pass_ < all_.size() &&
           all_[next_pass_].begin + all_[next_pass_].count <= read_end_) {
      end_ = all_[next_pass_].begin + all_[next_pass_].count;
      ++next_pass_;
    }
  } while (next_pass_ == first);
  passes_ = std::span(all_).subspan(first, next_pass_ - first);
  join_passes();
  return true;
}

void PassBlocks::read_to(uint64_t end) {
  for (size_t pool = 0; pool < pools_.size(); ++pool) {
    trace_.read(pools_[pool], read_end_, end - read_end_, chunk_);
    if (words_[pool].empty()) {
      words_[pool].swap(chunk_.words);
    } else {
      words_[pool].insert(words_[pool].end(), chunk_.words.begin(), chunk_.words.end());
    }
  }
  read_end_ = end;
}

void PassBlocks::join_passes() {
  for (uint32_t pool = 0; pool < pools_.size(); ++pool) {
    unions_[pool].resize(std::max(unions_[pool].size(), passes_.size()));
    for (size_t pass = 0; pass < passes_.size(); ++pass) {
      if (passes_[pass].count < 2) continue;
      PassUnion& all = unions_[pool][pass];
      all.words.assign(pools_[pool].words_per_step(), 0);
      for (uint32_t i = 0; i < passes_[pass].count; ++i) {
        const auto words = step(pool, passes_[pass].begin + i).words;
        all.needed =
            static_cast<uint32_t>(bit_sums().widen(all.words.data(), words.data(), words.size()));
      }
    }
  }
}

ActiveStep PassBlocks::step(uint32_t pool, uint64_t step) const {
  const uint64_t stride = pools_[pool].words_per_step();
  return {&pools_[pool], std::span(words_[pool]).subspan((step - begin_) * stride, stride)};
}

const PassUnion& PassBlocks::union_of(uint32_t pool, size_t pass) const {
  TC_CHECK(passes_[pass].count > 1, "a pass of one step has no union of its own");
  return unions_[pool][pass];
}

}  // namespace thermocline
