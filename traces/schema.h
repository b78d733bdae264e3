// The names in a trace file, and the header: written, read, validated and compared in one place.
//
// traces/README.md has the whole table. Goals: a header that comes from a file is as trustworthy
// as one that the program made: shape within limits, pools that tile the model exactly.
// Non-goals: the data of the steps (traces/shard.h).
// Thread-safety: pure functions.
#pragma once

#include <span>
#include <string>

#include "models/hash.h"
#include "traces/hdf5.h"
#include "traces/trace.h"

namespace thermocline {

inline constexpr const char* kShardKind = "thermocline-trace-shard";
inline constexpr const char* kMasterKind = "thermocline-trace";

namespace dataset {
inline constexpr const char* kActive = "active";        // u64 (block, layer, place)
inline constexpr const char* kPredicted = "predicted";  // the same
inline constexpr const char* kOrder = "neuron_order";   // u32 (layer, place)
inline constexpr const char* kPopcounts = "popcounts";  // u32 (step, layer)
inline constexpr const char* kPredictedPopcounts = "predicted_popcounts";
inline constexpr const char* kMagnitudes = "magnitudes";           // u8 or f16 (row, layer, neuron)
inline constexpr const char* kMagnitudeSteps = "magnitude_steps";  // u64 (row)
inline constexpr const char* kPools = "pools";                     // u32 (rank, 4)
inline constexpr const char* kThresholds = "activation_thresholds";  // f32 (layer)
inline constexpr const char* kToken = "steps/token";
inline constexpr const char* kPosition = "steps/position";
inline constexpr const char* kTask = "steps/task";
inline constexpr const char* kPhase = "steps/phase";
inline constexpr const char* kPass = "steps/pass";
inline constexpr const char* kCompute = "times/compute_ns";
inline constexpr const char* kTransfer = "times/transfer_ns";
inline constexpr const char* kComm = "times/comm_ns";
inline constexpr const char* kWait = "times/wait_ns";
inline constexpr const char* kTaskId = "tasks/task_id";
inline constexpr const char* kTaskBegin = "tasks/step_begin";
inline constexpr const char* kTaskSteps = "tasks/step_count";
inline constexpr const char* kTaskPrompt = "tasks/prompt_tokens";
inline constexpr const char* kTaskGenerated = "tasks/generated_count";
inline constexpr const char* kGenerated = "generated";  // i32, all tasks one after the other
}  // namespace dataset

// A one-dimensional dataset.
struct Column {
  const char* name;
  Element element;
};

inline constexpr Column kStepColumns[] = {
    {dataset::kToken, Element::i32}, {dataset::kPosition, Element::u32},
    {dataset::kTask, Element::u32},  {dataset::kPhase, Element::u8},
    {dataset::kPass, Element::u32},
};
inline constexpr Column kTimeColumns[] = {
    {dataset::kCompute, Element::u64},
    {dataset::kTransfer, Element::u64},
    {dataset::kComm, Element::u64},
    {dataset::kWait, Element::u64},
};
inline constexpr Column kTaskColumns[] = {
    {dataset::kTaskId, Element::i32},        {dataset::kTaskBegin, Element::u32},
    {dataset::kTaskSteps, Element::u32},     {dataset::kTaskPrompt, Element::u32},
    {dataset::kTaskGenerated, Element::u32},
};

// Of the dataset of magnitudes; format is not none.
constexpr Element element_of(MagnitudeFormat format) {
  return format == MagnitudeFormat::f16 ? Element::f16 : Element::u8;
}

// Throws Error{input} naming `origin` unless the pools tile layers x ffn_dim exactly, without
// overlap, each beginning at a multiple of 8 neurons.
void validate_pools(const TraceHeader& header, const std::string& origin);

void write_header(Hdf5File& file, const TraceHeader& header, const std::string& kind);
// Errors: another kind of file, a newer schema, a shape or pools that cannot be.
TraceHeader read_header(const Hdf5File& file, const std::string& kind);

// Over all but the bits, which their popcounts protect: what a finished shard's checksum attribute
// holds. Add the steps in order, then the tasks.
// One value where all types are equal, as all were once: hashes of such traces stay what they were.
void add_types(Fnv1a& hash, const BundleTypes& types);

class ShardChecksum {
 public:
  ShardChecksum(const TraceHeader& header, uint32_t rank);
  // `popcounts`: (layer_count) of the pool.
  void add(const StepInfo& info, const StepTimes& times, std::span<const uint32_t> popcounts);
  void add(const TaskRecord& task);
  std::string hex() const { return hash_.hex(); }

 private:
  Fnv1a hash_;
};

// The name of the first field in which the two differ; empty where they are equal.
std::string difference(const TraceHeader& one, const TraceHeader& other);

}  // namespace thermocline
