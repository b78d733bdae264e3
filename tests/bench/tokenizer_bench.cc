// How fast text is encoded: MB/s of this program's own kind of text, code, on one core.
//
// tokenizer_bench TEXT TOKENIZER... [--oracle PYTHON]
// With a Python that has the tokenizers package, its rate on the same text and tokenizer.json is
// printed beside.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "models/cli.h"
#include "models/tokenizer.h"

namespace thermocline {
namespace {

constexpr int kRunCount = 3;  // the best counts

void measure(const std::string& text, const std::string& path) {
  const auto tokenizer = open_tokenizer(path, UINT32_MAX);
  double best = 0;
  size_t token_count = 0;
  for (int run = 0; run < kRunCount; ++run) {
    const auto start = std::chrono::steady_clock::now();
    token_count = tokenizer->encode(text).size();
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    best = std::max(best, static_cast<double>(text.size()) / taken.count());
  }
  std::printf("%s: thermocline %.2f MB/s, %zu tokens\n", path.c_str(), best / 1e6, token_count);
  std::fflush(stdout);
}

}  // namespace
}  // namespace thermocline

int main(int argc, char** argv) {
  std::vector<std::string> arguments(argv + 1, argv + argc);
  std::string python;
  if (arguments.size() > 2 && arguments[arguments.size() - 2] == "--oracle") {
    python = arguments.back();
    arguments.resize(arguments.size() - 2);
  }
  if (arguments.size() < 2) {
    std::fputs("usage: tokenizer_bench TEXT TOKENIZER... [--oracle PYTHON]\n", stderr);
    return 2;
  }
  const std::string text = thermocline::read_file(arguments[0]);
  for (size_t i = 1; i < arguments.size(); ++i) {
    thermocline::measure(text, arguments[i]);
    if (python.empty()) continue;
    std::printf("%s: the library ", arguments[i].c_str());
    std::fflush(stdout);
    const std::string script = THERMOCLINE_SOURCE_DIR "/tests/oracles/make_tokenizers.py";
    const std::string command =
        python + " " + script + " time " + arguments[0] + " " + arguments[i];
    if (std::system(command.c_str()) != 0) return 1;
  }
  return 0;
}
