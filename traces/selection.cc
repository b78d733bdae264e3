#include "traces/selection.h"

#include <fmt/format.h>

#include <cstring>
#include <map>

#include "models/error.h"
#include "models/units.h"
#include "traces/profile.h"

namespace thermocline {

std::pair<uint64_t, uint64_t> parse_range(std::string_view text, std::string_view option) {
  const size_t dots = text.find("..");
  const uint64_t first = parse_count(text.substr(0, dots));
  const uint64_t last = dots == std::string_view::npos ? first : parse_count(text.substr(dots + 2));
  if (first > last) {
    throw bad_usage(fmt::format("{}: expected FIRST..LAST, found '{}'", option, text));
  }
  return {first, last};
}

Selection::Selection(const TraceReader& trace, const SelectionText& text)
    : trace_(&trace), pool_(whole_model(trace.header())) {
  select_layers(text.layers);
  select_steps(text);
  find_blocks();
}

void Selection::select_layers(const std::string& text) {
  if (text.empty()) return;
  const auto range = parse_range(text, "--layers");
  if (range.second >= pool_.layer_count) {
    throw bad_usage(fmt::format("--layers: expected layers from 0 to {}, found '{}'",
                                pool_.layer_count - 1, text));
  }
  pool_.layer_begin = static_cast<uint32_t>(range.first);
  pool_.layer_count = static_cast<uint32_t>(range.second - range.first + 1);
}

void Selection::select_steps(const SelectionText& text) {
  const auto all = std::pair<uint64_t, uint64_t>{0, UINT64_MAX};
  const auto range = text.steps.empty() ? all : parse_range(text.steps, "--steps");
  const auto task_range = text.tasks.empty() ? all : parse_range(text.tasks, "--tasks");
  const std::vector<StepInfo> infos = trace_->steps();
  const std::vector<TaskRecord>& tasks = trace_->tasks();
  std::map<uint32_t, uint32_t> renumbered;
  for (uint64_t step = range.first; step < infos.size() && step <= range.second; ++step) {
    StepInfo info = infos[step];
    const int32_t id = info.task < tasks.size() ? tasks[info.task].task_id : -1;
    const auto named = static_cast<uint64_t>(id);  // -1 is beyond any range
    if (!text.tasks.empty() && (named < task_range.first || named > task_range.second)) continue;
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
