#include "traces/stat_command.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>

#include "models/cli.h"
#include "traces/activity_figures.h"
#include "traces/trace.h"

namespace thermocline {
namespace {

using Json = nlohmann::ordered_json;

struct StatOptions {
  std::string path, json;
  uint32_t skipped = 0;
  bool allow_partial = false;
};

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
  const auto figures = figures_of(layer ? found.layers[*layer] : found.whole, found.options);
  for (size_t i = 0; i < figures.size(); ++i) {
    row[std::string(kActivityFigures[i].key)] = figures[i] ? Json(*figures[i]) : Json(nullptr);
  }
  row.update({{"source", "measured"}, {"version", kVersion}});
  return row;
}

std::string percent_text(const std::optional<double>& share) {
  return share ? fmt::format("{:.1f}", 100 * *share) : "-";
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

// All layers together; a figure that was published more than once has a line for each.
void print_whole(const TraceStatistics& found) {
  fmt::print("{:<48} {:>6}   {:<15} {}\n", "all layers: share in percent", "here", "published",
             "of, by");
  const auto figures = figures_of(found.whole, found.options);
  for (size_t i = 0; i < figures.size(); ++i) {
    std::string name(kActivityFigures[i].name), here = percent_text(figures[i]);
    const auto published = published_of(kActivityFigures[i].key);
    if (published.empty()) fmt::print("{:<48} {:>6}\n", name, here);
    for (const PublishedFigure& figure : published) {
      fmt::print("{:<48} {:>6}   {:<15} {} ({})\n", name, here, figure.text(), figure.of,
                 figure.source);
      name = here = "";
    }
  }
}

void print_layers(const TraceStatistics& found) {
  fmt::print("\n{:>5}", "layer");
  for (const ActivityFigure& figure : kActivityFigures) fmt::print(" {:>7}", figure.head);
  fmt::print("\n");
  for (size_t layer = 0; layer < found.layers.size(); ++layer) {
    fmt::print("{:>5}", layer);
    for (const auto& figure : figures_of(found.layers[layer], found.options)) {
      fmt::print(" {:>7}", percent_text(figure));
    }
    fmt::print("\n");
  }
}

TraceStatistics count(const TraceReader& trace, const StatOptions& options) {
  Progress bar("counting", trace.step_count(), "steps");
  return statistics_of(trace, figure_options(options.skipped),
                       [&bar](uint64_t done) { bar.update(done); });
}

void run_stat(const StatOptions& options) {
  const auto trace = open_trace(options.path, {.allow_partial = options.allow_partial});
  for (const std::string& line : trace->missing()) {
    fmt::print(stderr, "thermocline trace stat: {}\n", line);
  }
  const TraceStatistics found = count(*trace, options);
  const std::string hash = trace->hash();
  if (options.json != "-") {
    print_origin(*trace, options, hash, found);
    print_whole(found);
    print_layers(found);
  }
  if (options.json.empty()) return;
  Json rows = Json::array({row_of(*trace, hash, found, std::nullopt)});
  for (size_t layer = 0; layer < found.layers.size(); ++layer) {
    rows.push_back(row_of(*trace, hash, found, layer));
  }
  write_json(options.json, "trace stat", rows);
}

}  // namespace

void add_stat_command(CLI::App& trace) {
  const auto options = std::make_shared<StatOptions>();
  CLI::App* command = trace.add_subcommand(
      "stat", "whether a hot threshold has anything to follow: overlaps, shares, coverages");
  command->add_option("TRACE", options->path, "the trace's master, for example trace.h5")
      ->required();
  command->add_option("--json", options->json, "write the rows as JSON; - is standard output");
  command->add_option("--skip", options->skipped, "leave out the first N steps of each task")
      ->capture_default_str();
  command->add_flag("--allow-partial", options->allow_partial,
                    "accept an unfinished trace: the steps that all shards hold");
  command->footer("Example: thermocline trace stat results/test.h5 --json stat.json");
  command->callback([options] { run_stat(*options); });
}

}  // namespace thermocline
