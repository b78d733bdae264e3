// TextOutput: what decoding writes, for the terminal and for --json.
//
// Goals: text comes out token by token, task after task in their order, the same bytes for any
//   batch: of the tasks in flight the first is shown at once, the others wait for it. No part of a
//   stop string is shown: what may be the beginning of one waits until it is known.
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
  // `prompt` is shown before its continuation; without one, each text has its task's id above it,
  // and the number of the sample where there are several. What stops a text is not shown. The rule
  // and its tokenizer outlive the output.
  TextOutput(std::FILE* out, const StopRule& rule, std::optional<std::string> prompt,
             uint32_t samples_per_task = 1);

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
    StopText text;
    size_t shown_size = 0;  // bytes
    bool ended = false;
  };
  std::string heading_of(const TaskInput& task) const;
  Text& text_of(const TaskInput& task);
  void show(std::string_view text) const;
  void show_up_to(Text& text, size_t size) const;

  std::FILE* out_;
  const StopRule& rule_;
  std::optional<std::string> prompt_;
  uint32_t samples_per_task_;
  std::vector<Text> texts_;
  size_t shown_ = 0;  // the text that tokens go to at once; those before it are complete
};

}  // namespace thermocline
