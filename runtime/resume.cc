#include "runtime/resume.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "models/error.h"
#include "traces/schema.h"

namespace thermocline {
namespace {

// What a rank has of the interrupted run.
struct Remains {
  uint64_t step_count = 0;
  uint64_t task_count = 0;
};

// The keys of config_json that decide what is recorded; the others say how fast.
constexpr const char* kDeciding[] = {
    "batch",       "magnitudes", "teacher_forced",   "max_new_tokens",
    "gate",        "chunk",      "rank_stage",       "activation_threshold",
    "temperature", "top_p",      "samples_per_task", "stop"};

// The first thing in which the runs differ; empty where one is the other's continuation.
std::string difference_of_runs(const TraceHeader& old, TraceHeader now) {
  const auto parse = [](const std::string& text) {
    return nlohmann::json::parse(text, nullptr, false);
  };
  const auto old_config = parse(old.config_json), config = parse(now.config_json);
  for (const char* key : kDeciding) {
    if (old_config.value(key, nlohmann::json()) != config.value(key, nlohmann::json())) return key;
  }
  now.version = old.version;
  now.config_json = old.config_json;
  return difference(old, now);
}

}  // namespace

Resume::Resume(Comm& comm, const std::string& path, const TraceHeader& header, bool overwrite) {
  const auto rank = static_cast<uint32_t>(comm.rank());
  together(comm, [&] {
    shard_ = InterruptedShard::take(path, rank);
    if (!shard_) return;
    const std::string field = difference_of_runs(shard_->header(), header);
    if (field.empty()) return;
    if (!overwrite) {
      throw bad_input(shard_->path(), "a recording that these options go on with",
                      "another " + field + " (--overwrite starts over)");
    }
    shard_->remove();
    shard_.reset();
  });
  found_ = shard_ != nullptr;
  Remains mine;
  if (shard_) mine = {shard_->step_count(), shard_->task_count()};
  const std::vector<Remains> all = gathered(comm, mine);
  Remains common = all[0];
  for (const Remains& remains : all) {
    common.step_count = std::min(common.step_count, remains.step_count);
    common.task_count = std::min(common.task_count, remains.task_count);
  }
  together(comm, [&] {
    if (shard_) {
      point_ = shard_->point(common.step_count, static_cast<uint32_t>(common.task_count));
    }
  });
  const std::vector<uint64_t> contents = gathered(comm, point_.content);
  together(comm, [&] {
    if (point_.content == contents[0]) return;
    throw bad_input(shard_->path(), "the steps that rank 0 recorded", "others");
  });
  settle(0);
}

void Resume::replay(std::span<StepObserver* const> observers) const {
  if (!shard_) return;
  shard_->replay(
      point_,
      [&](const StepInfo& info, const StepTimes& times, const StepData& data) {
        for (StepObserver* observer : observers) observer->on_step(info, times, data);
      },
      [&](const TaskRecord& task) {
        for (StepObserver* observer : observers) observer->on_task_end(task);
      });
}

void Resume::settle(uint64_t safe_steps) {
  if (!shard_ || safe_steps < point_.step_count) return;
  shard_->remove();
  shard_.reset();
}

}  // namespace thermocline
