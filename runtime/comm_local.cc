// LocalComm: ranks as threads of one process, with a mailbox for each pair of ranks.
#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <exception>
#include <map>
#include <mutex>
#include <thread>
#include <tuple>

#include "runtime/comm.h"

namespace thermocline {
namespace {

// Another rank failed: this one is only being woken up. Carries no message of its own.
class PeerFailed : public Error {
 public:
  PeerFailed() : Error(ErrorKind::failed, "") {}
};

// All mailboxes of a process. A message is addressed by (group, from, to), ranks being those of the
// whole job, and messages of one address arrive in order.
class LocalWorld {
 public:
  void put(int group, int from, int to, const void* data, size_t bytes) {
    const auto* first = static_cast<const std::byte*>(data);
    {
      const std::lock_guard lock(mutex_);
      mailboxes_[{group, from, to}].emplace_back(first, first + bytes);
    }
    arrived_.notify_all();
  }

  void take(int group, int from, int to, void* data, size_t bytes) {
    std::unique_lock lock(mutex_);
    auto& mailbox = mailboxes_[{group, from, to}];
    arrived_.wait(lock, [&] { return failed_ || !mailbox.empty(); });
    if (mailbox.empty()) throw PeerFailed();
    const std::vector<std::byte> message = std::move(mailbox.front());
    mailbox.pop_front();
    lock.unlock();
    TC_CHECK(message.size() == bytes, "sent " + std::to_string(message.size()) + ", received " +
                                          std::to_string(bytes) + " bytes");
    std::memcpy(data, message.data(), bytes);
  }

  // The same number for every rank that splits the same group the same way: no two groups share
  // a mailbox.
  int group_of(int parent, int split, int color) {
    const std::lock_guard lock(mutex_);
    const int next = static_cast<int>(groups_.size()) + 1;  // 0 is the whole job
    return groups_.emplace(std::tuple(parent, split, color), next).first->second;
  }

  void fail() {
    {
      const std::lock_guard lock(mutex_);
      failed_ = true;
    }
    arrived_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::map<std::tuple<int, int, int>, std::deque<std::vector<std::byte>>> mailboxes_;
  std::map<std::tuple<int, int, int>, int> groups_;
  bool failed_ = false;
};

class LocalComm final : public Comm {
 public:
  LocalComm(LocalWorld& world, int group, int rank, std::vector<int> members)
      : Comm(rank, static_cast<int>(members.size())),
        world_(world),
        group_(group),
        members_(std::move(members)) {}

  void barrier() override {
    std::vector<std::byte> all(members_.size());
    const std::byte here{1};
    do_all_gather(&here, 1, all.data());
  }

  // A mailbox is waited for asleep anyway.
  void receive_asleep(int from, void* data, size_t bytes) override {
    do_receive(from, data, bytes);
  }

 private:
  void do_send(int to, const void* data, size_t bytes) override {
    world_.put(group_, member(rank()), member(to), data, bytes);
  }

  // A mailbox has a copy at once.
  void do_start_send(int to, const void* data, size_t bytes) override { do_send(to, data, bytes); }

  void do_receive(int from, void* data, size_t bytes) override {
    world_.take(group_, member(from), member(rank()), data, bytes);
  }

  void do_all_gather(const void* mine, size_t bytes, void* all) override {
    for (int to = 0; to < size(); ++to) do_send(to, mine, bytes);
    receive_all(bytes, all);
  }

  void do_all_to_all(const void* mine, size_t bytes, void* all) override {
    const auto* blocks = static_cast<const std::byte*>(mine);
    for (int to = 0; to < size(); ++to) {
      do_send(to, blocks + static_cast<size_t>(to) * bytes, bytes);
    }
    receive_all(bytes, all);
  }

  std::unique_ptr<Comm> do_split(int color, int key) override {
    const std::pair<int, int> mine{color, key};
    std::vector<std::pair<int, int>> all(members_.size());
    do_all_gather(&mine, sizeof mine, all.data());
    std::vector<std::pair<int, int>> group_ranks;  // (key, rank here)
    for (int other = 0; other < size(); ++other) {
      const auto& [its_color, its_key] = all[static_cast<size_t>(other)];
      if (its_color == color) group_ranks.emplace_back(its_key, other);
    }
    std::sort(group_ranks.begin(), group_ranks.end());
    std::vector<int> members;
    int its_rank = 0;
    for (const auto& [its_key, other] : group_ranks) {
      if (other == rank()) its_rank = static_cast<int>(members.size());
      members.push_back(member(other));
    }
    const int group = world_.group_of(group_, splits_++, color);
    return std::make_unique<LocalComm>(world_, group, its_rank, std::move(members));
  }

  int member(int rank) const { return members_[static_cast<size_t>(rank)]; }
  void receive_all(size_t bytes, void* all) {
    auto* blocks = static_cast<std::byte*>(all);
    for (int from = 0; from < size(); ++from) {
      do_receive(from, blocks + static_cast<size_t>(from) * bytes, bytes);
    }
  }

  LocalWorld& world_;
  int group_;
  std::vector<int> members_;  // ranks of the whole job
  int splits_ = 0;
};

// Errors of all ranks' threads; the one that says most is thrown.
class FirstError {
 public:
  void keep(std::exception_ptr error, bool has_message) {
    const std::lock_guard lock(mutex_);
    if (error_ != nullptr && (has_message_ || !has_message)) return;
    error_ = std::move(error);
    has_message_ = has_message;
  }
  void rethrow() const {
    if (error_ != nullptr) std::rethrow_exception(error_);
  }

 private:
  std::mutex mutex_;
  std::exception_ptr error_;
  bool has_message_ = false;
};

}  // namespace

void run_local_ranks(int size, const std::function<void(Comm&)>& body) {
  LocalWorld world;
  FirstError first_error;
  std::vector<int> members(static_cast<size_t>(size));
  for (int rank = 0; rank < size; ++rank) members[static_cast<size_t>(rank)] = rank;
  const auto run_rank = [&](int rank) {
    LocalComm comm(world, 0, rank, members);
    try {
      body(comm);
    } catch (const AgreedError& error) {
      // The others leave by themselves, some of them still on their way to hear of it.
      first_error.keep(std::current_exception(), *error.what() != '\0');
    } catch (const std::exception& error) {
      first_error.keep(std::current_exception(), *error.what() != '\0');
      world.fail();
    }
  };
  std::vector<std::thread> threads;
  for (int rank = 1; rank < size; ++rank) threads.emplace_back(run_rank, rank);
  run_rank(0);
  for (std::thread& thread : threads) thread.join();
  first_error.rethrow();
}

}  // namespace thermocline
