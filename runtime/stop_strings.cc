#include "runtime/stop_strings.h"

#include <fmt/format.h>

#include <algorithm>

#include "models/error.h"
#include "models/utf8.h"

namespace thermocline {
namespace {

// The most bytes that the end of `text` has in common with the beginning of `stop`, but not all.
size_t overlap(std::string_view text, std::string_view stop) {
  for (size_t size = std::min(text.size(), stop.size() - 1); size > 0; --size) {
    if (text.ends_with(stop.substr(0, size))) return size;
  }
  return 0;
}

// Traces and rows name stop strings in JSON.
void require_utf8(std::string_view text) {
  while (!text.empty()) {
    const size_t size = utf8_size(text);
    if (size == 0) throw bad_usage("--stop: expected text in UTF-8");
    text.remove_prefix(size);
  }
}

}  // namespace

std::string parse_stop_string(std::string_view text) {
  require_utf8(text);
  std::string parsed;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\\') {
      parsed += text[i];
      continue;
    }
    const char escape = ++i < text.size() ? text[i] : '\0';
    if (escape != 'n' && escape != 't' && escape != '\\') {
      throw bad_usage(fmt::format("--stop {}: expected \\n, \\t or \\\\ at a backslash", text));
    }
    parsed += escape == 'n' ? '\n' : escape == 't' ? '\t' : '\\';
  }
  return parsed;
}

std::vector<std::string> mbpp_stop_strings() {
  return {"[DONE]", "\nclass", "\nassert", "\n\"\"\"", "\nprint", "\nif", "\n<|/", "\n```"};
}

// Of several stop strings in the text the one that begins first ends it.
bool StopText::add(std::string_view piece) {
  if (stopped_) return true;
  const size_t before = text_.size();
  text_ += piece;
  size_t end = std::string::npos;
  for (const std::string& stop : stops_) {
    const size_t from = before - std::min(before, stop.size() - 1);
    end = std::min(end, text_.find(stop, from));
  }
  stopped_ = end != std::string::npos;
  if (stopped_) text_.resize(end);
  return stopped_;
}

size_t StopText::certain_size() const {
  size_t held = 0;
  if (stopped_) return text_.size();
  for (const std::string& stop : stops_) held = std::max(held, overlap(text_, stop));
  return text_.size() - held;
}

std::string_view name_of(Finish finish) {
  switch (finish) {
    case Finish::length:
      return "length";
    case Finish::eos:
      return "eos";
    case Finish::stop:
      break;
  }
  return "stop";
}

bool StopRule::has_token(int32_t token) const {
  return std::find(tokens.begin(), tokens.end(), token) != tokens.end();
}

DecodedText decoded_text(const StopRule& rule, int32_t last_of_prompt,
                         std::span<const int32_t> tokens) {
  StopText text(rule.strings);
  int32_t previous = last_of_prompt;
  for (const int32_t token : tokens) {
    if (rule.has_token(token)) return {text.text(), Finish::eos};
    if (text.add(rule.tokenizer->decode(previous, token))) return {text.text(), Finish::stop};
    previous = token;
  }
  return {text.text(), Finish::length};
}

}  // namespace thermocline
