#include "runtime/text_output.h"

#include <fmt/format.h>

#include <algorithm>

#include "models/error.h"

namespace thermocline {

TextOutput::TextOutput(std::FILE* out, const StopRule& rule, std::optional<std::string> prompt,
                       uint32_t samples_per_task)
    : out_(out), rule_(rule), prompt_(std::move(prompt)), samples_per_task_(samples_per_task) {}

std::string TextOutput::heading_of(const TaskInput& task) const {
  if (prompt_.has_value()) return *prompt_;
  if (samples_per_task_ == 1) return fmt::format("task {}:\n", task.task_id);
  return fmt::format("task {}, sample {}:\n", task.task_id, task.sample);
}

void TextOutput::on_task_begin(const TaskInput& task) {
  texts_.push_back({task.index, heading_of(task), StopText(rule_.strings)});
  if (shown_ + 1 == texts_.size()) show("\n" + texts_.back().heading);
}

void TextOutput::on_token(const TaskInput& task, int32_t previous, int32_t token) {
  if (rule_.has_token(token)) return;
  Text& text = text_of(task);
  text.text.add(rule_.tokenizer->decode(previous, token));
  if (&text == &texts_[shown_]) show_up_to(text, text.text.certain_size());
}

void TextOutput::on_task_end(const TaskInput& task) {
  text_of(task).ended = true;
  while (shown_ < texts_.size() && texts_[shown_].ended) {
    show_up_to(texts_[shown_], texts_[shown_].text.text().size());
    show("\n");
    if (++shown_ == texts_.size()) return;
    show("\n" + texts_[shown_].heading);
    show_up_to(texts_[shown_], texts_[shown_].text.certain_size());
  }
}

void TextOutput::finish() {
  for (bool first = true; shown_ < texts_.size(); ++shown_, first = false) {
    if (!first) show("\n" + texts_[shown_].heading);
    show_up_to(texts_[shown_], texts_[shown_].text.text().size());
    show("\n");
  }
}

std::vector<std::string> TextOutput::texts() const {
  std::vector<std::string> texts;
  for (const Text& text : texts_) texts.push_back(text.text.text());
  return texts;
}

TextOutput::Text& TextOutput::text_of(const TaskInput& task) {
  // Those that still change are the last ones.
  const auto found = std::find_if(texts_.rbegin(), texts_.rend(),
                                  [&task](const Text& text) { return text.task == task.index; });
  TC_CHECK(found != texts_.rend(), "a task that began");
  return *found;
}

void TextOutput::show(std::string_view text) const {
  fmt::print(out_, "{}", text);
  std::fflush(out_);
}

void TextOutput::show_up_to(Text& text, size_t size) const {
  show(std::string_view(text.text.text()).substr(text.shown_size, size - text.shown_size));
  text.shown_size = size;
}

}  // namespace thermocline
