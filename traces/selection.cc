#include "traces/selection.h"

#include <fmt/format.h>

#include <cstring>
#include <map>

#include "models/error.h"
#include "traces/index_ranges.h"
#include "traces/profile.h"

namespace thermocline {

Selection::Selection(const TraceReader& trace, const SelectionText& text)
    : trace_(&trace), pool_(whole_model(trace.header())) {
  select_layers(text.layers);
  select_steps(text);
  find_blocks();
}

void Selection::select_layers(const std::string& text) {
  if (text.empty()) return;
  const auto ranges = parse_index_ranges(text, "--layers");
  if (ranges.size() != 1 || ranges[0].last >= pool_.layer_count) {
    throw bad_usage(fmt::format("--layers: expected one range from 0 to {}, found '{}'",
                                pool_.layer_count - 1, text));
  }
  pool_.layer_begin = static_cast<uint32_t>(ranges[0].first);
  pool_.layer_count = static_cast<uint32_t>(ranges[0].last - ranges[0].first + 1);
}

void Selection::select_steps(const SelectionText& text) {
  const auto parse = [](const std::string& ranges, const char* option) {
    return ranges.empty() ? std::vector<IndexRange>{{0, UINT64_MAX}}
                          : parse_index_ranges(ranges, option);
  };
  const auto chosen = parse(text.steps, "--steps");
  const auto chosen_tasks = parse(text.tasks, "--tasks");
  const std::vector<StepInfo> infos = trace_->steps();
  const std::vector<TaskRecord>& tasks = trace_->tasks();
  std::map<uint32_t, uint32_t> renumbered;
  for (uint64_t step = 0; step < infos.size(); ++step) {
    if (!contains(chosen, step)) continue;
    StepInfo info = infos[step];
    const int32_t id = info.task < tasks.size() ? tasks[info.task].task_id : -1;
    const bool named = id >= 0 && contains(chosen_tasks, static_cast<uint64_t>(id));
    if (!text.tasks.empty() && !named) continue;
    const auto found = renumbered.emplace(info.task, static_cast<uint32_t>(tasks_.size()));
    if (found.second) tasks_.push_back(id);
    info.task = found.first->second;
    steps_.push_back(step);
    infos_.push_back(info);
  }
  const bool narrowed = !text.steps.empty() || !text.tasks.empty();
  if (!steps_.empty() || !narrowed) return;
  throw bad_usage(
      fmt::format("--steps, --tasks: none of the trace's {} steps is selected", infos.size()));
}

void Selection::find_blocks() {
  for (uint64_t i = 0; i < steps_.size(); ++i) {
    const bool last = i + 1 == steps_.size();
    if (last || steps_[i] / kBlockSteps != steps_[i + 1] / kBlockSteps)
      block_ends_.push_back(i + 1);
  }
}

void Selection::read(size_t block, StepBlock& bits) const {
  const uint64_t begin = block_begin(block), end = block_end(block);
  const uint64_t first = steps_[begin];
  trace_->read(pool_, first, steps_[end - 1] - first + 1, bits);
  const uint64_t stride = pool_.words_per_step();
  for (uint64_t i = begin; i < end; ++i) {
    std::memmove(bits.words.data() + (i - begin) * stride,
                 bits.words.data() + (steps_[i] - first) * stride, stride * sizeof(uint64_t));
  }
  bits.step_begin = begin;
  bits.step_count = end - begin;
  bits.words.resize(bits.step_count * stride);
}

std::vector<uint32_t> Selection::popcounts(size_t block) const {
  const uint64_t begin = block_begin(block), end = block_end(block);
  const uint64_t first = steps_[begin], layers = trace_->header().shape.layer_count;
  const std::vector<uint32_t> all = trace_->popcounts(first, steps_[end - 1] - first + 1);
  std::vector<uint32_t> counts;
  for (uint64_t i = begin; i < end; ++i) {
    const auto row =
        all.begin() + static_cast<ptrdiff_t>((steps_[i] - first) * layers + pool_.layer_begin);
    counts.insert(counts.end(), row, row + pool_.layer_count);
  }
  return counts;
}

}  // namespace thermocline
