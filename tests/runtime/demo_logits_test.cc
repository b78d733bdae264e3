// The demo model as the program carries it, in Q8_0, against transformers on the weights as
// trained.
#include <algorithm>
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>
#include <string>

#include "models/cli.h"
#include "models/embedded.h"
#include "models/weights.h"
#include "tests/npy_files.h"
#include "tests/runtime/local_run.h"

namespace thermocline::test {
namespace {

const std::string kOracle = std::string(THERMOCLINE_SOURCE_DIR) + "/tests/oracles/demo_logits/";
constexpr size_t kPromptSize = 20;  // the rest is forced

LocalRunOptions forced_run(const std::string& layout) {
  const auto tokens =
      nlohmann::json::parse(read_file(kOracle + "tokens.json")).get<std::vector<int32_t>>();
  LocalRunOptions options;
  options.layout = layout;
  options.prompt.assign(tokens.begin(), tokens.begin() + kPromptSize);
  options.forced.assign(tokens.begin() + kPromptSize, tokens.end());
  return options;
}

// How often both give the same token the highest logit. (step, vocab_size) each.
double same_choice(const std::vector<float>& a, const std::vector<float>& b, size_t vocab_size) {
  size_t same = 0;
  const size_t steps = a.size() / vocab_size;
  for (size_t step = 0; step < steps; ++step) {
    const auto best = [&](const std::vector<float>& logits) {
      const auto row = logits.begin() + static_cast<std::ptrdiff_t>(step * vocab_size);
      return std::max_element(row, row + static_cast<std::ptrdiff_t>(vocab_size)) - row;
    };
    same += best(a) == best(b);
  }
  return static_cast<double>(same) / static_cast<double>(steps);
}

}  // namespace

TEST_CASE("the demo model's logits are transformers', but for the rounding of Q8_0") {
  const auto weights = open_weights(parse_model_spec(kDemoModel));
  const auto exact = load_npy(kOracle + "logits.npy");
  for (const std::string layout : {"pp1,tp1", "pp1,tp4", "pp2,tp2", "pp4,tp1"}) {
    INFO(layout);
    const auto all = run_locally(*weights, forced_run(layout)).logits;
    REQUIRE(all.size() > exact.size());  // stored are those of the last tokens
    const std::vector<float> logits(all.end() - static_cast<std::ptrdiff_t>(exact.size()),
                                    all.end());
    CHECK(relative_difference(exact, logits) < 2e-2);
    CHECK(same_choice(exact, logits, weights->shape().vocab_size) >= 0.95);
  }
}

}  // namespace thermocline::test
