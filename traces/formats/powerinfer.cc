// powerinfer: activation counts as PowerInfer ships them: a folder of activation_LAYER.pt, each a
// tensor with one count for each neuron (powerinfer-py/powerinfer/export_split.py). The files say
// neither over how many tokens nor over which text was counted.
//
// Layers are taken by number; PowerInfer's own export sorts the names as text, so that layer 10
// gets the counts of layer 2 (its issue 247).
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <optional>

#include "models/cli.h"
#include "models/error.h"
#include "models/new_file.h"
#include "models/text.h"
#include "traces/count_steps.h"
#include "traces/count_tensor.h"
#include "traces/trace_format.h"

namespace thermocline {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPrefix = "activation_", kEnding = ".pt";
constexpr uint64_t kLayersMax = 1024;     // as models/shape.cc limits a model
constexpr uint64_t kArchiveBytes = 1024;  // of a file, besides its elements

// A folder that appears under its name when all its files are there.
class NewFolder {
 public:
  explicit NewFolder(const std::string& path) : path_(path), temporary_(path + ".tmp") {
    for (const std::string& name : {path_, temporary_}) {
      if (!fs::exists(name)) continue;
      throw work_failed(name + ": exists; counts are written into a new folder");
    }
    std::error_code failed;
    if (fs::create_directory(temporary_, failed)) return;
    throw work_failed(temporary_ + ": cannot create it: " + failed.message());
  }
  ~NewFolder() {
    std::error_code ignored;
    if (!finished_) fs::remove_all(temporary_, ignored);
  }
  NewFolder(const NewFolder&) = delete;
  NewFolder& operator=(const NewFolder&) = delete;

  std::string operator/(const std::string& name) const { return temporary_ + "/" + name; }
  void finish() {
    std::error_code failed;
    fs::rename(temporary_, path_, failed);
    if (failed) throw work_failed(path_ + ": cannot rename: " + failed.message());
    finished_ = true;
  }

