#include "models/gguf_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "models/byte_reader.h"

namespace thermocline {
namespace {

constexpr uint32_t kVersionMin = 2, kVersionMax = 3;
constexpr uint64_t kTensorNameBytesMax = 64;
constexpr uint32_t kDimensionsMax = 4;
constexpr uint64_t kTensorInfoBytesMin = 8 + 1 + 4 + 8 + 4 + 8;  // with one dimension
constexpr uint32_t kAlignmentMax = 1u << 20;

// Element types that are no DType. Without a size: known by name alone.
struct OtherType {
  std::string_view name;
  uint32_t id;
  uint32_t bytes;  // of an element; 0: not read
};

constexpr OtherType kOtherTypes[] = {
    {"Q8_1", 9, 0},    {"Q2_K", 10, 0},    {"Q3_K", 11, 0},  {"Q8_K", 15, 0},   {"IQ2_XXS", 16, 0},
    {"IQ2_XS", 17, 0}, {"IQ3_XXS", 18, 0}, {"IQ1_S", 19, 0}, {"IQ4_NL", 20, 0}, {"IQ3_S", 21, 0},
    {"IQ2_S", 22, 0},  {"IQ4_XS", 23, 0},  {"I8", 24, 1},    {"I16", 25, 2},    {"I32", 26, 4},
    {"I64", 27, 8},    {"F64", 28, 8},     {"IQ1_M", 29, 0}, {"TQ1_0", 34, 0},  {"TQ2_0", 35, 0},
    {"MXFP4", 39, 0},
};

const OtherType* other_type(uint32_t id) {
  const auto known = std::find_if(std::begin(kOtherTypes), std::end(kOtherTypes),
                                  [id](const OtherType& type) { return type.id == id; });
  return known == std::end(kOtherTypes) ? nullptr : known;
}

std::string readable_types() {
  std::string names;
  for (const DTypeFacts& type : kDTypeFacts) {
    names += fmt::format("{}{}", names.empty() ? "" : ", ", type.ggml_name);
  }
  return names;
}

Error unreadable_type(uint32_t id, const std::string& place) {
  return bad_input(place, "one of the types " + readable_types(), ggml_type_name(id));
}

struct BlockSize {
  uint32_t items, bytes;
};

BlockSize block_of(uint32_t id, const std::string& place) {
  if (const auto dtype = dtype_of_ggml(id)) {
    return {facts(*dtype).items_per_block, facts(*dtype).bytes_per_block};
  }
  const OtherType* other = other_type(id);
  if (other == nullptr || other->bytes == 0) throw unreadable_type(id, place);
  return {1, other->bytes};
}

// A tensor's head: where its data lies is relative to the end of all heads.
struct TensorInfo {
  GgufTensor tensor;
  uint64_t offset;
  uint64_t byte_count;
};

std::vector<uint64_t> read_dimensions(ByteReader& reader, const std::string& place) {
  const auto dimension_count = reader.read<uint32_t>("dimension count");
  if (dimension_count == 0 || dimension_count > kDimensionsMax) {
    throw bad_input(place, "1 to 4 dimensions", fmt::format("{}", dimension_count));
  }
  std::vector<uint64_t> dimensions;
  uint64_t product = 1;
  for (uint32_t i = 0; i < dimension_count; ++i) {
    dimensions.push_back(reader.read<uint64_t>("dimension"));
    if (__builtin_mul_overflow(product, dimensions.back(), &product)) {
      throw bad_input(place, "dimensions whose product fits into 64 bits",
                      fmt::format("dimension {} of {}", i, dimensions.back()));
    }
  }
  return dimensions;
}

// Bytes of the whole tensor; its rows are whole blocks.
uint64_t byte_count_of(const GgufTensor& tensor, const std::string& place) {
  const BlockSize block = block_of(tensor.ggml_type, place);
  if (tensor.dimensions[0] % block.items != 0) {
    throw bad_input(place,
                    fmt::format("rows of a multiple of {} for {}", block.items,
                                ggml_type_name(tensor.ggml_type)),
                    fmt::format("{}", tensor.dimensions[0]));
  }
  uint64_t blocks = tensor.dimensions[0] / block.items;
  for (size_t i = 1; i < tensor.dimensions.size(); ++i) blocks *= tensor.dimensions[i];
  uint64_t bytes = 0;
  if (!__builtin_mul_overflow(blocks, block.bytes, &bytes)) return bytes;
  throw bad_input(place, "a size that fits into 64 bits",
                  fmt::format("{} blocks of {} bytes", blocks, block.bytes));
}

TensorInfo read_tensor_info(ByteReader& reader) {
  TensorInfo info;
  info.tensor.name = read_gguf_text(reader, kTensorNameBytesMax, "tensor name");
  const std::string place = fmt::format("{}: tensor {}", reader.path(), info.tensor.name);
  info.tensor.dimensions = read_dimensions(reader, place);
  info.tensor.ggml_type = reader.read<uint32_t>("tensor type");
  info.byte_count = byte_count_of(info.tensor, place);
  info.offset = reader.read<uint64_t>("tensor offset");
  return info;
}

uint32_t alignment_of(const GgufMetadata& metadata, const std::string& path) {
  const uint32_t alignment = metadata.count_or("general.alignment", kGgufAlignmentDefault);
  if (alignment != 0 && alignment % 8 == 0 && alignment <= kAlignmentMax) return alignment;
  throw bad_input(path, fmt::format("general.alignment, a multiple of 8 up to {}", kAlignmentMax),
                  fmt::format("{}", alignment));
}

void check_overlaps(const std::vector<TensorInfo>& infos, const std::string& path) {
  std::vector<const TensorInfo*> by_offset;
  for (const TensorInfo& info : infos) {
    if (info.byte_count != 0) by_offset.push_back(&info);
  }
  std::sort(by_offset.begin(), by_offset.end(),
            [](const TensorInfo* a, const TensorInfo* b) { return a->offset < b->offset; });
  for (size_t i = 1; i < by_offset.size(); ++i) {
    const TensorInfo &before = *by_offset[i - 1], &info = *by_offset[i];
    if (info.offset - before.offset >= before.byte_count) continue;
    throw bad_input(fmt::format("{}: tensor {}", path, info.tensor.name), "bytes of its own",
                    "bytes shared with " + before.tensor.name);
  }
}

// Gives each tensor its bytes; none may leave the file or reach into another.
void place_tensors(std::vector<TensorInfo>& infos, std::span<const std::byte> bytes,
                   uint64_t data_begin, uint32_t alignment, const std::string& path) {
  const uint64_t data_bytes = data_begin <= bytes.size() ? bytes.size() - data_begin : 0;
  for (TensorInfo& info : infos) {
    const std::string place = fmt::format("{}: tensor {}", path, info.tensor.name);
    if (info.offset % alignment != 0) {
      throw bad_input(place, fmt::format("an offset that is a multiple of {}", alignment),
                      fmt::format("{}", info.offset));
    }
    if (info.offset > data_bytes || info.byte_count > data_bytes - info.offset) {
      throw bad_input(
          place, fmt::format("{} bytes at offset {} of the data", info.byte_count, info.offset),
          fmt::format("{} bytes of data in the file", data_bytes));
    }
    if (info.byte_count == 0) continue;
    info.tensor.bytes = bytes.subspan(data_begin + info.offset, info.byte_count);
  }
  check_overlaps(infos, path);
}

std::vector<GgufTensor> read_tensors(ByteReader& reader, uint64_t tensor_count,
                                     std::span<const std::byte> bytes, uint32_t alignment) {
  if (tensor_count > reader.left() / kTensorInfoBytesMin) {
    throw bad_input(reader.path(),
                    fmt::format("at most {} tensors, which fit into the {} bytes left",
                                reader.left() / kTensorInfoBytesMin, reader.left()),
                    fmt::format("{}", tensor_count));
  }
  std::vector<TensorInfo> infos;
  for (uint64_t i = 0; i < tensor_count; ++i) infos.push_back(read_tensor_info(reader));
  const uint64_t data_begin = (reader.offset() + alignment - 1) / alignment * alignment;
  place_tensors(infos, bytes, data_begin, alignment, reader.path());
  std::vector<GgufTensor> tensors;
  tensors.reserve(infos.size());
  for (TensorInfo& info : infos) tensors.push_back(std::move(info.tensor));
  return tensors;
}

void check_version(ByteReader& reader) {
  const auto version = reader.read<uint32_t>("version");
  if (version >= kVersionMin && version <= kVersionMax) return;
  const bool swapped = __builtin_bswap32(version) <= kVersionMax;
  throw bad_input(reader.path(), "GGUF version 2 or 3, little-endian",
                  swapped ? "a big-endian file" : fmt::format("version {}", version));
}

}  // namespace

bool has_magic(std::span<const std::byte> bytes, std::string_view magic) {
  return bytes.size() >= magic.size() && std::memcmp(bytes.data(), magic.data(), magic.size()) == 0;
}

GgufFile parse_gguf_file(std::span<const std::byte> bytes, const std::string& path,
                         std::string_view magic) {
  ByteReader reader(bytes, path);
  if (reader.text(magic.size(), "magic") != magic) {
    throw bad_input(path, fmt::format("the magic bytes {}", magic), "others");
  }
  check_version(reader);
  const auto tensor_count = reader.read<uint64_t>("tensor count");
  const auto pair_count = reader.read<uint64_t>("key-value count");
  GgufMetadata metadata(reader, pair_count);
  const uint32_t alignment = alignment_of(metadata, path);
  std::vector<GgufTensor> tensors = read_tensors(reader, tensor_count, bytes, alignment);
  return {path, std::move(metadata), alignment, std::move(tensors)};
}

std::optional<DType> dtype_of_ggml(uint32_t ggml_type) {
  for (int i = 0; i < kDTypeCount; ++i) {
    if (kDTypeFacts[i].ggml_id == ggml_type) return static_cast<DType>(i);
  }
  return {};
}

std::string ggml_type_name(uint32_t ggml_type) {
  if (const auto dtype = dtype_of_ggml(ggml_type)) return std::string(facts(*dtype).ggml_name);
  const OtherType* other = other_type(ggml_type);
  return other != nullptr ? std::string(other->name) : fmt::format("ggml type {}", ggml_type);
}

TensorView view_of(const GgufTensor& tensor, const std::string& path) {
  const std::string place = fmt::format("{}: tensor {}", path, tensor.name);
  const auto dtype = dtype_of_ggml(tensor.ggml_type);
  if (!dtype) throw unreadable_type(tensor.ggml_type, place);
  uint64_t rows = 1;
  for (size_t i = 1; i < tensor.dimensions.size(); ++i) rows *= tensor.dimensions[i];
  if (tensor.bytes.empty()) throw bad_input(place, "dimensions from 1 on", "one of 0");
  return {.name = tensor.name,
          .dtype = *dtype,
          .rows = rows,
          .cols = tensor.dimensions[0],
          .bytes = tensor.bytes};
}

}  // namespace thermocline
