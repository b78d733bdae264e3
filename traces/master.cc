#include "traces/master.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <optional>

#include "models/error.h"
#include "traces/schema.h"

namespace thermocline {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kPopcountBlock = 4096;
constexpr uint32_t kRanksLookedFor = 1024;  // where no master says how many there are

std::string name_of(const Shard& shard) { return fs::path(shard.path()).filename().string(); }

// A dataset (row, layer, neuron or place), joined from what each rank has of it. `rows`: extent of
// the first dimension, or nothing where there is none.
void join(Hdf5File& file, const Column& column, const std::vector<Shard>& shards,
          std::optional<uint64_t> rows) {
  const auto with_rows = [&rows](uint64_t first, Extent extent) {
    if (rows) extent.insert(extent.begin(), first);
    return extent;
  };
  std::vector<VirtualBlock> blocks;
  for (const Shard& shard : shards) {
    const NeuronPool& pool = shard.pool();
    const Extent extent = with_rows(rows.value_or(0), {pool.layer_count, pool.neuron_count});
    blocks.push_back({name_of(shard), column.name, extent,
                      with_rows(0, {pool.layer_begin, pool.neuron_begin}), extent});
  }
  const ModelShape& shape = shards[0].header().shape;
  const Extent extent = with_rows(rows.value_or(0), {shape.layer_count, shape.ffn_dim});
  file.create_virtual({column.name, column.element, extent, {}}, blocks);
}

void write_bits(Hdf5File& file, const std::vector<Shard>& shards, uint64_t steps) {
  const TraceHeader& header = shards[0].header();
  const uint64_t blocks = blocks_of(steps);
  join(file, {dataset::kOrder, Element::u32}, shards, std::nullopt);
  join(file, {dataset::kActive, Element::u64}, shards, blocks);
  if (header.has_predicted) join(file, {dataset::kPredicted, Element::u64}, shards, blocks);
  if (header.magnitudes == MagnitudeFormat::none) return;
  const uint64_t rows = shards[0].magnitude_steps().size();
  join(file, {dataset::kMagnitudes, element_of(header.magnitudes)}, shards, rows);
}

void write_times(Hdf5File& file, const std::vector<Shard>& shards, uint64_t steps) {
  for (const Column& column : kTimeColumns) {
    std::vector<VirtualBlock> blocks;
    for (const Shard& shard : shards) {
      blocks.push_back({name_of(shard), column.name, {steps}, {0, shard.rank()}, {steps, 1}});
    }
    file.create_virtual({column.name, column.element, {steps, shards.size()}, {}}, blocks);
  }
}

// What all ranks have alike is rank 0's.
void write_column(Hdf5File& file, const Shard& first, const Column& column, uint64_t rows) {
  file.create_virtual({column.name, column.element, {rows}, {}},
                      {{name_of(first), column.name, {rows}, {0}, {rows}}});
}

template <size_t N>
void write_columns(Hdf5File& file, const Shard& first, const Column (&columns)[N], uint64_t rows) {
  for (const Column& column : columns) write_column(file, first, column, rows);
}

void write_popcounts(Hdf5File& file, const char* name, Bits which, const std::vector<Shard>& shards,
                     uint64_t steps) {
  const uint64_t layers = shards[0].header().shape.layer_count;
  const auto counts = file.create({name, Element::u32, {steps, layers}, {kBlockSteps, layers}});
  for (uint64_t begin = 0; begin < steps; begin += kPopcountBlock) {
    const uint64_t count = std::min(kPopcountBlock, steps - begin);
    counts->write<uint32_t>({begin, 0}, {count, layers},
                            sum_popcounts(shards, begin, count, which));
  }
}

uint64_t generated_tokens(const Shard& shard) {
  uint64_t total = 0;
  for (const TaskRecord& task : shard.tasks()) total += task.generated.size();
  return total;
}

void write_joined(const std::string& path, const std::vector<Shard>& shards) {
  const auto file = create_hdf5(path);
  const uint64_t steps = shards[0].step_count();
  write_header(*file, shards[0].header(), kMasterKind);
  std::vector<std::string> names;
  for (const Shard& shard : shards) names.push_back(name_of(shard));
  file->write_texts("shards", names);
  file->write_number<uint64_t>("step_count", steps);
  file->write_number<uint8_t>("finished", 1);
  write_bits(*file, shards, steps);
  write_times(*file, shards, steps);
  write_columns(*file, shards[0], kStepColumns, steps);
  write_columns(*file, shards[0], kTaskColumns, shards[0].tasks().size());
  write_column(*file, shards[0], {dataset::kGenerated, Element::i32}, generated_tokens(shards[0]));
  write_popcounts(*file, dataset::kPopcounts, Bits::active, shards, steps);
  if (shards[0].header().has_predicted) {
    write_popcounts(*file, dataset::kPredictedPopcounts, Bits::predicted, shards, steps);
  }
  if (shards[0].header().magnitudes != MagnitudeFormat::none) {
    write_column(*file, shards[0], {dataset::kMagnitudeSteps, Element::u64},
                 shards[0].magnitude_steps().size());
  }
  file->flush();
  file->close();
}

// Nothing where there is no master that can be read.
std::vector<std::string> shards_of_master(const std::string& path) {
  try {
    return Master(path).shard_paths;
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::input) throw;
    return {};
  }
}

