#include "runtime/tiers/bundle_store.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>

#include "models/error.h"
#include "runtime/clock.h"

namespace thermocline {
namespace {

// One read more costs this disk about as much time as the bytes of one bundle more: neighbours with
// so many unneeded ones between them come in one read.
constexpr uint32_t kGapMax = 1;
constexpr uint64_t kReadMax = uint64_t{512}
                              << 10;  // bytes of one read, where it is several bundles

// A faster tier takes batches: so much is on its way to it at once, in few bundles at most.
constexpr uint64_t kPassageBytes = uint64_t{4} << 20, kPassageMax = 256;

bool bit_at(std::span<const uint64_t> words, uint32_t i) { return words[i / 64] >> (i % 64) & 1; }

}  // namespace

StorePlaces store_places(const NeuronPool& pool, uint64_t place_bytes, uint64_t hot_max,
                         bool passes_on) {
  StorePlaces places{std::min(hot_max, pool.total()), pool.neuron_count, pool.neuron_count / 4, 0};
  if (passes_on) {
    places.passage =
        std::clamp<uint64_t>(kPassageBytes / std::max<uint64_t>(place_bytes, 1), 1, kPassageMax);
  }
  return places;
}

BundleStore::BundleStore(Backend& backend, const NeuronPool& pool, const BundleFile& file,
                         uint64_t hot_max, const std::string& engine, bool passes_on)
    : backend_(backend),
      pool_(pool),
      layout_(file.layout()),
      place_bytes_(layout_.stride_max()),
      sizes_(store_places(pool, place_bytes_, hot_max, passes_on)),
      hot_places_(pool, sizes_.hot),
      here_(pool.words_per_layer()),
      coming_(pool.words_per_layer()),
      ahead_(pool.words_per_layer()),
      came_ahead_(pool.words_per_layer()) {
  TC_CHECK(backend.uses_host_memory(), "tiers are of host memory");
  const uint64_t bytes = sizes_.total() * place_bytes_;
  TC_CHECK(sizes_.total() < ~uint32_t{0}, "places are counted in 32 bits");
  ahead_max_ = std::min<uint32_t>(ahead_max_, static_cast<uint32_t>(sizes_.ahead / 2));
  memory_ = backend_.allocate(bytes);
  ::madvise(memory_.get(), bytes, MADV_HUGEPAGE);  // a hint
  for (uint64_t i = 1; i <= sizes_.passage; ++i)
    free_passage_.push_back(static_cast<uint32_t>(sizes_.total() - i));
  reader_ = open_disk_reader(file.path(), engine, layout_.is_direct());
}

BundleStore::~BundleStore() = default;

WeightView BundleStore::view(uint32_t layer, DType dtype, int cols, uint64_t offset) const {
  return {dtype,
          static_cast<int>(pool_.neuron_count),
          cols,
          place_bytes_,
          memory_.get() + offset,
          hot_places_.places().data() + flat(layer, 0)};
}

void BundleStore::begin_pass() {
  if (hot_ != nullptr) return follow(hot_->words());
  settle(reader_->finished());
}

void BundleStore::follow(std::span<const uint64_t> hot) {
  settle(reader_->finished());
  hot_places_.follow(hot, [](uint32_t, uint32_t) {});
  admit_waiting();
}

// Places of bundles that left before they had come, or that somebody holds, are free later.
void BundleStore::admit_waiting() {
  std::vector<Run> runs;
  hot_places_.admit_waiting([](uint32_t, uint32_t) { return true; },
                            [&](uint32_t layer, uint32_t neuron, uint32_t place) {
                              add_move(layer, neuron, place, runs);
                            });
  start(runs);
}

void BundleStore::add_move(uint32_t layer, uint32_t neuron, uint32_t place,
                           std::vector<Run>& runs) {
  counters_.moved_count += 1;
  counters_.moved_bytes += layout_.strides[layer];
  if (!runs.empty()) {
    Run& last = runs.back();
    const bool follows = last.layer == layer && last.first + last.count == neuron &&
                         last.place + last.count == place &&
                         (last.count + 1) * layout_.strides[layer] <= kReadMax &&
                         layout_.strides[layer] == place_bytes_;
    if (follows) {
      ++last.count;
      return;
    }
  }
  runs.push_back({layer, neuron, 1, place, For::move});
}

void BundleStore::wait_for_moves() {
  do {
    while (moving_ > 0) settle(reader_->wait());
    admit_waiting();
  } while (moving_ > 0);
}

const std::byte* BundleStore::hold(uint32_t layer, uint32_t neuron) {
  const auto passing = passing_.find(flat(layer, neuron));
  if (passing != passing_.end()) {
    passing->second.is_wanted = true;
    return passing->second.is_here ? at(passing->second.place) : nullptr;
  }
  switch (hot_places_.state(layer, neuron)) {
    case HotPlaces::State::hot:
      hot_places_.hold(hot_places_.place(layer, neuron));
      return at(hot_places_.place(layer, neuron));
    case HotPlaces::State::moving:
      return nullptr;
    default:
      // One that waits for a place here is read when it has that: once, and not twice.
      if (!hot_places_.is_wanted(layer, neuron) && !free_passage_.empty())
        start_passage(layer, neuron);
      return nullptr;
  }
}

void BundleStore::start_passage(uint32_t layer, uint32_t neuron) {
  const uint32_t place = free_passage_.back();
  free_passage_.pop_back();
  passing_[flat(layer, neuron)] = {place, false, true};
  counters_.passed_count += 1;
  counters_.passed_bytes += layout_.strides[layer];
  std::vector<Run> runs = {{layer, neuron, 1, place, For::passage}};
  start(runs);
}

void BundleStore::let_go(const std::byte* bundle) {
  const auto place =
      static_cast<uint32_t>(static_cast<uint64_t>(bundle - memory_.get()) / place_bytes_);
  if (place < sizes_.hot) return hot_places_.let_go(place);
  std::erase_if(passing_, [&](const auto& passing) { return passing.second.place == place; });
  free_passage_.push_back(place);
}

void BundleStore::forget(uint32_t layer, uint32_t neuron) {
  const auto passing = passing_.find(flat(layer, neuron));
  if (passing == passing_.end()) return;
  passing->second.is_wanted = false;
  if (!passing->second.is_here) return;  // something writes there still
  free_passage_.push_back(passing->second.place);
  passing_.erase(passing);
}

void BundleStore::read_ahead(uint32_t layer, std::span<const uint64_t> likely) {
  TC_CHECK(staged_ == 0 && ahead_flying_ == 0, "one layer at a time");
  settle(reader_->finished());
  std::vector<Run> runs;
  uint32_t count = 0;
  for_each_neuron(pool_.neuron_count, likely, [&](uint32_t neuron) {
    const bool is_cold = hot_places_.state(layer, neuron) == HotPlaces::State::cold;
    if (count == ahead_max_ || !is_cold) return;
    add_read(layer, neuron, For::ahead, runs);
    ahead_[neuron / 64] |= uint64_t{1} << neuron % 64;
    ++count;
  });
  for (Run& run : runs) stage(run, ahead_);
  counters_.ahead_count += count;
  counters_.ahead_bytes += staged_ * layout_.strides[layer];
  ahead_flying_ = runs.size();
  start(runs);
}

// What is needed of it counts as there, or as coming; the next layer gets as many as came in time.
void BundleStore::take_what_came_ahead(std::span<const uint64_t> needed) {
  uint64_t asked = 0, came = 0;
  for (size_t w = 0; w < ahead_.size(); ++w) {
    here_[w] |= came_ahead_[w] & needed[w];
    coming_[w] &= ~here_[w];
    asked += static_cast<uint64_t>(std::popcount(ahead_[w]));
    came += static_cast<uint64_t>(std::popcount(came_ahead_[w]));
    counters_.ahead_used += static_cast<uint64_t>(std::popcount(ahead_[w] & needed[w]));
  }
  awaited_ += ahead_flying_;  // their places are used again once the layer is done
  if (asked < ahead_max_ && came == asked) return;
  const uint64_t next = came == asked ? came + came / 4 : came;
  const uint64_t most = sizes_.ahead / 2;  // every second one may lie between
  ahead_max_ = static_cast<uint32_t>(std::min(std::max<uint64_t>(next, 16), most));
}

void BundleStore::request(uint32_t layer, std::span<const uint64_t> needed) {
  settle(reader_->finished());
  layer_ = layer;
  const std::span<const uint64_t> resident = hot_places_.resident(layer);
  for (size_t w = 0; w < here_.size(); ++w) {
    here_[w] = needed[w] & resident[w];
    coming_[w] = needed[w] & ~resident[w];
    counters_.needed += static_cast<uint64_t>(std::popcount(needed[w]));
    counters_.here += static_cast<uint64_t>(std::popcount(here_[w]));
  }
  take_what_came_ahead(needed);
  std::vector<Run> runs;
  for_each_neuron(pool_.neuron_count, coming_, [&](uint32_t neuron) {
    if (bit_at(ahead_, neuron)) return;
    if (hot_places_.state(layer, neuron) == HotPlaces::State::moving) {
      ++awaited_;
    } else {
      add_read(layer, neuron, For::need, runs);
    }
  });
  for (Run& run : runs) stage(run, coming_);
  awaited_ += runs.size();
  staging_bytes_ = std::max(staging_bytes_, staged_ * place_bytes_);
  start(runs);
}

void BundleStore::stage(Run& run, std::span<const uint64_t> wanted) {
  run.place = static_cast<uint32_t>(sizes_.hot) + staged_;
  staged_ += run.count;
  counters_.read_count += 1;
  counters_.read_bytes += run.count * layout_.strides[run.layer];
  for (uint32_t i = 0; i < run.count; ++i) {
    const uint32_t neuron = run.first + i;
    // What lies between, what comes as a move, and what came ahead is not computed from here.
    const bool is_ours = run.what == For::ahead || !bit_at(ahead_, neuron);
    const bool moves = hot_places_.state(run.layer, neuron) == HotPlaces::State::moving;
    if (is_ours && bit_at(wanted, neuron) && !moves)
      hot_places_.places()[flat(run.layer, neuron)] = run.place + i;
  }
}

// To the last run, if it is near.
void BundleStore::add_read(uint32_t layer, uint32_t neuron, For what,
                           std::vector<Run>& runs) const {
  if (!runs.empty() && layout_.strides[layer] == place_bytes_) {
    Run& last = runs.back();
    const uint32_t count = neuron + 1 - last.first;
    const bool near = neuron - (last.first + last.count) <= kGapMax;
    if (near && count * place_bytes_ <= kReadMax) {
      last.count = count;
      return;
    }
  }
  runs.push_back({layer, neuron, 1, 0, what});
}

uint64_t BundleStore::wait() {
  if (awaited_ == 0) return 0;
  const uint64_t start = now_ns();
  while (awaited_ > 0) settle(reader_->wait());
  const uint64_t took = now_ns() - start;
  counters_.wait_ns += took;
  return took;
}

void BundleStore::release() {
  TC_CHECK(awaited_ == 0, "a layer that waits");
  for (std::vector<uint64_t>* words : {&coming_, &ahead_, &came_ahead_}) {
    std::fill(words->begin(), words->end(), 0);
  }
  staged_ = 0;
}

void BundleStore::start(std::vector<Run>& runs) {
  std::vector<DiskRead> reads;
  for (const Run& run : runs) {
    if (free_runs_.empty()) {
      free_runs_.push_back(static_cast<uint32_t>(runs_.size()));
      runs_.emplace_back();
    }
    const uint32_t tag = free_runs_.back();
    free_runs_.pop_back();
    runs_[tag] = run;
    moving_ += run.what == For::move || run.what == For::passage ? 1 : 0;
    reads.push_back({layout_.at(run.layer, run.first), run.count * layout_.strides[run.layer],
                     at(run.place), tag});
  }
  runs.clear();
  if (!reads.empty()) reader_->start(reads);
}

void BundleStore::settle(const std::vector<uint64_t>& tags) {
  for (const uint64_t tag : tags) {
    const Run run = runs_[tag];
    free_runs_.push_back(static_cast<uint32_t>(tag));
    if (run.what == For::move || run.what == For::passage) {
      --moving_;
      run.what == For::move ? settle_move(run) : settle_passage(run);
      continue;
    }
    if (awaited_ > 0) --awaited_;  // not before the request, of what is read ahead
    if (run.what == For::need) continue;
    --ahead_flying_;
    for (uint32_t n = run.first; n < run.first + run.count; ++n) {
      came_ahead_[n / 64] |= ahead_[n / 64] & uint64_t{1} << n % 64;
    }
  }
}

void BundleStore::settle_move(const Run& run) {
  for (uint32_t i = 0; i < run.count; ++i) {
    const uint32_t neuron = run.first + i;
    if (!hot_places_.arrive(run.layer, neuron, run.place + i)) continue;
    if (run.layer == layer_ && bit_at(coming_, neuron)) --awaited_;
  }
}

void BundleStore::settle_passage(const Run& run) {
  const auto passing = passing_.find(flat(run.layer, run.first));
  TC_CHECK(passing != passing_.end(), "a bundle that nobody asked for");
  passing->second.is_here = true;
  if (!passing->second.is_wanted) forget(run.layer, run.first);
}

}  // namespace thermocline
