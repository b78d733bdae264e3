// Prompts: the parser against hostile lines, the template against MBPP, our own tasks against
// Python.
#include "models/prompts.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <fstream>
#include <map>
#include <set>

#include "models/cli.h"
#include "models/tokenizer.h"
#include "tests/models/failures.h"
#include "tests/support.h"

namespace thermocline::test {
namespace {

using Catch::Contains;

const std::string kGood =
    R"({"text": "Do.", "code": "x = 1\r\ny = 2", "task_id": 11, "test_setup_code": "s\r\n",)"
    R"( "test_list": ["assert x\r\n", "assert y"], "challenge_test_list": []})";

Failure parse_failure(const std::string& bytes) {
  return failure_of([&bytes] { parse_tasks(bytes, "tasks.jsonl"); });
}

TEST_CASE("a task is read with CRLF as LF") {
  const auto tasks = parse_tasks(kGood + "\r\n\r\n  \n", "tasks.jsonl");
  REQUIRE(tasks.size() == 1);
  CHECK(tasks[0].id == 11);
  CHECK(tasks[0].text == "Do.");
  CHECK(tasks[0].code == "x = 1\ny = 2");
  CHECK(tasks[0].test_setup_code == "s\n");
  CHECK(tasks[0].tests == std::vector<std::string>{"assert x\n", "assert y"});
}

TEST_CASE("a CR that lost its LF at the end goes, one inside stays") {
  const auto tasks = parse_tasks(
      R"({"text": "a\rb", "code": "f()\r", "task_id": 1, "test_list": []})", "tasks.jsonl");
  CHECK(tasks[0].code == "f()");
  CHECK(tasks[0].text == "a\rb");
  CHECK(tasks[0].test_setup_code.empty());
}

TEST_CASE("bad lines are input errors with file and line") {
  const struct {
    const char* line;
    const char* says;
  } cases[] = {
      {"{", "one JSON object in UTF-8"},
      {"nonsense", "one JSON object in UTF-8"},
      {"[1, 2]", "a JSON object, found array"},
      {"17", "a JSON object, found 17"},
      {"{} {}", "one JSON object in UTF-8"},
      {"{}", "key \"task_id\", found none"},
      {R"({"task_id": 1})", "key \"text\""},
      {R"({"task_id": 1, "text": 5})", "a text as \"text\", found 5"},
      {R"({"task_id": 1, "text": null})", "a text as \"text\", found null"},
      {R"({"task_id": 1, "text": "a"})", "key \"code\""},
      {R"({"task_id": 1, "text": "a", "code": "b"})", "key \"test_list\""},
      {R"({"task_id": 1, "text": "a", "code": "b", "test_list": "t"})", "a list of texts"},
      {R"({"task_id": 1, "text": "a", "code": "b", "test_list": ["t", 1]})", "a list of texts"},
      {R"({"task_id": 1, "text": "a", "code": "b", "test_list": [], "test_setup_code": 1})",
       "a text as \"test_setup_code\""},
      {R"({"task_id": "1"})", "a positive whole number as \"task_id\""},
      {R"({"task_id": 1.5})", "a positive whole number"},
      {R"({"task_id": 0})", "a positive whole number"},
      {R"({"task_id": -3})", "a positive whole number"},
      {R"({"task_id": 2147483648})", "a positive whole number"},
      {R"({"task_id": 18446744073709551615})", "a positive whole number"},
      {R"({"task_id": 1e400})", "one JSON object in UTF-8"},
      {"{\"task_id\": 1, \"text\": \"\xff\"}", "one JSON object in UTF-8"},
      {"{\"task_id\": 1, \"text\": \"\\ud800\"}", "one JSON object in UTF-8"},
      {"{\"task_id\": 1, \"text\": \"\xc3", "one JSON object in UTF-8"},
  };
  for (const auto& c : cases) {
    INFO(c.line);
    const Failure failure = parse_failure(kGood + "\n" + c.line + "\n");
    CHECK(failure.kind == ErrorKind::input);
    CHECK_THAT(failure.message, Contains("tasks.jsonl:2: expected") && Contains(c.says));
  }
}

TEST_CASE("a task_id that comes twice is an input error at its second line") {
  const Failure failure = parse_failure(kGood + "\n\n" + kGood);
  CHECK(failure.kind == ErrorKind::input);
  CHECK_THAT(failure.message, Contains("tasks.jsonl:3:") && Contains("task_id 11 again"));
}

TEST_CASE("a file without a task is an input error") {
  for (const char* bytes : {"", "\n", " \r\n\t\n"}) {
    const Failure failure = parse_failure(bytes);
    CHECK(failure.kind == ErrorKind::input);
    CHECK_THAT(failure.message, Contains("tasks.jsonl:") && Contains("found no task"));
  }
}

TEST_CASE("huge and deep lines are refused without harm") {
  const Failure huge = parse_failure("\n" + std::string(size_t{3} << 20, 'x'));
  CHECK(huge.kind == ErrorKind::input);
  CHECK_THAT(huge.message, Contains("tasks.jsonl:2:") && Contains("a line of at most"));
  CHECK(parse_failure(std::string(1'000'000, '[')).kind == ErrorKind::input);
  const std::string deep = std::string(400'000, '[') + std::string(400'000, ']');
  CHECK_THAT(parse_failure(deep).message, Contains("a JSON object, found array"));
  // A megabyte of line ends takes no time that grows with its square.
  std::string breaks;
  for (int i = 0; i < 200'000; ++i) breaks += R"(\r\n)";
  const auto tasks = parse_tasks(
      R"({"text": "", "code": ")" + breaks + R"(", "task_id": 1, "test_list": []})", "x");
  CHECK(tasks[0].code == std::string(200'000, '\n'));
}

TEST_CASE("a file cut at any byte gives the tasks before the cut or an input error") {
  const std::string whole = kGood + "\n" + R"({"text": "ü", "code": "", "task_id": 12, )" +
                            R"("test_list": ["t"]})" + "\n";
  const size_t first_line = kGood.size();
  for (size_t size = 0; size < whole.size(); ++size) {
    INFO("cut at byte " << size);
    const std::string cut = whole.substr(0, size);
    const bool whole_lines =
        size == first_line || size == first_line + 1 || size == whole.size() - 1;
    if (whole_lines) {
      CHECK(parse_tasks(cut, "cut").size() == (size > first_line + 1 ? 2 : 1));
    } else {
      CHECK(parse_failure(cut).kind == ErrorKind::input);
    }
  }
}

TEST_CASE("a missing file or a folder is an input error that names it") {
  const TempDir folder;
  const std::string missing = folder / "no.jsonl";
  const Failure failure = failure_of([&missing] { open_tasks(missing); });
  CHECK(failure.kind == ErrorKind::input);
  CHECK_THAT(failure.message, Contains(missing) && Contains("No such file"));
  CHECK_THAT(failure_of([&folder] { open_tasks(folder.path()); }).message, Contains("a folder"));
  std::ofstream(folder / "empty.jsonl").flush();
  CHECK_THAT(failure_of([&folder] { open_tasks(folder / "empty.jsonl"); }).message,
             Contains("found no task"));
}

TEST_CASE("options that name nothing are errors") {
  CHECK_THAT(failure_of([] { make_prompts({.path = {}, .split = "tset"}); }).message,
             Contains("unknown split 'tset'; did you mean 'test'?"));
  for (const int shots : {-1, 1, 2, 4}) {
    const Failure failure = failure_of([shots] { make_prompts({.path = {}, .shots = shots}); });
    CHECK(failure.kind == ErrorKind::usage);
    CHECK_THAT(failure.message, Contains("expected 0 or 3 shots"));
  }
  const TempDir folder;
  const std::string path = folder / "one.jsonl";
  std::ofstream(path) << kGood << "\n";
  CHECK(make_prompts({.path = path}).size() == 1);
  const Failure empty_split = failure_of([&] { make_prompts({.path = path, .split = "train"}); });
  CHECK(empty_split.kind == ErrorKind::input);
  CHECK_THAT(empty_split.message, Contains(path) && Contains("split train (task_id 601 to 974)"));
  const Failure no_shots = failure_of([&] { make_prompts({.path = path, .shots = 3}); });
  CHECK(no_shots.kind == ErrorKind::input);
  CHECK_THAT(no_shots.message, Contains("tasks 2, 3 and 4 for three shots, found no task 2"));
}

TEST_CASE("a prompt has the words of MBPP's README") {
  const TempDir folder;
  const std::string path = folder / "one.jsonl";
  std::ofstream(path) << kGood << "\n";
  const auto prompts = make_prompts({.path = path});
  REQUIRE(prompts.size() == 1);
  CHECK(prompts[0].task_id == 11);
  CHECK(prompts[0].prompt ==
        "You are an expert Python programmer, and here is your task: Do. Your code should pass "
        "these tests:\n\nassert x\n\nassert y\n[BEGIN]\n");
  CHECK(prompts[0].solution == "x = 1\ny = 2\n[DONE]");
}

TEST_CASE("three shots stand before the task, solved") {
  const auto solved = make_prompts({.path = {}, .split = "prompt"});
  REQUIRE(solved.size() == 3);
  std::string shots;
  for (const Prompt& shot : solved) shots += shot.prompt + shot.solution + "\n";
  const auto plain = make_prompts({});
  const auto with_shots = make_prompts({.path = {}, .shots = 3});
  REQUIRE(plain.size() == with_shots.size());
  for (size_t i = 0; i < plain.size(); ++i) {
    CHECK(with_shots[i].prompt == shots + plain[i].prompt);
    CHECK(with_shots[i].solution == plain[i].solution);
  }
}

TEST_CASE("a limit takes the first tasks of the split") {
  const auto all = make_prompts({.path = {}, .split = "test"});
  const auto two = make_prompts({.path = {}, .split = "test", .limit = 2});
  REQUIRE(two.size() == 2);
  CHECK(two[1].task_id == all[1].task_id);
  CHECK(make_prompts({.path = {}, .split = "test", .limit = 1000}).size() == all.size());
}

TEST_CASE("the hash names the prompts: stable, and changed by any of them") {
  const std::vector<Prompt> prompts = {{11, "ab", "c"}, {12, "d", "e"}};
  CHECK(hash_of(prompts) == hash_of(prompts));
  CHECK(hash_of(prompts).size() == 16);
  for (const auto& other : std::vector<std::vector<Prompt>>{{},
                                                            {{11, "ab", "c"}},
                                                            {{12, "d", "e"}, {11, "ab", "c"}},
                                                            {{11, "a", "bc"}, {12, "d", "e"}},
                                                            {{13, "ab", "c"}, {12, "d", "e"}}}) {
    CHECK(hash_of(other) != hash_of(prompts));
  }
}

TEST_CASE("MBPP has its published splits, no CRLF and the one task that overflows a context") {
  const std::string path = data_file("mbpp.jsonl");
  if (path.empty()) return;
  const std::map<std::string, size_t> sizes = {
      {"prompt", 10}, {"test", 500}, {"validation", 90}, {"train", 374}, {"all", 974}};
  for (const auto& [split, size] : sizes) {
    INFO(split);
    CHECK(make_prompts({.path = path, .split = split}).size() == size);
  }
  size_t longest = 0;
  int32_t longest_id = 0;
  for (const Prompt& prompt : make_prompts({.path = path, .split = "test", .shots = 3})) {
    CHECK(prompt.prompt.ends_with("\n[BEGIN]\n"));
    CHECK(prompt.solution.ends_with("\n[DONE]"));
    CHECK((prompt.prompt + prompt.solution).find("\r\n") == std::string::npos);
    if (prompt.prompt.size() > longest) longest = prompt.prompt.size(), longest_id = prompt.task_id;
  }
  CHECK(longest_id == 493);
  const auto tasks = open_tasks(path);
  const auto task = std::find_if(tasks.begin(), tasks.end(),
                                 [](const Task& candidate) { return candidate.id == 493; });
  REQUIRE(task != tasks.end());
  size_t test_size = task->tests.size() - 1;  // the line breaks between them
  for (const std::string& test : task->tests) test_size += test.size();
  CHECK(test_size == 4147);
}

TEST_CASE("MBPP's prompts have the token counts that Llama 2's vocabulary gives") {
  const std::string path = data_file("mbpp.jsonl");
  const std::string vocabulary = data_file("ggml-vocab-llama-spm.gguf");
  if (path.empty() || vocabulary.empty()) return;
  const auto tokenizer = open_tokenizer(vocabulary, 32000);
  const auto counts = [&](int shots) {
    std::vector<size_t> sizes;
    for (const Prompt& prompt : make_prompts({.path = path, .split = "test", .shots = shots})) {
      sizes.push_back(tokenizer->encode(prompt.prompt).size() + 1);  // and the BOS
    }
    std::sort(sizes.begin(), sizes.end());
    return sizes;
  };
  const auto plain = counts(0), with_shots = counts(3);
  CHECK(plain.front() == 73);
  CHECK(plain.back() == 3753);
  CHECK(with_shots.front() == 707);
  CHECK(with_shots.back() == 4387);  // task 493, beyond a context of 4096
}

TEST_CASE("the built-in tasks fill every split with whole, distinct tasks") {
  const auto tasks = embedded_tasks();
  CHECK(tasks.size() == 22);
  std::set<std::string> texts;
  for (const Task& task : tasks) {
    INFO("task " << task.id);
    CHECK(task.tests.size() == 3);
    CHECK(task.text.starts_with("Write a function"));
    CHECK(task.code.find("def ") != std::string::npos);
    CHECK_FALSE(task.code.starts_with("\n"));
    CHECK(texts.insert(task.text).second);
  }
  CHECK(make_prompts({.path = {}, .split = "prompt"}).size() == 3);
  CHECK(make_prompts({.path = {}, .split = "test"}).size() == 10);
  CHECK(make_prompts({.path = {}, .split = "validation"}).size() == 2);
  CHECK(make_prompts({.path = {}, .split = "train"}).size() == 7);
}

TEST_CASE("no built-in task is one of MBPP's") {
  const std::string path = data_file("mbpp.jsonl");
  if (path.empty()) return;
  std::set<std::string> published;
  for (const Task& task : open_tasks(path)) published.insert({task.text, task.code});
  for (const Task& task : embedded_tasks()) {
    CHECK_FALSE(published.contains(task.text));
    CHECK_FALSE(published.contains(task.code));
  }
}

TEST_CASE("the built-in solutions pass their tests, and a wrong one would not") {
  if (run_command("python3 --version").exit_code != 0) {
    WARN("skipped: no python3 to run the solutions with");
    return;
  }
  std::string program = "import sys\n";
  for (const Task& task : embedded_tasks()) {
    program += task.code + "\n";
    for (const std::string& test : task.tests) program += test + "\n";
  }
  const TempDir folder;
  write_file(folder / "tasks.py", program);
  const CommandResult result = run_command("python3 " + (folder / "tasks.py"));
  INFO(result.output);
  CHECK(result.exit_code == 0);
  write_file(folder / "wrong.py", program + "assert clock_text(59) == \"0:01:00\"\n");
  CHECK(run_command("python3 " + (folder / "wrong.py")).exit_code != 0);
}

}  // namespace
}  // namespace thermocline::test
