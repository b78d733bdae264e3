#include "traces/step_table.h"

#include <fmt/format.h>

#include <cstdint>

#include "models/new_file.h"
#include "traces/csv_lines.h"

namespace thermocline {
namespace {

constexpr std::string_view kHead = "step,task,task_id,position,phase,token";
constexpr std::string_view kPassColumn = ",pass";

Phase phase_of(CsvLines& lines, std::string_view field) {
  if (field == "prefill") return Phase::prefill;
  if (field == "decode") return Phase::decode;
  lines.fail_at("phase prefill or decode", field);
}

void add_to_task(StepTable& table, CsvLines& lines, const StepInfo& info, int32_t task_id) {
  if (info.task > table.tasks.size()) {
    lines.fail(fmt::format("task {} or one before it", table.tasks.size()),
               fmt::format("{}", info.task));
  }
  if (info.task == table.tasks.size()) {
    table.tasks.push_back({task_id, static_cast<uint32_t>(table.steps.size()), 0, 0, {}});
  }
  TaskRecord& task = table.tasks[info.task];
  if (task.task_id != task_id) {
    lines.fail(fmt::format("task_id {} of task {}", task.task_id, info.task),
               fmt::format("{}", task_id));
  }
  ++task.step_count;
  task.prompt_tokens += info.phase == Phase::prefill;
}

void add_row(StepTable& table, CsvLines& lines, bool has_pass) {
  const auto& fields = lines.fields(has_pass ? 7 : 6);
  const uint32_t expected = static_cast<uint32_t>(table.steps.size());
  const uint32_t step = lines.number(0, "step");
  if (step != expected) lines.fail(fmt::format("step {}", expected), fmt::format("{}", step));
  StepInfo info;
  info.task = lines.number(1, "task");
  const auto task_id = static_cast<int32_t>(lines.number(2, "task_id", INT32_MIN, INT32_MAX));
  info.position = lines.number(3, "position");
  info.phase = phase_of(lines, fields[4]);
  info.token = static_cast<int32_t>(lines.number(5, "token", INT32_MIN, INT32_MAX));
  info.pass = has_pass ? lines.number(6, "pass") : step;
  add_to_task(table, lines, info, task_id);
  table.steps.push_back(info);
}

}  // namespace

std::string step_table_path(const std::string& npy) {
  const std::string_view ending = ".npy";
  const bool named = npy.ends_with(ending);
  return npy.substr(0, npy.size() - (named ? ending.size() : 0)) + ".steps.csv";
}

void write_step_table(const Selection& selection, const std::string& path) {
  NewFile file(path);
  file.write(fmt::format("{}{}\n", kHead, kPassColumn));
  for (uint64_t i = 0; i < selection.step_count(); ++i) {
    const StepInfo& info = selection.infos()[i];
    const char* const phase = info.phase == Phase::prefill ? "prefill" : "decode";
    file.write(fmt::format("{},{},{},{},{},{},{}\n", i, info.task, selection.task_ids()[info.task],
                           info.position, phase, info.token, info.pass));
  }
  file.finish();
}

StepTable parse_step_table(std::span<const std::byte> bytes, const std::string& path) {
  CsvLines lines(bytes, path);
  StepTable table;
  lines.next();
  const bool has_pass = lines.line() == std::string(kHead) + std::string(kPassColumn);
  if (!has_pass && lines.line() != kHead) {
    lines.fail_at(fmt::format("the line {}", kHead), lines.line());
  }
  while (lines.next()) add_row(table, lines, has_pass);
  return table;
}

}  // namespace thermocline
