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
#include "traces/schema.h"
#include "traces/selection.h"
#include "traces/trace.h"

namespace thermocline {
namespace {

using Json = nlohmann::ordered_json;

struct CutOptions {
  std::string path, out, threshold, json;
  SelectionText what;
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
  const Selection selection(*trace, options.what);
  const NeuronPool& pool = selection.pool();
  const LayerRange layers{pool.layer_begin, pool.layer_begin + pool.layer_count};
  std::vector<uint32_t> source_ranks;
  TraceHeader header = cut_header(trace->header(), layers, source_ranks);
  note_in(header, "cut",
          {{"trace_hash", trace->hash()},
           {"tasks", options.what.tasks},
           {"steps", options.what.steps},
           {"layers", options.what.layers},
           {"activation_threshold", options.threshold}});
  if (layers.end - layers.begin < trace->header().shape.layer_count) {
    header.model += fmt::format(" (layers {} to {})", layers.begin, layers.end - 1);
  }
  TraceCopy copy(options.out, header);
  {
    Progress bar("cutting", selection.step_count(), "steps");
    copy.add(*trace, ranges_of(selection.steps()), layers.begin, source_ranks,
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
  bool same_prompts = true;
  for (size_t i = 0; i < traces.size(); ++i) {
    TraceHeader other = traces[i]->header();
    parts.push_back({{"trace_hash", traces[i]->hash()}, {"prompts", other.prompts}});
    prompts.add(other.prompts_hash);
    same_prompts = same_prompts && other.prompts_hash == merged.prompts_hash;
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
  // Parts of one set of prompts are of that set: two halves have the hash of the whole.
  if (!same_prompts) merged.prompts_hash = prompts.hex();
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
  CLI::App* command =
      trace.add_subcommand("cut", "some tasks, steps or layers of a trace as a trace of its own");
  command->add_option("TRACE", options->path, "the trace's master")->required();
  command->add_option("--out", options->out, "the new trace's master")->required();
  command->add_option("--tasks", options->what.tasks, "task ids, for example 11..20,35");
  command->add_option("--steps", options->what.steps, "steps from 0, for example 0..999");
  command->add_option("--layers", options->what.layers, "one range of layers, for example 0..3");
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
