// Neurons, and sets of them as bits.
//
// NeuronId: one FFN neuron = gate row + up row + down column, moved as one bundle.
// NeuronPool: the rectangle of neurons that one rank owns (layers x contiguous neurons).
// ActiveSet: the neurons that are active (needed) for one token at one layer.
// ActiveStep: the ActiveSets of one step, all layers of a pool. HotSet: the neurons kept hot.
// ActivationProfile: firing counts.
//
// Goals: one bit layout, shared by the recorder, the trace, the replay and the live runtime.
// Bit layout: layers one after the other; each layer takes words_per_layer = ceil(n/64) words;
//   neuron i of a layer is bit i%64 (little bit order) of word i/64. Spare bits are zero.
// A neuron's flat index inside its pool is layer * neuron_count + neuron (layer, neuron local).
// Thread-safety: plain data; concurrent reads are safe.
#pragma once

#include <bit>
#include <cstdint>
#include <span>
#include <vector>

namespace thermocline {

struct NeuronId {
  uint32_t layer;
  uint32_t index;
  bool operator==(const NeuronId&) const = default;
};

struct NeuronPool {
  uint32_t layer_begin = 0;
  uint32_t layer_count = 0;
  uint32_t neuron_begin = 0;  // a multiple of 8, so that pools meet at byte borders in a trace
  uint32_t neuron_count = 0;  // neurons per layer
  bool operator==(const NeuronPool&) const = default;

  uint64_t total() const { return uint64_t{layer_count} * neuron_count; }
  uint32_t words_per_layer() const { return (neuron_count + 63) / 64; }
  uint32_t bytes_per_layer() const { return (neuron_count + 7) / 8; }  // as stored in a trace
  uint64_t words_per_step() const { return uint64_t{layer_count} * words_per_layer(); }
  // Word w of a layer in which every neuron has its bit.
  uint64_t full_word(size_t w) const {
    const uint64_t left = neuron_count - 64 * w;
    return left >= 64 ? ~uint64_t{0} : ~(~uint64_t{0} << left);
  }
};

struct ActiveSet {
  std::span<const uint64_t> words;  // (words_per_layer)

  uint32_t count() const {
    uint32_t total = 0;
    for (const uint64_t word : words) total += static_cast<uint32_t>(std::popcount(word));
    return total;
  }
  bool contains(uint32_t neuron) const { return words[neuron / 64] >> (neuron % 64) & 1; }
};

struct ActiveStep {
  const NeuronPool* pool;
  std::span<const uint64_t> words;  // (layer_count, words_per_layer)
  uint32_t task = 0;                // which request
  bool prompt = false;              // a position of its prompt, not a decoded token

  ActiveSet layer(uint32_t local_layer) const {
    const uint32_t stride = pool->words_per_layer();
    return {words.subspan(uint64_t{local_layer} * stride, stride)};
  }
};

// Calls visit(flat_index) for every set bit of a (layer_count, words_per_layer) array, in order.
template <class Visit>
void for_each_bit(const NeuronPool& pool, std::span<const uint64_t> words, Visit visit) {
  const uint32_t stride = pool.words_per_layer();
  for (uint32_t layer = 0; layer < pool.layer_count; ++layer) {
    for (uint32_t w = 0; w < stride; ++w) {
      for (uint64_t word = words[uint64_t{layer} * stride + w]; word != 0; word &= word - 1) {
        visit(layer * pool.neuron_count + w * 64 + static_cast<uint32_t>(std::countr_zero(word)));
      }
    }
  }
}

class HotSet {
 public:
  HotSet() = default;
  explicit HotSet(const NeuronPool& pool) : pool_(pool), words_(pool.words_per_step()) {}

  bool contains(uint32_t flat) const { return words_[word_of(flat)] >> bit_of(flat) & 1; }
  // True if the set changed.
  bool insert(uint32_t flat) {
    if (contains(flat)) return false;
    words_[word_of(flat)] |= uint64_t{1} << bit_of(flat);
    ++count_;
    return true;
  }
  bool erase(uint32_t flat) {
    if (!contains(flat)) return false;
    words_[word_of(flat)] &= ~(uint64_t{1} << bit_of(flat));
    --count_;
    return true;
  }

  // The same where word and bit (a mask) are known: no division.
  bool contains_at(uint64_t word, uint64_t bit) const { return (words_[word] & bit) != 0; }
  bool insert_at(uint64_t word, uint64_t bit) {
    if (contains_at(word, bit)) return false;
    words_[word] |= bit;
    ++count_;
    return true;
  }
  bool erase_at(uint64_t word, uint64_t bit) {
    if (!contains_at(word, bit)) return false;
    words_[word] &= ~bit;
    --count_;
    return true;
  }

  // The whole set at once: (layer_count, words_per_layer), spare bits zero.
  void assign(std::span<const uint64_t> words) {
    words_.assign(words.begin(), words.end());
    count_ = 0;
    for (const uint64_t word : words_) count_ += static_cast<uint64_t>(std::popcount(word));
  }

  // Where the bit of a neuron is in words().
  uint64_t word_of(uint32_t flat) const {
    return uint64_t{flat / pool_.neuron_count} * pool_.words_per_layer() +
           flat % pool_.neuron_count / 64;
  }
  uint32_t bit_of(uint32_t flat) const { return flat % pool_.neuron_count % 64; }

  uint64_t count() const { return count_; }
  std::span<const uint64_t> words() const { return words_; }
  const NeuronPool& pool() const { return pool_; }

 private:
  NeuronPool pool_;
  std::vector<uint64_t> words_;
  uint64_t count_ = 0;
};

// How often each neuron of a pool fired over `step_count` steps.
struct ActivationProfile {
  NeuronPool pool;
  uint64_t step_count = 0;
  std::vector<uint32_t> counts;  // (layer_count, neuron_count)

  ActivationProfile() = default;
  explicit ActivationProfile(const NeuronPool& p) : pool(p), counts(p.total()) {}
  void add(const ActiveStep& active) {
    ++step_count;
    for_each_bit(pool, active.words, [this](uint32_t flat) { ++counts[flat]; });
  }
};

}  // namespace thermocline
