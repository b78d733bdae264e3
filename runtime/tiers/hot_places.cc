#include "runtime/tiers/hot_places.h"

#include <limits>

#include "models/error.h"

namespace thermocline {

HotPlaces::HotPlaces(const NeuronPool& pool, uint64_t place_count)
    : pool_(pool),
      places_(pool.total()),
      states_(pool.total(), State::cold),
      wanted_(pool.words_per_step()),
      resident_(pool.words_per_step()),
      held_(place_count) {
  TC_CHECK(place_count < std::numeric_limits<uint32_t>::max(), "places are counted in 32 bits");
  for (uint64_t place = place_count; place > 0; --place)
    free_.push_back(static_cast<uint32_t>(place - 1));
}

void HotPlaces::evict(uint32_t flat) {
  State& state = states_[flat];
  if (state == State::moving) state = State::cancelled;
  if (state != State::hot) return;  // cold: it waited for a place
  state = State::cold;
  const uint32_t neuron = neuron_of(flat), place = places_[flat];
  resident_[word(layer_of(flat), neuron)] &= ~(uint64_t{1} << neuron % 64);
  if (held_[place] == Held::no) {
    free_.push_back(place);
  } else {
    held_[place] = Held::left;
  }
}

bool HotPlaces::arrive(uint32_t layer, uint32_t neuron, uint32_t place) {
  State& state = states_[flat(layer, neuron)];
  if (state == State::cancelled) {
    state = State::cold;
    free_.push_back(place);
    return false;
  }
  TC_CHECK(state == State::moving, "a bundle that nobody asked for");
  state = State::hot;
  places_[flat(layer, neuron)] = place;
  resident_[word(layer, neuron)] |= uint64_t{1} << neuron % 64;
  return true;
}

void HotPlaces::hold(uint32_t place) {
  TC_CHECK(held_[place] == Held::no, "one holder of a place at a time");
  held_[place] = Held::yes;
}

void HotPlaces::let_go(uint32_t place) {
  TC_CHECK(held_[place] != Held::no, "a place that somebody holds");
  if (held_[place] == Held::left) free_.push_back(place);
  held_[place] = Held::no;
}

}  // namespace thermocline
