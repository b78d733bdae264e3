#include "traces/shard.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "models/error.h"
#include "traces/schema.h"

namespace thermocline {
namespace {

// Deflate cannot make bytes smaller than this (zlib: 1032 to 1).
constexpr uint64_t kCompressionMax = 1032;

uint32_t popcount_of(const uint8_t* bytes, uint32_t size) {
  uint32_t total = 0, at = 0;
  for (; at + 8 <= size; at += 8) {
    uint64_t word;
    std::memcpy(&word, bytes + at, sizeof word);
    total += static_cast<uint32_t>(std::popcount(word));
  }
  for (; at < size; ++at) total += static_cast<uint32_t>(std::popcount(bytes[at]));
  return total;
}

}  // namespace

Shard::Shard(const std::string& path) : file_(open_hdf5(path)) {
  header_ = read_header(*file_, kShardKind);
  rank_ = file_->read_number<uint32_t>("rank");
  if (rank_ >= header_.pools.size()) {
    throw bad_input(path, fmt::format("a rank below {}", header_.pools.size()),
                    fmt::format("rank {}", rank_));
  }
  // Without a seal it was killed while it finished, or cut off: good only as far as it can be read.
  finished_ = file_->read_number<uint8_t>("finished") != 0 && file_->sealed();
  step_count_ = file_->read_number<uint64_t>("step_count");
  // Popcounts are not compressed: as many bytes as that must be there.
  const uint64_t row_bytes = uint64_t{4} * pool().layer_count;
  if (step_count_ > file_bytes() / row_bytes) {
    throw bad_input(path, "a file as long as its steps", fmt::format("{} steps", step_count_));
  }
  const uint64_t bits_bytes = step_count_ * pool().layer_count * pool().bytes_per_layer();
  if (bits_bytes / kCompressionMax > file_bytes()) {
    throw bad_input(path, fmt::format("a file that holds {} bytes of bits", bits_bytes),
                    fmt::format("{} bytes", file_bytes()));
  }
  popcounts_ = open_steps(dataset::kPopcounts, Element::u32, {pool().layer_count});
  active_ =
      open_steps(dataset::kActive, Element::u8, {pool().layer_count, pool().bytes_per_layer()});
  for (const Column& column : kStepColumns) open_steps(column.name, column.element, {});
  for (const Column& column : kTimeColumns) open_steps(column.name, column.element, {});
}

// A dataset of rows by step. Its length may pass step_count_ only where the file is unfinished.
std::unique_ptr<Hdf5Dataset> Shard::open_steps(const char* name, Element element,
                                               const Extent& row) const {
  auto dataset = file_->open(name);
  Extent expected = row;
  expected.insert(expected.begin(), dataset->extent().empty() ? 0 : dataset->extent()[0]);
  if (dataset->element() != element || !dataset->chunked() || dataset->extent() != expected) {
    throw bad_input(path(), fmt::format("dataset {} as the schema has it", name),
                    "another type, layout or extent");
  }
  check_length(*dataset, name);
  uint64_t row_bytes = bytes_of(element);
  for (const uint64_t n : row) row_bytes *= n;
  const bool compressed = std::string_view(name) == dataset::kActive;
  if (!compressed && dataset->stored_bytes() < step_count_ * row_bytes) {
    throw bad_input(path(), fmt::format("{} bytes in dataset {}", step_count_ * row_bytes, name),
                    fmt::format("{}", dataset->stored_bytes()));
  }
  return dataset;
}

void Shard::check_length(const Hdf5Dataset& dataset, const std::string& name) const {
  const uint64_t found = dataset.extent()[0];
  if (found == step_count_ || (!finished_ && found > step_count_)) return;
  throw bad_input(path(), fmt::format("{} steps in dataset {}", step_count_, name),
                  fmt::format("{}", found));
}

template <class T>
std::vector<T> Shard::column(const char* name, uint64_t begin, uint64_t count) const {
  const auto dataset = file_->open(name);
  const bool plain = dataset->element() == element_of<T>() && dataset->extent().size() == 1;
  const uint64_t length =
      plain ? std::min(dataset->extent()[0], dataset->stored_bytes() / sizeof(T)) : 0;
  if (!plain || begin > length || count > length - begin) {
    throw bad_input(path(), fmt::format("{} entries in dataset {}", begin + count, name),
                    fmt::format("{}", length));
  }
  std::vector<T> values(count);
  if (count > 0) dataset->read<T>({begin}, {count}, values);
  return values;
}

std::vector<StepInfo> Shard::steps(uint64_t begin, uint64_t count) const {
  const auto token = column<int32_t>(dataset::kToken, begin, count);
  const auto position = column<uint32_t>(dataset::kPosition, begin, count);
  const auto task = column<uint32_t>(dataset::kTask, begin, count);
  const auto phase = column<uint8_t>(dataset::kPhase, begin, count);
  const auto pass = column<uint32_t>(dataset::kPass, begin, count);
  std::vector<StepInfo> steps;
  for (uint64_t i = 0; i < count; ++i) {
    if (phase[i] > static_cast<uint8_t>(Phase::decode)) {
      throw bad_input(path(), "phase 0 or 1", fmt::format("{} at step {}", phase[i], begin + i));
    }
    steps.push_back({token[i], position[i], task[i], static_cast<Phase>(phase[i]), pass[i]});
  }
  return steps;
}

std::vector<StepTimes> Shard::times(uint64_t begin, uint64_t count) const {
  const auto compute = column<uint64_t>(dataset::kCompute, begin, count);
  const auto transfer = column<uint64_t>(dataset::kTransfer, begin, count);
  const auto comm = column<uint64_t>(dataset::kComm, begin, count);
  const auto wait = column<uint64_t>(dataset::kWait, begin, count);
  std::vector<StepTimes> times;
  for (uint64_t i = 0; i < count; ++i) times.push_back({compute[i], transfer[i], comm[i], wait[i]});
  return times;
}

std::vector<TaskRecord> Shard::tasks() const {
  // The columns grow one after the other: where the writer was killed, the shortest counts.
  uint64_t count = file_bytes() / sizeof(uint32_t);
  for (const Column& column : kTaskColumns) {
    const Extent extent = file_->open(column.name)->extent();
    count = std::min(count, extent.size() == 1 ? extent[0] : 0);
  }
  const auto id = column<int32_t>(dataset::kTaskId, 0, count);
  const auto begin = column<uint32_t>(dataset::kTaskBegin, 0, count);
  const auto steps = column<uint32_t>(dataset::kTaskSteps, 0, count);
  const auto prompt = column<uint32_t>(dataset::kTaskPrompt, 0, count);
  std::vector<TaskRecord> tasks;
  for (uint64_t i = 0; i < count; ++i) {
    const bool complete = uint64_t{begin[i]} + steps[i] <= step_count_;
    if (!complete && finished_) {
      throw bad_input(path(), fmt::format("task {} within {} steps", id[i], step_count_),
                      fmt::format("{} steps from {}", steps[i], begin[i]));
    }
    if (complete) tasks.push_back({id[i], begin[i], steps[i], prompt[i], {}});
  }
  return tasks;
}

std::vector<uint32_t> Shard::popcounts(uint64_t begin, uint64_t count) const {
  TC_CHECK(begin <= step_count_ && count <= step_count_ - begin, "steps within the shard");
  std::vector<uint32_t> counts(count * pool().layer_count);
  if (count > 0) popcounts_->read<uint32_t>({begin, 0}, {count, pool().layer_count}, counts);
  return counts;
}

std::vector<uint8_t> Shard::bits(uint64_t begin, uint64_t count, uint32_t layer_begin,
                                 uint32_t layer_count) const {
  TC_CHECK(begin <= step_count_ && count <= step_count_ - begin, "steps within the shard");
  const uint64_t width = pool().bytes_per_layer();
  std::vector<uint8_t> bits(count * layer_count * width);
  if (bits.empty()) return bits;
  active_->read<uint8_t>({begin, layer_begin, 0}, {count, layer_count, width}, bits);
  check_bits(bits, begin, count, layer_begin, layer_count);
  return bits;
}

void Shard::check_bits(const std::vector<uint8_t>& bits, uint64_t begin, uint64_t count,
                       uint32_t layer_begin, uint32_t layer_count) const {
  const std::vector<uint32_t> stored = popcounts(begin, count);
  const uint32_t width = pool().bytes_per_layer();
  const uint32_t used_bits = (pool().neuron_count - 1) % 8 + 1;  // of the last byte
  for (uint64_t row = 0; row < count * layer_count; ++row) {
    const uint8_t* bytes = bits.data() + row * width;
    const uint64_t step = row / layer_count;
    const uint64_t layer = layer_begin + row % layer_count;
    const uint32_t expected = stored[step * pool().layer_count + layer];
    const uint32_t found = popcount_of(bytes, width);
    if (found == expected && bytes[width - 1] >> used_bits == 0) continue;
    throw bad_input(
        path(),
        fmt::format("{} active neurons at step {}, layer {}, as counted when they were written",
                    expected, begin + step, pool().layer_begin + layer),
        found == expected ? "bits past the last neuron" : fmt::format("{}", found));
  }
}

}  // namespace thermocline
