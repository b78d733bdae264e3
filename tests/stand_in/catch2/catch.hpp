// A stand-in for the part of Catch2 that the tests of the kernels and backends use, for machines
// that have no packages (THERMOCLINE_KERNELS_ONLY without Catch2).
//
// Goals: the same source compiles with either; a failure says where, what, and what was compared.
// Non-goals: reporters, templated test cases, benchmarks; speed of compilation.
// Thread-safety: as with Catch2 2: assertions on one thread.
#pragma once

#include <chrono>
#include <cmath>
#include <cstdio>
#include <exception>
#include <functional>
#include <iterator>
#include <limits>
#include <set>
#include <sstream>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace Catch {

// A value as a failure shows it.
template <class T>
std::string shown(const T& value) {
  std::ostringstream out;
  out.precision(std::numeric_limits<double>::max_digits10);
  if constexpr (std::is_same_v<T, bool>) {
    out << (value ? "true" : "false");
  } else if constexpr (std::is_null_pointer_v<T>) {
    out << "nullptr";
  } else if constexpr (std::is_convertible_v<T, const char*> && std::is_pointer_v<T>) {
    value == nullptr ? out << "nullptr" : out << '"' << value << '"';
  } else if constexpr (std::is_convertible_v<const T&, std::string>) {
    out << '"' << std::string(value) << '"';
  } else if constexpr (std::is_enum_v<T>) {
    out << static_cast<long long>(value);
  } else if constexpr (requires { out << value; }) {
    out << value;
  } else if constexpr (requires { shown(*std::begin(value)); }) {
    int count = 0;
    out << '{';
    for (const auto& item : value) {
      if (++count > 32) break;
      out << ' ' << shown(item);
    }
    out << (count > 32 ? " ... }" : " }");
  } else {
    out << "{?}";
  }
  return out.str();
}

// What an assertion's expression came to, and its two sides.
struct Outcome {
  bool holds;
  std::string sides;
  explicit operator bool() const { return holds; }
};

template <class L>
struct Left {
  const L& value;

  template <class R>
  static Outcome outcome(bool holds, const L& l, const char* sign, const R& r) {
    return {holds, holds ? "" : shown(l) + ' ' + sign + ' ' + shown(r)};
  }
#define TC_STAND_IN_COMPARE(sign)                          \
  template <class R>                                       \
  Outcome operator sign(const R& right) const {            \
    return outcome(value sign right, value, #sign, right); \
  }
  TC_STAND_IN_COMPARE(==)
  TC_STAND_IN_COMPARE(!=)
  TC_STAND_IN_COMPARE(<)
  TC_STAND_IN_COMPARE(<=)
  TC_STAND_IN_COMPARE(>)
  TC_STAND_IN_COMPARE(>=)
#undef TC_STAND_IN_COMPARE
  explicit operator bool() const { return static_cast<bool>(value); }
};

struct Decomposer {
  template <class L>
  Left<L> operator<=(const L& left) const {
    return {left};
  }
};

inline Outcome outcome_of(Outcome outcome) { return outcome; }
inline Outcome outcome_of(bool holds) { return {holds, holds ? "" : "false"}; }
template <class L>
Outcome outcome_of(const Left<L>& left) {
  return {static_cast<bool>(left), shown(left.value)};
}

struct TestFailed {};  // thrown by REQUIRE

struct TestCase {
  std::string name, tags;
  void (*run)();
  const char* file;
  int line;
};

// Everything that changes while tests run.
struct State {
  std::vector<TestCase> cases;
  std::vector<std::string> messages;  // of INFO and CAPTURE
  std::vector<std::string> unscoped;  // until the next assertion
  long passed = 0, failed = 0;        // assertions
  // Sections: a test case runs once for each path of nested sections.
  std::set<std::string> done, entered;  // paths; parents of what was entered in this run
  std::string path;
  bool more = false;  // some section below `path` still has to run
  // GENERATE: the last that was met takes its next value first.
  struct Choice {
    int line;
    size_t index, count;
  };
  std::vector<Choice> choices;
};

inline State& state() {
  static State it;
  return it;
}

inline bool add_test_case(const char* name, const char* tags, void (*run)(), const char* file,
                          int line) {
  state().cases.push_back({name, tags, run, file, line});
  return true;
}

inline void print_failure(const char* file, int line, const std::string& what,
                          const std::string& detail) {
  std::printf("\n%s:%d: FAILED: %s\n", file, line, what.c_str());
  if (!detail.empty()) std::printf("    with: %s\n", detail.c_str());
  if (!state().path.empty()) std::printf("    in section: %s\n", state().path.c_str() + 1);
  for (const std::string& message : state().messages) std::printf("    %s\n", message.c_str());
  for (const std::string& message : state().unscoped) std::printf("    %s\n", message.c_str());
}

inline void asserted(bool holds, const char* file, int line, const std::string& what,
                     const std::string& detail, bool required) {
  if (holds) {
    ++state().passed;
  } else {
    ++state().failed;
    print_failure(file, line, what, detail);
  }
  state().unscoped.clear();
  if (!holds && required) throw TestFailed{};
}

class Message {
 public:
  explicit Message(std::string text) { state().messages.push_back(std::move(text)); }
  ~Message() { state().messages.pop_back(); }
  Message(const Message&) = delete;
  Message& operator=(const Message&) = delete;
};

template <class... T>
std::string captured(const char* names, const T&... values) {
  std::string text = std::string(names) + " :=";
  ((text += ' ' + shown(values)), ...);
  return text;
}

class Section {
 public:
  explicit Section(const std::string& name) : parent_(state().path) {
    const std::string path = parent_ + '/' + name;
    if (state().done.contains(path)) return;
    entered_ = state().entered.insert(parent_).second;
    if (!entered_) {
      state().more = true;  // in a later run
      return;
    }
    state().path = path;
    more_outside_ = std::exchange(state().more, false);
    exceptions_ = std::uncaught_exceptions();
  }
  ~Section() {
    if (!entered_) return;
    const bool failed = std::uncaught_exceptions() > exceptions_;  // what follows was not seen
    if (!state().more) state().done.insert(state().path);
    state().more |= more_outside_ || failed;
    state().path = parent_;
  }
  Section(const Section&) = delete;
  Section& operator=(const Section&) = delete;
  explicit operator bool() const { return entered_; }

