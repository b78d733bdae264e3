#include "models/error.h"

#include <cstdio>
#include <cstdlib>

namespace thermocline {

void check_failed(const char* condition, const char* file, int line, const std::string& message) {
  std::fprintf(stderr, "thermocline: bug: %s:%d: %s does not hold: %s\n", file, line, condition,
               message.c_str());
  std::abort();
}

}  // namespace thermocline
