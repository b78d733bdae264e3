// Comm: how ranks talk. The one interface at which compute meets the network.
//
// Goals: the same engine on MPI (comm_mpi.cc) and on threads of one process (comm_local.cc);
//   sums in rank order, so that a layout gives the same bits every time, on either.
// Non-goals: overlapping communication with compute; surviving a lost rank (Open MPI 4.1 is
//   fail-stop: the job ends promptly and is run again).
// Every call but rank() and size() is collective over the ranks that it names, in the same order.
// Thread-safety: one rank's Comm belongs to one thread.
// Usage: with_ranks(0, [&](Comm& comm) { comm.barrier(); });
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "models/error.h"
#include "runtime/numa.h"

namespace thermocline {

class Comm {
 public:
  virtual ~Comm() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;

  virtual void barrier() = 0;
  virtual void send(int to, const void* data, size_t bytes) = 0;
  virtual void receive(int from, void* data, size_t bytes) = 0;
  // As receive(), for a message that is minutes away: costs no core until it comes, and up to 20 ms
  // more. An MPI receive or barrier polls all the while, on a core that other ranks could use.
  virtual void receive_asleep(int from, void* data, size_t bytes) = 0;
  // all: (size, bytes), the block of every rank in rank order.
  virtual void all_gather(const void* mine, size_t bytes, void* all) = 0;
  // mine, all: (size, bytes); block i of `mine` goes to rank i.
  virtual void all_to_all(const void* mine, size_t bytes, void* all) = 0;
  // The ranks that give the same colour, by rising key, of equal keys in rank order. Outlives
  // nothing: drop it first.
  virtual std::unique_ptr<Comm> split(int color, int key) = 0;
  std::unique_ptr<Comm> split(int color) { return split(color, 0); }
};

// values[i] = the sum over ranks, added in rank order; the same bits on every rank.
// `scratch` keeps its memory.
void sum_in_rank_order(Comm& comm, float* values, size_t count, std::vector<float>& scratch);

// An Error that every rank knows of: all leave together. The message is on one rank, else empty.
class AgreedError : public Error {
 public:
  using Error::Error;
};

// Runs `work` on every rank. If it throws on any, all ranks throw: the lowest failing one its own
// message, the others an empty one. Keeps a file error on one rank from hanging the rest.
void together(Comm& comm, const std::function<void()>& work);

// Runs `body` on `size` threads of this process. The first Error that carries a message is
// rethrown; the other ranks are woken from whatever they wait for.
void run_local_ranks(int size, const std::function<void(Comm&)>& body);

// Runs `body` as the rank that mpirun or srun started; as one rank where nothing did. An error
// that the ranks did not agree on ends the whole job.
void run_launched_rank(const std::function<void(Comm&)>& body);

// local_ranks > 0: threads of this process; else the launched rank.
void with_ranks(int local_ranks, const std::function<void(Comm&)>& body);

// This process's rank and the job's size as the launcher's environment says; {0, 1} without one.
struct LaunchedRank {
  int rank = 0;
  int size = 1;
};
LaunchedRank launched_rank();

// An error that every rank of the job finds by itself, in its own command line: rank 0 prints it,
// and none leaves before it has (a launcher ends the others when one fails).
void report_before_start(const Error& error);

// Which of the ranks on its machine, by host name, this rank is, and how many there are.
// Collective.
RankOnHost rank_on_this_host(Comm& comm);

}  // namespace thermocline
