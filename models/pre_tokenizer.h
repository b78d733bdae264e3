// PreTokenizer: splits a text into words, by regular expressions that a vocabulary names.
//
// The expressions are written for Oniguruma (Hugging Face tokenizers) and run on PCRE2, the only
// place where it is used. An expression that the two might read differently is refused; \s is
// White_Space as Unicode has it, which PCRE2's own \s is not (it adds U+180E). Classes such as
// \p{L} are those of PCRE2's Unicode version: 14 in 10.42, so that a letter of a newer script is no
// letter and ends up alone. Goals: hostile expressions and texts end in an Error: the steps that
// matching takes are bounded
//   by a multiple of the text's size.
// Bytes that are not valid UTF-8 are words of their own, one for each run.
// Thread-safety: const methods may be called from any thread.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

struct pcre2_real_code_8;

namespace thermocline {

class PreTokenizer {
 public:
  // One expression after the other: each match is a part, and so is what lies between two. The
  // parts of the last one are the words. `origin` is for messages. Errors: an expression that is
  // malformed, matches empty text, or is outside the syntax that is the same everywhere.
  PreTokenizer(const std::vector<std::string>& patterns, const std::string& origin);

  // Views into `text`, not empty, which together are all of it. Errors: an expression that takes
  // too many steps on this text.
  std::vector<std::string_view> split(std::string_view text) const;

 private:
  struct FreeCode {
    void operator()(pcre2_real_code_8* code) const;
  };
  struct Expression {
    std::string pattern;  // for messages
    std::unique_ptr<pcre2_real_code_8, FreeCode> code;
  };

  std::vector<Expression> expressions_;
  std::string origin_;
};

}  // namespace thermocline
