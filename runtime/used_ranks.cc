#include "runtime/used_ranks.h"

#include <algorithm>
#include <numeric>

namespace thermocline {
namespace {

// The one that tells the others.
void tell(Comm& job, const std::vector<uint32_t>& used, int exit_code) {
  for (int rank = 0; rank < job.size(); ++rank) {
    const bool waits = std::find(used.begin(), used.end(), rank) == used.end();
    if (waits) job.send(rank, &exit_code, sizeof exit_code);
  }
}

void wait_for_the_end(Comm& job, uint32_t teller) {
  int exit_code = 0;
  job.receive_asleep(static_cast<int>(teller), &exit_code, sizeof exit_code);
  if (exit_code != 0) throw AgreedError(static_cast<ErrorKind>(exit_code), "");
}

}  // namespace

void with_used_ranks(Comm& job, const std::vector<uint32_t>& used,
                     const std::function<void(Comm&)>& body) {
  std::vector<uint32_t> all(static_cast<size_t>(job.size()));
  std::iota(all.begin(), all.end(), 0u);
  if (used == all) return body(job);
  const auto place = std::find(used.begin(), used.end(), static_cast<uint32_t>(job.rank()));
  const bool waits = place == used.end();
  const std::unique_ptr<Comm> part =
      job.split(waits ? 1 : 0, waits ? 0 : static_cast<int>(place - used.begin()));
  if (waits) return wait_for_the_end(job, used.front());
  part->count_as_job();  // links are told by the ranks of the layout
  const bool teller = place == used.begin();
  try {
    body(*part);
  } catch (const AgreedError& error) {
    if (teller) tell(job, used, error.exit_code());
    throw;
  }
  if (teller) tell(job, used, 0);
}

}  // namespace thermocline
