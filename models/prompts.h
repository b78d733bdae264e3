// Prompts: MBPP tasks (or tasks in its format) and the prompt the MBPP paper makes of them.
//
// Format: one JSON object a line with text, code, task_id, test_list, test_setup_code,
//   challenge_test_list. Splits by task_id: prompt 1-10, test 11-510, validation 511-600,
//   train 601-974. CRLF is normalised to LF. The three shots are tasks 2, 3 and 4, each ended by
//   a line break, as the paper's token counts have it.
// Goals: parse(bytes) apart from open(path); errors name file, line, key.
// Thread-safety: plain data and pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace thermocline {

struct Task {
  int32_t id = 0;
  std::string text;                // what to do, one sentence
  std::string code;                // reference solution
  std::vector<std::string> tests;  // assert statements
  std::string test_setup_code;
};

// Tasks of a .jsonl, in file order. Errors: bad JSON, a missing or mistyped key, a duplicate
// task_id, an empty file; each with file:line.
std::vector<Task> parse_tasks(std::string_view bytes, const std::string& origin);
std::vector<Task> open_tasks(const std::string& path);
// About twenty Python tasks of our own in the same format and the same id ranges, built in.
std::vector<Task> embedded_tasks();
std::string_view embedded_tasks_jsonl();

struct PromptOptions {
  std::string path;            // empty: the embedded tasks
  std::string split = "test";  // prompt | test | validation | train | all
  int shots = 0;               // 0 or 3
  uint32_t limit = 0;          // first N tasks of the split; 0 = all
};

struct Prompt {
  int32_t task_id;
  std::string prompt;    // ends with "[BEGIN]\n"
  std::string solution;  // reference code and "\n[DONE]", what a teacher forces
};

// Errors: unknown split, shots other than 0 or 3, a split with no task, shots whose tasks are
// absent.
std::vector<Prompt> make_prompts(const PromptOptions& options);
// FNV-1a over all prompts and solutions: names the prompt set in traces. 16 hex digits.
std::string hash_of(const std::vector<Prompt>& prompts);

}  // namespace thermocline
