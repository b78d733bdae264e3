// HotPlaces: which bundles of a pool lie in places of a faster tier, and which are on their way.
//
// What stores of bundles share: a bundle is cold, moves to a place, or is hot there. One that
// leaves
//   the hot set while it moves is cancelled, and gives up its place when it has arrived, since
//   until then something writes to it. One that comes back before is on its way still.
// Goals: never more bundles than places, whatever is followed. Non-goals: how bundles move
//   (BundleStore: reads from a disk; DeviceTier: copies to a device).
// Thread-safety: one thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "models/neuron.h"

namespace thermocline {

// Calls visit(i) for every neuron of a layer whose bit is set.
template <class Visit>
void for_each_neuron(uint32_t neuron_count, std::span<const uint64_t> words, Visit visit) {
  for_each_bit(NeuronPool{0, 1, 0, neuron_count}, words, visit);
}

class HotPlaces {
 public:
  enum class State : uint8_t { cold, moving, cancelled, hot };
  enum class Admission { starts, is_on_its_way, has_no_place };

  HotPlaces(const NeuronPool& pool, uint64_t place_count);

  // From the hot set that was followed last to another: evicts the bundles that left, then calls
  // admit(layer, neuron) for those that came. hot: (layer_count, words_per_layer).
  template <class Admit>
  void follow(std::span<const uint64_t> hot, Admit admit) {
    for_each_only_in(wanted_, hot, [this](uint32_t flat) { evict(flat); });
    for_each_only_in(hot, wanted_, [&](uint32_t flat) {
      admit(flat / pool_.neuron_count, flat % pool_.neuron_count);
    });
    wanted_.assign(hot.begin(), hot.end());
  }
  // Whether the bundle needs to be brought, to *place.
  Admission admit(uint32_t layer, uint32_t neuron, uint32_t* place);
  // It has been brought: true if it is hot now, false if it was cancelled.
  bool arrive(uint32_t layer, uint32_t neuron, uint32_t place);

  State state(uint32_t layer, uint32_t neuron) const { return states_[flat(layer, neuron)]; }
  bool is_wanted(uint32_t layer, uint32_t neuron) const {
    return wanted_[word(layer, neuron)] >> neuron % 64 & 1;
  }
  bool has_free_place() const { return !free_.empty(); }
  // Hot bundles, (layer_count, words_per_layer), and of one layer.
  std::span<const uint64_t> resident() const { return resident_; }
  std::span<const uint64_t> resident(uint32_t layer) const {
    return resident().subspan(word(layer, 0), pool_.words_per_layer());
  }
  // Of hot bundles, (layer_count, neuron_count). A store may write those of others.
  std::span<uint32_t> places() { return places_; }
  std::span<const uint32_t> places() const { return places_; }

 private:
  size_t flat(uint32_t layer, uint32_t neuron) const {
    return size_t{layer} * pool_.neuron_count + neuron;
  }
  size_t word(uint32_t layer, uint32_t neuron) const {
    return size_t{layer} * pool_.words_per_layer() + neuron / 64;
  }
  template <class Visit>
  void for_each_only_in(std::span<const uint64_t> here, std::span<const uint64_t> there,
                        Visit visit) const {
    std::vector<uint64_t> words(here.begin(), here.end());
    for (size_t w = 0; w < words.size(); ++w) words[w] &= ~there[w];
    for_each_bit(pool_, words, visit);
  }
  void evict(uint32_t flat);

  NeuronPool pool_;
  std::vector<uint32_t> places_;    // (layer_count, neuron_count)
  std::vector<State> states_;       // (layer_count, neuron_count)
  std::vector<uint64_t> wanted_;    // the hot set that was followed last
  std::vector<uint64_t> resident_;  // hot
  std::vector<uint32_t> free_;      // places, the next one last
};

}  // namespace thermocline
