// open_trace: the shards of a trace as one whole.
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <map>

#include "models/cli.h"
#include "models/error.h"
#include "models/hash.h"
#include "traces/master.h"
#include "traces/rethreshold.h"
#include "traces/schema.h"
#include "traces/shard.h"
#include "traces/trace.h"

namespace thermocline {
namespace {

static_assert(std::endian::native == std::endian::little, "words are read as bytes");

constexpr uint64_t kHashSteps = 4096;  // read at a time

// The columns [begin, end) that two ranges share; empty where begin >= end.
struct Range {
  uint32_t begin, end;
  uint32_t count() const { return end - begin; }
};

Range intersection(uint32_t begin, uint32_t count, uint32_t other_begin, uint32_t other_count) {
  return {std::max(begin, other_begin), std::min(begin + count, other_begin + other_count)};
}

// Layers and neurons (whole model) that a shard and a wanted pool share.
struct Overlap {
  Range layers, neurons;
  bool empty() const { return layers.begin >= layers.end || neurons.begin >= neurons.end; }
};

Overlap overlap_of(const NeuronPool& one, const NeuronPool& other) {
  return {intersection(one.layer_begin, one.layer_count, other.layer_begin, other.layer_count),
          intersection(one.neuron_begin, one.neuron_count, other.neuron_begin, other.neuron_count)};
}

// What of a block is read, and from how many threads.
struct Wanted {
  Bits which;
  StepBlock& block;
  uint32_t thread_count;
};

// Straight into the block, where the pool's layers are whole in the shard.
void read_straight(const Shard& shard, const Overlap& shared, const Wanted& wanted) {
  StepBlock& block = wanted.block;
  const uint64_t first_layer = shared.layers.begin - block.pool.layer_begin;
  shard.read(wanted.which, block.step_begin, block.step_count,
             shared.layers.begin - shard.pool().layer_begin, shared.layers.count(),
             {block.words.data() + first_layer * block.pool.words_per_layer(),
              block.pool.words_per_step()},
             wanted.thread_count);
}

// Copies what the shard holds of the block's pool into its words, byte by byte: pools meet at
// multiples of eight neurons.
void read_part(const Shard& shard, const Overlap& shared, const Wanted& wanted) {
  StepBlock& block = wanted.block;
  const NeuronPool& from = shard.pool();
  const NeuronPool& to = block.pool;
  const uint64_t from_words = uint64_t{shared.layers.count()} * from.words_per_layer();
  std::vector<uint64_t> rows(block.step_count * from_words);
  shard.read(wanted.which, block.step_begin, block.step_count,
             shared.layers.begin - from.layer_begin, shared.layers.count(),
             {rows.data(), from_words}, wanted.thread_count);
  const auto* source = reinterpret_cast<const uint8_t*>(rows.data());
  auto* words = reinterpret_cast<uint8_t*>(block.words.data());
  const uint64_t from_row = uint64_t{from.words_per_layer()} * 8;
  const uint64_t to_row = uint64_t{to.words_per_layer()} * 8;
  const uint64_t from_at = (shared.neurons.begin - from.neuron_begin) / 8;
  const uint64_t to_at = (shared.neurons.begin - to.neuron_begin) / 8;
  const uint64_t bytes = (uint64_t{shared.neurons.count()} + 7) / 8;
  for (uint64_t step = 0; step < block.step_count; ++step) {
    for (uint64_t i = 0; i < shared.layers.count(); ++i) {
      const uint64_t layer = shared.layers.begin - to.layer_begin + i;
      std::memcpy(words + (step * to.layer_count + layer) * to_row + to_at,
                  source + (step * shared.layers.count() + i) * from_row + from_at, bytes);
    }
  }
}

bool same_neurons(const NeuronPool& one, const NeuronPool& other) {
  return one.neuron_begin == other.neuron_begin && one.neuron_count == other.neuron_count;
}

// A pool that ends within a byte must not see its neighbour's bits.
void clear_spare_bits(StepBlock& block) {
  const uint32_t used = block.pool.neuron_count % 64;
  if (used == 0) return;
  const uint64_t mask = (uint64_t{1} << used) - 1;
  const uint64_t stride = block.pool.words_per_layer();
  for (uint64_t last = stride - 1; last < block.words.size(); last += stride) {
    block.words[last] &= mask;
  }
}

class Reader final : public TraceReader {
 public:
  Reader(std::vector<Shard> shards, std::vector<std::string> missing, uint64_t master_bytes,
         uint32_t thread_count)
      : shards_(std::move(shards)),
        missing_(std::move(missing)),
        file_bytes_(master_bytes),
        thread_count_(thread_count) {
    step_count_ = shards_[0].step_count();
    for (const Shard& shard : shards_) {
      step_count_ = std::min(step_count_, shard.step_count());
      file_bytes_ += shard.file_bytes();
    }
    tasks_ = shards_[0].tasks_within(step_count_);
    magnitude_steps_ = shards_[0].magnitude_steps();
    for (const Shard& shard : shards_) {
      if (shard.magnitude_steps().size() < magnitude_steps_.size()) {
        magnitude_steps_ = shard.magnitude_steps();
      }
    }
  }

