#include "models/gguf_split.h"

#include <fmt/format.h>

#include <filesystem>

namespace thermocline {
namespace {

constexpr uint32_t kPartsMax = 99999;  // names have five digits

GgufPart parse_part(const CheckpointFile& file, std::string_view magic) {
  return {file, parse_gguf_file(file.bytes, file.path, magic)};
}

void expect(const GgufFile& gguf, const char* key, uint32_t expected) {
  const uint32_t found = gguf.metadata.count(key);
  if (found == expected) return;
  throw bad_input(gguf.path, fmt::format("{} {}", key, expected), fmt::format("{}", found));
}

// The part of the name before "-00001-of-00003.gguf", which must be what the keys say.
std::string prefix_of(const GgufFile& gguf, uint32_t index, uint32_t count) {
  const std::string name = std::filesystem::path(gguf.path).filename().string();
  const std::string ending = gguf_part_name("", index, count);
  if (name.size() > ending.size() && name.ends_with(ending)) {
    return name.substr(0, name.size() - ending.size());
  }
  throw bad_input(gguf.path,
                  fmt::format("a name that ends in {}, as part {} of {}", ending, index + 1, count),
                  name);
}

GgufPart open_part(const std::string& name, const GgufPart& named, const Neighbours& neighbours,
                   std::string_view magic) {
  const std::optional<CheckpointFile> file = neighbours(name);
  if (file) return parse_part(*file, magic);
  throw bad_input(named.file.path, fmt::format("its part {} beside it", name), "no such file");
}

void check_tensor_count(const std::vector<GgufPart>& parts) {
  uint64_t found = 0;
  for (const GgufPart& part : parts) found += part.gguf.tensors.size();
  const GgufFile& first = parts[0].gguf;
  if (!first.metadata.has("split.tensors.count")) return;
  const uint32_t expected = first.metadata.count("split.tensors.count");
  if (found == expected) return;
  throw bad_input(first.path,
                  fmt::format("{} tensors in all parts (split.tensors.count)", expected),
                  fmt::format("{}", found));
}

}  // namespace

std::string gguf_part_name(const std::string& prefix, uint32_t index, uint32_t count) {
  return fmt::format("{}-{:05}-of-{:05}.gguf", prefix, index + 1, count);
}

std::vector<GgufPart> open_gguf_parts(const CheckpointFile& file, const Neighbours& neighbours,
                                      std::string_view magic) {
  std::vector<GgufPart> parts;
  parts.push_back(parse_part(file, magic));
  const uint32_t count = parts[0].gguf.metadata.count_or("split.count", 1);
  if (count <= 1) return parts;
  const uint32_t named_index = parts[0].gguf.metadata.count("split.no");
  if (count > kPartsMax || named_index >= count) {
    throw bad_input(file.path, fmt::format("split.no below split.count, up to {}", kPartsMax),
                    fmt::format("{} of {}", named_index, count));
  }
  const std::string prefix = prefix_of(parts[0].gguf, named_index, count);
  const GgufPart named = std::move(parts[0]);
  parts.clear();
  for (uint32_t i = 0; i < count; ++i) {
    const std::string name = gguf_part_name(prefix, i, count);
    parts.push_back(i == named_index ? named : open_part(name, named, neighbours, magic));
    expect(parts.back().gguf, "split.no", i);
    expect(parts.back().gguf, "split.count", count);
  }
  check_tensor_count(parts);
  return parts;
}

}  // namespace thermocline
