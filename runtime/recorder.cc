#include "runtime/recorder.h"

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

}  // namespace thermocline
