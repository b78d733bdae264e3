// NeuronLogs: queues over the neurons of a pool, each neuron in at most one, as logs.
//
// What NeuronLists does, for queues that neurons join and leave in the order of their indices again
// and again, as the requests of a step do: joining appends to a log, leaving early leaves the entry
// behind, and the front skips what has left. All memory is then touched in order.
// Goals: amortised constant time; a log is as long as twice what is in it at most.
// Non-goals: sizes, and which queue a neuron is in: users know.
// Thread-safety: none needed; one policy, one thread.
#pragma once

#include <cstdint>
#include <vector>

namespace thermocline {

class NeuronLogs {
 public:
  NeuronLogs() = default;
  NeuronLogs(uint64_t neuron_count, uint32_t log_count)
      : logs_(log_count), place_of_(neuron_count, kNowhere) {}

  bool empty(uint32_t log) {
    skip(log);
    return logs_[log].begin == logs_[log].end;
  }
  // The neuron that has been in the queue for longest; only where it is not empty.
  uint32_t front(uint32_t log) {
    skip(log);
    return entry(logs_[log], logs_[log].begin);
  }
  // Leaves the queue that it was in, if any.
  void push_back(uint32_t log, uint32_t neuron) {
    Log& to = logs_[log];
    if (to.end - to.begin == to.entries.size()) make_room(log);
    const uint32_t index = to.end++ & static_cast<uint32_t>(to.entries.size() - 1);
    to.entries[index] = neuron;
    place_of_[neuron] = place(log, index);
  }
  void remove(uint32_t neuron) { place_of_[neuron] = kNowhere; }
  uint32_t pop_front(uint32_t log) {
    const uint32_t neuron = front(log);
    ++logs_[log].begin;
    remove(neuron);
    return neuron;
  }

 private:
  static constexpr uint32_t kNowhere = UINT32_MAX;
  struct Log {
    std::vector<uint32_t> entries = std::vector<uint32_t>(64);  // a ring; a power of two
    uint32_t begin = 0, end = 0;                                // modulo 2^32
  };

  // Rings of up to 2^28 entries, which is 2^27 neurons, and up to 15 logs.
  static uint32_t place(uint32_t log, uint32_t index) { return log << 28 | index; }
  static uint32_t entry(const Log& log, uint32_t at) {
    return log.entries[at & (log.entries.size() - 1)];
  }
  bool is_live(uint32_t log, uint32_t at) const {
    const Log& of = logs_[log];
    const auto index = at & static_cast<uint32_t>(of.entries.size() - 1);
    return place_of_[of.entries[index]] == place(log, index);
  }
  void skip(uint32_t log) {
    Log& of = logs_[log];
    while (of.begin != of.end && !is_live(log, of.begin)) ++of.begin;
  }

  // Drops what has left; twice as long a ring where that is less than half.
  void make_room(uint32_t log) {
    Log& old = logs_[log];
    std::vector<uint32_t> live;
    for (uint32_t at = old.begin; at != old.end; ++at) {
      if (is_live(log, at)) live.push_back(entry(old, at));
    }
    if (2 * live.size() > old.entries.size()) old.entries.resize(2 * old.entries.size());
    old.begin = old.end = 0;
    for (const uint32_t neuron : live) push_back(log, neuron);
  }

  std::vector<Log> logs_;
  std::vector<uint32_t> place_of_;  // by neuron: the log and the index of its entry
};

}  // namespace thermocline