// How many ranks the shard of `rank` says there are; nothing where it cannot be read.
std::optional<uint32_t> rank_count_of(const std::string& path, uint32_t rank) {
  for (const std::string& name : {shard_path(path, rank), partial_path(path, rank)}) {
    if (!fs::exists(name)) continue;
    try {
      return static_cast<uint32_t>(Shard(name).header().pools.size());
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::input) throw;
    }
  }
  return std::nullopt;
}

}  // namespace

Master::Master(const std::string& path) : file(open_hdf5(path)) {
  header = read_header(*file, kMasterKind);
  if (!file->sealed()) {
    throw bad_input(path, "a master with its seal", "none: it was cut off or changed");
  }
  step_count = file->read_number<uint64_t>("step_count");
  for (const std::string& name : file->read_texts("shards")) {
    if (name.empty() || fs::path(name).filename() != name) {
      throw bad_input(path, "shards in the same folder", name);
    }
    shard_paths.push_back((fs::path(path).parent_path() / name).string());
  }
  if (shard_paths.size() != header.pools.size()) {
    throw bad_input(path, fmt::format("{} shards", header.pools.size()),
                    fmt::format("{}", shard_paths.size()));
  }
}

std::vector<std::string> find_shards(const std::string& path) {
  std::vector<std::string> paths = shards_of_master(path);
  for (uint32_t rank = 0; paths.empty() && rank < kRanksLookedFor; ++rank) {
    const uint32_t rank_count = rank_count_of(path, rank).value_or(0);
    for (uint32_t i = 0; i < rank_count; ++i) paths.push_back(shard_path(path, i));
  }
  if (paths.empty()) throw bad_input(path, "a trace", "neither a master nor a shard");
  for (uint32_t rank = 0; rank < paths.size(); ++rank) {
    const std::string partial = partial_path(path, rank);
    if (!fs::exists(paths[rank]) && fs::exists(partial)) paths[rank] = partial;
  }
  return paths;
}

void check_same_recording(const std::vector<Shard>& shards, uint64_t step_count) {
  const Shard& first = shards[0];
  const auto steps = first.steps(0, step_count);
  for (const Shard& shard : shards) {
    const std::string field = difference(first.header(), shard.header());
    if (!field.empty()) {
      throw bad_input(shard.path(), "the recording of " + first.path(), "another " + field);
    }
    if (steps != shard.steps(0, step_count)) {
      throw bad_input(shard.path(), "the steps of " + first.path(),
                      "other tokens, positions, tasks or phases");
    }
  }
}

void check_complete(const std::vector<Shard>& shards) {
  const Shard& first = shards[0];
  const auto tasks = first.tasks();
  for (uint32_t rank = 0; rank < shards.size(); ++rank) {
    const Shard& shard = shards[rank];
    const auto expect = [&shard](bool holds, const std::string& what, const std::string& found) {
      if (!holds) throw bad_input(shard.path(), what, found);
    };
    expect(shard.rank() == rank, fmt::format("rank {}", rank), fmt::format("{}", shard.rank()));
    expect(shard.finished(), "a finished shard",
           fmt::format("one of {} steps without end or seal", shard.step_count()));
    expect(shard.step_count() == first.step_count(), fmt::format("{} steps", first.step_count()),
           fmt::format("{}", shard.step_count()));
    expect(shard.magnitude_steps() == first.magnitude_steps(),
           "magnitudes of the steps of " + first.path(), "those of others");
    expect(tasks == shard.tasks(), "the tasks of " + first.path(), "others");
  }
  check_same_recording(shards, first.step_count());
}

void check_joined(const std::string& path, const Master& master, const std::vector<Shard>& shards) {
  check_complete(shards);
  const std::string field = difference(master.header, shards[0].header());
  if (!field.empty()) throw bad_input(path, "the recording of its shards", "another " + field);
  if (master.step_count != shards[0].step_count()) {
    throw bad_input(path, fmt::format("{} steps, as its shards", shards[0].step_count()),
                    fmt::format("{}", master.step_count));
  }
}

std::vector<uint32_t> sum_popcounts(const std::vector<Shard>& shards, uint64_t begin,
                                    uint64_t count, Bits which) {
  const uint32_t layers = shards[0].header().shape.layer_count;
  std::vector<uint32_t> sums(count * layers);
  for (const Shard& shard : shards) {
    const NeuronPool& pool = shard.pool();
    const std::vector<uint32_t> counts = shard.popcounts(begin, count, which);
    for (uint64_t i = 0; i < counts.size(); ++i) {
      const uint64_t step = i / pool.layer_count, layer = i % pool.layer_count;
      sums[step * layers + pool.layer_begin + layer] += counts[i];
    }
  }
  return sums;
}

void write_master(const std::string& path) {
  std::vector<Shard> shards;
  shards.emplace_back(shard_path(path, 0));
  const size_t rank_count = shards[0].header().pools.size();
  for (uint32_t rank = 1; rank < rank_count; ++rank) shards.emplace_back(shard_path(path, rank));
  check_complete(shards);
  const std::string temporary = path + ".partial";
  std::error_code failed;
  try {
    write_joined(temporary, shards);
  } catch (const Error&) {  // half a master is of no use to anybody
    fs::remove(temporary, failed);
    throw;
  }
  fs::rename(temporary, path, failed);
  if (failed) throw work_failed(path + ": cannot rename: " + failed.message());
}

}  // namespace thermocline
