#include "traces/formats/npy.h"

#include <fmt/format.h>

#include <cstring>
#include <filesystem>

#include "models/error.h"
#include "models/npy_file.h"

namespace thermocline {
namespace {

constexpr uint32_t kLayersMax = 1024, kBytesMax = 1u << 17;  // as models/shape.cc limits a model

uint64_t row_bytes(const NeuronPool& pool) {
  return uint64_t{pool.layer_count} * pool.bytes_per_layer();
}

// (step_count, layer_count, bytes_per_layer)
std::vector<std::byte> bytes_of(const StepBlock& block) {
  const uint64_t width = block.pool.bytes_per_layer(), words = block.pool.words_per_layer();
  const uint64_t rows = block.step_count * block.pool.layer_count;
  std::vector<std::byte> bytes(rows * width);
  for (uint64_t row = 0; row < rows; ++row) {
    std::memcpy(bytes.data() + row * width, block.words.data() + row * words, width);
  }
  return bytes;
}

ExportResult write_npy(const Selection& selection, const std::string& path,
                       const ExportOptions& options) {
  if (options.by_task) throw bad_usage("npy: --by-task is for counts");
  const NeuronPool& pool = selection.pool();
  const uint64_t bytes = selection.step_count() * row_bytes(pool);
  options.sized(bytes);
  require_room(path, bytes);
  NpyWriter writer(path, kNpyU8, {pool.layer_count, pool.bytes_per_layer()});
  StepBlock block;
  for (size_t i = 0; i < selection.block_count(); ++i) {
    stop_if_interrupted();
    selection.read(i, block);
    writer.append(bytes_of(block));
    options.progress(selection.block_end(i));
  }
  // First the table: an array without it would say less than it could.
  write_step_table(selection, step_table_path(path));
  writer.finish();
  ExportResult result = {bytes + 128, left_out(selection.trace())};
  result.notes.push_back("tokens, positions, tasks and phases of the steps are in " +
                         step_table_path(path));
  return result;
}

class NpyBits final : public TraceSource {
 public:
  NpyBits(const MappedFile& file, std::string path, std::optional<StepTable> table,
          const ImportOptions& options)
      : file_(file), path_(std::move(path)) {
    const NpyHeader header = parse_npy_header(file.bytes, path_);
    check_type(header);
    take_shape(header, options);
    bits_ = file.bytes.subspan(header.data_offset);
    take_steps(std::move(table));
    facts_.hash = hash_of({file}, options);
  }

  void read(const StepVisit& visit) const override {
    const NeuronPool pool = this->pool();
    const uint64_t stride = row_bytes(pool);
    std::vector<uint64_t> words(pool.words_per_step());
    for (uint64_t step = 0; step < facts_.step_count; ++step) {
      const auto row = bits_.subspan(step * stride, stride);
      unpack(row, step, words);
      visit(table_ ? table_->steps[step] : bare_step(step), words);
      if (step % kBlockSteps == kBlockSteps - 1) {
        release(file_, bits_.subspan((step + 1 - kBlockSteps) * stride, kBlockSteps * stride));
      }
    }
  }

 private:
  void check_type(const NpyHeader& header) const {
    const char* const wanted = "an array of uint8 in C order: packed bits";
    if (header.descr == "|b1") {
      throw bad_input(path_, wanted,
                      "bool: numpy.packbits(x, axis=2, bitorder='little') packs them");
    }
    if (header.descr != kNpyU8.descr) {
      throw bad_input(path_, wanted, "elements of type " + header.descr.substr(0, 20));
    }
    if (header.fortran_order) {
      throw bad_input(path_, wanted, "Fortran order: numpy.ascontiguousarray(x) changes it");
    }
    if (header.shape.size() != 3) {
      throw bad_input(path_, "a shape of (steps, layers, bytes)",
                      fmt::format("{} dimensions", header.shape.size()));
    }
  }