 private:
  std::string parent_;
  bool entered_ = false, more_outside_ = false;
  int exceptions_ = 0;
};

namespace Generators {
template <class T, class... More>
std::vector<T> values(T first, More... more) {
  return {first, static_cast<T>(more)...};
}
template <class T>
std::vector<T> values(std::vector<std::vector<T>> range) {
  return std::move(range.front());
}
template <class T>
std::vector<std::vector<T>> range(T begin, T end) {
  std::vector<T> all;
  for (T value = begin; value < end; ++value) all.push_back(value);
  return {all};
}
}  // namespace Generators

template <class T>
T generated(int line, const std::vector<T>& values) {
  for (const State::Choice& choice : state().choices)
    if (choice.line == line) return values[choice.index];
  state().choices.push_back({line, 0, values.size()});
  return values.front();
}

// Whether there is a combination of generated values that has not run.
inline bool next_choice() {
  for (auto& choices = state().choices; !choices.empty(); choices.pop_back())
    if (++choices.back().index < choices.back().count) return true;
  return false;
}

// Matchers of texts.
struct TextMatcher {
  std::string what, text;
  std::function<bool(const std::string&)> matches;
};
inline TextMatcher Contains(const std::string& part) {
  return {"contains", part, [part](const std::string& s) { return s.find(part) != s.npos; }};
}
inline TextMatcher StartsWith(const std::string& part) {
  return {"starts with", part, [part](const std::string& s) { return s.starts_with(part); }};
}
inline TextMatcher EndsWith(const std::string& part) {
  return {"ends with", part, [part](const std::string& s) { return s.ends_with(part); }};
}
inline TextMatcher Equals(const std::string& text) {
  return {"equals", text, [text](const std::string& s) { return s == text; }};
}
namespace Matchers {
using Catch::Contains, Catch::EndsWith, Catch::Equals, Catch::StartsWith;
}  // namespace Matchers

inline TextMatcher matcher_of(const TextMatcher& matcher) { return matcher; }
inline TextMatcher matcher_of(const std::string& text) { return Equals(text); }

inline void asserted_match(const std::string& text, const TextMatcher& matcher, const char* file,
                           int line, const std::string& what, bool required) {
  asserted(matcher.matches(text), file, line, what,
           shown(text) + ' ' + matcher.what + ' ' + shown(matcher.text), required);
}

// Numbers that are equal within a part of the expected one.
class Approx {
 public:
  explicit Approx(double value) : value_(value) {}
  Approx& epsilon(double part) { return epsilon_ = part, *this; }
  Approx& margin(double size) { return margin_ = size, *this; }
  bool equals(double x) const {
    const double off = std::fabs(x - value_);
    return x == value_ || off <= margin_ || off <= epsilon_ * std::fabs(value_);
  }
  friend bool operator==(double x, const Approx& a) { return a.equals(x); }
  friend bool operator!=(double x, const Approx& a) { return !a.equals(x); }
  friend bool operator<=(double x, const Approx& a) { return x < a.value_ || a.equals(x); }
  friend bool operator>=(double x, const Approx& a) { return x > a.value_ || a.equals(x); }
  friend std::ostream& operator<<(std::ostream& out, const Approx& a) {
    return out << "about " << a.value_;
  }

