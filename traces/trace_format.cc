#include "traces/trace_format.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "models/cli.h"
#include "models/error.h"
#include "models/hash.h"

namespace thermocline {
namespace {

constexpr uint64_t kHashedBytes = uint64_t{8} << 20;  // mapped at a time

}  // namespace

std::string_view name_of(Carries carries) {
  switch (carries) {
    case Carries::bits:
      return "bits";
    case Carries::counts:
      return "counts";
    case Carries::accesses:
      return "accesses";
  }
  return "";
}

Registry<TraceFormat>& trace_formats() {
  static Registry<TraceFormat> registry("trace format");
  return registry;
}

std::string trace_format_name(std::string_view id) {
  std::string name(id);
  std::replace(name.begin(), name.end(), '_', '-');
  return name;
}

const TraceFormat* trace_format_of(const std::string& path) {
  const bool folder = !path.ends_with('/') && std::filesystem::is_directory(path);
  const std::string shown = folder ? path + "/" : path;
  const TraceFormat* found = nullptr;
  for (const TraceFormat* format : trace_formats().entries()) {
    for (const std::string& extension : format->extensions) {
      if (!shown.ends_with(extension)) continue;
      if (found != nullptr && found != format) return nullptr;
      found = format;
    }
  }
  return found;
}

void stop_if_interrupted() {
  if (interrupted()) throw work_failed("interrupted; nothing was written");
}

uint32_t agreed(uint32_t given, uint32_t found, const std::string& what, const std::string& path) {
  if (given != 0 && found != 0 && given != found) {
    throw bad_input(path, fmt::format("{} {}", given, what), fmt::format("{}", found));
  }
  return found != 0 ? found : given;
}

void release(const MappedFile& file, std::span<const std::byte> bytes) {
  if (file.owner != nullptr) release_pages(bytes);
}

std::string hash_of(const std::vector<MappedFile>& files, const ImportOptions& options) {
  uint64_t total = 0, done = 0;
  for (const MappedFile& file : files) total += file.bytes.size();
  Fnv1a hash;
  for (const MappedFile& file : files) {
    for (size_t begin = 0; begin < file.bytes.size(); begin += kHashedBytes) {
      stop_if_interrupted();
      const auto part =
          file.bytes.subspan(begin, std::min(kHashedBytes, file.bytes.size() - begin));
      hash.add({reinterpret_cast<const char*>(part.data()), part.size()});
      release(file, part);
      done += part.size();
      if (options.scanned) options.scanned(done, total);
    }
  }
  return hash.hex();
}

StepInfo bare_step(uint64_t step) {
  const auto number = static_cast<uint32_t>(step);
  return {-1, number, 0, Phase::decode, number};
}

std::vector<TaskRecord> bare_task(uint64_t step_count) {
  if (step_count == 0) return {};
  return {{0, 0, static_cast<uint32_t>(step_count), 0, {}}};
}

std::vector<std::string> left_out(const TraceReader& trace) {
  std::vector<std::string> lines = {"left out: times, generated tokens, model and weights"};
  if (trace.header().has_predicted) lines.emplace_back("left out: predicted bits");
  if (!trace.magnitude_steps().empty()) lines.emplace_back("left out: magnitudes");
  return lines;
}

}  // namespace thermocline