  void take_shape(const NpyHeader& header, const ImportOptions& options) {
    const uint64_t steps = header.shape[0], layers = header.shape[1], bytes = header.shape[2];
    if (layers == 0 || layers > kLayersMax || bytes == 0 || bytes > kBytesMax) {
      throw bad_input(path_, fmt::format("1 to {} layers of 1 to {} bytes", kLayersMax, kBytesMax),
                      fmt::format("{} of {}", layers, bytes));
    }
    // layers * bytes is below 2^27: the division loses nothing and nothing overflows.
    const uint64_t left = file_.bytes.size() - header.data_offset, row = layers * bytes;
    if (left % row != 0 || left / row != steps || steps > UINT32_MAX) {
      throw bad_input(path_, fmt::format("{} steps of {} bytes, as its shape says", steps, row),
                      fmt::format("{} bytes", left));
    }
    facts_.step_count = steps;
    facts_.layer_count =
        agreed(options.layer_count, static_cast<uint32_t>(layers), "layers", path_);
    facts_.ffn_dim = options.ffn_dim != 0 ? options.ffn_dim : static_cast<uint32_t>(8 * bytes);
    if ((uint64_t{facts_.ffn_dim} + 7) / 8 != bytes) {
      throw bad_input(path_,
                      fmt::format("{} bytes a layer, for {} neurons",
                                  (uint64_t{facts_.ffn_dim} + 7) / 8, facts_.ffn_dim),
                      fmt::format("{}", bytes));
    }
    if (options.ffn_dim == 0) {
      facts_.notes.push_back(
          fmt::format("an array of bytes does not say where the neurons of a "
                      "layer end: {} are taken; ffn_dim=N says it",
                      facts_.ffn_dim));
    }
  }

  void take_steps(std::optional<StepTable> table) {
    if (!table) {
      facts_.tasks = bare_task(facts_.step_count);
      return;
    }
    if (table->steps.size() != facts_.step_count) {
      throw bad_input(step_table_path(path_),
                      fmt::format("the {} steps of {}", facts_.step_count, path_),
                      fmt::format("{}", table->steps.size()));
    }
    facts_.tasks = table->tasks;
    table_ = std::move(table);
  }

  void unpack(std::span<const std::byte> row, uint64_t step, std::vector<uint64_t>& words) const {
    const NeuronPool pool = this->pool();
    const uint64_t width = pool.bytes_per_layer(), stride = pool.words_per_layer();
    const uint32_t used = pool.neuron_count % 8;
    for (uint32_t layer = 0; layer < pool.layer_count; ++layer) {
      const auto bytes = row.subspan(layer * width, width);
      if (used != 0 && static_cast<uint8_t>(bytes.back()) >> used != 0) {
        throw bad_input(path_, fmt::format("no bit past neuron {}", pool.neuron_count - 1),
                        fmt::format("one at step {}, layer {}", step, layer));
      }
      words[(layer + 1) * stride - 1] = 0;
      std::memcpy(words.data() + layer * stride, bytes.data(), width);
    }
  }

  MappedFile file_;
  std::string path_;
  std::span<const std::byte> bits_;  // (step_count, layer_count, bytes_per_layer)
  std::optional<StepTable> table_;
};

std::unique_ptr<TraceSource> open_npy(const std::string& path, const ImportOptions& options) {
  const std::string beside = step_table_path(path);
  std::optional<StepTable> table;
  if (std::filesystem::exists(beside)) table = parse_step_table(map_file(beside).bytes, beside);
  return parse_npy_bits(map_file(path), path, std::move(table), options);
}

}  // namespace

std::unique_ptr<TraceSource> parse_npy_bits(const MappedFile& file, const std::string& path,
                                            std::optional<StepTable> table,
                                            const ImportOptions& options) {
  return std::make_unique<NpyBits>(file, path, std::move(table), options);
}

THERMOCLINE_TRACE_FORMAT(npy, "NumPy array of packed bits, with a CSV of its steps beside it",
                         Carries::bits, write_npy, open_npy, ".npy");

}  // namespace thermocline
