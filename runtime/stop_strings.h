// Stop strings: texts at which decoding of a task ends, and the text in front of them.
//
// A stop string is found in the bytes of the decoded text, so it may begin in one token and end in
//   another, and so may a character. What an end shares with the beginning of a stop string is not
//   certain yet.
// Goals: every rank that adds the same pieces sees the same end, at the same token, without a
//   message. Non-goals: the prompt, whose text never stops anything.
// Thread-safety: a StopText belongs to one thread; the rest are pure functions.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "models/tokenizer.h"

namespace thermocline {

// A stop string as the command line writes it: \n, \t and \\ stand for a line break, a tab and a
// backslash. Usage Error: another escape, text that is not UTF-8.
std::string parse_stop_string(std::string_view text);

// Those of prompts in MBPP's form, whose solutions end with [DONE], and those with which
// bigcode-evaluation-harness ends MBPP's.
std::vector<std::string> mbpp_stop_strings();

class StopText {
 public:
  // `stops` outlive it; none of them is empty.
  explicit StopText(std::span<const std::string> stops = {}) : stops_(stops) {}

  // True where a stop string ended in `piece`; nothing is added from then on.
  bool add(std::string_view piece);

  bool stopped() const { return stopped_; }
  const std::string& text() const { return text_; }  // in front of the first stop string
  // Bytes of the text that no further piece takes back.
  size_t certain_size() const;

 private:
  std::span<const std::string> stops_;
  std::string text_;
  bool stopped_ = false;
};

// Why a task ended.
enum class Finish {
  length,  // its last token, or the model's last position
  eos,     // a stop token
  stop,    // a stop string
};
std::string_view name_of(Finish finish);

// What ends a text before its length does.
struct StopRule {
  std::vector<int32_t> tokens;
  std::vector<std::string> strings;
  const Tokenizer* tokenizer = nullptr;  // which strings need

  bool has_token(int32_t token) const;
};

struct DecodedText {
  std::string text;
  Finish finish = Finish::length;
};

// The text of all tokens that a task decoded, as the rule ended it.
DecodedText decoded_text(const StopRule& rule, int32_t last_of_prompt,
                         std::span<const int32_t> tokens);

}  // namespace thermocline
