// The published activity of Llama-2-70B by layer: P(gate > 0), from TEAL's histograms.
//
// Thread-safety: none needed.
#pragma once

#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "tests/support.h"

namespace thermocline::test {

// Empty, after a warning, without the test data: the caller then returns.
inline std::vector<double> published_profile() {
  const std::string path = data_file("llama2_mlp_activation_quantiles.csv");
  std::vector<double> profile;
  if (path.empty()) return profile;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    std::istringstream fields(line);
    std::string model, layer, state, count, positive;
    for (std::string* field : {&model, &layer, &state, &count, &positive}) {
      std::getline(fields, *field, ',');
    }
    if (model == "Llama-2-70B" && state == "h1.5") profile.push_back(std::stod(positive));
  }
  return profile;
}

}  // namespace thermocline::test
