#include "traces/convert_command.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <memory>

#include "models/cli.h"
#include "models/error.h"
#include "models/units.h"
#include "traces/imported_trace.h"
#include "traces/trace_format.h"
#include "traces/trace_origin.h"

namespace thermocline {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr uint64_t kLargeBytes = uint64_t{1} << 30;  // said beforehand
constexpr uint64_t kMebibyte = uint64_t{1} << 20;

struct Options {
  std::string from, to, format, json;
  SelectionText selection;
  OriginText origin;
  uint64_t counted_steps = 0, profile_steps = 0;
  uint32_t ranks = 1;
  bool by_task = false, allow_partial = false;
};

// What one conversion was.
struct Outcome {
  const TraceFormat* format;
  std::string direction;  // "from-trace" | "to-trace"
  NeuronPool pool;
  uint64_t step_count = 0, file_bytes = 0;
  std::string model, weights, weight_hash, trace_hash;
  std::vector<std::string> notes;
};

bool looks_like_a_trace(const std::string& path) {
  constexpr std::string_view kMark = "\x89HDF\r\n\x1a\n";
  char bytes[8] = {};
  std::ifstream(path, std::ios::binary).read(bytes, sizeof bytes);
  return std::string_view(bytes, sizeof bytes) == kMark;
}

bool named_like_a_trace(const std::string& path) {
  return path.ends_with(".h5") || path.ends_with(".hdf5");
}

bool same_place(const std::string& one, const std::string& other) {
  std::error_code ignored;
  return fs::weakly_canonical(one, ignored) == fs::weakly_canonical(other, ignored);
}

std::string endings() {
  std::string text;
  for (const TraceFormat* format : trace_formats().entries()) {
    for (const std::string& extension : format->extensions) {
      text += fmt::format("{}{} ({})", text.empty() ? "" : ", ",
                          extension == "/" ? "a folder" : extension, format->name);
    }
  }
  return text;
}

const TraceFormat& format_of(const Options& options, const std::string& path) {
  if (!options.format.empty()) return trace_formats().by_name(options.format);
  const TraceFormat* format = trace_format_of(path);
  if (format != nullptr) return *format;
  throw bad_usage(path + ": expected --format, or a name that ends in one of " + endings());
}

void refuse(bool given, const char* option, const char* direction) {
  if (given) throw bad_usage(fmt::format("{}: has no meaning {} a trace", option, direction));
}

void note(const std::string& text) { fmt::print(stderr, "thermocline trace convert: {}\n", text); }

void say_bytes(uint64_t bytes) {
  if (bytes >= kLargeBytes) note("writing " + format_bytes(bytes));
}

Outcome convert_from_trace(const Options& options) {
  refuse(options.ranks != 1, "--ranks", "from");
  refuse(!options.origin.model.empty(), "--model", "from");
  refuse(!options.origin.shape.empty(), "--shape", "from");
  refuse(!options.origin.like.empty(), "--like", "from");
  refuse(!options.origin.provenance.empty(), "--provenance", "from");
  refuse(options.counted_steps != 0, "--counted-steps", "from");
  refuse(options.profile_steps != 0, "--profile-steps", "from");
  const TraceFormat& format = format_of(options, options.to);
  const auto trace = open_trace(options.from, {.allow_partial = options.allow_partial});
  for (const std::string& line : trace->missing()) note(line);
  const Selection selection(*trace, options.selection);
  ExportResult result;
  {
    Progress bar("converting", selection.step_count(), "steps");
    result =
        format.write(selection, options.to,
                     {options.by_task, say_bytes, [&bar](uint64_t done) { bar.update(done); }});
  }
  const TraceHeader& header = trace->header();
  if (!options.selection.layers.empty()) {
    result.notes.push_back("layers " + options.selection.layers + " are numbered from 0");
  }
  return {&format,           "from-trace", selection.pool(),         selection.step_count(),
          result.file_bytes, header.model, header.weight_provenance, header.weight_hash,
          trace->hash(),     result.notes};
}

void say_size(const SourceFacts& facts) {
  const NeuronPool pool = {0, facts.layer_count, 0, facts.ffn_dim};
  const double bytes = static_cast<double>(facts.step_count) *
                       static_cast<double>(pool.layer_count) *
                       static_cast<double>(pool.bytes_per_layer());
  if (bytes < static_cast<double>(kLargeBytes)) return;
  note(fmt::format("{} steps are {:.1f} GiB of bits before compression{}", facts.step_count,
                   bytes / static_cast<double>(kLargeBytes),
                   facts.order_is_real ? "" : "; --profile-steps N makes fewer"));
}

Outcome convert_to_trace(const Options& options) {
  refuse(options.by_task, "--by-task", "into");
  refuse(options.allow_partial, "--allow-partial", "into");
  refuse(!options.selection.layers.empty(), "--layers", "into");
  refuse(!options.selection.steps.empty(), "--steps", "into");
  refuse(!options.selection.tasks.empty(), "--tasks", "into");
  const TraceFormat& format = format_of(options, options.from);
  const bool counts = format.carries == Carries::counts;
  if (!counts && (options.counted_steps != 0 || options.profile_steps != 0)) {
    throw bad_usage(format.name +
                    " holds steps: --counted-steps and --profile-steps are for counts");
  }
  if (!options.origin.like.empty() && same_place(options.origin.like, options.to)) {
    throw bad_usage("--like and TO are the same: " + options.to);
  }
  const TraceOrigin origin = parse_origin(options.origin);
  ImportOptions import;
  import.layer_count = origin.shape.layer_count;
  import.ffn_dim = origin.shape.ffn_dim;
  import.bundle_bytes = bundle_bytes(origin.shape, origin.types);
  import.counted_steps = options.counted_steps;
  import.profile_steps = options.profile_steps;
  std::unique_ptr<Progress> scan;
  import.scanned = [&scan](uint64_t done, uint64_t total) {
    if (!scan) scan = std::make_unique<Progress>("reading", total / kMebibyte, "MiB");
  scan->update(done / kMebibyte);
};
const auto source = format.open(options.from, import);
scan.reset();
const SourceFacts& facts = source->facts();
const TraceHeader header = imported_header(facts, origin, options.from, format, options.ranks);
say_size(facts);
{
  Progress bar("converting", facts.step_count, "steps");
  write_imported(*source, header, options.to, [&bar](uint64_t done) { bar.update(done); });
}
const auto trace = open_trace(options.to);
std::vector<std::string> notes = facts.notes;
notes.emplace_back("unknown, so zero: times");
if (!origin.unknown.empty()) {
  notes.emplace_back("unknown: heads and vocabulary; modelled times leave attention out");
}
return {&format,
        "to-trace",
        source->pool(),
        trace->step_count(),
        trace->file_bytes(),
        header.model,
        header.weight_provenance,
        header.weight_hash,
        trace->hash(),
        notes};
}  // namespace

Outcome convert(const Options& options) {
  if (same_place(options.from, options.to)) {
    throw bad_usage("FROM and TO are the same: " + options.from);
  }
  const bool lost_master = !fs::exists(options.from) && options.allow_partial;
  if (looks_like_a_trace(options.from) || (lost_master && named_like_a_trace(options.from))) {
    return convert_from_trace(options);
  }
  if (!fs::exists(options.from)) throw bad_input(options.from, "a file or a folder", "nothing");
  if (named_like_a_trace(options.to)) return convert_to_trace(options);
  throw bad_usage(
      fmt::format("expected a trace on one side: {} is none, and {} does not end in .h5",
                  options.from, options.to));
}

Json row_of(const Options& options, const Outcome& outcome, double seconds) {
  return {{"kind", "conversion"},
          {"from", options.from},
          {"to", options.to},
          {"format", outcome.format->name},
          {"direction", outcome.direction},
          {"carries", name_of(outcome.format->carries)},
          {"step_count", outcome.step_count},
          {"layer_count", outcome.pool.layer_count},
          {"ffn_dim", outcome.pool.neuron_count},
          {"file_bytes", outcome.file_bytes},
          {"model", outcome.model},
          {"weights", outcome.weights},
          {"weight_hash", outcome.weight_hash},
          {"trace_hash", outcome.trace_hash},
          {"seconds", seconds},
          {"notes", outcome.notes}};
}

void run_convert(const Options& options) {
  install_interrupt_handler();
  const auto begin = std::chrono::steady_clock::now();
  const Outcome outcome = convert(options);
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  if (options.json != "-") {
    for (const std::string& line : outcome.notes) fmt::print("note: {}\n", line);
    fmt::print("{}: {} steps, {} layers of {} neurons, {} in {:.1f} s ({})\n", options.to,
               outcome.step_count, outcome.pool.layer_count, outcome.pool.neuron_count,
               format_bytes(outcome.file_bytes), seconds, outcome.format->name);
  }
  if (options.json.empty()) return;
  write_json(options.json, "trace convert", Json::array({row_of(options, outcome, seconds)}));
}

std::string format_table() {
  std::string text = "Formats:\n";
  for (const TraceFormat* format : trace_formats().entries()) {
    text += fmt::format("  {:<16} {}; carries {}\n", format->name, format->summary,
                        name_of(format->carries));
  }
  return text;
}

void add_selection_options(CLI::App* command, const std::shared_ptr<Options>& options) {
  command->add_option("--layers", options->selection.layers,
                      "from a trace: layers to take, FIRST..LAST from 0");
  command->add_option("--steps", options->selection.steps,
                      "from a trace: steps to take, FIRST..LAST from 0");
  command->add_option("--tasks", options->selection.tasks,
                      "from a trace: tasks to take, FIRST..LAST by task id");
  command->add_flag("--by-task", options->by_task, "from a trace: the counts of each task apart");
  command->add_flag("--allow-partial", options->allow_partial,
                    "from a trace: accept an unfinished one, the steps that all shards hold");
}

void add_origin_options(CLI::App* command, const std::shared_ptr<Options>& options) {
  command->add_option("--model", options->origin.model,
                      "into a trace: PATH of the model that fired, or preset:NAME[,type=T] for "
                      "its shape");
  command->add_option("--shape", options->origin.shape,
                      "into a trace: layers=N,ffn_dim=N,model_dim=N,type=T,activation=A; what the "
                      "file says may be left out");
  command->add_option("--like", options->origin.like,
                      "into a trace: a TRACE of the same model and weights");
  command->add_option("--provenance", options->origin.provenance,
                      "into a trace: what weights they were: real, trained-demo or synthetic");
  command->add_option("--ranks", options->ranks, "into a trace: shards to write")
      ->capture_default_str();
  command->add_option("--counted-steps", options->counted_steps,
                      "counts into a trace: over how many steps they were counted");
  command->add_option("--profile-steps", options->profile_steps,
                      "counts into a trace: scale them to so many steps");
}

}  // namespace thermocline

void add_trace_convert_command(CLI::App& trace) {
  const auto options = std::make_shared<Options>();
  CLI::App* command =
      trace.add_subcommand("convert", "a trace to another tool's files, or such files to a trace");
  command->add_option("FROM", options->from, "a trace, or another tool's file or folder")
      ->required();
  command->add_option("TO", options->to, "what to write; the other of the two")->required();
  command->add_option("--format", options->format,
                      "of the side that is no trace; default: as its name ends: " + endings());
  add_selection_options(command, options);
  add_origin_options(command, options);
  command->add_option("--json", options->json, "write the result as JSON; - is standard output");
  command->footer(format_table() +
                  "\nExamples: thermocline trace convert test.h5 test.npy --layers 0..3\n"
                  "          thermocline trace convert activation/ profile.h5 --like test.h5");
  command->callback([options] { run_convert(*options); });
}

}  // namespace thermocline
