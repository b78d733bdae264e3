// BundleStore: FFN bundles of a rank in two tiers: the hot ones in memory, all of them in a file.
//
// A place of memory holds one bundle. As many as the budget allows hold hot bundles; beside them is
//   staging, where the other bundles that a layer needs are read to and computed from, and which
//   the next layer uses again. WeightView::places says where a neuron's rows are.
// The hot set is somebody's (a PolicyDriver's): follow() starts the reads that it takes to get
//   there, and returns. Until a bundle has come it counts as cold.
// What a layer will probably need can be read ahead, while the disk has nothing else to do: as many
//   bundles as came in time at the last layers.
// A still faster tier takes bundles from here: a hot one keeps its place while it is held; one that
//   is not hot here, and shall not be, is read to one of a few places of passage.
// Goals: the memory that it takes never grows beyond budget, staging and passage; moves stall
//   nothing and change no result; reads go past the page cache, neighbours in one. Non-goals:
//   choosing what is hot (sim/policy.h), computing.
// Thread-safety: one rank, one thread.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "models/neuron.h"
#include "runtime/backend.h"
#include "runtime/tiers/bundle_file.h"
#include "runtime/tiers/disk_reader.h"
#include "runtime/tiers/hot_places.h"
#include "runtime/tiers/tier_counters.h"

namespace thermocline {

// Places of a store, bundles.
struct StorePlaces {
  uint64_t hot = 0;
  uint64_t needed = 0, ahead = 0;  // staging: of a layer, and with what lies between
  uint64_t passage = 0;

  uint64_t total() const { return hot + needed + ahead + passage; }
};
// hot_max: bundles that the budget allows; passes_on: to a faster tier.
StorePlaces store_places(const NeuronPool& pool, uint64_t place_bytes, uint64_t hot_max,
                         bool passes_on);

class BundleStore {
 public:
  // hot_max: bundles that the budget allows; passes_on: hold() is called. The backend outlives the
  // store.
  BundleStore(Backend& backend, const NeuronPool& pool, const BundleFile& file, uint64_t hot_max,
              const std::string& engine = "auto", bool passes_on = false);
  ~BundleStore();

  // Rows of the bundles of a layer of the pool, `offset` bytes from where each begins.
  WeightView view(uint32_t layer, DType dtype, int cols, uint64_t offset) const;
  uint64_t hot_bytes() const { return sizes_.hot * place_bytes_; }
  uint64_t passage_bytes() const { return sizes_.passage * place_bytes_; }
  uint64_t staging_bytes() const { return staging_bytes_; }  // that were in use at once so far
  const char* engine() const { return reader_->name(); }

  // Whose hot set begin_pass() follows; it outlives the store or the next call.
  void set_hot(const HotSet* hot) { hot_ = hot; }
  void begin_pass();
  // hot: (layer_count, words_per_layer), at most hot_max bundles.
  void follow(std::span<const uint64_t> hot);
  // Until all has come that is wanted and finds a place, and what is on its way for hold().
  void wait_for_moves();

  // For a faster tier, between passes: the bundle's rows in memory, which stay until let_go();
  // null: they are on their way, or will be when there is room. Whoever asked asks again later, or
  // does not want it any more (forget).
  const std::byte* hold(uint32_t layer, uint32_t neuron);
  void let_go(const std::byte* bundle);
  void forget(uint32_t layer, uint32_t neuron);

  // Starts reads of bundles of the layer that is requested next, of those whose bits are set.
  void read_ahead(uint32_t layer, std::span<const uint64_t> likely);
  // Asks for the bundles of a layer whose bits are set: (words_per_layer). Reads are under way when
  // it returns. One layer at a time.
  void request(uint32_t layer, std::span<const uint64_t> needed);
  std::span<const uint64_t> here() const { return here_; }      // what request found in memory
  std::span<const uint64_t> coming() const { return coming_; }  // the rest of what is needed
  // Until that is there, until release(). Returns the ns that it took.
  uint64_t wait();
  void release();  // the layer is done

  const TierCounters& counters() const { return counters_; }

 private:
  enum class For : uint8_t { move, need, ahead, passage };
  // Neighbouring bundles that one read brings to places side by side.
  struct Run {
    uint32_t layer, first, count, place;
    For what;
  };

  // A bundle on its way through.
  struct Passing {
    uint32_t place;
    bool is_here, is_wanted;
  };

  static constexpr uint32_t kAheadFirst = 256;

  uint32_t flat(uint32_t layer, uint32_t neuron) const {
    return layer * pool_.neuron_count + neuron;
  }
  std::byte* at(uint64_t place) const { return memory_.get() + place * place_bytes_; }
  void admit_waiting();
  void add_move(uint32_t layer, uint32_t neuron, uint32_t place, std::vector<Run>& runs);
  void start_passage(uint32_t layer, uint32_t neuron);
  void add_read(uint32_t layer, uint32_t neuron, For what, std::vector<Run>& runs) const;
  void stage(Run& run, std::span<const uint64_t> wanted);
  void take_what_came_ahead(std::span<const uint64_t> needed);
  void start(std::vector<Run>& runs);
  void settle(const std::vector<uint64_t>& tags);
  void settle_move(const Run& run);
  void settle_passage(const Run& run);

  Backend& backend_;
  NeuronPool pool_;
  BundleLayout layout_;
  uint64_t place_bytes_;
  StorePlaces sizes_;
  std::shared_ptr<std::byte> memory_;  // (places, place_bytes): hot, staging, passage
  HotPlaces hot_places_;               // with the places of staged bundles too
  std::vector<Run> runs_;              // by tag
  std::vector<uint32_t> free_runs_;
  uint64_t moving_ = 0;                            // runs of moves and passages under way
  std::unordered_map<uint32_t, Passing> passing_;  // by flat index
  std::vector<uint32_t> free_passage_;             // places
  const HotSet* hot_ = nullptr;
  // Of the request.
  uint32_t layer_ = 0;
  std::vector<uint64_t> here_, coming_;
  uint64_t awaited_ = 0;  // runs, and bundles that are moving, without which wait() does not return
  std::vector<uint64_t> ahead_, came_ahead_;  // read before the request; of these, in memory
  uint64_t ahead_flying_ = 0;                 // runs of these under way
  uint32_t ahead_max_ = kAheadFirst;          // bundles: grows where all of them came in time
  uint32_t staged_ = 0;                       // places of staging in use
  uint64_t staging_bytes_ = 0;
  TierCounters counters_;
  std::unique_ptr<DiskReader> reader_;  // last: it ends before what it writes to
};

}  // namespace thermocline
