// DeviceTier: the hot FFN bundles of a rank on a device, above those of the host.
//
// A place of device memory holds one bundle, packed as the device's kernels want it; as many as the
//   budget allows, and no more. The host has every bundle, packed as the CPU's kernels want it, in
//   memory or in a file (tiers/host_bundles.h). Beside the places the device has what kernels look
//   up (a place for each neuron, a bit for each that is hot) and a buffer of moves.
// The hot set is somebody's (a PolicyDriver's). A pass's split is fixed at its beginning:
//   begin_pass() makes hot what has arrived, cold what left, and hands the rest to a thread that
//   repacks bundles into batches and starts their copies, beside the pass. Until a bundle is found
//   to have arrived it is cold, and the host computes it. A bundle for which no place is free yet,
//   or which is not in host memory, waits for a later pass. What moves is held on the host.
// Goals: the budget is what is allocated; nothing waits for a move. Non-goals: choosing what is hot
//   (sim/policy.h), computing (side_by_side.h).
// Errors: a failure of a move is thrown by the next begin_pass().
// Thread-safety: one rank, one thread; its own thread only moves.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include "models/neuron.h"
#include "runtime/backend.h"
#include "runtime/tiers/host_bundles.h"
#include "runtime/tiers/hot_places.h"
#include "runtime/tiers/tier_counters.h"

namespace thermocline {

// What a device tier takes of the device, before it is made; bytes.
struct DeviceTierSize {
  uint64_t place_bytes = 0;  // of a bundle
  uint64_t hot_bytes = 0;    // all places
  uint64_t index_bytes = 0;  // where each neuron lies, and which are hot
  uint64_t move_bytes = 0;   // the buffer of moves
  uint64_t total() const { return hot_bytes + index_bytes + move_bytes; }
};
// place_bytes: of the largest bundle of any layer.
DeviceTierSize device_tier_size(const Backend& device, const NeuronPool& pool, uint64_t place_bytes,
                                uint64_t hot_max);

class DeviceTier {
 public:
  // bundles: of the pool; their memory and both backends outlive the tier. hot_max: bundles that
  // the budget allows.
  DeviceTier(Backend& device, Backend& host, const NeuronPool& pool,
             std::unique_ptr<HostBundles> bundles, uint64_t hot_max);
  ~DeviceTier();

  Backend& host() const { return host_; }
  const WeightView& host_rows(uint32_t layer, BundleRow row) const {
    return bundles_->layers()[layer][row];
  }
  // Rows of hot bundles, in places of the device.
  WeightView device_rows(uint32_t layer, BundleRow row) const;
  const DeviceTierSize& size() const { return size_; }

  // Whose hot set begin_pass() follows; it outlives the tier or the next call.
  void set_hot(const HotSet* hot) { hot_ = hot; }
  // Between passes: no operation that reads the device's rows is under way.
  void begin_pass();
  // hot: (layer_count, words_per_layer), at most hot_max bundles.
  void follow(std::span<const uint64_t> hot);
  // Until all that is wanted has arrived: the next pass finds it hot.
  void wait_for_moves();

  // Of the pass: the hot neurons of a layer, on the host and in device memory, (words_per_layer);
  // the cold ones; and how many are cold.
  std::span<const uint64_t> hot(uint32_t layer) const { return hot_places_.resident(layer); }
  const uint64_t* hot_on_device(uint32_t layer) const;
  std::span<const uint64_t> cold(uint32_t layer) const;
  uint32_t cold_count(uint32_t layer) const { return cold_counts_[layer]; }

  // Counts the neurons of a pass that any of its tokens needed; words: (row, words_per_step).
  void count(std::span<const uint64_t> words);
  const TierCounters& counters() const { return counters_; }

 private:
  struct Move {
    uint32_t layer, neuron, place;
    HeldRows rows;  // on the host
  };
  using Batch = std::vector<Move>;

  void settle();
  void admit_waiting();
  void publish_changes();
  void publish(uint32_t layer);
  // On the mover's thread.
  void serve();
  void move_until_closed();
  Batch take(bool wait);
  void start(const Batch& batch);
  void hand_back(std::deque<Batch>& started, uint64_t count);

  Backend& device_;
  Backend& host_;
  NeuronPool pool_;
  std::unique_ptr<HostBundles> bundles_;
  DeviceTierSize size_;
  uint32_t batch_max_;                                 // bundles
  std::shared_ptr<std::byte> memory_;                  // (hot_max, place_bytes), on the device
  std::shared_ptr<std::byte> places_, hot_words_;      // on the device: (layer_count, neuron_count)
                                                       // u32; (layer_count, words_per_layer) u64
  std::shared_ptr<std::byte> host_places_, host_hot_;  // what they are copied from
  HotPlaces hot_places_;
  std::vector<uint64_t> cold_;         // (layer_count, words_per_layer)
  std::vector<uint32_t> cold_counts_;  // by layer
  const HotSet* hot_ = nullptr;
  uint64_t under_way_ = 0;  // moves
  TierCounters counters_;

  // Between the rank's thread and the mover's.
  std::mutex mutex_;
  std::condition_variable work_came_, moves_arrived_;
  std::deque<Move> queue_;
  std::vector<Move> arrived_;
  std::exception_ptr error_;
  bool closing_ = false;
  std::unique_ptr<RowMover> mover_;  // the thread's
  std::thread thread_;               // last: it ends before what it reads
};

}  // namespace thermocline
