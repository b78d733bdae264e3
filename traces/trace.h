// The activation trace: what neurons did, step by step. No HDF5 here (traces/hdf5.h has it).
//
// A trace is one shard file per rank and a master that joins them. A step is one token position
// through all layers. Bits are needed for questions about the hot threshold.
// Goals: self-describing (TraceHeader), streamed (StepBlock), nothing missing in silence.
// Non-goals: holding a whole trace in memory.
// Thread-safety: a writer belongs to one thread and hands its blocks to a writer thread of its own;
//   one process may hold several writers. A reader may be shared.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "models/dtype.h"
#include "models/neuron.h"
#include "models/shape.h"

namespace thermocline {

inline constexpr int kTraceSchemaMajor = 1;
inline constexpr int kTraceSchemaMinor = 0;

enum class Phase : uint8_t { prefill = 0, decode = 1 };

struct TraceHeader {
  std::string version;                 // thermocline's
  ModelShape shape;                    // without rope_divisors, which no replay needs
  BundleTypes ffn_types = DType::f32;  // bundle_bytes follows from them
  std::string model;                   // as the user wrote it
  std::string weight_provenance;       // "real" | "trained-demo" | "synthetic"
  std::string weight_hash;
  std::string activation_rule;               // "relu>0" | "fatrelu>=t" | "abs(silu)>t[layer]"
  std::vector<float> activation_thresholds;  // (layer_count)
  std::string prompts;                       // file, split, shots
  std::string prompts_hash;
  std::string layout;  // "pp1,tp4"
  uint64_t seed = 0;
  std::string config_json;        // resolved configuration of the run
  std::vector<NeuronPool> pools;  // by rank

  uint64_t bundle_bytes() const { return thermocline::bundle_bytes(shape, ffn_types); }
};

struct TaskRecord {
  int32_t task_id;
  uint32_t step_begin;
  uint32_t step_count;
  uint32_t prompt_tokens;
};

struct StepInfo {
  int32_t token;      // input token of this position
  uint32_t position;  // within its sequence
  uint32_t task;      // index into the tasks
  Phase phase;
};

// Measured on the recording rank, for one step. A prefill chunk's time is shared evenly.
struct StepTimes {
  uint64_t compute_ns = 0;
  uint64_t comm_ns = 0;  // in transfers and reductions
  uint64_t wait_ns = 0;  // for another rank to arrive
};

// Consecutive steps of one pool, as words.
struct StepBlock {
  NeuronPool pool;
  uint64_t step_begin = 0;
  uint64_t step_count = 0;
  std::vector<uint64_t> words;  // (step_count, layer_count, words_per_layer)

  ActiveStep step(uint64_t i) const {
    const uint64_t stride = pool.words_per_step();
    return {&pool, std::span<const uint64_t>(words).subspan(i * stride, stride)};
  }
};

// Writes one rank's shard. Until finish(), the file is PATH.rankNNNN.h5.partial, readable up to
// the last flush (one per block of steps); finish() marks it finished and renames it. Destroyed
// without finish(), it flushes what it has and stays a partial.
class TraceWriter {
 public:
  virtual ~TraceWriter() = default;
  // `words`: (layer_count, words_per_layer) of the rank's pool. Copies; blocks only when the
  // writer thread is more than a few blocks behind. Errors of the writer thread surface here.
  virtual void append(const StepInfo& info, const StepTimes& times,
                      std::span<const uint64_t> words) = 0;
  // After the last step of the task.
  virtual void end_task(const TaskRecord& task) = 0;
  virtual void finish() = 0;
};

struct ShardOptions {
  int gzip_level = 1;        // of the bits: 0 to 9; 0 is not compressed
  uint32_t flush_steps = 0;  // steps per block and flush; 0: about 1 MiB of bits, at most 64 steps
};

// `path` is the master's; every rank passes the same header. Removes an older trace's file of this
// rank (and rank 0 the master), which would otherwise look like part of the new one.
std::unique_ptr<TraceWriter> create_shard(const std::string& path, const TraceHeader& header,
                                          uint32_t rank, const ShardOptions& options = {});
// Rank 0, after every rank's finish(): checks the shards and writes the master at `path`.
void write_master(const std::string& path);

struct OpenOptions {
  bool allow_partial = false;  // accept lost and unfinished shards: the steps that the rest hold
};

// Const methods may be called from several threads.
class TraceReader {
 public:
  virtual ~TraceReader() = default;
  virtual const TraceHeader& header() const = 0;
  virtual uint64_t step_count() const = 0;
  virtual bool finished() const = 0;
  // With allow_partial, one line for each thing that is not there, with its path; else empty.
  virtual const std::vector<std::string>& missing() const = 0;
  virtual bool holds(uint32_t rank) const = 0;  // its shard is there
  virtual uint64_t file_bytes() const = 0;      // of all files
  virtual const std::vector<TaskRecord>& tasks() const = 0;
  virtual std::vector<StepInfo> steps() const = 0;
  // Times of one rank, all steps.
  virtual std::vector<StepTimes> times(uint32_t rank) const = 0;
  // Active neurons by step and layer, whole width: (step_count, layer_count). With allow_partial,
  // the sum over the shards that are there.
  virtual std::vector<uint32_t> popcounts() const = 0;
  // Steps [begin, begin+count) of any rectangle of neurons, whichever shards hold it.
  // neuron_begin is a multiple of 8. Bits are held against their popcounts on the way. Errors:
  // neurons of a shard that is missing.
  virtual void read(const NeuronPool& pool, uint64_t step_begin, uint64_t step_count,
                    StepBlock& block) const = 0;
  // FNV-1a over model, weights, rule, prompts, seed, tasks, steps and popcounts: names the content
  // in results, the same for any layout and any machine (no pools, times, configuration, version).
  // 16 hex digits.
  virtual std::string hash() const = 0;
};

// Opens a master (or, with allow_partial, the shards beside where it would be). Errors: not a
// trace, a newer schema, a missing, unfinished or truncated shard.
std::unique_ptr<TraceReader> open_trace(const std::string& path, const OpenOptions& options = {});

std::string shard_path(const std::string& path, uint32_t rank);    // "x.h5" -> "x.rank0003.h5"
std::string partial_path(const std::string& path, uint32_t rank);  // until it is finished

// One line per shard or master: what is good, to which step, what is wrong.
struct ShardReport {
  std::string path;
  bool good;
  std::string line;  // begins with the path
};
using CheckProgress = std::function<void(uint64_t done, uint64_t total)>;  // in steps of shards
// Reads everything: popcounts against bits, spare bits, extents, finished flags; the master against
// its shards. `path` is a master, a shard, or where the master of an unfinished trace would be.
// Error{input}: nothing of a trace is there.
std::vector<ShardReport> check_trace(const std::string& path, const CheckProgress& progress = {});

}  // namespace thermocline
