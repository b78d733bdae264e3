#include "traces/copy.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <optional>

#include "models/cli.h"
#include "models/error.h"
#include "traces/profile.h"

namespace thermocline {
namespace {

constexpr uint64_t kCopiedBytes = uint64_t{8} << 20;  // of bits, at a time

// A task of the source as it becomes in the copy.
struct CopiedTask {
  TaskRecord record{};
  uint32_t steps_left = 0;  // of those that are kept
};

}  // namespace

std::vector<StepRange> ranges_of(const std::vector<uint64_t>& steps) {
  std::vector<StepRange> ranges;
  for (const uint64_t step : steps) {
    if (ranges.empty() || ranges.back().end != step) ranges.push_back({step, step});
    ++ranges.back().end;
  }
  return ranges;
}

std::vector<StepRange> steps_of_tasks(const TraceReader& trace, const std::vector<bool>& keep) {
  const std::vector<StepInfo> infos = trace.steps();
  std::vector<uint64_t> kept;
  for (uint64_t step = 0; step < infos.size(); ++step) {
    if (infos[step].task < keep.size() && keep[infos[step].task]) kept.push_back(step);
  }
  return ranges_of(kept);
}

void note_in(TraceHeader& header, const char* key, const nlohmann::ordered_json& note) {
  auto config = nlohmann::ordered_json::parse(header.config_json, nullptr, false);
  if (!config.is_object()) config = nlohmann::ordered_json::object();
  config[key] = note;
  header.config_json = config.dump();
}

TraceHeader cut_header(const TraceHeader& header, LayerRange layers,
                       std::vector<uint32_t>& source_ranks) {
  TraceHeader cut = header;
  cut.shape.layer_count = layers.end - layers.begin;
  cut.activation_thresholds.assign(header.activation_thresholds.begin() + layers.begin,
                                   header.activation_thresholds.begin() + layers.end);
  cut.pools.clear();
  source_ranks.clear();
  for (uint32_t rank = 0; rank < header.pools.size(); ++rank) {
    NeuronPool pool = header.pools[rank];
    const uint32_t begin = std::max(pool.layer_begin, layers.begin);
    const uint32_t end = std::min(pool.layer_begin + pool.layer_count, layers.end);
    if (begin >= end) continue;
    pool.layer_begin = begin - layers.begin;
    pool.layer_count = end - begin;
    cut.pools.push_back(pool);
    source_ranks.push_back(rank);
  }
  return cut;
}

// One trace that is being added.
struct TraceCopy::Source {
  const TraceReader& trace;
  const CopyProgress& progress;
  uint32_t layer_begin;
  std::vector<uint32_t> ranks;  // by new rank
  std::vector<StepInfo> steps;
  std::vector<std::vector<StepTimes>> times;  // by new rank
  std::map<uint32_t, uint32_t> new_index;     // of its tasks
  std::vector<CopiedTask> tasks;              // by new index, from the first of this source
  uint32_t first_task, ended = 0;
  std::optional<uint32_t> last_pass;         // of the step that was copied last
  size_t magnitude_row = 0;                  // the next that may be needed
  std::vector<StepBlock> active, predicted;  // by new rank
  uint64_t done = 0;

  // Which tasks have steps in these ranges, and what their records become.
  void number_tasks(const std::vector<StepRange>& ranges, uint64_t step_count) {
    uint64_t step_of_copy = step_count;
    for (const StepRange& range : ranges) {
      for (uint64_t step = range.begin; step < range.end; ++step) {
        add_step(steps[step], step_of_copy++);
      }
    }
    for (auto& [index, number] : new_index) {
      if (index >= trace.tasks().size()) continue;  // an unfinished one, in a partial trace
      const TaskRecord& whole = trace.tasks()[index];
      TaskRecord& record = tasks[number - first_task].record;
      record.task_id = whole.task_id;
      if (record.step_count == whole.step_count) record.generated = whole.generated;
    }
  }