 private:
  double value_, epsilon_ = std::numeric_limits<float>::epsilon() * 100.0, margin_ = 0;
};

// One filter: "[tag]~[tag]" or a name, in which * at either end stands for anything; ~ negates.
inline bool matches_one(const TestCase& test, const std::string& pattern) {
  if (pattern.starts_with("[")) return test.tags.find(pattern) != std::string::npos;
  const bool open_begin = pattern.starts_with("*"), open_end = pattern.ends_with("*");
  if (pattern == "*") return true;
  const std::string text =
      pattern.substr(open_begin, pattern.size() - open_begin - (open_end ? 1 : 0));
  if (open_begin && open_end) return test.name.find(text) != std::string::npos;
  if (open_begin) return test.name.ends_with(text);
  return open_end ? test.name.starts_with(text) : test.name == text;
}

inline bool matches(const TestCase& test, const std::string& filter) {
  for (size_t at = 0; at < filter.size();) {
    const bool negated = filter[at] == '~';
    at += negated;
    const size_t close = filter.find(']', at);
    const bool tag = at < filter.size() && filter[at] == '[' && close != std::string::npos;
    const size_t end = tag ? close + 1 : filter.size();
    if (matches_one(test, filter.substr(at, end - at)) == negated) return false;
    at = end;
  }
  return true;
}

// Runs a test case once for each path of its sections.
inline void run_sections(const TestCase& test) {
  state().done.clear();
  do {
    state().entered.clear();
    state().path.clear();
    state().more = false;
    try {
      test.run();
    } catch (const TestFailed&) {
    } catch (const std::exception& error) {
      ++state().failed;
      print_failure(test.file, test.line, "an exception left the test case", error.what());
    } catch (...) {
      ++state().failed;
      print_failure(test.file, test.line, "an exception left the test case", "");
    }
    state().unscoped.clear();
  } while (state().more);
}

// Runs a test case with all that it generates. True: nothing failed.
inline bool run_test_case(const TestCase& test) {
  const long failed_before = state().failed;
  state().choices.clear();
  do run_sections(test);
  while (next_choice());
  return state().failed == failed_before;
}

class Session {
 public:
  // 0: all that was picked passed; 1: some failed; 4: nothing was picked.
  int run(int argc, const char* const* argv) {
    bool list = false;
    std::vector<std::string> filters;
    for (int i = 1; i < argc; ++i) {
      const std::string argument = argv[i];
      if (argument == "--list" || argument == "--list-tests" || argument == "-l") {
        list = true;
      } else if (argument.starts_with("-")) {
        std::printf("usage: %s [--list] [FILTER...]     FILTER: [tag]~[tag], name or *part*\n",
                    argv[0]);
        return argument == "-h" || argument == "--help" ? 0 : 2;
      } else {
        filters.push_back(argument);
      }
    }
    return list ? list_picked(filters) : run_picked(filters);
  }

 private:
  static std::vector<TestCase> picked(const std::vector<std::string>& filters) {
    std::vector<TestCase> found;
    for (const TestCase& test : state().cases) {
      bool wanted = filters.empty() && test.tags.find("[.") == std::string::npos;
      for (const std::string& filter : filters) wanted |= matches(test, filter);
      if (wanted) found.push_back(test);
    }
    return found;
  }

  static int list_picked(const std::vector<std::string>& filters) {
    for (const TestCase& test : picked(filters))
      std::printf("%s%s%s\n", test.name.c_str(), test.tags.empty() ? "" : "  ", test.tags.c_str());
    return 0;
  }

