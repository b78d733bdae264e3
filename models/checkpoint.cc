#include "models/checkpoint.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "models/embedded.h"
#include "models/error.h"
#include "models/hash.h"
#include "models/mapped_file.h"

namespace thermocline {
namespace {

constexpr uint64_t kHashHeadBytes = uint64_t{1} << 20;
constexpr uint64_t kHashSampleBytes = 4096;
constexpr uint64_t kHashStrideBytes = uint64_t{64} << 20;

CheckpointFile open_file(const std::string& path) {
  if (path == kDemoModel) return {path, nullptr, demo_model_bytes()};
  MappedFile file = map_file(path);
  return {path, std::move(file.owner), file.bytes};
}

Neighbours neighbours_of(const std::string& path) {
  return [path](const std::string& name) -> std::optional<CheckpointFile> {
    if (name.empty() || name == ".." || name.find('/') != std::string::npos) {
      throw bad_input(path, "names of files beside it", "'" + name + "'");
    }
    const auto beside = std::filesystem::path(path).parent_path() / name;
    if (!std::filesystem::exists(beside)) return {};
    return open_file(beside.string());
  };
}

// The file that a format would open in the folder.
std::unique_ptr<Checkpoint> open_folder(const std::string& path) {
  std::string known;
  for (const CheckpointFormat* format : checkpoint_formats().entries()) {
    for (const std::string& name : format->folder_names) {
      const auto inside = std::filesystem::path(path) / name;
      if (std::filesystem::exists(inside)) return open_checkpoint(inside.string());
      known += (known.empty() ? "" : ", ") + name;
    }
  }
  throw bad_input(path, "a folder with one of " + known, "none of them: name the file itself");
}

}  // namespace

const std::byte* TensorView::row(uint64_t row) const {
  if (const uint64_t half = half_split_head_dim / 2; half != 0) {
    const uint64_t within = row % half_split_head_dim;
    row += within / 2 + within % 2 * half - within;
  }
  return bytes.data() + row * (row_stride == 0 ? row_bytes() : row_stride);
}

Checkpoint::Checkpoint(std::string path, CheckpointContents contents)
    : path_(std::move(path)), contents_(std::move(contents)) {
  for (const TensorView& tensor : contents_.tensors) {
    if (by_name_.emplace(tensor.name, &tensor).second) continue;
    throw bad_input(path_, "tensors of different names", "two named " + tensor.name);
  }
}

const TensorView* Checkpoint::find(std::string_view name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : found->second;
}

const TensorView& Checkpoint::get(std::string_view name, uint64_t rows, uint64_t cols) const {
  const auto expected = [&] { return fmt::format("tensor {} of {} x {}", name, rows, cols); };
  const TensorView* tensor = find(name);
  if (tensor == nullptr) throw bad_input(path_, expected(), "no such tensor");
  if (tensor->rows == rows && tensor->cols == cols) return *tensor;
  throw bad_input(path_, expected(), fmt::format("{} x {}", tensor->rows, tensor->cols));
}

void check_predictors(const Checkpoint& checkpoint) {
  const ModelShape& shape = checkpoint.shape();
  for (uint32_t layer = 0; layer < shape.layer_count; ++layer) {
    const auto name = [layer](int part) {
      return fmt::format("blk.{}.{}", layer, kPredictorTensors[part]);
    };
    const TensorView* const fc1 = checkpoint.find(name(0));
    const TensorView* const fc2 = checkpoint.find(name(1));
    if (fc1 == nullptr && fc2 == nullptr) continue;
    const uint64_t rank = fc1 != nullptr ? fc1->rows : fc2->cols;
    checkpoint.get(name(0), rank, shape.model_dim);
    checkpoint.get(name(1), shape.ffn_dim, rank);
  }
}

Error not_finite(const std::string& path, const TensorView& tensor, uint64_t row, float value) {
  return bad_input(fmt::format("{}: tensor {}", path, tensor.name), "finite weights",
                   fmt::format("{} in row {}", value, row));
}

Registry<CheckpointFormat>& checkpoint_formats() {
  static Registry<CheckpointFormat> formats("checkpoint format");
  return formats;
}

std::unique_ptr<Checkpoint> open_checkpoint(const std::string& path) {
  if (std::filesystem::is_directory(path)) return open_folder(path);
  const CheckpointFile file = open_file(path);
  std::string known;
  for (const CheckpointFormat* format : checkpoint_formats().entries()) {
    if (format->matches(file.bytes, path)) return format->parse(file, neighbours_of(path));
    known += (known.empty() ? "" : ", ") + format->name;
  }
  throw bad_input(path, "a checkpoint (" + known + ")",
                  fmt::format("{} bytes of another kind", file.bytes.size()));
}

std::string checkpoint_hash(const std::vector<CheckpointFile>& files) {
  Fnv1a hash;
  for (const CheckpointFile& file : files) {
    const uint64_t size = file.bytes.size();
    const auto add = [&](uint64_t begin, uint64_t count) {
      const auto part = file.bytes.subspan(begin, std::min(count, size - begin));
      hash.add({reinterpret_cast<const char*>(part.data()), part.size()});
    };
    hash.add_value(size);
    add(0, kHashHeadBytes);
    for (uint64_t at = kHashStrideBytes; at < size; at += kHashStrideBytes)
      add(at, kHashSampleBytes);
    add(size - std::min(size, kHashSampleBytes), kHashSampleBytes);
  }
  return hash.hex();
}

}  // namespace thermocline
