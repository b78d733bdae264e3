#include "models/pre_tokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <fmt/format.h>
#include <pcre2.h>

#include <algorithm>
#include <cctype>
#include <new>

#include "models/error.h"
#include "models/utf8.h"

#if PCRE2_MAJOR == 10 && PCRE2_MINOR < 40
#error "PCRE2 10.40 or later: \\p{White_Space} came with it"
#endif

namespace thermocline {
namespace {

constexpr size_t kPatternBytesMax = 4096;  // the longest in use have some hundred
constexpr uint32_t kHeapKibibytesMax = 16 << 10;

// Steps are PCRE2's own count of its backtracking. A search that needs more than a few of them
// draws on a budget that grows with the text.
constexpr uint32_t kStepsOfASearch = 4096;
constexpr uint32_t kStepsGrowth = 8;
constexpr uint64_t kStepsPerByte = 256;
constexpr uint64_t kStepsOfAText = uint64_t{1} << 20;

// An expression in the syntax that Oniguruma and PCRE2 share, rewritten where the same syntax has
// another meaning: alternatives, groups without names, lookahead, classes, general categories,
// quantifiers.
class SharedSyntax {
 public:
  SharedSyntax(std::string_view pattern, const std::string& origin)
      : rest_(pattern), pattern_(pattern), origin_(origin) {}

  std::string rewritten() {
    if (pattern_.size() > kPatternBytesMax) {
      throw bad_input(origin_, fmt::format("an expression of at most {} bytes", kPatternBytesMax),
                      fmt::format("{}", pattern_.size()));
    }
    while (!rest_.empty()) step();
    return std::move(out_);
  }

 private:
  [[noreturn]] void refuse(std::string_view what) const {
    throw bad_input(fmt::format("{}: expression '{}'", origin_, pattern_),
                    "syntax that means the same to Oniguruma and PCRE2",
                    fmt::format("'{}' at byte {}", what, pattern_.size() - rest_.size()));
  }

  void copy(size_t size) {
    out_ += rest_.substr(0, size);
    rest_.remove_prefix(size);
  }

  void step() {
    const char c = rest_[0];
    if (c == '\\') return escape();
    if (in_class_) return class_member();
    if (c == '(') return group();
    if (c == '[') return open_class();
    if (c == '{') return quantifier();
    if (c == '^' || c == '$' || c == '.') refuse(rest_.substr(0, 1));
    copy(1);
  }

  void escape() {
    if (rest_.size() < 2) refuse(rest_);
    const char c = rest_[1];
    if (c == 's' || c == 'S') {
      out_ += c == 's' ? "\\p{wspace}" : "\\P{wspace}";
      rest_.remove_prefix(2);
      return;
    }
    if (c == 'p' || c == 'P') return category();
    const bool same = std::string_view("dDrnt").find(c) != std::string_view::npos ||
                      (c > ' ' && c <= '~' && !std::isalnum(static_cast<unsigned char>(c)));
    if (!same) refuse(rest_.substr(0, 2));
    copy(2);
  }

  // \p{L}, \p{Lu}: names of scripts mean different sets.
  void category() {
    const size_t end = std::min(rest_.find('}'), rest_.size());
    const std::string_view name =
        rest_.substr(std::min<size_t>(3, end), end - std::min<size_t>(3, end));
    const bool closed = end < rest_.size();
    const bool known = closed && rest_.size() > 3 && rest_[2] == '{' &&
                       (name.size() == 1 || name.size() == 2) &&
                       std::string_view("LMNPSZC").find(name[0]) != std::string_view::npos &&
                       (name.size() == 1 || (name[1] >= 'a' && name[1] <= 'z'));
    if (!known) refuse(rest_.substr(0, std::min<size_t>(end + 1, 12)));
    copy(end + 1);
  }

  void group() {
    if (rest_.starts_with("(*")) refuse("(*");
    if (!rest_.starts_with("(?")) return copy(1);
    for (const std::string_view opening : {"(?:", "(?=", "(?!", "(?i:", "(?>"}) {
      if (rest_.starts_with(opening)) return copy(opening.size());
    }
    refuse(rest_.substr(0, 3));
  }

  void open_class() {
    const size_t size = rest_.starts_with("[^") ? 2 : 1;
    if (rest_.substr(size).starts_with(']')) refuse(rest_.substr(0, size + 1));
    copy(size);
    in_class_ = true;
  }

  void class_member() {
    if (rest_[0] == '[' || rest_.starts_with("&&")) refuse(rest_.substr(0, 2));
    in_class_ = rest_[0] != ']';
    copy(1);
  }

  // {n}, {n,} or {n,m}, which Ruby's syntax does not make possessive by a plus.
  void quantifier() {
    const size_t end = rest_.find('}');
    const std::string_view count = rest_.substr(1, end == std::string_view::npos ? 0 : end - 1);
    const bool digits_first = !count.empty() && count[0] != ',';
    if (!digits_first || count.find_first_not_of("0123456789,") != std::string_view::npos ||
        rest_.substr(end + 1).starts_with('+')) {
      refuse(rest_.substr(0, 8));
    }
    copy(end + 1);
  }

