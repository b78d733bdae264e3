#include "runtime/recorder.h"

#include <algorithm>
#include <filesystem>
#include <vector>

#include "traces/interrupted.h"

namespace thermocline {

std::string Recorder::finish(Comm& comm) {
  together(comm, [&] {
    writer_->finish();
    if (resume_ != nullptr) resume_->settle(writer_->safe_steps());
  });
  std::string hash;
  together(comm, [&] {
    if (comm.rank() != 0) return;
    write_master(path_);
    hash = open_trace(path_)->hash();
  });
  return hash;
}

void drop_shards_of_no_use(Comm& comm, const std::string& path, bool made_shard) {
  const auto rank = static_cast<uint32_t>(comm.rank());
  const std::vector<uint8_t> all = gathered(comm, uint8_t{holds_steps(path, rank)});
  if (!made_shard || std::ranges::find(all, 0) == all.end()) return;
  std::error_code ignored;
  for (const std::string& name : {shard_path(path, rank), partial_path(path, rank)})
    std::filesystem::remove(name, ignored);
}

}  // namespace thermocline
