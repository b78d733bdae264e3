#include "runtime/tiers/device_tier.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "models/error.h"
#include "runtime/kernels/cpu_layout.h"

namespace thermocline {
namespace {

constexpr uint64_t kBatchBytes = uint64_t{4} << 20;  // of moves that are copied at once

// A few bundles are worth a copy; one larger than that goes alone.
uint32_t batch_size(uint64_t place_bytes, uint64_t hot_max) {
  const uint64_t fitting = kBatchBytes / std::max<uint64_t>(place_bytes, 1);
  return static_cast<uint32_t>(std::max<uint64_t>(1, std::min(fitting, hot_max)));
}

uint64_t row_bytes(const WeightView& w) { return bytes_of(w.dtype, static_cast<uint64_t>(w.cols)); }

uint64_t largest_bundle(const std::vector<BundleRows>& layers) {
  uint64_t largest = 0;
  for (const BundleRows& rows : layers) {
    uint64_t bytes = 0;
    for (const WeightView& w : rows) bytes += row_bytes(w);
    largest = std::max(largest, bytes);
  }
  return largest;
}

// Of this thread alone: where moves meet the host's part of a layer, the layer goes first.
void give_way_to_others() {
  constexpr int kLast = 19;
  ::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), kLast);  // a hint
}

}  // namespace

DeviceTierSize device_tier_size(const Backend& device, const NeuronPool& pool, uint64_t place_bytes,
                                uint64_t hot_max) {
  const uint64_t places = std::min(hot_max, pool.total());
  return {place_bytes, places * place_bytes,
          pool.total() * sizeof(uint32_t) + pool.words_per_step() * sizeof(uint64_t),
          device.mover_bytes(place_bytes, batch_size(place_bytes, places))};
}

DeviceTier::DeviceTier(Backend& device, Backend& host, const NeuronPool& pool,
                       std::unique_ptr<HostBundles> bundles, uint64_t hot_max)
    : device_(device),
      host_(host),
      pool_(pool),
      bundles_(std::move(bundles)),
      size_(device_tier_size(device, pool, largest_bundle(bundles_->layers()), hot_max)),
      batch_max_(batch_size(size_.place_bytes, std::min(hot_max, pool.total()))),
      memory_(device.allocate(size_.hot_bytes)),
      places_(device.allocate(pool.total() * sizeof(uint32_t))),
      hot_words_(device.allocate(pool.words_per_step() * sizeof(uint64_t))),
      host_places_(device.allocate_host(pool.total() * sizeof(uint32_t))),
      host_hot_(device.allocate_host(pool.words_per_step() * sizeof(uint64_t))),
      hot_places_(pool, std::min(hot_max, pool.total())),
      cold_(pool.words_per_step()),
      cold_counts_(pool.layer_count, pool.neuron_count),
      mover_(device.make_mover(size_.place_bytes, batch_max_)) {
  TC_CHECK(bundles_->layers().size() == pool.layer_count, "rows of every layer");
  for (size_t w = 0; w < cold_.size(); ++w) cold_[w] = pool.full_word(w % pool.words_per_layer());
  thread_ = std::thread([this] { serve(); });
}

DeviceTier::~DeviceTier() {
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
  }
  work_came_.notify_all();
  thread_.join();
}

WeightView DeviceTier::device_rows(uint32_t layer, BundleRow row) const {
  uint64_t offset = 0;
  for (int before = 0; before < row; ++before)
    offset += row_bytes(host_rows(layer, static_cast<BundleRow>(before)));
  const WeightView& host = host_rows(layer, row);
  return {host.dtype,
          static_cast<int>(pool_.neuron_count),
          host.cols,
          size_.place_bytes,
          memory_.get() + offset,
          reinterpret_cast<const uint32_t*>(places_.get()) + size_t{layer} * pool_.neuron_count};
}

const uint64_t* DeviceTier::hot_on_device(uint32_t layer) const {
  return reinterpret_cast<const uint64_t*>(hot_words_.get()) +
         size_t{layer} * pool_.words_per_layer();
}

std::span<const uint64_t> DeviceTier::cold(uint32_t layer) const {
  return std::span(cold_).subspan(size_t{layer} * pool_.words_per_layer(), pool_.words_per_layer());
}

void DeviceTier::begin_pass() {
  if (hot_ != nullptr) return follow(hot_->words());
  settle();
  admit_waiting();
  publish_changes();
}

void DeviceTier::follow(std::span<const uint64_t> hot) {
  settle();
  hot_places_.follow(hot,
                     [this](uint32_t layer, uint32_t neuron) { bundles_->forget(layer, neuron); });
  admit_waiting();
  publish_changes();
}

void DeviceTier::wait_for_moves() {
  do {
    {
      std::unique_lock lock(mutex_);
      moves_arrived_.wait(lock, [&] { return arrived_.size() == under_way_ || error_ != nullptr; });
    }
    settle();
    bundles_->wait();
    admit_waiting();
  } while (under_way_ > 0 || hot_places_.any_waits());
}

// What has arrived is hot from now on, and no longer held on the host.
void DeviceTier::settle() {
  std::vector<Move> arrived;
  {
    const std::lock_guard lock(mutex_);
    if (error_ != nullptr) std::rethrow_exception(error_);
    arrived.swap(arrived_);
  }
  under_way_ -= arrived.size();
  for (const Move& move : arrived) {
    hot_places_.arrive(move.layer, move.neuron, move.place);
    bundles_->let_go(move.rows);
  }
}

