// The activation trace: what neurons did, step by step. No HDF5 here (traces/hdf5.h has it).
//
// A trace is one shard file per rank and a master that joins them. A step is one token position
// through all layers. Bits answer questions about the hot threshold; magnitudes, where they were
// recorded, let the activation threshold be moved afterwards (traces/rethreshold.h).
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

inline constexpr int kTraceSchemaMajor = 2;
inline constexpr int kTraceSchemaMinor = 0;

// Bits are stored in blocks of so many steps: step s is in block s / 64. Reading whole blocks is
// fastest; what is flushed is whole blocks, but for the last of a file.
inline constexpr uint32_t kBlockSteps = 64;

enum class Phase : uint8_t { prefill = 0, decode = 1 };

// How |act(gate)| is stored. log8: traces/magnitude_codes.h.
enum class MagnitudeFormat : uint8_t { none, log8, f16 };

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
  bool has_predicted = false;     // a predictor's bits beside the active ones
  MagnitudeFormat magnitudes = MagnitudeFormat::none;

  uint64_t bundle_bytes() const { return thermocline::bundle_bytes(shape, ffn_types); }
};

// One request. Its prompt is the tokens of its prefill steps. In a batched run the steps of several
// tasks alternate; a task's steps are those that name it.
struct TaskRecord {
  int32_t task_id;
  uint32_t step_begin;  // the first
  uint32_t step_count;
  uint32_t prompt_tokens;          // of these steps, prefill
  std::vector<int32_t> generated;  // tokens after the prompt; the last was no step's input
  bool operator==(const TaskRecord&) const = default;
};

struct StepInfo {
  int32_t token;      // input token of this position
  uint32_t position;  // within its sequence
  uint32_t task;      // index into the tasks
  Phase phase;
  uint32_t pass = 0;  // steps with the same number shared one pass over the weights
  bool operator==(const StepInfo&) const = default;
};

// Measured on the recording rank, for one step. A pass's time is shared evenly among its steps.
struct StepTimes {
  uint64_t compute_ns = 0;
  uint64_t transfer_ns = 0;  // between tiers of one node
  uint64_t comm_ns = 0;      // between ranks: transfers and reductions
  uint64_t wait_ns = 0;      // for another rank to arrive
  bool operator==(const StepTimes&) const = default;
};

// What one rank's neurons did in one step.
struct StepData {
  std::span<const uint64_t> active;     // (layer_count, words_per_layer) of the rank's pool
  std::span<const uint64_t> predicted;  // the same; empty unless the header has_predicted
  std::span<const float> magnitudes;    // (layer_count, neuron_count) |act(gate)|; may be empty
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
// without finish(), it flushes what it has and stays a partial; one without a step goes.
class TraceWriter {
 public:
  virtual ~TraceWriter() = default;
  // Copies; blocks only when the writer thread is more than a few blocks behind. Errors of the
  // writer thread surface here.
  virtual void append(const StepInfo& info, const StepTimes& times, const StepData& data) = 0;
  // In the order of the tasks, each after its last step.
  virtual void end_task(const TaskRecord& task) = 0;
  // Steps that a kill would not cost any more.
  virtual uint64_t safe_steps() const = 0;
  virtual void finish() = 0;
};

// `path` is the master's; every rank passes the same header. Removes an older trace's file of this
// rank (and rank 0 the master), which would otherwise look like part of the new one.
std::unique_ptr<TraceWriter> create_shard(const std::string& path, const TraceHeader& header,
                                          uint32_t rank);
// Rank 0, after every rank's finish(): checks the shards and writes the master at `path`.
void write_master(const std::string& path);

struct OpenOptions {
  bool allow_partial = false;  // accept lost and unfinished shards: the steps that the rest hold
  uint32_t threads = 0;        // that decode bits; 0: one a core
  // Bits anew from recorded magnitudes, of the steps that have them: traces/rethreshold.h.
  std::string activation_threshold = {};  // empty: bits as they were recorded
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
  // Active neurons by step and layer, whole width: (count, layer_count). With allow_partial, the
  // sum over the shards that are there.
  virtual std::vector<uint32_t> popcounts(uint64_t step_begin, uint64_t step_count) const = 0;
  // Steps [begin, begin+count) of any rectangle of neurons, whichever shards hold it.
  // neuron_begin is a multiple of 8. Bits are held against their popcounts on the way. Errors:
  // neurons of a shard that is missing.
  virtual void read(const NeuronPool& pool, uint64_t step_begin, uint64_t step_count,
                    StepBlock& block) const = 0;
  // The same of the predicted bits, where the header has_predicted.
  virtual void read_predicted(const NeuronPool& pool, uint64_t step_begin, uint64_t step_count,
                              StepBlock& block) const = 0;
  // The steps whose magnitudes are there, ascending.
  virtual const std::vector<uint64_t>& magnitude_steps() const = 0;
  // Of the steps magnitude_steps()[row_begin, +row_count): (row_count, layer_count, neuron_count)
  // of any rectangle of neurons, as the stored format has them.
  virtual void read_magnitudes(const NeuronPool& pool, uint64_t row_begin, uint64_t row_count,
                               std::vector<float>& magnitudes) const = 0;
  // FNV-1a over model, weights, rule, prompts, seed, tasks, steps (without passes) and popcounts:
  // names the content in results, the same for any layout, batch and machine (no pools, times,
  // configuration, version).
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