  static int run_picked(const std::vector<std::string>& filters) {
    const std::vector<TestCase> tests = picked(filters);
    if (tests.empty()) {
      std::printf("no test case matches\n");
      return 4;
    }
    std::setvbuf(stdout, nullptr, _IOLBF, 0);
    std::vector<std::string> failed;
    for (const TestCase& test : tests) {
      std::printf("%s: ", test.name.c_str());
      std::fflush(stdout);  // so that a crash has a name
      const auto begin = std::chrono::steady_clock::now();
      const bool good = run_test_case(test);
      const std::chrono::duration<double> time = std::chrono::steady_clock::now() - begin;
      std::printf("%s, %.2f s\n", good ? "passed" : "FAILED", time.count());
      if (!good) failed.push_back(test.name);
    }
    std::printf("\n%zu of %zu test cases passed; %ld of %ld assertions\n",
                tests.size() - failed.size(), tests.size(), state().passed,
                state().passed + state().failed);
    for (const std::string& name : failed) std::printf("FAILED: %s\n", name.c_str());
    return failed.empty() ? 0 : 1;
  }
};

}  // namespace Catch

using Catch::Approx;

#define TC_STAND_IN_JOIN2(a, b) a##b
#define TC_STAND_IN_JOIN(a, b) TC_STAND_IN_JOIN2(a, b)
#define TC_STAND_IN_NAME(prefix) TC_STAND_IN_JOIN(prefix, __LINE__)
#define TC_STAND_IN_TEST(name, tags, ...)                                                       \
  static void TC_STAND_IN_NAME(stand_in_test_)();                                               \
  [[maybe_unused]] static const bool TC_STAND_IN_NAME(stand_in_added_) =                        \
      ::Catch::add_test_case(name, tags, TC_STAND_IN_NAME(stand_in_test_), __FILE__, __LINE__); \
  static void TC_STAND_IN_NAME(stand_in_test_)()
#define TEST_CASE(...) TC_STAND_IN_TEST(__VA_ARGS__, "", "")
#define SECTION(...) if (const ::Catch::Section TC_STAND_IN_NAME(section_){__VA_ARGS__})
#define GENERATE(...)                    \
  ::Catch::generated(__LINE__, [&] {     \
    using namespace ::Catch::Generators; \
    return values(__VA_ARGS__);          \
  }())

