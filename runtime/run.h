// `thermocline run` on one rank: load, execute, record, evaluate live policies, report.
//
// Goals: every rank calls run_rank with the same options and leaves in the same way; rank 0 prints.
// Thread-safety: one rank, one thread.
#pragma once

#include "runtime/comm.h"
#include "runtime/run_plan.h"

namespace thermocline {

void run_rank(Comm& comm, const RunOptions& options);

}  // namespace thermocline
