#include "traces/shard.h"

#include <fmt/format.h>

#include <algorithm>

#include "models/bit_sums.h"
#include "models/error.h"
#include "models/parallel.h"
#include "traces/deflate.h"
#include "traces/magnitude_codes.h"
#include "traces/schema.h"

namespace thermocline {
namespace {

// Deflate cannot make bytes smaller than this (zlib: 1032 to 1).
constexpr uint64_t kCompressionMax = 1032;

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
  for (const Column& column : kStepColumns) open_steps(column.name, column.element, {});
  for (const Column& column : kTimeColumns) open_steps(column.name, column.element, {});
  open_bits();
  open_magnitudes();
}

void Shard::open_bits() {
  if (step_count_ > 0) places_ = read_places(*file_, pool());
  const auto open = [this](const char* bits, const char* popcounts) {
    bits_.emplace_back(*file_, bits, pool(), step_count_, finished_);
    popcounts_.push_back(open_steps(popcounts, Element::u32, {pool().layer_count}));
  };
  open(dataset::kActive, dataset::kPopcounts);
  if (header_.has_predicted) open(dataset::kPredicted, dataset::kPredictedPopcounts);
}

// Rows whose step is not yet safe do not count.
void Shard::open_magnitudes() {
  if (header_.magnitudes == MagnitudeFormat::none) return;
  const auto steps = file_->open(dataset::kMagnitudeSteps);
  magnitudes_ = file_->open(dataset::kMagnitudes);
  const Extent& extent = magnitudes_->extent();
  const Extent& chunk = magnitudes_->chunk();
  const bool fits = magnitudes_->element() == element_of(header_.magnitudes) &&
                    magnitudes_->deflated() && extent.size() == 3 &&
                    extent[1] == pool().layer_count && extent[2] == pool().neuron_count &&
                    chunk[0] == 1 && chunk[1] <= extent[1] && chunk[2] == extent[2] &&
                    steps->extent().size() == 1;
  if (!fits) {
    throw bad_input(path(), "dataset magnitudes as the schema has it", "another type or extent");
  }
  const uint64_t rows = std::min(extent[0], steps->extent()[0]);
  magnitude_steps_ = column<uint64_t>(dataset::kMagnitudeSteps, 0, rows);
  while (!finished_ && !magnitude_steps_.empty() && magnitude_steps_.back() >= step_count_) {
    magnitude_steps_.pop_back();
  }
  for (size_t i = 0; i < magnitude_steps_.size(); ++i) {
    const bool ascends = i == 0 || magnitude_steps_[i - 1] < magnitude_steps_[i];
    if (ascends && magnitude_steps_[i] < step_count_) continue;
    throw bad_input(path(), fmt::format("ascending magnitude steps below {}", step_count_),
                    fmt::format("step {}", magnitude_steps_[i]));
  }
}

// A dataset of rows by step. Its length may pass step_count_ only where the file is unfinished.
std::unique_ptr<Hdf5Dataset> Shard::open_steps(const char* name, Element element,
                                               const Extent& row) const {
  auto dataset = file_->open(name);
  Extent expected = row;
  expected.insert(expected.begin(), dataset->extent().empty() ? 0 : dataset->extent()[0]);
  if (dataset->element() != element || dataset->chunk().empty() || dataset->extent() != expected) {
    throw bad_input(path(), fmt::format("dataset {} as the schema has it", name),
                    "another type, layout or extent");
  }
  check_length(*dataset, name);
  uint64_t row_bytes = bytes_of(element);
  for (const uint64_t n : row) row_bytes *= n;
  if (dataset->stored_bytes() < step_count_ * row_bytes) {
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

std::vector<TaskRecord> Shard::tasks_within(uint64_t step_count) const {
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
  const auto tokens = generated(column<uint32_t>(dataset::kTaskGenerated, 0, count));
  const std::vector<uint32_t> recorded = steps_by_task(count, step_count);
  std::vector<TaskRecord> tasks;
  for (uint64_t i = 0; i < count; ++i) {
    const bool complete = recorded[i] == steps[i] && i < tokens.size();
    if (!complete && finished_ && step_count == step_count_) {
      throw bad_input(path(), fmt::format("{} steps of task {}", steps[i], id[i]),
                      fmt::format("{}", recorded[i]));
    }
    if (!complete) break;  // what follows ended later still
    tasks.push_back({id[i], begin[i], steps[i], prompt[i], tokens[i]});
  }
  return tasks;
}

// How many of the first `step_count` steps name each of the first `task_count` tasks.
std::vector<uint32_t> Shard::steps_by_task(uint64_t task_count, uint64_t step_count) const {
  std::vector<uint32_t> counts(task_count);
  for (const uint32_t task : column<uint32_t>(dataset::kTask, 0, step_count)) {
    if (task < task_count) ++counts[task];
  }
  return counts;
}

// By task, as far as they are there: where the writer was killed, the last may be missing.
std::vector<std::vector<int32_t>> Shard::generated(const std::vector<uint32_t>& counts) const {
  const auto dataset = file_->open(dataset::kGenerated);
  const uint64_t length = dataset->extent().size() == 1 ? dataset->extent()[0] : 0;
  uint64_t total = 0;
  size_t complete = 0;
  for (; complete < counts.size() && counts[complete] <= length - total; ++complete) {
    total += counts[complete];
  }
  const std::vector<int32_t> all = column<int32_t>(dataset::kGenerated, 0, total);
  std::vector<std::vector<int32_t>> tokens;
  auto next = all.begin();
  for (size_t i = 0; i < complete; ++i, next += counts[i - 1]) {
    tokens.emplace_back(next, next + counts[i]);
  }
  return tokens;
}

std::vector<uint32_t> Shard::popcounts(uint64_t begin, uint64_t count, Bits which) const {
  TC_CHECK(begin <= step_count_ && count <= step_count_ - begin, "steps within the shard");
  const Hdf5Dataset& stored = *popcounts_.at(static_cast<size_t>(which));
  std::vector<uint32_t> counts(count * pool().layer_count);
  if (count > 0) stored.read<uint32_t>({begin, 0}, {count, pool().layer_count}, counts);
  return counts;
}

void Shard::read(Bits which, uint64_t begin, uint64_t count, uint32_t layer_begin,
                 uint32_t layer_count, const BitColumns::Target& target,
                 uint32_t thread_count) const {
  TC_CHECK(begin <= step_count_ && count <= step_count_ - begin, "steps within the shard");
  bits_.at(static_cast<size_t>(which))
      .read(begin, count, layer_begin, layer_count, places_, target, thread_count);
  check_rows(which, begin, count, layer_begin, layer_count, target, thread_count);
}

void Shard::check_rows(Bits which, uint64_t begin, uint64_t count, uint32_t layer_begin,
                       uint32_t layer_count, const BitColumns::Target& target,
                       uint32_t thread_count) const {
  const std::vector<uint32_t> stored = popcounts(begin, count, which);
  const uint32_t words = pool().words_per_layer();
  std::vector<uint64_t> found(count * layer_count);
  for_each_parallel(count, thread_count, [&](size_t step) {
    for (uint32_t layer = 0; layer < layer_count; ++layer) {
      found[step * layer_count + layer] = bit_sums().count(
          target.data + step * target.step_stride + uint64_t{layer} * words, words);
    }
  });
  for (uint64_t row = 0; row < found.size(); ++row) {
    const uint64_t step = row / layer_count, layer = layer_begin + row % layer_count;
    const uint32_t expected = stored[step * pool().layer_count + layer];
    if (found[row] == expected) continue;
    throw bad_input(
        path(),
        fmt::format("{} active neurons at step {}, layer {}, as counted when they were written",
                    expected, begin + step, pool().layer_begin + layer),
        fmt::format("{}", found[row]));
  }
}

void Shard::read_magnitudes(uint64_t begin, uint64_t count, uint32_t layer_begin,
                            uint32_t layer_count, std::vector<float>& magnitudes) const {
  TC_CHECK(begin + count <= magnitude_steps_.size(), "magnitudes that are there");
  const uint64_t size = bytes_of(header_.magnitudes);
  const uint64_t neurons = pool().neuron_count, chunk_layers = magnitudes_->chunk()[1];
  std::vector<std::byte> stored, chunk(chunk_layers * neurons * size);
  magnitudes.resize(count * layer_count * neurons);
  for (uint64_t out = 0, row = begin; row < begin + count; ++row) {
    for (uint32_t layer = layer_begin; layer < layer_begin + layer_count; ++layer) {
      const uint64_t in_chunk = layer % chunk_layers;
      if (in_chunk == 0 || layer == layer_begin) {
        magnitudes_->read_chunk({row, layer - in_chunk, 0}, stored);
        if (!inflate(stored, chunk)) {
          throw bad_input(path(),
                          fmt::format("magnitudes of step {}, layer {} as written",
                                      magnitude_steps_[row], pool().layer_begin + layer),
                          "a damaged chunk");
        }
      }
      decode(chunk.data() + in_chunk * neurons * size, neurons, header_.magnitudes,
             magnitudes.data() + out);
      out += neurons;
    }
  }
}

}  // namespace thermocline
