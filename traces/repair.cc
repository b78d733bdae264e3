#include "traces/repair.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>

#include "models/error.h"
#include "traces/copy.h"
#include "traces/profile.h"

namespace thermocline {
namespace {

// Whether each block of 64 steps reads as it was written, on every rank.
std::vector<bool> good_blocks(const TraceReader& trace, const CheckProgress& progress,
                              std::vector<std::string>& lost) {
  std::vector<bool> good;
  StepBlock block;
  for (uint64_t begin = 0; begin < trace.step_count(); begin += kBlockSteps) {
    const uint64_t count = std::min<uint64_t>(kBlockSteps, trace.step_count() - begin);
    good.push_back(true);
    try {
      for (const NeuronPool& pool : trace.header().pools) {
        trace.read(pool, begin, count, block);
        if (trace.header().has_predicted) trace.read_predicted(pool, begin, count, block);
      }
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::input) throw;
      good.back() = false;
      lost.push_back(error.what());
    }
    if (progress) progress(begin + count, 2 * trace.step_count());
  }
  return good;
}

std::vector<bool> whole_tasks(const TraceReader& trace, const std::vector<bool>& good,
                              std::vector<std::string>& lost) {
  std::vector<uint64_t> good_steps(trace.tasks().size());
  const std::vector<StepInfo> steps = trace.steps();
  uint64_t unfinished = 0;
  for (uint64_t step = 0; step < steps.size(); ++step) {
    const uint32_t task = steps[step].task;
    if (task >= good_steps.size()) {
      ++unfinished;
    } else {
      good_steps[task] += good[step / kBlockSteps];
    }
  }
  std::vector<bool> whole;
  for (size_t i = 0; i < good_steps.size(); ++i) {
    const TaskRecord& task = trace.tasks()[i];
    whole.push_back(good_steps[i] == task.step_count);
    if (whole.back()) continue;
    lost.push_back(fmt::format("task {}: {} of its {} steps are damaged", task.task_id,
                               task.step_count - good_steps[i], task.step_count));
  }
  if (unfinished > 0) lost.push_back(fmt::format("{} steps of unfinished tasks", unfinished));
  return whole;
}

}  // namespace

RepairResult repair_trace(const std::string& path, const std::string& out,
                          const CheckProgress& progress) {
  const auto trace = open_trace(path, {.allow_partial = true});
  for (uint32_t rank = 0; rank < trace->header().pools.size(); ++rank) {
    if (trace->holds(rank)) continue;
    throw bad_input(path,
                    fmt::format("the neurons of rank {}, without which no trace is whole", rank),
                    fmt::format("none (trace info --allow-partial shows what the others hold): {}",
                                fmt::join(trace->missing(), "; ")));
  }
  RepairResult result;
  result.lost = trace->missing();
  const std::vector<bool> good = good_blocks(*trace, progress, result.lost);
  const auto ranges = steps_of_tasks(*trace, whole_tasks(*trace, good, result.lost));
  if (ranges.empty()) throw bad_input(path, "a task that is whole", "none");
  TraceHeader header = trace->header();
  note_in(header, "repaired", {{"lost", result.lost}});
  std::vector<uint32_t> ranks(header.pools.size());
  std::iota(ranks.begin(), ranks.end(), 0);
  TraceCopy copy(out, header);
  copy.add(*trace, ranges, 0, ranks, [&](uint64_t done) {
    if (progress) progress(trace->step_count() + done, 2 * trace->step_count());
  });
  copy.finish();
  result.step_count = copy.step_count();
  result.task_count = copy.task_count();
  return result;
}

}  // namespace thermocline
