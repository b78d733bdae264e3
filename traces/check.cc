// check_trace: reads all there is and says what of it is good.
#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "models/cli.h"
#include "models/error.h"
#include "traces/master.h"
#include "traces/profile.h"
#include "traces/schema.h"
#include "traces/shard.h"

namespace thermocline {
namespace {

constexpr uint64_t kBlockBytes = uint64_t{8} << 20;

uint64_t block_steps(const NeuronPool& pool) {
  return whole_blocks(kBlockBytes / (pool.words_per_step() * sizeof(uint64_t)));
}

// Counts what has been checked, over all files.
class Tally {
 public:
  explicit Tally(const CheckProgress& progress) : progress_(progress) {}
  void expect(uint64_t steps) { total_ += steps; }
  void add(uint64_t steps) {
    done_ += steps;
    if (progress_) progress_(done_, total_);
  }

 private:
  const CheckProgress& progress_;
  uint64_t done_ = 0, total_ = 0;
};

// Throws where a step is not as it was written.
void read_steps(const Shard& shard, uint64_t begin, uint64_t count, ShardChecksum& checksum) {
  const uint32_t layers = shard.pool().layer_count;
  const uint64_t stride = shard.pool().words_per_step();
  std::vector<uint64_t> rows(count * stride);
  shard.read(Bits::active, begin, count, 0, layers, {rows.data(), stride}, available_cores());
  if (shard.header().has_predicted) {
    shard.read(Bits::predicted, begin, count, 0, layers, {rows.data(), stride}, available_cores());
  }
  const auto infos = shard.steps(begin, count);
  const auto times = shard.times(begin, count);
  const auto popcounts = shard.popcounts(begin, count);
  for (uint64_t i = 0; i < count; ++i) {
    checksum.add(infos[i], times[i], std::span(popcounts).subspan(i * layers, layers));
  }
}

// The first bad step in [begin, begin + count), which holds one.
uint64_t first_bad_step(const Shard& shard, uint64_t begin, uint64_t count) {
  ShardChecksum unused(shard.header(), shard.rank());
  for (uint64_t step = begin; step < begin + count; ++step) {
    try {
      read_steps(shard, step, 1, unused);
    } catch (const Error&) {
      return step;
    }
  }
  return begin + count;
}

std::string place_of(const Shard& shard) {
  const NeuronPool& pool = shard.pool();
  return fmt::format("rank {} of {}, layers {} to {}, neurons {} to {}", shard.rank(),
                     shard.header().pools.size(), pool.layer_begin,
                     pool.layer_begin + pool.layer_count - 1, pool.neuron_begin,
                     pool.neuron_begin + pool.neuron_count - 1);
}

void read_all_magnitudes(const Shard& shard) {
  std::vector<float> magnitudes;
  for (uint64_t row = 0; row < shard.magnitude_steps().size(); ++row) {
    shard.read_magnitudes(row, 1, 0, shard.pool().layer_count, magnitudes);
  }
}

ShardReport check_steps(const Shard& shard, Tally& tally) {
  const uint64_t total = shard.step_count();
  const uint64_t stride = block_steps(shard.pool());
  ShardChecksum checksum(shard.header(), shard.rank());
  for (uint64_t begin = 0; begin < total; begin += stride) {
    const uint64_t count = std::min(stride, total - begin);
    try {
      read_steps(shard, begin, count, checksum);
    } catch (const Error& error) {
      return {shard.path(), false,
              fmt::format("{} (good to step {} of {})", error.what(),
                          first_bad_step(shard, begin, count), total)};
    }
    tally.add(count);
  }
  read_all_magnitudes(shard);
  const std::vector<TaskRecord> tasks = shard.tasks();
  for (const TaskRecord& task : tasks) checksum.add(task);
  if (shard.finished() && shard.checksum() != checksum.hex()) {
    throw bad_input(shard.path(), "header, steps, times and tasks of checksum " + shard.checksum(),
                    checksum.hex());
  }
  return {shard.path(), shard.finished(),
          fmt::format("{}: {}, {} steps, {} tasks, {}", shard.path(),
                      shard.finished() ? "good" : "unfinished, good so far", total, tasks.size(),
                      place_of(shard))};
}

ShardReport bad_report(const std::string& path, const Error& error) {
  const std::string text = error.what();
  return {path, false, text.starts_with(path) ? text : path + ": " + text};
}

ShardReport check_shard(const Shard& shard, Tally& tally) {
  try {
    return check_steps(shard, tally);
  } catch (const Error& error) {
    return bad_report(shard.path(), error);
  }
}

// The master's datasets, read as other tools read them, against the shards.
class MasterCheck {
 public:
  MasterCheck(const Master& master, const std::vector<Shard>& shards)
      : master_(master), shards_(shards), whole_(whole_model(master.header)) {}