// Starts what there is a place for, and what is in host memory.
void DeviceTier::admit_waiting() {
  Batch moves;
  HeldRows rows;
  hot_places_.admit_waiting(
      [&](uint32_t layer, uint32_t neuron) {
        rows = bundles_->hold(layer, neuron);
        return rows[kGateRow] != nullptr;
      },
      [&](uint32_t layer, uint32_t neuron, uint32_t place) {
        moves.push_back({layer, neuron, place, rows});
      });
  if (moves.empty()) return;
  under_way_ += moves.size();
  counters_.moved_count += moves.size();
  counters_.moved_bytes += moves.size() * size_.place_bytes;
  {
    const std::lock_guard lock(mutex_);
    queue_.insert(queue_.end(), moves.begin(), moves.end());
  }
  work_came_.notify_all();
}

void DeviceTier::publish_changes() {
  const auto* published = reinterpret_cast<const uint64_t*>(host_hot_.get());
  for (uint32_t layer = 0; layer < pool_.layer_count; ++layer) {
    const std::span<const uint64_t> now = hot(layer);
    const uint64_t* before = published + size_t{layer} * pool_.words_per_layer();
    if (!std::equal(now.begin(), now.end(), before)) publish(layer);
  }
}

// To the device, in front of the pass; and who is cold in it. The copies of the last pass are done.
void DeviceTier::publish(uint32_t layer) {
  const size_t word = size_t{layer} * pool_.words_per_layer(), words = pool_.words_per_layer();
  const size_t first = size_t{layer} * pool_.neuron_count, count = pool_.neuron_count;
  auto* host_hot = reinterpret_cast<uint64_t*>(host_hot_.get()) + word;
  auto* host_places = reinterpret_cast<uint32_t*>(host_places_.get()) + first;
  std::copy_n(hot(layer).data(), words, host_hot);
  std::copy_n(hot_places_.places().data() + first, count, host_places);
  device_.queue_copy(reinterpret_cast<uint64_t*>(hot_words_.get()) + word, host_hot,
                     words * sizeof(uint64_t));
  device_.queue_copy(reinterpret_cast<uint32_t*>(places_.get()) + first, host_places,
                     count * sizeof(uint32_t));
  cold_counts_[layer] = 0;
  for (size_t w = 0; w < words; ++w) {
    cold_[word + w] = pool_.full_word(w) & ~host_hot[w];
    cold_counts_[layer] += static_cast<uint32_t>(std::popcount(cold_[word + w]));
  }
}

void DeviceTier::count(std::span<const uint64_t> words) {
  const uint64_t stride = pool_.words_per_step();
  for (uint64_t w = 0; w < stride; ++w) {
    uint64_t any = 0;
    for (uint64_t at = w; at < words.size(); at += stride) any |= words[at];
    counters_.needed += static_cast<uint64_t>(std::popcount(any));
    counters_.here += static_cast<uint64_t>(std::popcount(any & hot_places_.resident()[w]));
  }
}

void DeviceTier::serve() {
  give_way_to_others();
  try {
    move_until_closed();
  } catch (...) {
    const std::lock_guard lock(mutex_);
    error_ = std::current_exception();
    moves_arrived_.notify_all();
  }
}

void DeviceTier::move_until_closed() {
  std::deque<Batch> started;  // that are not known to have arrived
  uint64_t known = 0;         // batches before them
  const auto hand_back_until = [&](uint64_t arrived) {
    hand_back(started, arrived - known);
    known = arrived;
  };
  for (;;) {
    Batch batch = take(started.empty());
    if (batch.empty() && started.empty()) return;
    if (batch.empty()) {
      mover_->wait();
      hand_back_until(known + started.size());
      continue;
    }
    start(batch);
    started.push_back(std::move(batch));
    hand_back_until(mover_->arrived());
  }
}

// The next moves; none where there are none and it shall not wait, or at the end.
DeviceTier::Batch DeviceTier::take(bool wait) {
  std::unique_lock lock(mutex_);
  if (wait) work_came_.wait(lock, [this] { return closing_ || !queue_.empty(); });
  if (closing_) return {};
  const auto count = static_cast<std::ptrdiff_t>(std::min<size_t>(queue_.size(), batch_max_));
  Batch batch(queue_.begin(), queue_.begin() + count);
  queue_.erase(queue_.begin(), queue_.begin() + count);
  return batch;
}

// Repacks the bundles of a batch, which only the host's kernels can read as they are.
void DeviceTier::start(const Batch& batch) {
  std::byte* staging = mover_->staging();
  std::vector<std::byte> row;
  std::vector<uint32_t> places;
  for (const Move& move : batch) {
    std::byte* to = staging + places.size() * size_.place_bytes;
    for (size_t i = 0; i < move.rows.size(); ++i) {
      const WeightView& w = bundles_->layers()[move.layer][i];
      row.resize(row_bytes(w));
      cpu_unpack_row(w.dtype, w.cols, move.rows[i], row.data());
      device_.pack_row(w.dtype, w.cols, row.data(), to);
      to += row.size();
    }
    places.push_back(move.place);
  }
  mover_->start(memory_.get(), places);
}

void DeviceTier::hand_back(std::deque<Batch>& started, uint64_t count) {
  if (count == 0) return;
  {
    const std::lock_guard lock(mutex_);
    for (; count > 0; --count) {
      arrived_.insert(arrived_.end(), started.front().begin(), started.front().end());
      started.pop_front();
    }
  }
  moves_arrived_.notify_all();
}

}  // namespace thermocline
