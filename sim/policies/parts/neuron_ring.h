// NeuronRing: a queue of neurons of which only the oldest leaves, in one array.
//
// Goals: memory is touched in order, unlike that of NeuronLists. Non-goals: growing.
// Thread-safety: none needed; one policy, one thread.
#pragma once

#include <bit>
#include <cstdint>
#include <vector>

namespace thermocline {

class NeuronRing {
 public:
  NeuronRing() = default;
  explicit NeuronRing(uint64_t size_max) : ring_(std::bit_ceil(size_max + 1)) {}

  uint64_t size() const { return end_ - begin_; }
  bool empty() const { return begin_ == end_; }
  uint32_t front() const { return ring_[begin_ & (ring_.size() - 1)]; }
  void push_back(uint32_t neuron) { ring_[end_++ & (ring_.size() - 1)] = neuron; }
  uint32_t pop_front() { return ring_[begin_++ & (ring_.size() - 1)]; }

 private:
  uint64_t begin_ = 0, end_ = 0;  // of all that were ever pushed
  std::vector<uint32_t> ring_;
};

}  // namespace thermocline
