#include "traces/formats/counts_csv.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "models/error.h"
#include "models/new_file.h"
#include "traces/count_steps.h"
#include "traces/csv_lines.h"

namespace thermocline {
namespace {

constexpr std::string_view kHead = "layer,neuron,active_count,step_count";
constexpr std::string_view kTaskColumn = "task_id,";

void write_counts(NewFile& file, const ActivationProfile& profile, const std::string& task) {
  fmt::memory_buffer text;
  for (size_t flat = 0; flat < profile.counts.size(); ++flat) {
    fmt::format_to(std::back_inserter(text), "{}{},{},{},{}\n", task,
                   flat / profile.pool.neuron_count, flat % profile.pool.neuron_count,
                   profile.counts[flat], profile.step_count);
    if (text.size() < 1 << 16) continue;
    file.write(std::string_view(text.data(), text.size()));
    text.clear();
  }
  file.write(std::string_view(text.data(), text.size()));
}

ExportResult write_counts_csv(const Selection& selection, const std::string& path,
                              const ExportOptions& options) {
  NewFile file(path);
  file.write(options.by_task ? kTaskColumn : "");
  file.write(kHead);
  file.write("\n");
  if (!options.by_task) write_counts(file, count_selected(selection, -1, options.progress), "");
  for (size_t i = 0; options.by_task && i < selection.task_ids().size(); ++i) {
    write_counts(file, count_selected(selection, static_cast<int64_t>(i), options.progress),
                 fmt::format("{},", selection.task_ids()[i]));
  }
  ExportResult result = {file.byte_count(), left_out(selection.trace())};
  result.notes.emplace_back("counts have no time: which neurons fired together is lost");
  file.finish();
  return result;
}

// The numbers of one line.
struct Row {
  int32_t task_id;
  uint32_t layer, neuron, active_count, step_count;
};

Row read_row(CsvLines& lines, bool has_task) {
  const size_t first = has_task ? 1 : 0;
  lines.fields(4 + first);
  Row row = {};
  if (has_task) {
    row.task_id = static_cast<int32_t>(lines.number(0, "task_id", INT32_MIN, INT32_MAX));
  }
  row.layer = lines.number(first, "layer");
  row.neuron = lines.number(first + 1, "neuron");
  row.active_count = lines.number(first + 2, "active_count");
  row.step_count = lines.number(first + 3, "step_count");
  return row;
}

// One whole table of counts within the file.
struct CountedTask {
  int32_t task_id;
  uint32_t step_count;
  uint64_t offset;  // of its first line
};

// Checks every line against the one before it; learns the shape on the way.
class Scan {
 public:
  Scan(CsvLines& lines, bool has_task) : lines_(lines), has_task_(has_task) {
    for (uint64_t offset = lines_.offset(); lines_.next(); offset = lines_.offset()) {
      add(read_row(lines_, has_task_), offset);
    }
    if (tasks.empty()) lines_.fail("a line for each neuron", "none");
    end_task();
  }

  std::vector<CountedTask> tasks;
  uint32_t layer_count = 0, ffn_dim = 0;  // 0 until the first layer or task has ended

 private:
  void add(const Row& row, uint64_t offset) {
    const bool begins = row.layer == 0 && row.neuron == 0;
    if (tasks.empty() || (has_task_ && begins && row.task_id != last_.task_id)) {
      if (!tasks.empty()) end_task();
      if (!begins) lines_.fail("layer 0, neuron 0 first", place(row));
      tasks.push_back({row.task_id, row.step_count, offset});
    } else if (row.layer == last_.layer + 1 && row.neuron == 0) {
      end_layer();
    } else if (row.layer != last_.layer || row.neuron != last_.neuron + 1) {
      lines_.fail("the next neuron or layer after " + place(last_), place(row));
    }
    if (row.task_id != tasks.back().task_id || row.step_count != tasks.back().step_count) {
      lines_.fail(
          fmt::format("step_count {} of task {}", tasks.back().step_count, tasks.back().task_id),
          fmt::format("{} of {}", row.step_count, row.task_id));
    }
    if (row.active_count > row.step_count) {
      lines_.fail(fmt::format("an active_count up to {}", row.step_count),
                  fmt::format("{}", row.active_count));
    }
    last_ = row;
  }