 private:
  std::string path_, temporary_;
  bool finished_ = false;
};

std::string stem_of(uint32_t layer) { return fmt::format("{}{}", kPrefix, layer); }

ExportResult write_powerinfer(const Selection& selection, const std::string& folder_path,
                              const ExportOptions& options) {
  if (options.by_task) throw bad_usage("powerinfer: --by-task is for counts-csv");
  const NeuronPool& pool = selection.pool();
  const std::string path = folder_path.substr(0, folder_path.find_last_not_of('/') + 1);
  require_room(path, pool.total() * sizeof(int64_t) + pool.layer_count * kArchiveBytes);
  NewFolder folder(path);
  const ActivationProfile profile = count_selected(selection, -1, options.progress);
  ExportResult result = {0, left_out(selection.trace())};
  for (uint32_t layer = 0; layer < pool.layer_count; ++layer) {
    const auto counts =
        std::span(profile.counts).subspan(uint64_t{layer} * pool.neuron_count, pool.neuron_count);
    const std::string bytes = count_tensor(counts, stem_of(layer));
    write_file(folder / (stem_of(layer) + std::string(kEnding)), bytes);
    result.file_bytes += bytes.size();
  }
  folder.finish();
  result.notes.push_back(fmt::format("left out: the number of steps, {}", profile.step_count));
  result.notes.emplace_back("counts have no time: which neurons fired together is lost");
  return result;
}

// The layer that a file of this name counts, if it is one of ours.
std::optional<uint64_t> layer_of(const std::string& name) {
  if (!name.starts_with(kPrefix) || !name.ends_with(kEnding)) return std::nullopt;
  if (name.size() <= kPrefix.size() + kEnding.size()) return std::nullopt;
  const std::string digits =
      name.substr(kPrefix.size(), name.size() - kPrefix.size() - kEnding.size());
  const bool number = digits.find_first_not_of("0123456789") == std::string::npos;
  const bool plain = digits == "0" || digits[0] != '0';
  if (!number || !plain || digits.size() > 9) return std::nullopt;
  return std::stoull(digits);
}

// The files of a folder by layer: 0, 1, 2, ... without a gap.
std::vector<std::string> find_layers(const std::string& path) {
  std::map<uint64_t, std::string> layers;
  std::error_code failed;
  for (fs::directory_iterator entry(path, failed), end; !failed && entry != end;
       entry.increment(failed)) {
    const auto layer = layer_of(entry->path().filename().string());
    if (layer) layers.emplace(*layer, entry->path().string());
  }
  if (failed) throw bad_input(path, "a readable folder", failed.message());
  if (layers.empty() || layers.size() > kLayersMax) {
    throw bad_input(path, fmt::format("1 to {} files activation_LAYER.pt", kLayersMax),
                    fmt::format("{}", layers.size()));
  }
  std::vector<std::string> paths;
  for (const auto& [layer, file] : layers) {
    if (layer != paths.size()) {
      throw bad_input(path, stem_of(static_cast<uint32_t>(paths.size())) + std::string(kEnding),
                      "none, but one of layer " + std::to_string(layer));
    }
    paths.push_back(file);
  }
  return paths;
}

class PowerinferCounts final : public TraceSource {
 public:
  PowerinferCounts(const std::string& path, const ImportOptions& options) {
    std::vector<MappedFile> files;
    uint32_t ffn_dim = options.ffn_dim;
    for (const std::string& file : find_layers(path)) {
      files.push_back(map_file(file));
      const std::vector<uint32_t> layer = parse_count_tensor(files.back().bytes, file);
      if (layer.empty()) throw bad_input(file, "a count for each neuron", "none");
      ffn_dim = agreed(ffn_dim, static_cast<uint32_t>(layer.size()), "neurons", file);
      counts_.insert(counts_.end(), layer.begin(), layer.end());
    }
    const auto layers = static_cast<uint32_t>(files.size());
    facts_.layer_count = agreed(options.layer_count, layers, "layers", path);
    facts_.ffn_dim = ffn_dim;
    take_steps(path, options);
    facts_.hash = hash_of(files, options);
  }

  void read(const StepVisit& visit) const override {
    CountSteps steps(pool(), counts_, counted_steps_, facts_.step_count);
    for (uint64_t step = 0; step < facts_.step_count; ++step) visit(bare_step(step), steps.next());
  }

 private:
  void take_steps(const std::string& path, const ImportOptions& options) {
    const uint64_t largest = *std::max_element(counts_.begin(), counts_.end());
    counted_steps_ = options.counted_steps != 0 ? options.counted_steps : largest;
    if (largest > counted_steps_ || counted_steps_ > UINT32_MAX) {
      throw bad_input(path, fmt::format("counts up to --counted-steps, {}", counted_steps_),
                      fmt::format("{}", largest));
    }
    facts_.step_count = steps_to_make(counted_steps_, counted_steps_, options);
    facts_.tasks = bare_task(facts_.step_count);
    note_made_steps(facts_, counted_steps_);
    if (options.counted_steps != 0) return;
    facts_.notes.push_back(
        fmt::format("the files do not say over how many steps they counted: the "
                    "largest count, {}, is taken; --counted-steps N says it",
                    largest));
  }

  std::vector<uint32_t> counts_;  // (layer_count, ffn_dim)
  uint64_t counted_steps_ = 0;
};

std::unique_ptr<TraceSource> open_powerinfer(const std::string& path,
                                             const ImportOptions& options) {
  return std::make_unique<PowerinferCounts>(path, options);
}

}  // namespace

THERMOCLINE_TRACE_FORMAT(powerinfer,
                         "PowerInfer's activation counts: a folder of activation_LAYER.pt",
                         Carries::counts, write_powerinfer, open_powerinfer, "/");

}  // namespace thermocline