  std::string_view rest_;
  const std::string_view pattern_;
  const std::string& origin_;
  std::string out_;
  bool in_class_ = false;
};

template <auto Free>
struct Freed {
  template <class T>
  void operator()(T* object) const {
    Free(object);
  }
};
using MatchContext = std::unique_ptr<pcre2_match_context, Freed<pcre2_match_context_free>>;
using MatchData = std::unique_ptr<pcre2_match_data, Freed<pcre2_match_data_free>>;

template <class T>
T* allocated(T* object) {
  if (object == nullptr) throw std::bad_alloc();
  return object;
}

std::string message_of(int code) {
  PCRE2_UCHAR text[128];
  const int size = pcre2_get_error_message(code, text, sizeof text);
  return {reinterpret_cast<const char*>(text), static_cast<size_t>(std::max(size, 0))};
}

pcre2_code* compiled(const std::string& pattern, const std::string& origin) {
  const std::string portable = SharedSyntax(pattern, origin).rewritten();
  const auto* units = reinterpret_cast<PCRE2_SPTR>(portable.data());
  int code = 0;
  PCRE2_SIZE at = 0;
  pcre2_code* expression =
      pcre2_compile(units, portable.size(), PCRE2_UTF | PCRE2_UCP, &code, &at, nullptr);
  const std::string where = fmt::format("{}: expression '{}'", origin, pattern);
  if (expression == nullptr) throw bad_input(where, "a regular expression", message_of(code));
  uint32_t matches_empty = 0;
  pcre2_pattern_info(expression, PCRE2_INFO_MATCHEMPTY, &matches_empty);
  if (matches_empty != 0) {
    pcre2_code_free(expression);
    throw bad_input(where, "one that matches some text", "one that matches none at all");
  }
  pcre2_jit_compile(expression, PCRE2_JIT_COMPLETE);  // where it cannot, matching interprets
  return expression;
}

// Searches in the parts of one text, in bounded time.
class Searcher {
 public:
  Searcher(const pcre2_code* code, size_t text_bytes)
      : code_(code),
        context_(allocated(pcre2_match_context_create(nullptr))),
        match_(allocated(pcre2_match_data_create(1, nullptr))),
        steps_left_(kStepsOfAText + kStepsPerByte * text_bytes) {
    pcre2_set_heap_limit(context_.get(), kHeapKibibytesMax);
  }

  // The next match at or after `at` in valid UTF-8; empty at its end where there is none. A message
  // in `failure` where PCRE2 gives up.
  std::string_view find(std::string_view text, size_t at, std::string& failure) {
    int result = search(text, at, kStepsOfASearch);
    uint64_t steps = kStepsOfASearch;
    while (result == PCRE2_ERROR_MATCHLIMIT && steps_left_ > 0) {
      steps = std::min({steps * kStepsGrowth, steps_left_, uint64_t{UINT32_MAX}});
      steps_left_ -= steps;
      result = search(text, at, static_cast<uint32_t>(steps));
    }
    if (result < 0) {
      if (result != PCRE2_ERROR_NOMATCH) failure = message_of(result);
      return text.substr(text.size());
    }
    const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(match_.get());
    if (bounds[1] <= bounds[0]) failure = "an empty match";
    return text.substr(bounds[0], bounds[1] - bounds[0]);
  }

 private:
  int search(std::string_view text, size_t at, uint32_t steps) {
    pcre2_set_match_limit(context_.get(), steps);
    const auto* units = reinterpret_cast<PCRE2_SPTR>(text.data());
    const auto run = [&](uint32_t options) {
      return pcre2_match(code_, units, text.size(), at, options | PCRE2_NO_UTF_CHECK, match_.get(),
                         context_.get());
    };
    const int result = run(0);
    // Machine code has a stack of 32 KiB; the interpreter has the heap.
    return result == PCRE2_ERROR_JIT_STACKLIMIT ? run(PCRE2_NO_JIT) : result;
  }

  const pcre2_code* code_;
  MatchContext context_;
  MatchData match_;
  uint64_t steps_left_;
};

using Words = std::vector<std::string_view>;

// The longest prefix that is all valid UTF-8, or all invalid, as the first byte is.
std::string_view run_of(std::string_view text, bool& valid) {
  size_t at = 0;
  valid = utf8_size(text) > 0;
  while (at < text.size()) {
    const size_t size = utf8_size(text.substr(at));
    if ((size > 0) != valid) break;
    at += std::max<size_t>(size, 1);
  }
  return text.substr(0, at);
}

// The matches in each part, and what lies between them.
Words finer(const Words& parts, Searcher& searcher, std::string& failure) {
  Words words;
  const auto add = [&words](std::string_view word) {
    if (!word.empty()) words.push_back(word);
  };
  for (const std::string_view part : parts) {
    for (size_t at = 0; at < part.size() && failure.empty();) {
      const std::string_view match = searcher.find(part, at, failure);
      const auto begin = static_cast<size_t>(match.data() - part.data());
      add(part.substr(at, begin - at));
      add(match);
      at = begin + match.size();
    }
  }
  return words;
}

}  // namespace

void PreTokenizer::FreeCode::operator()(pcre2_code* code) const { pcre2_code_free(code); }

PreTokenizer::PreTokenizer(const std::vector<std::string>& patterns, const std::string& origin)
    : origin_(origin) {
  for (const std::string& pattern : patterns) {
    expressions_.push_back({pattern, {}});
    expressions_.back().code.reset(compiled(pattern, origin));
  }
}

std::vector<std::string_view> PreTokenizer::split(std::string_view text) const {
  std::vector<Searcher> searchers;
  for (const Expression& expression : expressions_) {
    searchers.emplace_back(expression.code.get(), text.size());
  }
  Words words;
  while (!text.empty()) {
    bool valid = false;
    const std::string_view run = run_of(text, valid);
    text.remove_prefix(run.size());
    Words parts = {run};
    for (size_t i = 0; valid && i < searchers.size(); ++i) {
      std::string failure;
      parts = finer(parts, searchers[i], failure);
      if (failure.empty()) continue;
      throw bad_input(fmt::format("{}: expression '{}'", origin_, expressions_[i].pattern),
                      "one that splits this text in a few steps a byte", failure);
    }
    words.insert(words.end(), parts.begin(), parts.end());
  }
  return words;
}

}  // namespace thermocline