  void end_layer() {
    if (ffn_dim == 0) ffn_dim = last_.neuron + 1;
    if (last_.neuron + 1 != ffn_dim) {
      lines_.fail(fmt::format("{} neurons in each layer", ffn_dim),
                  fmt::format("{} in layer {}", last_.neuron + 1, last_.layer));
    }
  }

  void end_task() {
    end_layer();
    if (layer_count == 0) layer_count = last_.layer + 1;
    if (last_.layer + 1 != layer_count) {
      lines_.fail(fmt::format("{} layers in each task", layer_count),
                  fmt::format("{} in task {}", last_.layer + 1, last_.task_id));
    }
  }

  static std::string place(const Row& row) {
    return fmt::format("layer {}, neuron {}", row.layer, row.neuron);
  }

  CsvLines& lines_;
  bool has_task_;
  Row last_ = {};
};

class CountsCsv final : public TraceSource {
 public:
  CountsCsv(const MappedFile& file, const std::string& path, const ImportOptions& options)
      : file_(file), path_(path) {
    if (options.counted_steps != 0) {
      throw bad_usage("counts-csv says its step_count itself: leave --counted-steps out");
    }
    CsvLines lines(file.bytes, path);
    lines.next();
    has_task_ = lines.line() == std::string(kTaskColumn) + std::string(kHead);
    if (!has_task_ && lines.line() != kHead) {
      lines.fail_at(fmt::format("the line {}", kHead), lines.line());
    }
    Scan scan(lines, has_task_);
    facts_.layer_count = agreed(options.layer_count, scan.layer_count, "layers", path);
    facts_.ffn_dim = agreed(options.ffn_dim, scan.ffn_dim, "neurons a layer", path);
    counted_ = std::move(scan.tasks);
    take_tasks(options);
    facts_.hash = hash_of({file}, options);
  }

  void read(const StepVisit& visit) const override {
    for (size_t i = 0; i < counted_.size(); ++i) {
      const TaskRecord& task = facts_.tasks[i];
      CountSteps steps(pool(), counts_of(counted_[i]), counted_[i].step_count, task.step_count);
      for (uint32_t k = 0; k < task.step_count; ++k) {
        const uint32_t step = task.step_begin + k;
        visit({-1, k, static_cast<uint32_t>(i), Phase::decode, step}, steps.next());
      }
    }
  }

 private:
  void take_tasks(const ImportOptions& options) {
    uint64_t counted_total = 0;
    for (const CountedTask& task : counted_) counted_total += task.step_count;
    for (const CountedTask& task : counted_) {
      const uint64_t steps = steps_to_make(task.step_count, counted_total, options);
      facts_.tasks.push_back({task.task_id,
                              static_cast<uint32_t>(facts_.step_count),
                              static_cast<uint32_t>(steps),
                              0,
                              {}});
      facts_.step_count += steps;
      if (facts_.step_count > UINT32_MAX) {
        throw bad_input(path_, "fewer than 2^32 steps in all", "more");
      }
    }
    note_made_steps(facts_, counted_total);
  }

  // The scan has checked these lines.
  std::vector<uint32_t> counts_of(const CountedTask& task) const {
    CsvLines lines(file_.bytes.subspan(task.offset), path_);
    std::vector<uint32_t> counts(pool().total());
    for (uint32_t& count : counts) {
      TC_CHECK(lines.next(), "as many lines as the scan saw");
      count = read_row(lines, has_task_).active_count;
    }
    return counts;
  }

  MappedFile file_;
  std::string path_;
  bool has_task_ = false;
  std::vector<CountedTask> counted_;
};

std::unique_ptr<TraceSource> open_counts_csv(const std::string& path,
                                             const ImportOptions& options) {
  return parse_counts_csv(map_file(path), path, options);
}

}  // namespace

std::unique_ptr<TraceSource> parse_counts_csv(const MappedFile& file, const std::string& path,
                                              const ImportOptions& options) {
  return std::make_unique<CountsCsv>(file, path, options);
}

THERMOCLINE_TRACE_FORMAT(counts_csv, "how often each neuron fired, a CSV line for each",
                         Carries::counts, write_counts_csv, open_counts_csv, ".csv");

}  // namespace thermocline