  const TraceHeader& header() const override { return shards_[0].header(); }
  uint64_t step_count() const override { return step_count_; }
  bool finished() const override { return missing_.empty(); }
  const std::vector<std::string>& missing() const override { return missing_; }
  bool holds(uint32_t rank) const override {
    return std::any_of(shards_.begin(), shards_.end(),
                       [rank](const Shard& shard) { return shard.rank() == rank; });
  }
  uint64_t file_bytes() const override { return file_bytes_; }
  const std::vector<TaskRecord>& tasks() const override { return tasks_; }
  std::vector<StepInfo> steps() const override { return shards_[0].steps(0, step_count_); }

  std::vector<StepTimes> times(uint32_t rank) const override {
    TC_CHECK(rank < header().pools.size(), "a rank of the trace");
    for (const Shard& shard : shards_) {
      if (shard.rank() == rank) return shard.times(0, step_count_);
    }
    throw lost(rank);
  }

  std::vector<uint32_t> popcounts(uint64_t begin, uint64_t count) const override {
    return sum_popcounts(shards_, begin, count);
  }

  void read(const NeuronPool& pool, uint64_t step_begin, uint64_t step_count,
            StepBlock& block) const override {
    read_bits(Bits::active, pool, step_begin, step_count, block);
  }

  void read_predicted(const NeuronPool& pool, uint64_t step_begin, uint64_t step_count,
                      StepBlock& block) const override {
    if (!header().has_predicted) {
      throw Error(ErrorKind::input, "this trace has no predicted neurons");
    }
    read_bits(Bits::predicted, pool, step_begin, step_count, block);
  }

  const std::vector<uint64_t>& magnitude_steps() const override { return magnitude_steps_; }

  void read_magnitudes(const NeuronPool& pool, uint64_t row_begin, uint64_t row_count,
                       std::vector<float>& magnitudes) const override {
    check_pool(pool);
    TC_CHECK(
        row_begin <= magnitude_steps_.size() && row_count <= magnitude_steps_.size() - row_begin,
        "magnitudes that are there");
    magnitudes.assign(row_count * pool.total(), 0.0f);
    std::vector<float> part;
    for (const Shard& shard : shards_) {
      const Overlap shared = overlap_of(shard.pool(), pool);
      if (shared.empty()) continue;
      shard.read_magnitudes(row_begin, row_count, shared.layers.begin - shard.pool().layer_begin,
                            shared.layers.count(), part);
      for (uint64_t row = 0; row < row_count * shared.layers.count(); ++row) {
        const uint64_t step = row / shared.layers.count(), i = row % shared.layers.count();
        const uint64_t layer = shared.layers.begin - pool.layer_begin + i;
        std::copy_n(part.data() + row * shard.pool().neuron_count + shared.neurons.begin -
                        shard.pool().neuron_begin,
                    shared.neurons.count(),
                    magnitudes.data() + (step * pool.layer_count + layer) * pool.neuron_count +
                        shared.neurons.begin - pool.neuron_begin);
      }
    }
  }

