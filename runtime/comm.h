// Comm: how ranks talk. The one interface at which compute meets the network.
//
// Goals: the same engine on MPI (comm_mpi.cc) and on threads of one process (comm_local.cc);
//   sums in rank order, so that a layout gives the same bits every time, on either.
// Non-goals: surviving a lost rank (Open MPI 4.1 is fail-stop: the job ends promptly and is run
//   again).
// Every call but rank(), size(), sent_bytes(), advance_sends() and finish_sends() is collective
//   over the ranks that it names, in the same order.
// Thread-safety: one rank's Comm belongs to one thread.
// Usage: with_ranks(0, [&](Comm& comm) { comm.barrier(); });
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
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
  Comm(const Comm&) = delete;
  Comm& operator=(const Comm&) = delete;
  int rank() const { return rank_; }
  int size() const { return static_cast<int>(world_ranks_.size()); }

  virtual void barrier() = 0;
  void send(int to, const void* data, size_t bytes) {
    do_send(to, data, bytes);
    count_sent(to, bytes);
  }
  // As send(), beside what the caller does next: `data` stays as it is until finish_sends().
  void start_send(int to, const void* data, size_t bytes) {
    do_start_send(to, data, bytes);
    count_sent(to, bytes);
  }
  // Lets a network that has no thread of its own go on with what was started.
  virtual void advance_sends() {}
  virtual void finish_sends() {}
  void receive(int from, void* data, size_t bytes) { do_receive(from, data, bytes); }
  // As receive(), for a message that is minutes away: costs no core until it comes, and up to 20 ms
  // more. An MPI receive or barrier polls all the while, on a core that other ranks could use.
  virtual void receive_asleep(int from, void* data, size_t bytes) = 0;
  // all: (size, bytes), the block of every rank in rank order.
  void all_gather(const void* mine, size_t bytes, void* all) {
    do_all_gather(mine, bytes, all);
    count_sent_to_all(bytes);
  }
  // mine, all: (size, bytes); block i of `mine` goes to rank i.
  void all_to_all(const void* mine, size_t bytes, void* all) {
    do_all_to_all(mine, bytes, all);
    count_sent_to_all(bytes);
  }
  // The ranks that give the same colour, by rising key, of equal keys in rank order. Outlives
  // nothing: drop it first.
  std::unique_ptr<Comm> split(int color, int key = 0);

  // Payload bytes that this rank has addressed to each rank of the whole job, itself left out, by
  // this Comm and all that were split from the same one: (ranks of the job). Which ways they take,
  // and in which pieces, is the network's; barriers have none.
  const std::vector<uint64_t>& sent_bytes() const { return sent_->bytes; }
  // From now on it and what is split from it count by its own ranks, as if it were the whole job.
  void count_as_job();

 protected:
  // Of the whole job; split() makes it one of its part.
  Comm(int rank, int size);

 private:
  friend class UncountedExchange;
  struct Sent {
    std::vector<uint64_t> bytes;  // (ranks of the job)
    bool counting = true;
  };

  virtual void do_send(int to, const void* data, size_t bytes) = 0;
  virtual void do_start_send(int to, const void* data, size_t bytes) = 0;
  virtual void do_receive(int from, void* data, size_t bytes) = 0;
  virtual void do_all_gather(const void* mine, size_t bytes, void* all) = 0;
  virtual void do_all_to_all(const void* mine, size_t bytes, void* all) = 0;
  virtual std::unique_ptr<Comm> do_split(int color, int key) = 0;

  void count_sent(int to, size_t bytes) {
    const auto rank = static_cast<size_t>(world_ranks_[static_cast<size_t>(to)]);
    if (to != rank_ && sent_->counting) sent_->bytes[rank] += bytes;
  }
  void count_sent_to_all(size_t bytes) {
    for (int to = 0; to < size(); ++to) count_sent(to, bytes);
  }

  int rank_;
  std::vector<int> world_ranks_;  // of this Comm's ranks, within the job
  std::shared_ptr<Sent> sent_;    // of the job: every part has the same
};

// While it lives, nothing that its rank sends is counted: for what only a report asks for.
class UncountedExchange {
 public:
  explicit UncountedExchange(Comm& comm) : comm_(comm), counting_(comm.sent_->counting) {
    comm_.sent_->counting = false;
  }
  ~UncountedExchange() { comm_.sent_->counting = counting_; }
  UncountedExchange(const UncountedExchange&) = delete;
  UncountedExchange& operator=(const UncountedExchange&) = delete;

 private:
  Comm& comm_;
  bool counting_;  // before
};

// Of every rank, in their order: plain data. Collective.
template <class Value>
std::vector<Value> gathered(Comm& comm, const Value& mine) {
  std::vector<Value> all(static_cast<size_t>(comm.size()));
  comm.all_gather(&mine, sizeof mine, all.data());
  return all;
}

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

// The name of this machine, up to a zero.
using HostName = std::array<char, 256>;
HostName this_host();

// Which of the ranks on its machine, by host name, this rank is, and how many there are.
// Collective.
RankOnHost rank_on_this_host(Comm& comm);

}  // namespace thermocline
