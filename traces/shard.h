// Shard: one rank's file, opened to read. What it hands out has been checked.
//
// Goals: a step that is not there, or bits that do not add up to their popcount, are errors, never
//   zeros; a count from the file is held against the file's size before memory is taken for it.
// Non-goals: joining ranks (traces/reader.cc).
// Thread-safety: const after construction; calls take HDF5's lock.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "traces/bit_columns.h"
#include "traces/hdf5.h"
#include "traces/trace.h"

namespace thermocline {

enum class Bits : uint8_t { active, predicted };

class Shard {
 public:
  // Errors: not a shard, a newer schema, truncated, extents that contradict each other.
  explicit Shard(const std::string& path);

  const std::string& path() const { return file_->path(); }
  uint64_t file_bytes() const { return file_->file_bytes(); }
  const TraceHeader& header() const { return header_; }
  uint32_t rank() const { return rank_; }
  const NeuronPool& pool() const { return header_.pools[rank_]; }
  bool finished() const { return finished_; }
  std::string checksum() const { return file_->read_text("checksum"); }  // of a finished shard
  uint64_t step_count() const { return step_count_; }  // flushed, or all where finished

  std::vector<StepInfo> steps(uint64_t begin, uint64_t count) const;
  std::vector<StepTimes> times(uint64_t begin, uint64_t count) const;
  // Tasks all of whose steps are there, from the first on.
  std::vector<TaskRecord> tasks() const { return tasks_within(step_count_); }
  // The same of the first `step_count` steps.
  std::vector<TaskRecord> tasks_within(uint64_t step_count) const;
  const std::vector<uint64_t>& magnitude_steps() const { return magnitude_steps_; }
  // (count, layer_count)
  std::vector<uint32_t> popcounts(uint64_t begin, uint64_t count, Bits which = Bits::active) const;
  // Layers [layer_begin, +layer_count) of the pool, from 0, as rows of words. Each row is held
  // against its popcount.
  void read(Bits which, uint64_t begin, uint64_t count, uint32_t layer_begin, uint32_t layer_count,
            const BitColumns::Target& target, uint32_t thread_count) const;
  // Of magnitude_steps()[begin, +count): (count, layer_count, neuron_count) of these layers.
  void read_magnitudes(uint64_t begin, uint64_t count, uint32_t layer_begin, uint32_t layer_count,
                       std::vector<float>& magnitudes) const;

  // A block of a dataset as plain HDF5 reads it.
  template <class T>
  std::vector<T> plain(const char* name, const Extent& begin, const Extent& count) const {
    uint64_t size = 1;
    for (const uint64_t n : count) size *= n;
    std::vector<T> values(size);
    file_->open(name)->read<T>(begin, count, values);
    return values;
  }

 private:
  std::unique_ptr<Hdf5Dataset> open_steps(const char* name, Element element,
                                          const Extent& row) const;
  void check_length(const Hdf5Dataset& dataset, const std::string& name) const;
  void open_bits();
  void open_magnitudes();
  void check_rows(Bits which, uint64_t begin, uint64_t count, uint32_t layer_begin,
                  uint32_t layer_count, const BitColumns::Target& target,
                  uint32_t thread_count) const;
  std::vector<uint32_t> steps_by_task(uint64_t task_count, uint64_t step_count) const;
  std::vector<std::vector<int32_t>> generated(const std::vector<uint32_t>& counts) const;
  template <class T>
  std::vector<T> column(const char* name, uint64_t begin, uint64_t count) const;

  std::unique_ptr<Hdf5File> file_;
  TraceHeader header_;
  uint32_t rank_ = 0;
  bool finished_ = false;
  uint64_t step_count_ = 0;
  NeuronPlaces places_;
  // By Bits; predicted ones only where the header has them.
  std::vector<BitColumns> bits_;
  std::vector<std::unique_ptr<Hdf5Dataset>> popcounts_;
  std::unique_ptr<Hdf5Dataset> magnitudes_;
  std::vector<uint64_t> magnitude_steps_;
};

}  // namespace thermocline