#define TC_STAND_IN_TEXT(...) (std::ostringstream() << __VA_ARGS__).str()
#define INFO(...) const ::Catch::Message TC_STAND_IN_NAME(message_)(TC_STAND_IN_TEXT(__VA_ARGS__))
#define UNSCOPED_INFO(...) ::Catch::state().unscoped.push_back(TC_STAND_IN_TEXT(__VA_ARGS__))
#define CAPTURE(...) \
  const ::Catch::Message TC_STAND_IN_NAME(message_)(::Catch::captured(#__VA_ARGS__, __VA_ARGS__))
#define WARN(...) \
  std::printf("\n%s:%d: warning: %s\n", __FILE__, __LINE__, TC_STAND_IN_TEXT(__VA_ARGS__).c_str())

#define TC_STAND_IN_ASSERT(name, required, negated, ...)                                      \
  do {                                                                                        \
    const std::string stand_in_what = name "(" #__VA_ARGS__ ")";                              \
    try {                                                                                     \
      const ::Catch::Outcome stand_in_outcome =                                               \
          ::Catch::outcome_of(::Catch::Decomposer() <= __VA_ARGS__);                          \
      ::Catch::asserted(stand_in_outcome.holds != negated, __FILE__, __LINE__, stand_in_what, \
                        stand_in_outcome.sides, required);                                    \
    } catch (const std::exception& stand_in_error) {                                          \
      ::Catch::asserted(false, __FILE__, __LINE__, stand_in_what,                             \
                        "it threw: " + std::string(stand_in_error.what()), true);             \
    }                                                                                         \
  } while (false)
#define REQUIRE(...) TC_STAND_IN_ASSERT("REQUIRE", true, false, __VA_ARGS__)
#define CHECK(...) TC_STAND_IN_ASSERT("CHECK", false, false, __VA_ARGS__)
#define REQUIRE_FALSE(...) TC_STAND_IN_ASSERT("REQUIRE_FALSE", true, true, __VA_ARGS__)
#define CHECK_FALSE(...) TC_STAND_IN_ASSERT("CHECK_FALSE", false, true, __VA_ARGS__)

#define TC_STAND_IN_GIVEN(name, holds, required, ...) \
  ::Catch::asserted(holds, __FILE__, __LINE__, name, TC_STAND_IN_TEXT(__VA_ARGS__), required)
#define SUCCEED(...) TC_STAND_IN_GIVEN("SUCCEED", true, false, "" __VA_ARGS__)
#define FAIL(...) TC_STAND_IN_GIVEN("FAIL", false, true, "" __VA_ARGS__)
#define FAIL_CHECK(...) TC_STAND_IN_GIVEN("FAIL_CHECK", false, false, "" __VA_ARGS__)

// Whether EXPRESSION throws TYPE; runs WITH_ERROR on what it threw.
#define TC_STAND_IN_THROWS(name, required, expression, caught, with_error)          \
  do {                                                                              \
    bool stand_in_threw = false;                                                    \
    std::string stand_in_instead = "nothing was thrown";                            \
    try {                                                                           \
      static_cast<void>(expression);                                                \
    } catch (caught) {                                                              \
      stand_in_threw = true;                                                        \
      with_error;                                                                   \
    } catch (const std::exception& stand_in_error) {                                \
      stand_in_instead = "it threw: " + std::string(stand_in_error.what());         \
    } catch (...) {                                                                 \
      stand_in_instead = "it threw something else";                                 \
    }                                                                               \
    ::Catch::asserted(stand_in_threw, __FILE__, __LINE__, name "(" #expression ")", \
                      stand_in_instead, required);                                  \
  } while (false)
#define TC_STAND_IN_THROWS_ANY(name, required, ...)                                  \
  do {                                                                               \
    bool stand_in_threw = false;                                                     \
    try {                                                                            \
      static_cast<void>(__VA_ARGS__);                                                \
    } catch (...) {                                                                  \
      stand_in_threw = true;                                                         \
    }                                                                                \
    ::Catch::asserted(stand_in_threw, __FILE__, __LINE__, name "(" #__VA_ARGS__ ")", \
                      "nothing was thrown", required);                               \
  } while (false)
#define TC_STAND_IN_NOTHROW(name, required, ...)                                      \
  do {                                                                                \
    std::string stand_in_thrown;                                                      \
    bool stand_in_threw = true;                                                       \
    try {                                                                             \
      static_cast<void>(__VA_ARGS__);                                                 \
      stand_in_threw = false;                                                         \
    } catch (const std::exception& stand_in_error) {                                  \
      stand_in_thrown = stand_in_error.what();                                        \
    } catch (...) {                                                                   \
    }                                                                                 \
    ::Catch::asserted(!stand_in_threw, __FILE__, __LINE__, name "(" #__VA_ARGS__ ")", \
                      "it threw: " + stand_in_thrown, required);                      \
  } while (false)
#define REQUIRE_THROWS(...) TC_STAND_IN_THROWS_ANY("REQUIRE_THROWS", true, __VA_ARGS__)
#define CHECK_THROWS(...) TC_STAND_IN_THROWS_ANY("CHECK_THROWS", false, __VA_ARGS__)
#define REQUIRE_NOTHROW(...) TC_STAND_IN_NOTHROW("REQUIRE_NOTHROW", true, __VA_ARGS__)
#define CHECK_NOTHROW(...) TC_STAND_IN_NOTHROW("CHECK_NOTHROW", false, __VA_ARGS__)
#define REQUIRE_THROWS_AS(expression, type) \
  TC_STAND_IN_THROWS("REQUIRE_THROWS_AS", true, expression, const type&, )
#define CHECK_THROWS_AS(expression, type) \
  TC_STAND_IN_THROWS("CHECK_THROWS_AS", false, expression, const type&, )
#define TC_STAND_IN_MATCH(name, required, text, matcher) \
  ::Catch::asserted_match(text, ::Catch::matcher_of(matcher), __FILE__, __LINE__, name, required)
#define TC_STAND_IN_THROWS_WITH(name, required, expression, matcher)                             \
  do {                                                                                           \
    std::string stand_in_said;                                                                   \
    TC_STAND_IN_THROWS(name, required, expression, const std::exception& stand_in_thrown,        \
                       stand_in_said = stand_in_thrown.what());                                  \
    TC_STAND_IN_MATCH(name "(" #expression ", " #matcher ")", required, stand_in_said, matcher); \
  } while (false)
#define REQUIRE_THROWS_WITH(expression, matcher) \
  TC_STAND_IN_THROWS_WITH("REQUIRE_THROWS_WITH", true, expression, matcher)
#define CHECK_THROWS_WITH(expression, matcher) \
  TC_STAND_IN_THROWS_WITH("CHECK_THROWS_WITH", false, expression, matcher)
#define REQUIRE_THAT(text, matcher) \
  TC_STAND_IN_MATCH("REQUIRE_THAT(" #text ", " #matcher ")", true, text, matcher)
#define CHECK_THAT(text, matcher) \
  TC_STAND_IN_MATCH("CHECK_THAT(" #text ", " #matcher ")", false, text, matcher)
