// Used ranks: the ranks of a job that take part in a run, and the others, which wait.
//
// A partition may leave ranks out (partition_solver.h). Those that it uses get a Comm of their own,
// in the order of the layout; a rank that is left out sleeps until it is told how the run ended,
// and then ends alike: so a job has one exit code, and one message. Goals: a waiting rank takes no
// core and no memory. Non-goals: choosing who is used. Thread-safety: one rank, one thread.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "runtime/comm.h"

namespace thermocline {

// Collective over `job`. used: ranks of the job, in the order of the ranks of the Comm that `body`
// gets. Throws AgreedError on all ranks of the job where it is thrown on those that are used.
void with_used_ranks(Comm& job, const std::vector<uint32_t>& used,
                     const std::function<void(Comm&)>& body);

}  // namespace thermocline
