// TraceFormat: other tools' files that a trace can become, or be made from.
//
// A format is one file in traces/formats that ends in a registration:
//   THERMOCLINE_TRACE_FORMAT(npy, "one line", Carries::bits, write, open, ".npy");
// `trace convert`, its help, its errors, the contract tests and the README table read the registry.
// Goals: bounded memory in both directions; a file appears under its name only when whole; what a
//   format cannot carry is said, never filled in.
// Non-goals: deciding what a made trace says of its model (traces/imported_trace.h).
// Thread-safety: filled before main(), read-only afterwards; a source belongs to one thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "models/mapped_file.h"
#include "models/registry.h"
#include "traces/selection.h"
#include "traces/trace.h"

namespace thermocline {

// bits: which neurons were active at each step. counts: how often each was, without time.
// accesses: one record for each active neuron, in the order of steps.
enum class Carries : uint8_t { bits, counts, accesses };
std::string_view name_of(Carries carries);

struct ExportOptions {
  bool by_task = false;                          // counts of each task apart
  std::function<void(uint64_t bytes)> sized;     // never empty; before a file whose size is known
  std::function<void(uint64_t steps)> progress;  // never empty
};

struct ExportResult {
  uint64_t file_bytes = 0;
  std::vector<std::string> notes;  // what the user should know of the files
};

// What is known of a foreign file beforehand; 0: not known, so as the file says.
struct ImportOptions {
  uint32_t layer_count = 0, ffn_dim = 0;
  uint64_t bundle_bytes = 0;
  uint64_t counted_steps = 0;  // of counts without a number of steps
  uint64_t profile_steps = 0;  // of counts: scale them to so many steps
  std::function<void(uint64_t done, uint64_t total)> scanned = {};  // in bytes
};

struct SourceFacts {
  uint32_t layer_count = 0, ffn_dim = 0;
  uint64_t step_count = 0;
  bool order_is_real = true;  // false: the steps were made from counts
  std::string hash;           // of the files' bytes, 16 hex digits
  std::vector<TaskRecord> tasks;
  std::vector<std::string> notes;
};

// `words`: (layer_count, words_per_layer) of the whole model.
using StepVisit = std::function<void(const StepInfo& info, std::span<const uint64_t> words)>;

// A foreign file that was opened and whose shape holds.
class TraceSource {
 public:
  virtual ~TraceSource() = default;
  const SourceFacts& facts() const { return facts_; }
  NeuronPool pool() const { return {0, facts_.layer_count, 0, facts_.ffn_dim}; }
  // Calls visit for every step, in order. May be called again.
  virtual void read(const StepVisit& visit) const = 0;

 protected:
  SourceFacts facts_;
};

struct TraceFormat {
  std::string name;
  std::string summary;
  Carries carries;
  // Writes the selected steps and layers. Error{usage}: an option that the format has no use for.
  ExportResult (*write)(const Selection& selection, const std::string& path,
                        const ExportOptions& options);
  std::unique_ptr<TraceSource> (*open)(const std::string& path, const ImportOptions& options);
  std::vector<std::string> extensions;  // how its paths end; "/" is a folder
};

Registry<TraceFormat>& trace_formats();
std::string trace_format_name(std::string_view id);  // "counts_csv" -> "counts-csv"
// The one format whose paths end like this one, or null.
const TraceFormat* trace_format_of(const std::string& path);

// The rest: extensions.
#define THERMOCLINE_TRACE_FORMAT(id, summary, carries, write, open, ...)        \
  const bool registered_trace_format_##id = ::thermocline::trace_formats().add( \
      {::thermocline::trace_format_name(#id), summary, carries, write, open, {__VA_ARGS__}})

// What several formats do.

// Error{failed} after Ctrl-C or SIGTERM.
void stop_if_interrupted();
// Error{usage} unless one of them is unknown (0) or both are equal. Returns what is known.
uint32_t agreed(uint32_t given, uint32_t found, const std::string& what, const std::string& path);
// Lets go of pages that were read; bytes that no file backs (owner is null) stay.
void release(const MappedFile& file, std::span<const std::byte> bytes);
// FNV-1a of each file's bytes, in order.
std::string hash_of(const std::vector<MappedFile>& files, const ImportOptions& options);
// A step of which only its number is known; all belong to task 0.
StepInfo bare_step(uint64_t step);
// The one task of `step_count` bare steps; none where there is no step.
std::vector<TaskRecord> bare_task(uint64_t step_count);
// One line for each thing that the trace has and no format carries.
std::vector<std::string> left_out(const TraceReader& trace);

}  // namespace thermocline
