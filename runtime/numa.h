// Where memory is near: the machine's NUMA nodes, and which of them a pool's threads belong to.
//
// Goals: a thread that first touches rows reads them later from its own node. Threads are bound to
//   a node, not to a core: within it the kernel may still move them out of each other's way.
// Non-goals: memory policies (mbind), distances between nodes, binding on a machine of one node.
// What cannot be read or parsed means one node: nothing is bound, nothing fails.
// Thread-safety: pure functions, but for the last two, which ask and bind the calling thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace thermocline {

using CoreList = std::vector<int>;  // ascending

// One of `count` ranks that share a machine.
struct RankOnHost {
  int index = 0;
  int count = 1;
};

// "0-3,8,10-11" and a line's end, as the kernel writes it; an empty text is a node of memory only.
// Nothing if it is not such a text: not ascending, or a core that no kernel numbers.
std::optional<CoreList> parse_cpulist(std::string_view text);

// The cores of each node, in the order of the nodes' numbers; empty if one of them is unreadable.
std::vector<CoreList> read_numa_nodes(const std::string& folder = "/sys/devices/system/node");

// What `allowed` leaves of the nodes; those of which nothing is left are left out.
std::vector<CoreList> nodes_within(const std::vector<CoreList>& nodes, const CoreList& allowed);

// For each thread of this rank's pool the cores of its node: nodes are filled in order, in
// proportion to their cores, so that none gets more threads than cores while there are enough.
// Holds for ranks that share all these cores (together they fill the nodes so) and for ranks that
// a launcher gave cores of their own. Empty where there are not several nodes.
std::vector<CoreList> cores_of_threads(const std::vector<CoreList>& nodes, int thread_count,
                                       RankOnHost rank);

// The cores that the calling thread may run on; empty where the system does not say.
CoreList cores_of_this_thread();
// Binds the calling thread. A hint: where the system refuses, the thread stays as it is.
void bind_this_thread(const CoreList& cores);

}  // namespace thermocline
