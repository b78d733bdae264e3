#include "traces/copy_commands.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <memory>
#include <numeric>

#include "models/cli.h"
#include "models/error.h"
#include "models/hash.h"
#include "models/units.h"
#include "traces/copy.h"
#include "traces/index_ranges.h"
#include "traces/schema.h"
#include "traces/trace.h"

namespace thermocline {
namespace {

using Json = nlohmann::ordered_json;

struct CutOptions {
  std::string path, out, tasks, steps, layers, threshold, json;
  bool allow_partial = false;
};

struct MergeOptions {
  std::vector<std::string> paths;
  std::string out, json;
};

// The new trace must not be one of those that it is made from.
void check_out(const std::string& out, const std::vector<std::string>& sources) {
  namespace fs = std::filesystem;
  for (const std::string& source : sources) {
    std::error_code failed;
    if (fs::weakly_canonical(out, failed) == fs::weakly_canonical(source, failed)) {
      throw bad_usage("--out " + out + " is the trace that is read");
    }
  }
}

std::vector<StepRange> chosen_steps(const TraceReader& trace, const CutOptions& options) {
  const std::vector<StepInfo> infos = trace.steps();
  const auto tasks = options.tasks.empty() ? std::vector<IndexRange>{}
                                           : parse_index_ranges(options.tasks, "--tasks");
  const auto steps = options.steps.empty() ? std::vector<IndexRange>{}
                                           : parse_index_ranges(options.steps, "--steps");
  const auto wanted = [&](uint64_t step) {
    if (!steps.empty() && !contains(steps, step)) return false;
    if (tasks.empty()) return true;
    if (infos[step].task >= trace.tasks().size()) return false;
    const int32_t id = trace.tasks()[infos[step].task].task_id;
    return id >= 0 && contains(tasks, static_cast<uint64_t>(id));
  };
  std::vector<StepRange> ranges;
  for (uint64_t step = 0; step < infos.size(); ++step) {
    if (!wanted(step)) continue;
    if (ranges.empty() || ranges.back().end != step) ranges.push_back({step, step});
    ranges.back().end = step + 1;
  }
  if (ranges.empty()) {
    throw bad_input(options.path, "steps of --tasks and --steps",
                    fmt::format("none among {} steps of {} tasks", infos.size(),
                                trace.tasks().size()));
  }
  return ranges;
}

LayerRange chosen_layers(const TraceReader& trace, const std::string& text) {
  const uint32_t layer_count = trace.header().shape.layer_count;
  if (text.empty()) return {0, layer_count};
  const auto ranges = parse_index_ranges(text, "--layers");
  if (ranges.size() != 1 || ranges[0].last >= layer_count) {
    throw bad_usage(fmt::format("--layers '{}': expected one range within 0..{}", text,
                                layer_count - 1));
  }
  return {static_cast<uint32_t>(ranges[0].first), static_cast<uint32_t>(ranges[0].last) + 1};
}

uint64_t steps_in(const std::vector<StepRange>& ranges) {
  return std::accumulate(ranges.begin(), ranges.end(), uint64_t{0},
                         [](uint64_t sum, const StepRange& range) {
                           return sum + range.end - range.begin;
                         });
}

// What was cut from what, beside the configuration of the run.
void note_in(TraceHeader& header, const char* key, const Json& note) {
  Json config = Json::parse(header.config_json, nullptr, false);
  if (!config.is_object()) config = Json::object();
  config[key] = note;
  header.config_json = config.dump();
}

void report(const TraceReader& trace, const std::string& path, const std::string& command,
            const std::string& json) {
  const TraceHeader& header = trace.header();
  const Json row = {{"kind", "trace"},
                    {"path", path},
                    {"trace_hash", trace.hash()},
                    {"model", header.model},
                    {"weights", header.weight_provenance},
                    {"layer_count", header.shape.layer_count},
                    {"step_count", trace.step_count()},
                    {"task_count", trace.tasks().size()},
                    {"file_bytes", trace.file_bytes()}};
  if (json != "-") {
    fmt::print("{}: {} steps of {} tasks, {} layers, {}; hash {}\n", path, trace.step_count(),
               trace.tasks().size(), header.shape.layer_count, format_bytes(trace.file_bytes()),
               row.at("trace_hash").get<std::string>());
  }
  if (!json.empty()) write_json(json, command, Json::array({row}));
}

void run_cut(const CutOptions& options) {
  check_out(options.out, {options.path});
  const auto trace = open_trace(options.path, {.allow_partial = options.allow_partial,
                                               .activation_threshold = options.threshold});
  const auto ranges = chosen_steps(*trace, options);
  const LayerRange layers = chosen_layers(*trace, options.layers);
  std::vector<uint32_t> source_ranks;
  TraceHeader header = cut_header(trace->header(), layers, source_ranks);
  note_in(header, "cut",
          {{"trace_hash", trace->hash()},
           {"tasks", options.tasks},
           {"steps", options.steps},
           {"layers", options.layers},
           {"activation_threshold", options.threshold}});
  if (layers.end - layers.begin < trace->header().shape.layer_count) {
    header.model += fmt::format(" (layers {} to {})", layers.begin, layers.end - 1);
  }
  TraceCopy copy(options.out, header);
  {
    Progress bar("cutting", steps_in(ranges), "steps");
    copy.add(*trace, ranges, layers.begin, source_ranks,
             [&bar](uint64_t done) { bar.update(done); });
  }
  copy.finish();
  report(*open_trace(options.out), options.out, "trace cut", options.json);
}

// Several runs as if they were one: what must be alike is checked, what may differ is named.
TraceHeader merged_header(const std::vector<std::unique_ptr<TraceReader>>& traces,
                          const std::vector<std::string>& paths) {
  TraceHeader merged = traces[0]->header();
  Json parts = Json::array();
  Fnv1a prompts;
  for (size_t i = 0; i < traces.size(); ++i) {
    TraceHeader other = traces[i]->header();
    parts.push_back({{"trace_hash", traces[i]->hash()}, {"prompts", other.prompts}});
    prompts.add(other.prompts_hash);
    if (i > 0 && merged.prompts != other.prompts) merged.prompts += " + " + other.prompts;
    for (std::string TraceHeader::*free : {&TraceHeader::version, &TraceHeader::prompts,
                                           &TraceHeader::prompts_hash, &TraceHeader::config_json}) {
      other.*free = merged.*free;
    }
    other.seed = merged.seed;
    const std::string field = difference(merged, other);
    if (field.empty()) continue;
    throw bad_input(paths[i], "the model, weights and layout of " + paths[0], "another " + field);
  }
  if (traces.size() > 1) merged.prompts_hash = prompts.hex();
  note_in(merged, "merged", parts);
  return merged;
}

void run_merge(const MergeOptions& options) {
  check_out(options.out, options.paths);
  std::vector<std::unique_ptr<TraceReader>> traces;
  uint64_t total = 0;
  for (const std::string& path : options.paths) {
    traces.push_back(open_trace(path));
    total += traces.back()->step_count();
  }
  const TraceHeader header = merged_header(traces, options.paths);
  std::vector<uint32_t> ranks(header.pools.size());
  std::iota(ranks.begin(), ranks.end(), 0);
  TraceCopy copy(options.out, header);
  {
    Progress bar("merging", total, "steps");
    for (const auto& trace : traces) {
      const uint64_t before = copy.step_count();
      copy.add(*trace, {{0, trace->step_count()}}, 0, ranks,
               [&](uint64_t done) { bar.update(before + done); });
    }
  }
  copy.finish();
  report(*open_trace(options.out), options.out, "trace merge", options.json);
}

}  // namespace

void add_cut_command(CLI::App& trace) {
  const auto options = std::make_shared<CutOptions>();
  CLI::App* command = trace.add_subcommand(
      "cut", "some tasks, steps or layers of a trace as a trace of its own");
  command->add_option("TRACE", options->path, "the trace's master")->required();
  command->add_option("--out", options->out, "the new trace's master")->required();
  command->add_option("--tasks", options->tasks, "task ids, for example 11..20,35");
  command->add_option("--steps", options->steps, "steps from 0, for example 0..999");
  command->add_option("--layers", options->layers, "one range of layers, for example 0..3");
  command->add_option("--activation-threshold", options->threshold,
                      "bits anew from recorded magnitudes: 0.1, p90 (of each layer), p90/neuron");
  command->add_flag("--allow-partial", options->allow_partial,
                    "accept an unfinished trace: the steps that all shards hold");
  command->add_option("--json", options->json, "write what was made as JSON; - is standard output");
  command->footer("Example: thermocline trace cut test.h5 --tasks 11..20 --out first-ten.h5");
  command->callback([options] { run_cut(*options); });
}

void add_merge_command(CLI::App& trace) {
  const auto options = std::make_shared<MergeOptions>();
  CLI::App* command =
      trace.add_subcommand("merge", "traces of one model and layout, one after the other");
  command->add_option("TRACES", options->paths, "masters, in order")->required();
  command->add_option("--out", options->out, "the new trace's master")->required();
  command->add_option("--json", options->json, "write what was made as JSON; - is standard output");
  command->footer("Example: thermocline trace merge job1.h5 job2.h5 --out all.h5");
  command->callback([options] { run_merge(*options); });
}

}  // namespace thermocline
