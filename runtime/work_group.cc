#include "runtime/work_group.h"

#include <algorithm>

#include "runtime/comm.h"

namespace thermocline {
namespace {

// Texts have any length: lengths first, then blocks of the longest. A rank that failed before is
// not here but in the agreement of together(): the first exchange is that agreement.
std::vector<std::string> gather(Comm& comm, const std::string& mine) {
  together(comm, [] {});
  const auto size = static_cast<size_t>(comm.size());
  const std::vector<uint64_t> lengths = gathered(comm, uint64_t{mine.size()});
  const uint64_t longest = *std::max_element(lengths.begin(), lengths.end());
  std::string padded = mine, all(longest * size, '\0');
  padded.resize(longest);
  comm.all_gather(padded.data(), longest, all.data());
  std::vector<std::string> texts;
  for (size_t rank = 0; rank < size; ++rank) {
    texts.push_back(all.substr(rank * longest, lengths[rank]));
  }
  return texts;
}

}  // namespace

void run_in_launched_group(const std::function<void(WorkGroup&)>& body) {
  run_launched_rank([&](Comm& comm) {
    WorkGroup group{static_cast<uint32_t>(comm.rank()), static_cast<uint32_t>(comm.size()),
                    nullptr};
    if (group.size > 1) {
      group.gather = [&comm](const std::string& mine) { return gather(comm, mine); };
    }
    together(comm, [&] { body(group); });
  });
}

}  // namespace thermocline
