#include "models/prompts.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "models/hash.h"
#include "models/mapped_file.h"
#include "models/registry.h"

namespace thermocline {
namespace {

using nlohmann::json;

constexpr size_t kLineBytesMax = size_t{1} << 20;  // the longest line of MBPP has 5 KB
constexpr int32_t kShotIds[] = {2, 3, 4};          // those of the paper
constexpr std::string_view kEmbeddedOrigin = "the built-in tasks";

struct Split {
  std::string_view name;
  int32_t first, last;  // task_id, inclusive
};

constexpr Split kSplits[] = {
    {"prompt", 1, 10},   {"test", 11, 510},     {"validation", 511, 600},
    {"train", 601, 974}, {"all", 1, INT32_MAX},
};

const Split& split_by_name(std::string_view name) {
  std::vector<std::string> valid;
  for (const Split& split : kSplits) {
    if (split.name == name) return split;
    valid.emplace_back(split.name);
  }
  throw unknown_name("split", name, valid);
}

// MBPP was written with CRLF; where a field was cut between the two, the CR goes as well.
std::string with_unix_lines(const std::string& text) {
  std::string lines;
  lines.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    const bool before_break = i + 1 == text.size() || text[i + 1] == '\n';
    if (text[i] != '\r' || !before_break) lines += text[i];
  }
  return lines;
}

// One line of the file: finds keys, and says where it stands in errors.
class TaskLine {
 public:
  TaskLine(std::string_view line, std::string place) : place_(std::move(place)) {
    if (line.size() > kLineBytesMax) {
      throw bad_input(place_, fmt::format("a line of at most {} bytes", kLineBytesMax),
                      fmt::format("{} bytes", line.size()));
    }
    try {
      object_ = json::parse(line);
    } catch (const json::exception& error) {
      throw bad_input(place_, "one JSON object in UTF-8", error.what());
    }
    if (!object_.is_object()) throw wrong("a JSON object", object_);
  }

  std::string text(const char* key) const {
    const json& value = at(key);
    if (!value.is_string()) throw wrong(fmt::format("a text as \"{}\"", key), value);
    return with_unix_lines(value.get<std::string>());
  }

  std::string optional_text(const char* key) const {
    return object_.contains(key) ? text(key) : std::string();
  }

  int32_t id(const char* key) const {
    const json& value = at(key);
    const bool in_range = value.is_number_integer() && value > 0 && value <= INT32_MAX;
    if (!in_range) throw wrong(fmt::format("a positive whole number as \"{}\"", key), value);
    return value.get<int32_t>();
  }

  std::vector<std::string> texts(const char* key) const {
    const json& value = at(key);
    const auto is_text = [](const json& item) { return item.is_string(); };
    if (!value.is_array() || !std::all_of(value.begin(), value.end(), is_text)) {
      throw wrong(fmt::format("a list of texts as \"{}\"", key), value);
    }
    std::vector<std::string> items;
    for (const json& item : value) items.push_back(with_unix_lines(item.get<std::string>()));
    return items;
  }

  const std::string& place() const { return place_; }

 private:
  const json& at(const char* key) const {
    const auto found = object_.find(key);
    if (found == object_.end()) throw bad_input(place_, fmt::format("key \"{}\"", key), "none");
    return *found;
  }

  Error wrong(const std::string& expected, const json& value) const {
    // Writing out a list goes as deep into the stack as the list goes into itself.
    std::string found = value.is_structured() ? value.type_name() : value.dump();
    if (found.size() > 60) found = fmt::format("{} of {} bytes", value.type_name(), found.size());
    return bad_input(place_, expected, found);
  }

  std::string place_;
  json object_;
};

Task parse_task(const TaskLine& line) {
  Task task;
  task.id = line.id("task_id");
  task.text = line.text("text");
  task.code = line.text("code");
  task.tests = line.texts("test_list");
  task.test_setup_code = line.optional_text("test_setup_code");
  return task;
}

// The template of MBPP's README.
std::string question(const Task& task) {
  return fmt::format(
      "You are an expert Python programmer, and here is your task: {} Your code should pass these "
      "tests:\n\n{}\n[BEGIN]\n",
      task.text, fmt::join(task.tests, "\n"));
}

std::string answer(const Task& task) { return task.code + "\n[DONE]"; }

// The solved examples before the task, each ended by a line break.
std::string shots_text(const std::vector<Task>& tasks, const std::string& origin) {
  std::string text;
  for (const int32_t id : kShotIds) {
    const auto shot =
        std::find_if(tasks.begin(), tasks.end(), [id](const Task& task) { return task.id == id; });
    if (shot == tasks.end()) {
      throw bad_input(origin, "tasks 2, 3 and 4 for three shots", fmt::format("no task {}", id));
    }
    text += question(*shot) + answer(*shot) + "\n";
  }
  return text;
}

}  // namespace

std::vector<Task> parse_tasks(std::string_view bytes, const std::string& origin) {
  std::vector<Task> tasks;
  std::set<int32_t> ids;
  size_t line_number = 0;
  for (size_t begin = 0; begin < bytes.size();) {
    const size_t end = std::min(bytes.find('\n', begin), bytes.size());
    const std::string_view line = bytes.substr(begin, end - begin);
    begin = end + 1;
    ++line_number;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const TaskLine parsed(line, fmt::format("{}:{}", origin, line_number));
    tasks.push_back(parse_task(parsed));
    if (!ids.insert(tasks.back().id).second) {
      throw bad_input(parsed.place(), "each task_id once",
                      fmt::format("task_id {} again", tasks.back().id));
    }
  }
  if (tasks.empty()) throw bad_input(origin, "a JSON object a line, one a task", "no task");
  return tasks;
}

std::vector<Task> open_tasks(const std::string& path) {
  const MappedFile file = map_file(path);
  return parse_tasks({reinterpret_cast<const char*>(file.bytes.data()), file.bytes.size()}, path);
}

std::vector<Task> embedded_tasks() {
  return parse_tasks(embedded_tasks_jsonl(), std::string(kEmbeddedOrigin));
}

std::vector<Prompt> make_prompts(const PromptOptions& options) {
  const Split& split = split_by_name(options.split);
  if (options.shots != 0 && options.shots != 3) {
    throw bad_usage(fmt::format("expected 0 or 3 shots, found {}", options.shots));
  }
  const bool embedded = options.path.empty();
  const std::vector<Task> tasks = embedded ? embedded_tasks() : open_tasks(options.path);
  const std::string origin = embedded ? std::string(kEmbeddedOrigin) : options.path;
  const std::string shots = options.shots == 3 ? shots_text(tasks, origin) : "";
  std::vector<Prompt> prompts;
  for (const Task& task : tasks) {
    if (task.id < split.first || task.id > split.last) continue;
    if (options.limit != 0 && prompts.size() == options.limit) break;
    prompts.push_back({task.id, shots + question(task), answer(task)});
  }
  if (prompts.empty()) {
    throw bad_input(origin,
                    fmt::format("a task of the split {} (task_id {} to {})", split.name,
                                split.first, split.last),
                    "none");
  }
  return prompts;
}

std::string hash_of(const std::vector<Prompt>& prompts) {
  Fnv1a hash;
  for (const Prompt& prompt : prompts) {
    hash.add_value(prompt.task_id);
    for (const std::string* text : {&prompt.prompt, &prompt.solution}) {
      hash.add_value(uint64_t{text->size()});  // so that no two lists of texts run together
      hash.add(*text);
    }
  }
  return hash.hex();
}

}  // namespace thermocline