  // Steps are hashed task by task: a batched run, whose tasks alternate, has the hash of the same
  // tasks one after the other.
  std::string hash() const override {
    Fnv1a hash;
    add_header(hash);
    for (const auto& [index, of_task] : hashes_of_tasks()) {
      if (index < tasks_.size()) add_task(hash, tasks_[index]);
      hash.add_value(of_task.value());
    }
    for (const Shard& shard : shards_) {
      if (!missing_.empty()) hash.add_value(shard.rank());  // sums over some ranks
    }
    return hash.hex();
  }

 private:
  static void add_task(Fnv1a& hash, const TaskRecord& task) {
    hash.add_value(task.task_id);
    hash.add_value(task.step_count);
    hash.add_value(task.prompt_tokens);
    for (const int32_t token : task.generated) hash.add_value(token);
  }

  std::map<uint32_t, Fnv1a> hashes_of_tasks() const {
    std::map<uint32_t, Fnv1a> hashes;
    const std::vector<StepInfo> infos = steps();
    const uint64_t layers = header().shape.layer_count;
    for (uint64_t begin = 0; begin < step_count_; begin += kHashSteps) {
      const uint64_t count = std::min(kHashSteps, step_count_ - begin);
      const std::vector<uint32_t> counts = popcounts(begin, count);
      for (uint64_t i = 0; i < count; ++i) {
        const StepInfo& step = infos[begin + i];
        Fnv1a& hash = hashes[step.task];
        hash.add_value(step.token);
        hash.add_value(step.position);
        hash.add_value(step.phase);
        for (uint64_t layer = 0; layer < layers; ++layer)
          hash.add_value(counts[i * layers + layer]);
      }
    }
    return hashes;
  }

  void add_header(Fnv1a& hash) const {
    const TraceHeader& header = this->header();
    for (const std::string* text :
         {&header.model, &header.weight_provenance, &header.weight_hash, &header.activation_rule,
          &header.prompts, &header.prompts_hash}) {
      hash.add_value(text->size());
      hash.add(*text);
    }
    const ModelShape& shape = header.shape;
    for (const uint32_t dimension :
         {shape.layer_count, shape.model_dim, shape.ffn_dim, shape.head_count, shape.kv_head_count,
          shape.head_dim, shape.vocab_size}) {
      hash.add_value(dimension);
    }
    hash.add_value(shape.activation);
    add_types(hash, header.ffn_types);
    for (const float threshold : header.activation_thresholds) hash.add_value(threshold);
    hash.add_value(header.seed);
  }

  void check_pool(const NeuronPool& pool) const {
    const ModelShape& shape = header().shape;
    TC_CHECK(uint64_t{pool.layer_begin} + pool.layer_count <= shape.layer_count, "layers");
    TC_CHECK(uint64_t{pool.neuron_begin} + pool.neuron_count <= shape.ffn_dim, "neurons");
    TC_CHECK(pool.neuron_begin % 8 == 0, "neurons from a multiple of 8");
    check_present(pool);
  }