  void run(Tally& tally) const {
    const uint64_t total = master_.step_count;
    const uint64_t stride = block_steps(whole_);
    for (uint64_t begin = 0; begin < total; begin += stride) {
      const uint64_t count = std::min(stride, total - begin);
      check_popcounts(begin, count);
      check_steps(begin, count);
      check_times(begin, count);
      tally.add(count);
    }
    check_tasks();
    check_mappings();
  }

 private:
  template <class T>
  std::vector<T> read(const char* name, const Extent& begin, const Extent& count) const {
    const auto dataset = master_.file->open(name);
    bool fits = dataset->element() == element_of<T>() && dataset->extent().size() == begin.size();
    uint64_t size = 1;
    for (size_t i = 0; fits && i < begin.size(); ++i) {
      const uint64_t extent = dataset->extent()[i];
      fits = begin[i] + count[i] <= extent && (i == 0 || extent == count[i] || count[i] == 1);
      size *= count[i];
    }
    if (!fits) {
      throw bad_input(master_.file->path(), fmt::format("dataset {} as the schema has it", name),
                      "another type or extent");
    }
    std::vector<T> values(size);
    dataset->read<T>(begin, count, values);
    return values;
  }

  void expect(bool equal, const char* name, uint64_t begin, uint64_t count) const {
    if (equal) return;
    throw bad_input(
        master_.file->path(),
        fmt::format("dataset {} as the shards have it, steps {} to {}", name, begin, begin + count),
        "another value");
  }

  void check_popcounts(uint64_t begin, uint64_t count) const {
    const auto stored =
        read<uint32_t>(dataset::kPopcounts, {begin, 0}, {count, whole_.layer_count});
    expect(stored == sum_popcounts(shards_, begin, count), dataset::kPopcounts, begin, count);
  }

  // The virtual datasets of neurons are one mapping each: where it is right at both ends of the
  // trace, it is right. Read as plain HDF5 reads them, against each shard alone.
  void check_mappings() const {
    const uint64_t blocks = blocks_of(master_.step_count);
    check_mapping<uint32_t>({dataset::kOrder, Element::u32}, std::nullopt);
    std::vector<const char*> names = {dataset::kActive};
    if (master_.header.has_predicted) names.push_back(dataset::kPredicted);
    for (const char* name : names) {
      if (blocks > 0) check_mapping<uint64_t>({name, Element::u64}, 0);
      if (blocks > 1) check_mapping<uint64_t>({name, Element::u64}, blocks - 1);
    }
    const uint64_t rows = shards_[0].magnitude_steps().size();
    if (rows > 0 && master_.header.magnitudes == MagnitudeFormat::f16) {
      check_mapping<uint16_t>({dataset::kMagnitudes, Element::f16}, rows - 1);
    } else if (rows > 0) {
      check_mapping<uint8_t>({dataset::kMagnitudes, Element::u8}, rows - 1);
    }
  }

  // One row of (row, layer, neuron), or a dataset without rows.
  template <class T>
  void check_mapping(const Column& column, std::optional<uint64_t> row) const {
    const auto with_row = [&row](uint64_t first, Extent extent) {
      if (row) extent.insert(extent.begin(), first);
      return extent;
    };
    const uint64_t neurons = whole_.neuron_count;
    const auto joined = read<T>(column.name, with_row(row.value_or(0), {0, 0}),
                                with_row(1, {whole_.layer_count, neurons}));
    for (const Shard& shard : shards_) {
      const NeuronPool& pool = shard.pool();
      const auto alone = shard.plain<T>(column.name, with_row(row.value_or(0), {0, 0}),
                                        with_row(1, {pool.layer_count, pool.neuron_count}));
      for (uint64_t layer = 0; layer < pool.layer_count; ++layer) {
        const auto here = alone.begin() + static_cast<std::ptrdiff_t>(layer * pool.neuron_count);
        const auto there =
            joined.begin() +
            static_cast<std::ptrdiff_t>((pool.layer_begin + layer) * neurons + pool.neuron_begin);
        expect(std::equal(here, here + pool.neuron_count, there), column.name, row.value_or(0), 1);
      }
    }
  }

  void check_steps(uint64_t begin, uint64_t count) const {
    const auto token = read<int32_t>(dataset::kToken, {begin}, {count});
    const auto position = read<uint32_t>(dataset::kPosition, {begin}, {count});
    const auto task = read<uint32_t>(dataset::kTask, {begin}, {count});
    const auto phase = read<uint8_t>(dataset::kPhase, {begin}, {count});
    const auto pass = read<uint32_t>(dataset::kPass, {begin}, {count});
    const auto steps = shards_[0].steps(begin, count);
    for (uint64_t i = 0; i < count; ++i) {
      expect(pass[i] == steps[i].pass, dataset::kPass, begin, count);
      expect(token[i] == steps[i].token, dataset::kToken, begin, count);
      expect(position[i] == steps[i].position, dataset::kPosition, begin, count);
      expect(task[i] == steps[i].task, dataset::kTask, begin, count);
      expect(phase[i] == static_cast<uint8_t>(steps[i].phase), dataset::kPhase, begin, count);
    }
  }

