#include "runtime/text_output.h"

#include <fmt/format.h>

#include <algorithm>

#include "models/error.h"

namespace thermocline {

TextOutput::TextOutput(std::FILE* out, const Tokenizer& tokenizer, std::vector<int32_t> stop_tokens,
                       std::optional<std::string> prompt)
    : out_(out),
      tokenizer_(tokenizer),
      stop_tokens_(std::move(stop_tokens)),
      prompt_(std::move(prompt)) {}

void TextOutput::on_task_begin(const TaskInput& task) {
  texts_.push_back(
      {task.index, prompt_.has_value() ? *prompt_ : fmt::format("task {}:\n", task.task_id), ""});
  if (shown_ + 1 == texts_.size()) show("\n" + texts_.back().heading);
}

void TextOutput::on_token(const TaskInput& task, int32_t previous, int32_t token) {
  if (std::find(stop_tokens_.begin(), stop_tokens_.end(), token) != stop_tokens_.end()) return;
  const std::string piece = tokenizer_.decode(previous, token);
  Text& text = text_of(task);
  text.text += piece;
  if (&text == &texts_[shown_]) show(piece);
}

void TextOutput::on_task_end(const TaskInput& task) {
  text_of(task).ended = true;
  while (shown_ < texts_.size() && texts_[shown_].ended) {
    show("\n");
    if (++shown_ < texts_.size()) show("\n" + texts_[shown_].heading + texts_[shown_].text);
  }
}

void TextOutput::finish() {
  for (bool first = true; shown_ < texts_.size(); ++shown_, first = false) {
    if (!first) show("\n" + texts_[shown_].heading + texts_[shown_].text);
    show("\n");
  }
}

std::vector<std::string> TextOutput::texts() const {
  std::vector<std::string> texts;
  for (const Text& text : texts_) texts.push_back(text.text);
  return texts;
}

TextOutput::Text& TextOutput::text_of(const TaskInput& task) {
  // Those that still change are the last ones.
  const auto found = std::find_if(texts_.rbegin(), texts_.rend(),
                                  [&task](const Text& text) { return text.task == task.index; });
  TC_CHECK(found != texts_.rend(), "a task that began");
  return *found;
}

void TextOutput::show(const std::string& text) const {
  fmt::print(out_, "{}", text);
  std::fflush(out_);
}

}  // namespace thermocline
