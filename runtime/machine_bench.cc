#include "runtime/machine_bench.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "models/cli.h"
#include "models/error.h"
#include "models/units.h"
#include "runtime/node_facts.h"

namespace thermocline {
namespace {

using Json = nlohmann::ordered_json;

constexpr uint64_t kCachesPerPass = 8;

// "80 % of 22": of that rate; nothing where the limit is not known.
std::string share_text(double share, double rate) {
  return share > 0 ? fmt::format("{:.0f} % of {:.0f}", 100 * share, rate / share) : "";
}

Json share_or_null(double share) { return share > 0 ? Json(share) : Json(nullptr); }

void print_figures(std::FILE* out, const std::vector<BackendFigure>& figures) {
  fmt::print(out, "\n{:<20} {:<6} {:>7} {:>6} {:>8} {:>10} {:>9}  {:>6} {:>12}  {:>7} {:>12}\n", "",
             "format", "threads", "tokens", "active %", "reads", "ms", "GB/s", "limit", "GFLOP/s",
             "peak");
  for (const BackendFigure& figure : figures) {
    fmt::print(out,
               "{:<20} {:<6} {:>7} {:>6} {:>8.0f} {:>10} {:>9.3f}  {:>6.1f} {:>12}  {:>7.1f} "
               "{:>12}\n",
               figure.name, figure.format, figure.threads, figure.tokens, figure.active_percent,
               format_bytes(figure.bytes), figure.ms, figure.gb_per_s,
               share_text(figure.share_of_limit, figure.gb_per_s), figure.gflop_per_s,
               share_text(figure.share_of_peak, figure.gflop_per_s));
  }
}

// What the layers alone would give, to compare with engines that only say tokens per second.
void print_whole_model(std::FILE* out, const MachineBench& bench) {
  fmt::print(out, "\n{} such layers, without the output head (computed from the above):\n",
             bench.shape.layer_count);
  for (const BackendFigure& figure : bench.figures) {
    if (!figure.name.starts_with("layer")) continue;
    const double ms = figure.ms * bench.shape.layer_count;
    fmt::print(out, "  {:<20} {}, {:>3.0f} % active: {:>9.1f} ms for {} tokens, {:.2f} tokens/s\n",
               figure.name, figure.format, figure.active_percent, ms, figure.tokens,
               figure.tokens / ms * 1e3);
  }
}

// Shows how far it is, and ends it when somebody asks for that.
std::function<void(size_t, size_t)> watcher(std::optional<Progress>& progress) {
  return [&progress](size_t done, size_t total) {
    if (!progress.has_value()) progress.emplace("bench", total, "figures");
    progress->update(done);
    if (!interrupted()) return;
    throw work_failed(fmt::format("interrupted after {} of {} figures", done, total));
  };
}

Json row_of(const MachineBench& bench, const BackendFigure& figure) {
  return {{"kind", "bench"},
          {"name", figure.name},
          {"format", figure.format},
          {"tokens", figure.tokens},
          {"active_percent", figure.active_percent},
          {"threads", figure.threads},
          {"bytes", figure.bytes},
          {"ms", figure.ms},
          {"gb_per_s", figure.gb_per_s},
          {"share_of_limit", share_or_null(figure.share_of_limit)},
          {"gflop_per_s", figure.gflop_per_s},
          {"share_of_peak", share_or_null(figure.share_of_peak)},
          {"backend", bench.backend},
          {"device", bench.device},
          {"model_dim", bench.shape.model_dim},
          {"ffn_dim", bench.shape.ffn_dim},
          {"source", "measured"}};
}

}  // namespace

BackendBenchOptions bench_options(const RunOptions& options) {
  BackendBenchOptions bench;
  bench.thread_count =
      static_cast<int>(options.threads != 0 ? options.threads : cores_of_process(1));
  bench.pass_bytes = std::max(bench.pass_bytes, kCachesPerPass * last_level_cache_bytes());
  return bench;
}

MachineBench measure_machine(const RunOptions& options, const BackendBenchOptions& bench) {
  const BackendEntry& entry = choose_backend(options.backend);
  const auto make = [&](int threads) {
    return entry.make({threads, RankOnHost{}, static_cast<int>(options.device)});
  };
  MachineBench result{entry.name, "", bench.shape, {}, {}};
  std::optional<Progress> progress;
  BackendBenchOptions watched = bench;
  watched.on_figure = watcher(progress);
  bool scales = false;
  {
    const std::unique_ptr<Backend> backend = make(bench.thread_count);
    result.device = backend->describe();
    scales = backend->uses_host_memory();
    result.figures = measure_backend(*backend, watched);
  }
  progress.reset();
  if (scales) result.scaling = measure_scaling(make, watched);
  return result;
}

void print_bench(std::FILE* out, const MachineBench& bench) {
  fmt::print(out, "{} on {} ({}), model_dim {}, ffn_dim {}\n",
             machine_facts().at("cpu").get<std::string>(), bench.backend, bench.device,
             bench.shape.model_dim, bench.shape.ffn_dim);
  print_figures(out, bench.figures);
  if (!bench.scaling.empty()) print_figures(out, bench.scaling);
  print_whole_model(out, bench);
  fmt::print(
      out,
      "\nof the middle of several rounds. limit: what the same threads read from the same memory "
      "just before,\nGB/s. peak: what they do in registers in f32, GFLOP/s; quantised weights are "
      "multiplied as\nintegers, of which more fit.\n");
}

Json bench_rows(const MachineBench& bench) {
  Json rows = Json::array();
  for (const BackendFigure& figure : bench.figures) rows.push_back(row_of(bench, figure));
  for (const BackendFigure& figure : bench.scaling) {
    rows.push_back(row_of(bench, figure));
    rows.back()["scaling"] = true;
  }
  return rows;
}

void bench_machine(const RunOptions& options) {
  const MachineBench bench = measure_machine(options, bench_options(options));
  if (options.json != "-") print_bench(stdout, bench);
  if (!options.json.empty()) write_json(options.json, "run", bench_rows(bench));
}

}  // namespace thermocline
