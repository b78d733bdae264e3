// BundleStore: FFN bundles of a rank in two tiers: the hot ones in memory, all of them in a file.
//
// A place of memory holds one bundle. As many as the budget allows hold hot bundles; beside them is
//   staging, where the other bundles that a layer needs are read to and computed from, and which
//   the next layer uses again. WeightView::places says where a neuron's rows are.
// The hot set is somebody's (a PolicyDriver's): follow() starts the reads that it takes to get
//   there, and returns. Until a bundle has come it counts as cold.
// What a layer will probably need can be read ahead, while the disk has nothing else to do: as many
//   bundles as came in time at the last layers.
// Goals: the memory that it takes never grows beyond budget and staging; moves stall nothing and
//   change no result; reads go past the page cache, neighbours in one. Non-goals: choosing what is
//   hot (sim/policy.h), computing.
// Thread-safety: one rank, one thread.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "models/neuron.h"
#include "runtime/backend.h"
#include "runtime/tiers/bundle_file.h"
#include "runtime/tiers/disk_reader.h"

namespace thermocline {

// Grows from the start of a run; bundles and bytes of this rank.
struct TierCounters {
  uint64_t needed = 0;       // bundles that layers asked for, once a pass
  uint64_t here = 0;         // of these, hot and in memory when they were asked for
  uint64_t read_bytes = 0;   // from the file, for those that were not, and what lay between
  uint64_t read_count = 0;   // as so many reads
  uint64_t moved_bytes = 0;  // from the file, for the hot set
  uint64_t moved_count = 0;  // bundles
  uint64_t ahead_bytes = 0;  // of read_bytes, before a layer asked for them
  uint64_t ahead_count = 0;  // bundles
  uint64_t ahead_used = 0;   // of these, needed
  uint64_t wait_ns = 0;      // for what was not there
};

class BundleStore {
 public:
  // hot_max: bundles that the budget allows. The backend outlives the store.
  BundleStore(Backend& backend, const NeuronPool& pool, const BundleFile& file, uint64_t hot_max,
              const std::string& engine = "auto");
  ~BundleStore();

  // Rows of the bundles of a layer of the pool, `offset` bytes from where each begins.
  WeightView view(uint32_t layer, DType dtype, int cols, uint64_t offset) const;
  uint64_t hot_bytes() const { return hot_max_ * place_bytes_; }
  uint64_t staging_bytes() const { return staging_bytes_; }  // that were in use at once so far
  const char* engine() const { return reader_->name(); }

  // Whose hot set begin_pass() follows; it outlives the store or the next call.
  void set_hot(const HotSet* hot) { hot_ = hot; }
  void begin_pass() {
    if (hot_ != nullptr) follow(hot_->words());
  }
  // hot: (layer_count, words_per_layer), at most hot_max bundles.
  void follow(std::span<const uint64_t> hot);
  void wait_for_moves();

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
  enum class State : uint8_t { cold, moving, cancelled, hot };
  enum class For : uint8_t { move, need, ahead };
  // Neighbouring bundles that one read brings to places side by side.
  struct Run {
    uint32_t layer, first, count, place;
    For what;
  };

  static constexpr uint32_t kAheadFirst = 256;
  // Places beside those that a layer can need, with what lies between.
  uint32_t ahead_places() const { return pool_.neuron_count / 4; }

  size_t flat(uint32_t layer, uint32_t neuron) const {
    return size_t{layer} * pool_.neuron_count + neuron;
  }
  void evict(uint32_t layer, uint32_t neuron);
  void admit(uint32_t layer, uint32_t neuron, std::vector<Run>& runs);
  uint32_t free_place();
  void add_read(uint32_t layer, uint32_t neuron, For what, std::vector<Run>& runs) const;
  void stage(Run& run, std::span<const uint64_t> wanted);
  void take_what_came_ahead(std::span<const uint64_t> needed);
  void start(std::vector<Run>& runs);
  void settle(const std::vector<uint64_t>& tags);
  void settle_move(const Run& run);

  Backend& backend_;
  NeuronPool pool_;
  BundleLayout layout_;
  uint64_t hot_max_, place_bytes_;
  std::shared_ptr<std::byte> memory_;  // (hot_max + neuron_count + ahead_places, place_bytes)
  std::vector<uint32_t> places_;       // (layer_count, neuron_count)
  std::vector<State> states_;          // (layer_count, neuron_count)
  std::vector<uint64_t> wanted_;       // the hot set that was followed last
  std::vector<uint64_t> resident_;     // hot and in memory
  std::vector<uint32_t> free_;         // places for hot bundles, the next one last
  std::vector<Run> runs_;              // by tag
  std::vector<uint32_t> free_runs_;
  uint64_t moving_ = 0;  // runs of moves under way
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