  void read_bits(Bits which, const NeuronPool& pool, uint64_t step_begin, uint64_t step_count,
                 StepBlock& block) const {
    check_pool(pool);
    TC_CHECK(step_begin <= step_count_ && step_count <= step_count_ - step_begin, "steps");
    block.pool = pool;
    block.step_begin = step_begin;
    block.step_count = step_count;
    // Not zeroed: shards tile the pool, and clear_spare_bits() sees to the rest of the last word.
    block.words.resize(step_count * pool.words_per_step());
    const Wanted wanted{which, block, thread_count_};
    for (const Shard& shard : shards_) {
      const Overlap shared = overlap_of(shard.pool(), pool);
      if (shared.empty()) continue;
      const bool straight = same_neurons(shard.pool(), pool);
      straight ? read_straight(shard, shared, wanted) : read_part(shard, shared, wanted);
    }
    clear_spare_bits(block);
  }

  Error lost(uint32_t rank) const {
    return {ErrorKind::input, fmt::format("rank {} of this partial trace is missing", rank)};
  }

  // Every neuron of the pool is in a shard that is here.
  void check_present(const NeuronPool& pool) const {
    for (uint32_t rank = 0; rank < header().pools.size(); ++rank) {
      if (!holds(rank) && !overlap_of(header().pools[rank], pool).empty()) throw lost(rank);
    }
  }

  std::vector<Shard> shards_;  // by rank, without the missing ones
  std::vector<std::string> missing_;
  uint64_t file_bytes_;
  uint32_t thread_count_;
  uint64_t step_count_;
  std::vector<TaskRecord> tasks_;
  std::vector<uint64_t> magnitude_steps_;
};

std::unique_ptr<TraceReader> open_whole(const std::string& path, uint32_t thread_count) {
  const Master master(path);
  std::vector<Shard> shards;
  for (const std::string& shard : master.shard_paths) shards.emplace_back(shard);
  check_joined(path, master, shards);
  return std::make_unique<Reader>(std::move(shards), std::vector<std::string>{},
                                  master.file->file_bytes(), thread_count);
}

// What can be read of a trace, whatever became of the rest.
class PartialTrace {
 public:
  explicit PartialTrace(const std::string& path) {
    note_master(path);
    for (const std::string& shard : find_shards(path)) add(shard);
    if (shards_.empty()) throw bad_input(path, "a shard that can be read", missing_.back());
    common_steps_ = shards_[0].step_count();
    for (const Shard& shard : shards_) {
      common_steps_ = std::min(common_steps_, shard.step_count());
    }
    check_same_recording(shards_, common_steps_);
    note_unfinished();
  }

  std::unique_ptr<TraceReader> reader(uint32_t thread_count) {
    return std::make_unique<Reader>(std::move(shards_), std::move(missing_), master_bytes_,
                                    thread_count);
  }

 private:
  void note_master(const std::string& path) {
    try {
      master_bytes_ = Master(path).file->file_bytes();
    } catch (const Error& error) {
      note(error);
    }
  }

  void add(const std::string& path) {
    try {
      shards_.emplace_back(path);
    } catch (const Error& error) {
      note(error);
    }
  }

  void note(const Error& error) {
    if (error.kind() != ErrorKind::input) throw error;
    missing_.push_back(error.what());
  }

  void note_unfinished() {
    for (const Shard& shard : shards_) {
      if (shard.finished() && shard.step_count() == common_steps_) continue;
      missing_.push_back(fmt::format("{}: {} at {} steps, of which all ranks have {}", shard.path(),
                                     shard.finished() ? "finished" : "unfinished",
                                     shard.step_count(), common_steps_));
    }
  }

  std::vector<Shard> shards_;
  std::vector<std::string> missing_;
  uint64_t master_bytes_ = 0;
  uint64_t common_steps_ = 0;
};

}  // namespace

std::unique_ptr<TraceReader> open_trace(const std::string& path, const OpenOptions& options) {
  const uint32_t threads = options.threads != 0 ? options.threads : available_cores();
  auto trace =
      options.allow_partial ? PartialTrace(path).reader(threads) : open_whole(path, threads);
  if (options.activation_threshold.empty()) return trace;
  return rethreshold(std::move(trace), path, parse_activation_cut(options.activation_threshold));
}

}  // namespace thermocline