  void add_step(const StepInfo& info, uint64_t step_of_copy) {
    const auto number = static_cast<uint32_t>(first_task + tasks.size());
    const auto [place, is_new] = new_index.emplace(info.task, number);
    if (is_new) {
      tasks.emplace_back();
      tasks.back().record.step_begin = static_cast<uint32_t>(step_of_copy);
      tasks.back().record.task_id = -1;
    }
    CopiedTask& task = tasks[place->second - first_task];
    ++task.steps_left;
    ++task.record.step_count;
    task.record.prompt_tokens += info.phase == Phase::prefill;
    if (info.phase == Phase::decode) task.record.generated.push_back(info.token);
  }
};

TraceCopy::TraceCopy(const std::string& path, const TraceHeader& header)
    : path_(path), header_(header) {
  for (uint32_t rank = 0; rank < header.pools.size(); ++rank) {
    writers_.push_back(create_shard(path, header, rank));
  }
}

TraceCopy::~TraceCopy() {
  if (finished_) return;
  writers_.clear();
  for (uint32_t rank = 0; rank < header_.pools.size(); ++rank) {
    std::error_code ignored;
    std::filesystem::remove(partial_path(path_, rank), ignored);
    std::filesystem::remove(shard_path(path_, rank), ignored);
  }
}

void TraceCopy::add(const TraceReader& trace, const std::vector<StepRange>& ranges,
                    uint32_t layer_begin, const std::vector<uint32_t>& source_ranks,
                    const CopyProgress& progress) {
  TC_CHECK(source_ranks.size() == writers_.size(), "times for every rank of the copy");
  Source source{trace, progress, layer_begin, source_ranks, trace.steps(),
                {},    {},       {},          task_count_,  0,
                {},    0,        {},          {},           0};
  for (const uint32_t rank : source_ranks) source.times.push_back(trace.times(rank));
  source.number_tasks(ranges, step_count_);
  const uint64_t step_bytes = whole_model(header_).words_per_step() * sizeof(uint64_t);
  const uint64_t stride = whole_blocks(kCopiedBytes / step_bytes);
  for (const StepRange& range : ranges) {
    for (uint64_t begin = range.begin; begin < range.end;) {
      const uint64_t end = std::min(range.end, (begin / stride + 1) * stride);
      copy_block(source, {begin, end});
      begin = end;
    }
  }
  task_count_ += static_cast<uint32_t>(source.tasks.size());
  ++pass_count_;  // what follows shares no pass with this
}

void TraceCopy::copy_block(Source& source, StepRange range) {
  if (interrupted()) throw work_failed("interrupted; nothing was left at " + path_);
  const size_t ranks = writers_.size();
  source.active.resize(ranks);
  source.predicted.resize(ranks);
  for (size_t rank = 0; rank < ranks; ++rank) {
    NeuronPool pool = header_.pools[rank];
    pool.layer_begin += source.layer_begin;
    source.trace.read(pool, range.begin, range.end - range.begin, source.active[rank]);
    if (!header_.has_predicted) continue;
    source.trace.read_predicted(pool, range.begin, range.end - range.begin, source.predicted[rank]);
  }
  for (uint64_t step = range.begin; step < range.end; ++step) {
    const uint32_t pass = source.steps[step].pass;
    if (source.last_pass.has_value() && *source.last_pass != pass) ++pass_count_;
    source.last_pass = pass;
    for (uint32_t rank = 0; rank < ranks; ++rank) append_step(source, step, rank);
    ++step_count_;
    --source.tasks[source.new_index.at(source.steps[step].task) - source.first_task].steps_left;
    end_tasks(source);
  }
  source.done += range.end - range.begin;
  if (source.progress) source.progress(source.done);
}

void TraceCopy::append_step(Source& source, uint64_t step, uint32_t rank) {
  StepInfo info = source.steps[step];
  info.task = source.new_index.at(info.task);
  info.pass = pass_count_;
  const StepBlock& active = source.active[rank];
  StepData data{active.step(step - active.step_begin).words, {}, {}};
  if (header_.has_predicted) {
    data.predicted = source.predicted[rank].step(step - active.step_begin).words;
  }
  std::vector<float> magnitudes;
  const std::vector<uint64_t>& rows = source.trace.magnitude_steps();
  if (header_.magnitudes != MagnitudeFormat::none) {
    while (source.magnitude_row < rows.size() && rows[source.magnitude_row] < step) {
      ++source.magnitude_row;
    }
    if (source.magnitude_row < rows.size() && rows[source.magnitude_row] == step) {
      source.trace.read_magnitudes(active.pool, source.magnitude_row, 1, magnitudes);
      data.magnitudes = magnitudes;
    }
  }
  writers_[rank]->append(info, source.times[rank][step], data);
}

// Records are written in the order of their numbers, each after its last step.
void TraceCopy::end_tasks(Source& source) {
  while (source.ended < source.tasks.size() && source.tasks[source.ended].steps_left == 0) {
    for (const auto& writer : writers_) writer->end_task(source.tasks[source.ended].record);
    ++source.ended;
  }
}

void TraceCopy::finish() {
  for (const auto& writer : writers_) writer->finish();
  write_master(path_);
  finished_ = true;
}

}  // namespace thermocline
