// WorkGroup: processes that share work which needs no talk until the end.
//
// The room that knows how processes talk (runtime) makes one; rooms that only have work to share
// (sim) use it.
// Thread-safety: belongs to the main thread.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace thermocline {

struct WorkGroup {
  uint32_t rank = 0, size = 1;
  // Collective: the text of every rank, in rank order, on every rank. Null where size is 1.
  std::function<std::vector<std::string>(const std::string&)> gather = nullptr;

  bool first() const { return rank == 0; }
};

// Runs `body` as one of the group's processes.
using GroupRunner = std::function<void(const std::function<void(WorkGroup&)>& body)>;
inline void run_alone(const std::function<void(WorkGroup&)>& body) {
  WorkGroup group;
  body(group);
}

}  // namespace thermocline
