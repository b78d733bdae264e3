// What decoding shows: never a token of one task in the text of another, nor a part of a stop
// string.
#include "runtime/text_output.h"

#include <catch2/catch.hpp>

#include "models/cli.h"
#include "tests/support.h"

namespace thermocline::test {
namespace {

struct Shown {
  TempDir folder;
  std::string path = folder / "out.txt";
  std::FILE* file = std::fopen(path.c_str(), "w");
  std::unique_ptr<Tokenizer> tokenizer = open_tokenizer("byte", 300);
  StopRule rule = {{tokenizer->eos_id()}, {}, tokenizer.get()};
  ~Shown() { std::fclose(file); }

  void say(TextOutput& out, const TaskInput& task, const std::string& text) const {
    for (const int32_t token : tokenizer->encode(text)) out.on_token(task, 1, token);
  }
  std::string text() const { return read_file(path); }
};

TaskInput task_of(uint32_t index) {
  TaskInput task;
  task.index = index;
  task.task_id = 10 + static_cast<int32_t>(index);
  return task;
}

TEST_CASE(
    "text of the first task in flight is shown at once, of the others when it is their turn") {
  const Shown shown;
  TextOutput out(shown.file, shown.rule, {});
  const TaskInput a = task_of(0), b = task_of(1), c = task_of(3);
  out.on_task_begin(a);
  CHECK(shown.text() == "\ntask 10:\n");
  shown.say(out, a, "aa");
  out.on_task_begin(b);
  shown.say(out, b, "bb");
  CHECK(shown.text() == "\ntask 10:\naa");
  out.on_token(b, 1, shown.tokenizer->eos_id());
  out.on_task_end(b);
  out.on_task_begin(c);
  shown.say(out, c, "cc");
  shown.say(out, a, "A");
  CHECK(shown.text() == "\ntask 10:\naaA");
  out.on_task_end(a);
  const std::string both = "\ntask 10:\naaA\n\ntask 11:\nbb\n";
  CHECK(shown.text() == both + "\ntask 13:\ncc");
  shown.say(out, c, "C");
  CHECK(shown.text() == both + "\ntask 13:\nccC");
  out.on_task_end(c);
  out.finish();
  CHECK(shown.text() == both + "\ntask 13:\nccC\n");
  CHECK(out.texts() == std::vector<std::string>{"aaA", "bb", "ccC"});
}

TEST_CASE("an interruption shows what was waiting") {
  const Shown shown;
  TextOutput out(shown.file, shown.rule, {});
  const TaskInput a = task_of(0), b = task_of(1);
  out.on_task_begin(a);
  out.on_task_begin(b);
  shown.say(out, b, "b");
  shown.say(out, a, "a");
  out.finish();
  CHECK(shown.text() == "\ntask 10:\na\n\ntask 11:\nb\n");
}

TEST_CASE("a prompt is shown before its continuation") {
  const Shown shown;
  TextOutput out(shown.file, shown.rule, "def f");
  const TaskInput task = task_of(0);
  out.on_task_begin(task);
  shown.say(out, task, "(x)");
  out.on_task_end(task);
  CHECK(shown.text() == "\ndef f(x)\n");
}

TEST_CASE("what may be the beginning of a stop string is shown once it is none") {
  Shown shown;
  shown.rule.strings = {"\nassert"};
  TextOutput out(shown.file, shown.rule, "");
  const TaskInput task = task_of(0);
  out.on_task_begin(task);
  shown.say(out, task, "x\nass");
  CHECK(shown.text() == "\nx");
  shown.say(out, task, "\n");  // the second line break may be one again
  CHECK(shown.text() == "\nx\nass");
  shown.say(out, task, "assert y");
  out.on_task_end(task);
  CHECK(shown.text() == "\nx\nass\n");
  CHECK(out.texts() == std::vector<std::string>{"x\nass"});
}

TEST_CASE("a task that ends within a stop string shows what there is of it") {
  Shown shown;
  shown.rule.strings = {"[DONE]"};
  TextOutput out(shown.file, shown.rule, {}, 2);
  TaskInput a = task_of(0), b = task_of(1);
  b.sample = 1;
  out.on_task_begin(a);
  out.on_task_begin(b);
  shown.say(out, b, "b[D");
  shown.say(out, a, "a[DON");
  CHECK(shown.text() == "\ntask 10, sample 0:\na");
  out.on_task_end(a);
  CHECK(shown.text() == "\ntask 10, sample 0:\na[DON\n\ntask 11, sample 1:\nb");
  out.finish();
  CHECK(shown.text() == "\ntask 10, sample 0:\na[DON\n\ntask 11, sample 1:\nb[D\n");
}

}  // namespace
}  // namespace thermocline::test