  void check_times(uint64_t begin, uint64_t count) const {
    for (const Shard& shard : shards_) {
      const auto times = shard.times(begin, count);
      const auto column = [&](const char* name) {
        return read<uint64_t>(name, {begin, shard.rank()}, {count, 1});
      };
      const auto compute = column(dataset::kCompute), transfer = column(dataset::kTransfer);
      const auto comm = column(dataset::kComm), wait = column(dataset::kWait);
      for (uint64_t i = 0; i < count; ++i) {
        expect(compute[i] == times[i].compute_ns, dataset::kCompute, begin, count);
        expect(transfer[i] == times[i].transfer_ns, dataset::kTransfer, begin, count);
        expect(comm[i] == times[i].comm_ns, dataset::kComm, begin, count);
        expect(wait[i] == times[i].wait_ns, dataset::kWait, begin, count);
      }
    }
  }

  void check_tasks() const {
    const auto tasks = shards_[0].tasks();
    const auto id = read<int32_t>(dataset::kTaskId, {0}, {tasks.size()});
    const auto begin = read<uint32_t>(dataset::kTaskBegin, {0}, {tasks.size()});
    const auto steps = read<uint32_t>(dataset::kTaskSteps, {0}, {tasks.size()});
    const auto prompt = read<uint32_t>(dataset::kTaskPrompt, {0}, {tasks.size()});
    const auto token_counts = read<uint32_t>(dataset::kTaskGenerated, {0}, {tasks.size()});
    std::vector<int32_t> tokens;
    for (const TaskRecord& task : tasks) {
      tokens.insert(tokens.end(), task.generated.begin(), task.generated.end());
    }
    expect(read<int32_t>(dataset::kGenerated, {0}, {tokens.size()}) == tokens, dataset::kGenerated,
           0, tasks.size());
    for (size_t i = 0; i < tasks.size(); ++i) {
      expect(token_counts[i] == tasks[i].generated.size(), dataset::kTaskGenerated, 0,
             tasks.size());
      expect(id[i] == tasks[i].task_id, dataset::kTaskId, 0, tasks.size());
      expect(begin[i] == tasks[i].step_begin, dataset::kTaskBegin, 0, tasks.size());
      expect(steps[i] == tasks[i].step_count, dataset::kTaskSteps, 0, tasks.size());
      expect(prompt[i] == tasks[i].prompt_tokens, dataset::kTaskPrompt, 0, tasks.size());
    }
  }

  const Master& master_;
  const std::vector<Shard>& shards_;
  const NeuronPool whole_;
};

ShardReport check_master(const std::string& path, const std::vector<Shard>& shards, bool all_good,
                         Tally& tally) {
  try {
    const Master master(path);
    if (!all_good || shards.size() != master.shard_paths.size()) {
      return {path, false, path + ": not checked, because not all of its shards are good"};
    }
    check_joined(path, master, shards);
    MasterCheck(master, shards).run(tally);
    return {path, true,
            fmt::format("{}: good, {} steps, {} shards", path, master.step_count, shards.size())};
  } catch (const Error& error) {
    return bad_report(path, error);
  }
}

bool is_shard(const std::string& path) {
  try {
    return open_hdf5(path)->read_text("kind") == kShardKind;
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::input) throw;
    return false;
  }
}

}  // namespace

std::vector<ShardReport> check_trace(const std::string& path, const CheckProgress& progress) {
  const bool alone = is_shard(path);
  const std::vector<std::string> paths = alone ? std::vector<std::string>{path} : find_shards(path);
  Tally tally(progress);
  std::vector<ShardReport> reports(paths.size());
  std::vector<Shard> shards;
  std::vector<size_t> report_of;  // by shard
  for (size_t i = 0; i < paths.size(); ++i) {
    try {
      shards.emplace_back(paths[i]);
      report_of.push_back(i);
      tally.expect(shards.back().step_count());
    } catch (const Error& error) {
      reports[i] = bad_report(paths[i], error);
    }
  }
  if (!alone && !shards.empty()) tally.expect(shards[0].step_count());
  for (size_t i = 0; i < shards.size(); ++i) reports[report_of[i]] = check_shard(shards[i], tally);
  const bool all_good =
      std::all_of(reports.begin(), reports.end(), [](const ShardReport& r) { return r.good; });
  if (!alone) reports.push_back(check_master(path, shards, all_good, tally));
  return reports;
}

}  // namespace thermocline
