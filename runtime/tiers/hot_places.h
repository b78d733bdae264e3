// HotPlaces: which bundles of a pool lie in places of a faster tier, and which are on their way.
//
// What stores of bundles share: a bundle is cold, moves to a place, or is hot there. One that comes
//   waits until there is a place for it. One that leaves the hot set while it moves is cancelled,
//   and gives up its place when it has arrived, since until then something writes to it; one that
//   comes back before is on its way still. One that leaves while somebody reads its place (hold)
//   is cold at once, and its place is free when that has ended (let_go).
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

  HotPlaces(const NeuronPool& pool, uint64_t place_count);

  // From the hot set that was followed last to another: evicts the bundles that left, and has those
  // that came wait for a place. hot: (layer_count, words_per_layer). Calls give_up(layer, neuron)
  // for those that left while they waited.
  template <class GiveUp>
  void follow(std::span<const uint64_t> hot, GiveUp give_up) {
    for_each_only_in(wanted_, hot, [&](uint32_t flat) {
      if (states_[flat] == State::cold) give_up(layer_of(flat), neuron_of(flat));
      evict(flat);
    });
    for_each_only_in(hot, wanted_, [this](uint32_t flat) { waiting_.push_back(flat); });
    wanted_.assign(hot.begin(), hot.end());
    std::erase_if(waiting_, [this](uint32_t flat) { return !is_wanted(flat); });
  }
  // Of those that wait, in the order in which they came, as long as there are places: calls
  // start(layer, neuron, place) for whatever needs to be brought, unless is_ready(layer, neuron)
  // says that this cannot be yet.
  template <class IsReady, class Start>
  void admit_waiting(IsReady is_ready, Start start) {
    std::erase_if(waiting_, [&](uint32_t flat) {
      State& state = states_[flat];
      const bool on_its_way = state == State::cancelled;
      if (!on_its_way) {
        if (free_.empty() || !is_ready(layer_of(flat), neuron_of(flat))) return false;
        start(layer_of(flat), neuron_of(flat), free_.back());
        free_.pop_back();
      }
      state = State::moving;
      return true;
    });
  }
  bool any_waits() const { return !waiting_.empty(); }
  // Whether it is in the hot set that was followed last, wherever it is.
  bool is_wanted(uint32_t layer, uint32_t neuron) const {
    return wanted_[word(layer, neuron)] >> neuron % 64 & 1;
  }
  // It has been brought: true if it is hot now, false if it was cancelled.
  bool arrive(uint32_t layer, uint32_t neuron, uint32_t place);

  // Somebody reads the place of a hot bundle, one at a time: nobody gets it until let_go().
  void hold(uint32_t place);
  void let_go(uint32_t place);

  State state(uint32_t layer, uint32_t neuron) const { return states_[flat(layer, neuron)]; }
  // Hot bundles, (layer_count, words_per_layer), and of one layer.
  std::span<const uint64_t> resident() const { return resident_; }
  std::span<const uint64_t> resident(uint32_t layer) const {
    return resident().subspan(word(layer, 0), pool_.words_per_layer());
  }
  // Of hot bundles, (layer_count, neuron_count). A store may write those of others.
  std::span<uint32_t> places() { return places_; }
  std::span<const uint32_t> places() const { return places_; }
  uint32_t place(uint32_t layer, uint32_t neuron) const { return places_[flat(layer, neuron)]; }

 private:
  enum class Held : uint8_t { no, yes, left };  // left: its bundle, meanwhile

  size_t flat(uint32_t layer, uint32_t neuron) const {
    return size_t{layer} * pool_.neuron_count + neuron;
  }
  uint32_t layer_of(uint32_t flat) const { return flat / pool_.neuron_count; }
  uint32_t neuron_of(uint32_t flat) const { return flat % pool_.neuron_count; }
  size_t word(uint32_t layer, uint32_t neuron) const {
    return size_t{layer} * pool_.words_per_layer() + neuron / 64;
  }
  bool is_wanted(uint32_t flat) const { return is_wanted(layer_of(flat), neuron_of(flat)); }
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
  std::vector<uint32_t> waiting_;   // for a place
  std::vector<uint32_t> free_;      // places, the next one last
  std::vector<Held> held_;          // (places)
};

}  // namespace thermocline
