// WorkGroup over the ranks that mpirun or srun started, for commands that share out their work.
//
// Goals: without a launcher, one process and no MPI.
// Thread-safety: belongs to the main thread.
#pragma once

#include <functional>

#include "models/work_group.h"

namespace thermocline {

void run_in_launched_group(const std::function<void(WorkGroup&)>& body);

}  // namespace thermocline
