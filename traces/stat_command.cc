#include "traces/stat_command.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <memory>

#include "models/cli.h"
#include "models/error.h"
#include "traces/activity_figures.h"
#include "traces/stat_plots.h"
#include "traces/stat_tables.h"
#include "traces/trace.h"

namespace thermocline {
namespace {

using Json = nlohmann::ordered_json;

constexpr uint32_t kDistanceMax = 4096;  // steps; memory grows with it
constexpr size_t kDistancesMax = 64;
constexpr uint32_t kThreadsMax = 1024;

struct StatOptions {
  std::string path, json, plots;
  uint32_t skipped = 0, threads = 0;
  StatisticsOptions counted;  // lags and windows besides those of the figures
  std::string threshold;
  bool allow_partial = false;
};

Json json_of(const std::optional<double>& share) { return share ? Json(*share) : Json(nullptr); }

// {"1": 0.5, "2": null}
template <class Keys>
Json by_key(const Keys& keys, const ActivityStatistics::Shares& shares) {
  Json object = Json::object();
  for (size_t i = 0; i < keys.size(); ++i) object[fmt::format("{}", keys[i])] = json_of(shares[i]);
  return object;
}

// At each 5 % of the neurons.
Json carried_json(const ActivityStatistics& statistics) {
  Json object = Json::object();
  for (size_t percent = 5; percent <= statistics.carried.size(); percent += 5) {
    object[fmt::format("{}", percent)] = statistics.carried[percent - 1];
  }
  return object;
}

void add_shares(Json& row, const ActivityStatistics& statistics, const TraceStatistics& found) {
  const auto figures = figures_of(statistics, found.options);
  for (size_t i = 0; i < figures.size(); ++i) {
    row[std::string(kActivityFigures[i].key)] = json_of(figures[i]);
  }
  for (size_t i = 0; found.has_predicted && i < kPredictionFigures.size(); ++i) {
    row[std::string(kPredictionFigures[i].key)] = json_of(statistics.*kPredictionFigures[i].share);
  }
  row["overlap_by_lag"] = by_key(found.options.lags, statistics.overlap);
  row["union_by_window"] = by_key(found.options.windows, statistics.unions);
  row["fresh_by_window"] = by_key(found.options.windows, statistics.fresh);
  row["task_overlap_by_distance"] = by_key(kTaskDistances, statistics.task_overlap);
  row["half_task_overlap_by_distance"] = by_key(kTaskDistances, statistics.half_task_overlap);
  row["carried_by_percent"] = carried_json(statistics);
}

Json row_of(const TraceReader& trace, const std::string& trace_hash, const TraceStatistics& found,
            std::optional<size_t> layer) {
  const TraceHeader& header = trace.header();
  Json row = {{"kind", "activity"}, {"scope", layer ? "layer" : "model"}};
  if (layer) row["layer"] = *layer;
  row.update({{"model", header.model},
              {"weights", header.weight_provenance},
              {"weight_hash", header.weight_hash},
              {"trace_hash", trace_hash},
              {"activation_rule", header.activation_rule},
              {"prompts", header.prompts},
              {"seed", header.seed},
              {"step_count", found.step_count},
              {"task_count", found.sequence_count},
              {"steps_skipped", found.options.position_min}});
  add_shares(row, layer ? found.layers[*layer] : found.whole, found);
  row.update({{"source", "measured"}, {"version", kVersion}});
  return row;
}

void print_origin(const TraceReader& trace, const StatOptions& options, const std::string& hash,
                  const TraceStatistics& found) {
  const TraceHeader& header = trace.header();
  fmt::print("trace    {}, hash {}\n", options.path, hash);
  fmt::print("model    {}: {} layers of {} neurons, {} weights\n", header.model,
             header.shape.layer_count, header.shape.ffn_dim, header.weight_provenance);
  fmt::print("counted  {} steps of {} tasks", found.step_count, found.sequence_count);
  if (options.skipped > 0) fmt::print("; the first {} of each are left out", options.skipped);
  fmt::print("\n\n");
}

void check_distances(const std::string& option, const std::vector<uint32_t>& distances) {
  if (distances.size() > kDistancesMax) {
    throw bad_usage(fmt::format("{}: expected at most {} numbers, found {}", option, kDistancesMax,
                                distances.size()));
  }
  for (const uint32_t distance : distances) {
    if (distance == 0 || distance > kDistanceMax) {
      throw bad_usage(
          fmt::format("{} {}: expected steps from 1 to {}", option, distance, kDistanceMax));
    }
  }
}

TraceStatistics count(const TraceReader& trace, const StatOptions& options) {
  Progress bar("counting", trace.step_count(), "steps");
  const auto progress = [&bar](uint64_t done) {
    if (interrupted()) throw work_failed("trace stat: interrupted; nothing was written");
    bar.update(done);
  };
  CountingLimits limits;
  limits.threads = options.threads != 0 ? options.threads : available_cores();
  return statistics_of(trace, figure_options(options.skipped, options.counted), progress, limits);
}

void write_plots(const TraceStatistics& found, const StatOptions& options) {
  const WrittenPlots written = write_stat_plots(found, options.plots);
  if (!written.problem.empty()) {
    fmt::print(stderr, "thermocline trace stat: no plots: {}\n", written.problem);
  }
  if (options.json == "-" || written.paths.empty()) return;
  fmt::print("\n{} plots in {}\n", written.paths.size(), options.plots);
}

void write_rows(const TraceReader& trace, const StatOptions& options, const std::string& hash,
                const TraceStatistics& found) {
  Json rows = Json::array({row_of(trace, hash, found, std::nullopt)});
  for (size_t layer = 0; layer < found.layers.size(); ++layer) {
    rows.push_back(row_of(trace, hash, found, layer));
  }
  write_json(options.json, "trace stat", rows);
}

void run_stat(const StatOptions& options) {
  install_interrupt_handler();
  check_distances("--lags", options.counted.lags);
  check_distances("--windows", options.counted.windows);
  if (options.threads > kThreadsMax) {
    throw bad_usage(fmt::format("--threads {}: expected at most {}", options.threads, kThreadsMax));
  }
  const auto trace = open_trace(options.path, {.allow_partial = options.allow_partial,
                                               .activation_threshold = options.threshold});
  for (const std::string& line : trace->missing()) {
    fmt::print(stderr, "thermocline trace stat: {}\n", line);
  }
  const TraceStatistics found = count(*trace, options);
  const std::string hash = trace->hash();
  if (options.json != "-") {
    print_origin(*trace, options, hash, found);
    fmt::print("{}", stat_tables(found));
  }
  if (!options.plots.empty()) write_plots(found, options);
  if (!options.json.empty()) write_rows(*trace, options, hash, found);
}

}  // namespace

void add_stat_command(CLI::App& trace) {
  const auto options = std::make_shared<StatOptions>();
  CLI::App* command = trace.add_subcommand(
      "stat", "whether a hot threshold has anything to follow: overlaps, shares, coverages");
  command->add_option("TRACE", options->path, "the trace's master, for example trace.h5")
      ->required();
  command->add_option("--json", options->json, "write the rows as JSON; - is standard output");
  command->add_option("--plots", options->plots, "write SVG plots into this folder (gnuplot)");
  command->add_option("--skip", options->skipped, "leave out the first N steps of each task")
      ->capture_default_str();
  command->add_option("--lags", options->counted.lags, "distances in steps for overlaps")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->capture_default_str();
  command->add_option("--windows", options->counted.windows, "steps for unions and fresh neurons")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->capture_default_str();
  command->add_option("--threads", options->threads, "default: the cores of this process");
  command->add_option("--activation-threshold", options->threshold,
                      "another one, where magnitudes were recorded: 0.1, p90 (of each layer), "
                      "p90/neuron");
  command->add_flag("--allow-partial", options->allow_partial,
                    "accept an unfinished trace: the steps that all shards hold");
  command->footer("Example: thermocline trace stat results/test.h5 --json stat.json --plots plots");
  command->callback([options] { run_stat(*options); });
}

}  // namespace thermocline
