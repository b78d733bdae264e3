#include "models/convert_command.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <memory>

#include "models/cli.h"
#include "models/convert.h"
#include "models/shape.h"
#include "models/units.h"

namespace thermocline {
namespace {

using Json = nlohmann::ordered_json;

constexpr uint64_t kMebibyte = uint64_t{1} << 20;

struct Options {
  std::string in, out;
  std::string type = "q4_0";
  std::string layout = "plain";
  std::string name;
  uint32_t threads = 0;  // 0: all cores
  std::string json;
};

Json row_of(const Options& options, const Conversion& result, uint32_t threads, double seconds) {
  return {{"kind", "conversion"},
          {"in", options.in},
          {"out", options.out},
          {"type", options.type},
          {"layout", options.layout},
          {"tensor_count", result.tensor_count},
          {"bytes_in", result.bytes_in},
          {"bytes_out", result.bytes_out},
          {"bundle_bytes", result.bundle_bytes},
          {"bundle_stride", result.bundle_stride},
          {"threads", threads},
          {"seconds", seconds},
          {"f32_gb_per_s", static_cast<double>(result.element_count) * 4e-9 / seconds},
          {"notes", result.notes}};
}

void show(const Options& options, const Conversion& result, double seconds) {
  for (const std::string& note : result.notes) std::printf("note: %s\n", note.c_str());
  if (result.bundle_stride != 0) {
    const uint64_t padding = result.bundle_stride - result.bundle_bytes;
    std::printf("bundles of %llu bytes every %llu, %.1f %% padding, for direct reads of %d\n",
                static_cast<unsigned long long>(result.bundle_bytes),
                static_cast<unsigned long long>(result.bundle_stride),
                100.0 * static_cast<double>(padding) / static_cast<double>(result.bundle_bytes),
                result.bundle_stride % 4096 == 0 ? 4096 : 512);
  }
  std::printf("%s: %llu tensors, %s from %s in %.1f s (%.2f GB/s of f32)\n", options.out.c_str(),
              static_cast<unsigned long long>(result.tensor_count),
              format_bytes(result.bytes_out).c_str(), format_bytes(result.bytes_in).c_str(),
              seconds, static_cast<double>(result.element_count) * 4e-9 / seconds);
}

void run_convert(const Options& options) {
  ConvertOptions conversion;
  conversion.dtype = dtype_by_name(options.type);
  conversion.layout = gguf_layout_by_name(options.layout);
  conversion.name = options.name;
  conversion.thread_count = options.threads == 0 ? available_cores() : options.threads;
  install_interrupt_handler();
  std::unique_ptr<Progress> bar;  // its total is known once the source is open
  conversion.progress = [&bar](uint64_t done, uint64_t total) {
    if (!bar) bar = std::make_unique<Progress>("converting", total / kMebibyte, "MiB");
    bar->update(done / kMebibyte);
  };
  const auto begin = std::chrono::steady_clock::now();
  const Conversion result = convert_checkpoint(options.in, options.out, conversion);
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  bar.reset();
  if (options.json != "-") show(options, result, seconds);
  if (options.json.empty()) return;
  const Json row = row_of(options, result, conversion.thread_count, seconds);
  write_json(options.json, "model convert", Json::array({row}));
}

}  // namespace

void add_convert_command(CLI::App& model) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = model.add_subcommand(
      "convert", "rewrite a checkpoint as GGUF in another element type or layout");
  command->add_option("IN", options->in, "a checkpoint: a file, one part of several, or a folder")
      ->required();
  command->add_option("OUT", options->out, "the .gguf to write")->required();
  command->add_option("--type", options->type, "f32, f16, bf16, q8_0, q4_0, q4_k ...");
  command->add_option("--layout", options->layout,
                      "plain, or bundles: a neuron's gate, up and down side by side, aligned for "
                      "direct reads");
  command->add_option("--name", options->name,
                      "general.name of the output; default: the source's, else its file's");
  command->add_option("--threads", options->threads, "threads; 0 for all cores")
      ->check(CLI::Range(0u, 1024u));
  command->add_option("--json", options->json, "write the result as JSON; - is standard output");
  command->footer("Example: thermocline model convert model-f16.gguf model-q4_0.gguf --type q4_0");
  command->callback([options] { run_convert(*options); });
}

}  // namespace thermocline
