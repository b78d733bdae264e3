#include "traces/imported_trace.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "models/cli.h"
#include "models/error.h"

namespace thermocline {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr uint32_t kRanksMax = 16384;  // as traces/schema.cc limits a trace

std::string name_of_file(const std::string& path) {
  const fs::path whole(path.ends_with('/') ? path.substr(0, path.size() - 1) : path);
  return whole.filename().string();
}

std::string model_text(const SourceFacts& facts, const TraceOrigin& origin,
                       const std::string& from) {
  std::string text = "converted from " + name_of_file(from);
  if (!origin.model.empty()) text = origin.model + ", " + text;
  return facts.order_is_real ? text : text + "; counts: order of steps is not real";
}

std::string config_text(const SourceFacts& facts, const TraceOrigin& origin,
                        const std::string& from, const TraceFormat& format) {
  const Json config = {{"converted_from", name_of_file(from)},
                       {"format", format.name},
                       {"source_hash", facts.hash},
                       {"order_of_steps", facts.order_is_real ? "real" : "not real"},
                       {"times", "unknown"},
                       {"unknown", origin.unknown},
                       {"notes", facts.notes}};
  return config.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::vector<NeuronPool> pools_of(const ModelShape& shape, uint32_t rank_count) {
  const uint32_t bytes = (shape.ffn_dim + 7) / 8;
  if (rank_count == 0 || rank_count > std::min(bytes, kRanksMax)) {
    throw bad_usage(fmt::format("--ranks: expected 1 to {}, as {} neurons can be split, found {}",
                                std::min(bytes, kRanksMax), shape.ffn_dim, rank_count));
  }
  std::vector<NeuronPool> pools;
  uint32_t begin = 0;
  for (uint64_t rank = 0; rank < rank_count; ++rank) {
    const auto border = static_cast<uint32_t>((rank + 1) * bytes / rank_count * 8);
    const uint32_t end = std::min(border, shape.ffn_dim);
    pools.push_back({0, shape.layer_count, begin, end - begin});
    begin = end;
  }
  return pools;
}

// Shards that are written side by side. Removed again unless all became one trace.
class NewTrace {
 public:
  NewTrace(const std::string& path, const TraceHeader& header) : path_(path), header_(header) {
    for (uint32_t rank = 0; rank < header.pools.size(); ++rank) {
      writers_.push_back(create_shard(path, header, rank));
    }
  }
  ~NewTrace() {
    if (finished_) return;
    writers_.clear();
    std::error_code ignored;
    for (uint32_t rank = 0; rank < header_.pools.size(); ++rank) {
      fs::remove(partial_path(path_, rank), ignored);
      fs::remove(shard_path(path_, rank), ignored);
    }
    fs::remove(path_, ignored);
  }
  NewTrace(const NewTrace&) = delete;
  NewTrace& operator=(const NewTrace&) = delete;

  // `words` of the whole model.
  void append(const StepInfo& info, std::span<const uint64_t> words) {
    const uint32_t stride = (header_.shape.ffn_dim + 63) / 64;
    for (size_t rank = 0; rank < writers_.size(); ++rank) {
      cut(header_.pools[rank], words, stride);
      writers_[rank]->append(info, {}, {part_, {}, {}});
    }
  }

  void end_task(const TaskRecord& task) {
    for (const auto& writer : writers_) writer->end_task(task);
  }

  void finish() {
    for (const auto& writer : writers_) writer->finish();
    write_master(path_);
    finished_ = true;
  }

 private:
  // A pool begins at a byte, and ends at one or with the layer.
  void cut(const NeuronPool& pool, std::span<const uint64_t> words, uint32_t stride) {
    part_.assign(pool.words_per_step(), 0);
    for (uint32_t layer = 0; layer < pool.layer_count; ++layer) {
      const auto* from = reinterpret_cast<const char*>(words.data() + uint64_t{layer} * stride);
      std::memcpy(part_.data() + uint64_t{layer} * pool.words_per_layer(),
                  from + pool.neuron_begin / 8, pool.bytes_per_layer());
    }
  }

  std::string path_;
  TraceHeader header_;
  std::vector<std::unique_ptr<TraceWriter>> writers_;
  std::vector<uint64_t> part_;
  bool finished_ = false;
};

}  // namespace

TraceHeader imported_header(const SourceFacts& facts, const TraceOrigin& origin,
                            const std::string& from, const TraceFormat& format,
                            uint32_t rank_count) {
  TraceHeader header;
  header.version = kVersion;
  header.shape = origin.shape;
  header.shape.layer_count = facts.layer_count;
  header.shape.ffn_dim = facts.ffn_dim;
  validate(header.shape, from);
  header.ffn_types = origin.types;
  header.model = model_text(facts, origin, from);
  header.weight_provenance = origin.provenance;
  header.weight_hash = origin.weight_hash.empty() ? facts.hash : origin.weight_hash;
  header.activation_rule = origin.activation_rule;
  header.activation_thresholds = origin.activation_thresholds;
  header.activation_thresholds.resize(facts.layer_count, 0.0f);
  header.prompts = "unknown, converted from " + name_of_file(from);
  header.prompts_hash = facts.hash;  // so that two sources do not look like the same prompts
  header.layout = fmt::format("pp1,tp{}", rank_count);
  header.config_json = config_text(facts, origin, from, format);
  header.pools = pools_of(header.shape, rank_count);
  return header;
}

void write_imported(const TraceSource& source, const TraceHeader& header, const std::string& path,
                    const std::function<void(uint64_t steps)>& progress) {
  NewTrace trace(path, header);
  const std::vector<TaskRecord>& tasks = source.facts().tasks;
  std::vector<uint32_t> left;  // steps that are still to come, by task
  for (const TaskRecord& task : tasks) left.push_back(task.step_count);
  size_t ended = 0;
  uint64_t steps = 0;
  source.read([&](const StepInfo& info, std::span<const uint64_t> words) {
    stop_if_interrupted();
    trace.append(info, words);
    --left[info.task];
    // In the order of tasks: one that ends before an earlier one waits for it.
    for (; ended < left.size() && left[ended] == 0; ++ended) trace.end_task(tasks[ended]);
    if (++steps % kBlockSteps == 0 || steps == source.facts().step_count) progress(steps);
  });
  for (; ended < tasks.size(); ++ended) trace.end_task(tasks[ended]);
  trace.finish();
}

}  // namespace thermocline
