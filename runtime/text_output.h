// TextOutput: what greedy decoding writes, for the terminal and for --json.
//
// Goals: text comes out token by token, task after task in their order, the same bytes for any
//   batch: of the tasks in flight the first is shown at once, the others wait for it.
// Non-goals: teacher forcing, which writes nothing.
// Thread-safety: rank 0's thread.
#pragma once

#include <cstdio>
#include <optional>
#include <string>
#include <vector>

#include "models/tokenizer.h"
#include "runtime/engine.h"

namespace thermocline {

class TextOutput final : public TokenObserver {
 public:
  // `prompt` is shown before its continuation; without one, each text has its task's id above it.
  // Stop tokens are not shown. The tokenizer outlives the output.
  TextOutput(std::FILE* out, const Tokenizer& tokenizer, std::vector<int32_t> stop_tokens,
             std::optional<std::string> prompt);

  void on_task_begin(const TaskInput& task) override;
  void on_token(const TaskInput& task, int32_t previous, int32_t token) override;
  void on_task_end(const TaskInput& task) override;

  // Shows what still waits: after an interruption, tasks behind one that did not end.
  void finish();
  std::vector<std::string> texts() const;  // of the tasks that began, in order

 private:
  struct Text {
    uint32_t task;  // TaskInput::index
    std::string heading;
    std::string text;
    bool ended = false;
  };
  Text& text_of(const TaskInput& task);
  void show(const std::string& text) const;

  std::FILE* out_;
  const Tokenizer& tokenizer_;
  std::vector<int32_t> stop_tokens_;
  std::optional<std::string> prompt_;
  std::vector<Text> texts_;
  size_t shown_ = 0;  // the text that tokens go to at once; those before it are complete
};

}  // namespace thermocline
