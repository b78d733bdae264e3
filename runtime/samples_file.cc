#include "runtime/samples_file.h"

#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "models/error.h"

namespace thermocline {
namespace {

std::string partial_name(const std::string& path) { return path + ".partial"; }

}  // namespace

std::string sample_line(const RunPlan& plan, const TaskInput& task, const DecodedText& decoded) {
  nlohmann::ordered_json line;
  line["task_id"] = fmt::format("{}/{}", plan.whole_programs ? "Mbpp" : "prompt", task.task_id);
  line[plan.whole_programs ? "solution" : "completion"] = decoded.text;
  line["sample"] = task.sample;
  line["seed"] = plan.sampling.seed;
  line["temperature"] = plan.sampling.temperature;
  line["top_p"] = plan.sampling.top_p;
  line["finish_reason"] = name_of(decoded.finish);
  line["model"] = plan.spec.text;
  line["weights"] = plan.weight_provenance;
  // A model may decode any bytes; JSON may not hold them.
  return line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

SamplesFile::SamplesFile(const std::string& path, const RunPlan& plan)
    : path_(path), plan_(plan), file_(path) {}

SamplesFile::~SamplesFile() {
  try {
    keep_partial();
  } catch (const Error&) {  // whatever ends the run is the error that counts
  }
}

// The n-th call is about the n-th task. Each line is written at once, so that a kill leaves it.
void SamplesFile::on_task_end(const TaskRecord& record) {
  const TaskInput& task = plan_.tasks.at(line_count_);
  TC_CHECK(task.task_id == record.task_id, "tasks end in their order");
  const std::string line =
      sample_line(plan_, task, decoded_text(plan_.stop, task.prompt.back(), record.generated));
  file_.write_at(byte_count_, line);
  byte_count_ += line.size();
  ++line_count_;
}

void SamplesFile::finish() {
  closed_ = true;
  file_.finish();
  std::error_code ignored;
  std::filesystem::remove(partial_name(path_), ignored);  // of a run that was interrupted
}

std::string SamplesFile::keep_partial() {
  if (closed_ || line_count_ == 0) return "";
  closed_ = true;
  file_.finish_as(partial_name(path_));
  return fmt::format("; the first {} samples are in {}", line_count_, partial_name(path_));
}

}  // namespace thermocline
