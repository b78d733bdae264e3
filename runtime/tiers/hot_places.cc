#include "runtime/tiers/hot_places.h"

#include <limits>

#include "models/error.h"

namespace thermocline {

HotPlaces::HotPlaces(const NeuronPool& pool, uint64_t place_count)
    : pool_(pool),
      places_(pool.total()),
      states_(pool.total(), State::cold),
      wanted_(pool.words_per_step()),
      resident_(pool.words_per_step()) {
  TC_CHECK(place_count < std::numeric_limits<uint32_t>::max(), "places are counted in 32 bits");
  for (uint64_t place = place_count; place > 0; --place)
    free_.push_back(static_cast<uint32_t>(place - 1));
}

void HotPlaces::evict(uint32_t flat_index) {
  State& state = states_[flat_index];
  if (state == State::moving) state = State::cancelled;
  if (state != State::hot) return;  // cold: there was no place for it yet
  state = State::cold;
  const uint32_t layer = flat_index / pool_.neuron_count, neuron = flat_index % pool_.neuron_count;
  resident_[word(layer, neuron)] &= ~(uint64_t{1} << neuron % 64);
  free_.push_back(places_[flat_index]);
}

HotPlaces::Admission HotPlaces::admit(uint32_t layer, uint32_t neuron, uint32_t* place) {
  State& state = states_[flat(layer, neuron)];
  if (state != State::cancelled && free_.empty()) return Admission::has_no_place;
  const bool on_its_way = state == State::cancelled;
  state = State::moving;
  if (on_its_way) return Admission::is_on_its_way;
  *place = free_.back();
  free_.pop_back();
  return Admission::starts;
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

}  // namespace thermocline
