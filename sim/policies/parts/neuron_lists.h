// NeuronLists: several ordered lists over the neurons of a pool, each neuron in at most one.
//
// Two indices per neuron, and a sentinel per list, so that nothing is searched, hashed or allocated
// when neurons move.
// Goals: every operation takes constant time. Non-goals: sizes, and which list a neuron is in:
//   users know.
// Thread-safety: none needed; one policy, one thread.
#pragma once

#include <cstdint>
#include <vector>

namespace thermocline {

class NeuronLists {
 public:
  NeuronLists() = default;
  NeuronLists(uint64_t neuron_count, uint32_t list_count)
      : first_sentinel_(static_cast<uint32_t>(neuron_count)), links_(neuron_count) {
    for (uint32_t list = 0; list < list_count; ++list) add_list();
  }

  uint32_t list_count() const { return static_cast<uint32_t>(links_.size()) - first_sentinel_; }
  void add_list() {
    const auto sentinel = static_cast<uint32_t>(links_.size());
    links_.push_back({sentinel, sentinel});
  }

  bool empty(uint32_t list) const { return front(list) == first_sentinel_ + list; }
  // The neuron that has been in the list for longest; only where it is not empty.
  uint32_t front(uint32_t list) const { return links_[first_sentinel_ + list].next; }
  void push_back(uint32_t list, uint32_t neuron) {
    const uint32_t sentinel = first_sentinel_ + list, last = links_[sentinel].previous;
    links_[neuron] = {last, sentinel};
    links_[last].next = links_[sentinel].previous = neuron;
  }
  // The neuron is in some list.
  void remove(uint32_t neuron) {
    const Links links = links_[neuron];
    links_[links.previous].next = links.next;
    links_[links.next].previous = links.previous;
  }
  uint32_t pop_front(uint32_t list) {
    const uint32_t neuron = front(list);
    remove(neuron);
    return neuron;
  }
  // All of `from`, in their order, behind those of `to`.
  void append(uint32_t to, uint32_t from) {
    if (empty(from)) return;
    const uint32_t target = first_sentinel_ + to, source = first_sentinel_ + from;
    const uint32_t last = links_[target].previous;
    const Links moved = links_[source];
    links_[last].next = moved.next;
    links_[moved.next].previous = last;
    links_[moved.previous].next = target;
    links_[target].previous = moved.previous;
    links_[source] = {source, source};
  }

 private:
  struct Links {
    uint32_t previous, next;
  };
  uint32_t first_sentinel_ = 0;
  std::vector<Links> links_;  // of the neurons, then of the lists
};

}  // namespace thermocline
