#include "traces/interrupted.h"

#include <algorithm>
#include <filesystem>
#include <map>

#include "models/cli.h"
#include "models/error.h"
#include "models/hash.h"
#include "traces/shard.h"

namespace thermocline {
namespace {

namespace fs = std::filesystem;

std::string aside_path(const std::string& path, uint32_t rank) {
  return shard_path(path, rank) + ".interrupted";
}

// Null where there is none, or none that can be read.
std::unique_ptr<Shard> open_or_null(const std::string& path) {
  if (!fs::exists(path)) return nullptr;
  try {
    return std::make_unique<Shard>(path);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::input) throw;
    return nullptr;
  }
}

}  // namespace

InterruptedShard::InterruptedShard(std::unique_ptr<Shard> shard) : shard_(std::move(shard)) {}
InterruptedShard::~InterruptedShard() = default;

std::unique_ptr<InterruptedShard> InterruptedShard::take(const std::string& path, uint32_t rank) {
  if (fs::exists(path)) return nullptr;
  const std::string aside = aside_path(path, rank);
  std::unique_ptr<Shard> best = open_or_null(aside);
  for (const std::string& name : {shard_path(path, rank), partial_path(path, rank)}) {
    auto found = open_or_null(name);
    if (found && (!best || found->step_count() > best->step_count())) best = std::move(found);
  }
  if (!best) return nullptr;
  if (best->path() != aside) {
    const std::string from = best->path();
    best.reset();  // HDF5 keeps files by name
    std::error_code failed;
    fs::rename(from, aside, failed);
    if (failed) throw work_failed(from + ": cannot set aside: " + failed.message());
    best = std::make_unique<Shard>(aside);
  }
  return std::unique_ptr<InterruptedShard>(new InterruptedShard(std::move(best)));
}

const std::string& InterruptedShard::path() const { return shard_->path(); }
const TraceHeader& InterruptedShard::header() const { return shard_->header(); }
uint64_t InterruptedShard::step_count() const { return shard_->step_count(); }
uint32_t InterruptedShard::task_count() const {
  return static_cast<uint32_t>(shard_->tasks().size());
}

ResumePoint InterruptedShard::point(uint64_t step_max, uint32_t task_max) const {
  const std::vector<TaskRecord> tasks = shard_->tasks();
  const std::vector<StepInfo> steps = shard_->steps(0, step_max);
  std::map<uint32_t, uint32_t> open;  // task: its steps that are still to come
  ResumePoint point;
  Fnv1a content;
  uint32_t ended = 0;
  for (uint64_t i = 0; i < step_max; ++i) {
    const StepInfo& step = steps[i];
    if (step.task >= std::min<size_t>(task_max, tasks.size())) break;
    const auto [left, is_new] = open.emplace(step.task, tasks[step.task].step_count);
    if (--left->second == 0) {
      open.erase(left);
      ++ended;
    }
    for (const uint64_t value :
         {static_cast<uint64_t>(static_cast<uint32_t>(step.token)), uint64_t{step.position},
          uint64_t{step.task}, static_cast<uint64_t>(step.phase), uint64_t{step.pass}}) {
      content.add_value(value);
    }
    if (open.empty()) point = {i + 1, ended, step.pass + 1, content.value()};
  }
  return point;
}

void InterruptedShard::replay(
    const ResumePoint& point,
    const std::function<void(const StepInfo&, const StepTimes&, const StepData&)>& on_step,
    const std::function<void(const TaskRecord&)>& on_task) const {
  const NeuronPool& pool = shard_->pool();
  const uint64_t stride = pool.words_per_step();
  const std::vector<TaskRecord> tasks = shard_->tasks();
  const std::vector<uint64_t>& sampled = shard_->magnitude_steps();
  const uint32_t threads = available_cores();
  std::vector<uint64_t> active(kBlockSteps * stride), predicted;
  std::vector<uint32_t> steps_of(tasks.size());
  std::vector<float> magnitudes;
  uint32_t ended = 0;
  for (uint64_t begin = 0; begin < point.step_count; begin += kBlockSteps) {
    const uint64_t count = std::min<uint64_t>(kBlockSteps, point.step_count - begin);
    const auto read = [&](Bits which, std::vector<uint64_t>& rows) {
      rows.resize(kBlockSteps * stride);
      shard_->read(which, begin, count, 0, pool.layer_count, {rows.data(), stride}, threads);
    };
    read(Bits::active, active);
    if (header().has_predicted) read(Bits::predicted, predicted);
    const auto infos = shard_->steps(begin, count);
    const auto times = shard_->times(begin, count);
    for (uint64_t i = 0; i < count; ++i) {
      StepData data{std::span<const uint64_t>(active).subspan(i * stride, stride), {}, {}};
      if (!predicted.empty()) data.predicted = std::span(predicted).subspan(i * stride, stride);
      const auto row = std::lower_bound(sampled.begin(), sampled.end(), begin + i);
      if (row != sampled.end() && *row == begin + i) {
        shard_->read_magnitudes(static_cast<uint64_t>(row - sampled.begin()), 1, 0,
                                pool.layer_count, magnitudes);
        data.magnitudes = magnitudes;
      }
      on_step(infos[i], times[i], data);
      ++steps_of[infos[i].task];
      while (ended < point.task_count && steps_of[ended] == tasks[ended].step_count) {
        on_task(tasks[ended++]);
      }
    }
  }
}

void InterruptedShard::remove() {
  const std::string path = shard_->path();
  std::error_code ignored;
  fs::remove(path, ignored);
}

bool holds_steps(const std::string& path, uint32_t rank) {
  return fs::exists(shard_path(path, rank)) || fs::exists(partial_path(path, rank)) ||
         fs::exists(aside_path(path, rank));
}

bool has_interrupted(const std::string& path) {
  return fs::exists(partial_path(path, 0)) || fs::exists(aside_path(path, 0));
}

}  // namespace thermocline
