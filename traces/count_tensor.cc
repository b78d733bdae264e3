#include "traces/count_tensor.h"

#include <fmt/format.h>

#include <bit>
#include <cmath>
#include <cstring>

#include "models/error.h"
#include "traces/tensor_pickle.h"
#include "traces/zip_file.h"

namespace thermocline {
namespace {

static_assert(std::endian::native == std::endian::little, "elements are read as in memory");

constexpr std::string_view kPickleName = "/data.pkl";
constexpr double kCountMax = 4294967295.0;

const ZipEntry* find(const std::vector<ZipEntry>& entries, const std::string& name) {
  for (const ZipEntry& entry : entries) {
    if (entry.name == name) return &entry;
  }
  return nullptr;
}

const ZipEntry& get(const std::vector<ZipEntry>& entries, const std::string& name,
                    const std::string& path) {
  const ZipEntry* entry = find(entries, name);
  if (entry == nullptr) throw bad_input(path, "an entry " + name.substr(0, 60), "none");
  return *entry;
}

// The folder that all entries of the archive lie in.
std::string archive_name(const std::vector<ZipEntry>& entries, const std::string& path) {
  for (const ZipEntry& entry : entries) {
    if (!entry.name.ends_with(kPickleName)) continue;
    const std::string name = entry.name.substr(0, entry.name.size() - kPickleName.size());
    if (!name.empty() && name.find('/') == std::string::npos) return name;
  }
  throw bad_input(path, "an archive of torch.save, with NAME/data.pkl", "none");
}

// Whether the double is a count; int64 elements that are none are negative or beyond 2^32 as well.
template <class T>
uint32_t count_of(T value, size_t index, const std::string& path) {
  const auto number = static_cast<double>(value);
  const bool whole = std::isfinite(number) && std::floor(number) == number;
  if (!whole || number < 0 || number > kCountMax) {
    throw bad_input(path, "counts: whole numbers from 0 to 2^32 - 1",
                    fmt::format("{} of neuron {}", number, index));
  }
  return static_cast<uint32_t>(value);
}

template <class T>
std::vector<uint32_t> counts_of(std::string_view data, const TensorPickle& tensor,
                                const std::string& path) {
  if (data.size() % sizeof(T) != 0 || data.size() / sizeof(T) != tensor.storage_count) {
    throw bad_input(path, fmt::format("{} elements of {} bytes", tensor.storage_count, sizeof(T)),
                    fmt::format("{} bytes", data.size()));
  }
  std::vector<uint32_t> counts(tensor.count);
  for (size_t i = 0; i < counts.size(); ++i) {
    T value;
    std::memcpy(&value, data.data() + (tensor.offset + i) * sizeof(T), sizeof value);
    counts[i] = count_of(value, i, path);
  }
  return counts;
}

}  // namespace

std::vector<uint32_t> parse_count_tensor(std::span<const std::byte> bytes,
                                         const std::string& path) {
  const std::vector<ZipEntry> entries = parse_zip(bytes, path);
  const std::string name = archive_name(entries, path);
  const ZipEntry* order = find(entries, name + "/byteorder");
  if (order != nullptr && order->bytes != "little") {
    throw bad_input(path, "little-endian elements",
                    fmt::format("byteorder {}", order->bytes.substr(0, 20)));
  }
  const std::string_view pickle = get(entries, name + std::string(kPickleName), path).bytes;
  const TensorPickle tensor = parse_tensor_pickle(pickle, path);
  const std::string_view data = get(entries, name + "/data/" + tensor.key, path).bytes;
  if (tensor.storage == "LongStorage") return counts_of<int64_t>(data, tensor, path);
  if (tensor.storage == "IntStorage") return counts_of<int32_t>(data, tensor, path);
  if (tensor.storage == "DoubleStorage") return counts_of<double>(data, tensor, path);
  return counts_of<float>(data, tensor, path);
}

std::string count_tensor(std::span<const uint32_t> counts, const std::string& name) {
  const std::vector<int64_t> elements(counts.begin(), counts.end());
  const std::string pickle = tensor_pickle("LongStorage", counts.size());
  const std::string_view data(reinterpret_cast<const char*>(elements.data()),
                              elements.size() * sizeof(int64_t));
  return zip_of({{name + std::string(kPickleName), pickle},
                 {name + "/byteorder", "little"},
                 {name + "/data/0", data},
                 {name + "/version", "3\n"}});
}

}  // namespace thermocline
