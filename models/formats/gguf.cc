// GGUF versions 2 and 3 (ggml docs/gguf.md): the file format of llama.cpp.
//
// magic | version | tensor count | pair count | pairs | tensor infos | padding | tensor data.
// A file may hold a vocabulary and no tensors. ggml counts dimensions from the fastest, so a matrix
// (rows = out, cols = in) is stored as dimensions [cols, rows].
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "models/byte_reader.h"
#include "models/checkpoint.h"
#include "models/gguf_keys.h"
#include "models/gguf_metadata.h"

namespace thermocline {
namespace {

constexpr std::string_view kMagic = "GGUF";
constexpr uint32_t kVersionMin = 2, kVersionMax = 3;
constexpr uint64_t kTensorNameBytesMax = 64;
constexpr uint32_t kDimensionsMax = 4;
constexpr uint64_t kTensorInfoBytesMin = 8 + 1 + 4 + 8 + 4 + 8;  // with one dimension
constexpr uint32_t kAlignmentDefault = 32;
constexpr uint32_t kAlignmentMax = 1u << 20;

// Types that ggml has and we do not read, for the message that says so.
struct UnreadType {
  std::string_view name;
  uint32_t id;
};

constexpr UnreadType kUnreadTypes[] = {
    {"Q8_1", 9}, {"Q2_K", 10}, {"Q3_K", 11}, {"Q8_K", 15}, {"I8", 24},
    {"I16", 25}, {"I32", 26},  {"I64", 27},  {"F64", 28},  {"MXFP4", 39},
};

// A tensor's head: where its data lies is relative to the end of all heads.
struct TensorInfo {
  TensorView view;
  uint64_t offset;
  uint64_t byte_count;
};

DType dtype_of(uint32_t id, const std::string& place) {
  std::string readable;
  for (int i = 0; i < kDTypeCount; ++i) {
    if (kDTypeFacts[i].ggml_id == id) return static_cast<DType>(i);
    readable += fmt::format("{}{}", readable.empty() ? "" : ", ", kDTypeFacts[i].ggml_name);
  }
  const auto known = std::find_if(std::begin(kUnreadTypes), std::end(kUnreadTypes),
                                  [id](const UnreadType& type) { return type.id == id; });
  throw bad_input(
      place, "one of the types " + readable,
      known != std::end(kUnreadTypes) ? std::string(known->name) : fmt::format("ggml type {}", id));
}

// Elements of all dimensions but the first, and of the first.
void read_dimensions(ByteReader& reader, const std::string& place, TensorView& view) {
  const auto dimension_count = reader.read<uint32_t>("dimension count");
  if (dimension_count == 0 || dimension_count > kDimensionsMax) {
    throw bad_input(place, "1 to 4 dimensions", fmt::format("{}", dimension_count));
  }
  view.cols = view.rows = 1;
  for (uint32_t i = 0; i < dimension_count; ++i) {
    const auto dimension = reader.read<uint64_t>("dimension");
    uint64_t& product = i == 0 ? view.cols : view.rows;
    if (dimension == 0 || __builtin_mul_overflow(product, dimension, &product)) {
      throw bad_input(place, "dimensions from 1 on whose product fits into 64 bits",
                      fmt::format("dimension {} of {}", i, dimension));
    }
  }
}

// Bytes of the whole tensor; its rows are whole blocks.
uint64_t byte_count_of(const TensorView& view, const std::string& place) {
  const DTypeFacts& type = facts(view.dtype);
  if (view.cols % type.items_per_block != 0) {
    throw bad_input(place,
                    fmt::format("rows of a multiple of {} for {}", type.items_per_block, type.name),
                    fmt::format("{}", view.cols));
  }
  uint64_t bytes = 0;
  const uint64_t blocks = view.cols / type.items_per_block;
  if (__builtin_mul_overflow(blocks, type.bytes_per_block, &bytes) ||
      __builtin_mul_overflow(bytes, view.rows, &bytes)) {
    throw bad_input(place, "a size that fits into 64 bits",
                    fmt::format("{} x {}", view.rows, view.cols));
  }
  return bytes;
}

TensorInfo read_tensor_info(ByteReader& reader) {
  TensorInfo info;
  info.view.name = read_gguf_text(reader, kTensorNameBytesMax, "tensor name");
  const std::string place = fmt::format("{}: tensor {}", reader.path(), info.view.name);
  read_dimensions(reader, place, info.view);
  info.view.dtype = dtype_of(reader.read<uint32_t>("tensor type"), place);
  info.byte_count = byte_count_of(info.view, place);
  info.offset = reader.read<uint64_t>("tensor offset");
  return info;
}

uint32_t alignment_of(const GgufMetadata& metadata, const std::string& path) {
  const uint32_t alignment = metadata.count_or("general.alignment", kAlignmentDefault);
  if (alignment != 0 && alignment % 8 == 0 && alignment <= kAlignmentMax) return alignment;
  throw bad_input(path, fmt::format("general.alignment, a multiple of 8 up to {}", kAlignmentMax),
                  fmt::format("{}", alignment));
}

// Gives each tensor its bytes; none may leave the file or reach into another.
void place_tensors(std::vector<TensorInfo>& infos, std::span<const std::byte> bytes,
                   uint64_t data_begin, uint32_t alignment, const std::string& path) {
  const uint64_t data_bytes = data_begin <= bytes.size() ? bytes.size() - data_begin : 0;
  std::vector<const TensorInfo*> by_offset;
  for (TensorInfo& info : infos) {
    const std::string place = fmt::format("{}: tensor {}", path, info.view.name);
    if (info.offset % alignment != 0) {
      throw bad_input(place, fmt::format("an offset that is a multiple of {}", alignment),
                      fmt::format("{}", info.offset));
    }
    if (info.offset > data_bytes || info.byte_count > data_bytes - info.offset) {
      throw bad_input(
          place, fmt::format("{} bytes at offset {} of the data", info.byte_count, info.offset),
          fmt::format("{} bytes of data in the file", data_bytes));
    }
    info.view.bytes = bytes.subspan(data_begin + info.offset, info.byte_count);
    by_offset.push_back(&info);
  }
  std::sort(by_offset.begin(), by_offset.end(),
            [](const TensorInfo* a, const TensorInfo* b) { return a->offset < b->offset; });
  for (size_t i = 1; i < by_offset.size(); ++i) {
    const TensorInfo &before = *by_offset[i - 1], &info = *by_offset[i];
    if (info.offset - before.offset >= before.byte_count) continue;
    throw bad_input(fmt::format("{}: tensor {}", path, info.view.name), "bytes of its own",
                    "bytes shared with " + before.view.name);
  }
}

std::vector<TensorView> read_tensors(ByteReader& reader, uint64_t tensor_count,
                                     std::span<const std::byte> bytes,
                                     const GgufMetadata& metadata) {
  std::vector<TensorInfo> infos;
  for (uint64_t i = 0; i < tensor_count; ++i) infos.push_back(read_tensor_info(reader));
  const uint64_t alignment = alignment_of(metadata, reader.path());
  const uint64_t data_begin = (reader.offset() + alignment - 1) / alignment * alignment;
  place_tensors(infos, bytes, data_begin, alignment, reader.path());
  std::vector<TensorView> tensors;
  tensors.reserve(infos.size());
  for (TensorInfo& info : infos) tensors.push_back(std::move(info.view));
  return tensors;
}

// What the tensors say about the model: the size of the vocabulary is that of the table.
void complete_shape(ModelShape& shape, const std::vector<TensorView>& tensors,
                    const std::string& path) {
  const auto find = [&](std::string_view name) {
    return std::find_if(tensors.begin(), tensors.end(),
                        [name](const TensorView& tensor) { return tensor.name == name; });
  };
  const auto table = find("token_embd.weight");
  if (table == tensors.end() || table->rows > UINT32_MAX) {
    throw bad_input(path, "tensor token_embd.weight of fewer than 2^32 rows",
                    table == tensors.end() ? "no such tensor" : fmt::format("{}", table->rows));
  }
  shape.vocab_size = static_cast<uint32_t>(table->rows);
  shape.tied_embeddings = find("output.weight") == tensors.end();
  validate(shape, path);
}

uint32_t read_version(ByteReader& reader) {
  const auto version = reader.read<uint32_t>("version");
  if (version >= kVersionMin && version <= kVersionMax) return version;
  const bool swapped = __builtin_bswap32(version) <= kVersionMax;
  throw bad_input(reader.path(), "GGUF version 2 or 3, little-endian",
                  swapped ? "a big-endian file" : fmt::format("version {}", version));
}

bool matches_gguf(std::span<const std::byte> bytes, std::string_view) {
  return bytes.size() >= kMagic.size() &&
         std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) == 0;
}

std::unique_ptr<Checkpoint> parse_gguf(const CheckpointFile& file, const Neighbours&) {
  const auto& [path, owner, bytes] = file;
  ByteReader reader(bytes, path);
  if (reader.text(kMagic.size(), "magic") != kMagic) {
    throw bad_input(path, "the magic bytes GGUF", "others");
  }
  read_version(reader);
  const auto tensor_count = reader.read<uint64_t>("tensor count");
  const auto pair_count = reader.read<uint64_t>("key-value count");
  const GgufMetadata metadata(reader, pair_count);
  if (tensor_count > reader.left() / kTensorInfoBytesMin) {
    throw bad_input(path,
                    fmt::format("at most {} tensors, which fit into the {} bytes left",
                                reader.left() / kTensorInfoBytesMin, reader.left()),
                    fmt::format("{}", tensor_count));
  }
  check_gguf_supported(metadata, path);
  CheckpointContents contents{{file},
                              gguf_shape(metadata, path, tensor_count != 0),
                              gguf_vocabulary(metadata, path),
                              read_tensors(reader, tensor_count, bytes, metadata)};
  if (tensor_count != 0) {
    complete_shape(contents.shape, contents.tensors, path);
  } else if (contents.shape.vocab_size == 0) {
    contents.shape.vocab_size = static_cast<uint32_t>(contents.vocabulary.pieces.size());
  }
  return std::make_unique<Checkpoint>(path, std::move(contents));
}

}  // namespace

THERMOCLINE_CHECKPOINT_FORMAT(gguf,
                              "GGUF v2, v3 (llama.cpp): F32, F16, BF16, Q4_0 to Q8_0, Q4_K to Q6_K",
                              matches_gguf, parse_gguf);

}  // namespace thermocline
