// Times the storage of traces and says how much of what is possible it reaches: size beside the
// bound of independent neurons, writing and reading beside this machine's disk and memory, the
// recorder beside the step that it records.
//
//   trace_bench [--quick] [--trace PATH] [--folder FOLDER] [--csv FILE]
//
// Traces are drawn at 70B's width (28,672 neurons a layer), rates Beta(m c, (1-m) c), steps
// independent of each other: no memory helps to compress them. PATH is measured beside them.
// Rates are MB/s of raw bits (one a neuron and step) for each second of CPU time, the best of some
// passes: other programs on the machine cost wall time, and less of this.
// Held to: 75 % of the bound; 100 MB/s written and 700 MB/s read a core; a recorder below 2 % of a
// step.
#include <fcntl.h>
#include <fmt/format.h>
#include <libdeflate.h>
#include <time.h>
#include <unistd.h>
#include <zlib.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <functional>
#include <memory>
#include <numeric>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "models/bit_sums.h"
#include "models/cli.h"
#include "models/error.h"
#include "models/model_spec.h"
#include "runtime/kernels/bandwidth.h"
#include "traces/activity_process.h"
#include "traces/bit_columns.h"
#include "traces/bit_transpose.h"
#include "traces/deflate.h"
#include "traces/hdf5.h"
#include "traces/profile.h"
#include "traces/schema.h"
#include "traces/trace.h"

using namespace thermocline;

namespace {

constexpr double kBoundShareMin = 75, kWriteMin = 100, kReadMin = 700, kRecorderShareMax = 2;
constexpr uint64_t kRecordedBytesMax = uint64_t{128} << 20;  // of PATH that are measured

struct Options {
  std::string trace, csv;
  std::string folder = std::filesystem::temp_directory_path().string();
  bool quick = false;

  uint32_t layer_count() const { return quick ? 2 : 4; }
  uint32_t step_count() const { return quick ? 512 : 4096; }
  uint32_t task_steps() const { return quick ? 128 : 512; }
  uint64_t recorder_blocks() const { return quick ? 2 : 8; }
  double seconds_per_figure() const { return quick ? 0.1 : 1.5; }
};

double seconds_on(clockid_t clock) {
  timespec now{};
  ::clock_gettime(clock, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

double seconds_of(clockid_t clock, const std::function<void()>& work) {
  const double begin = seconds_on(clock);
  work();
  return seconds_on(clock) - begin;
}

// The best of at least three passes.
double best_seconds(const Options& options, clockid_t clock, const std::function<void()>& work) {
  double best = 1e9;
  const double begin = seconds_on(CLOCK_MONOTONIC);
  for (int pass = 0; pass < 3 || seconds_on(CLOCK_MONOTONIC) - begin < options.seconds_per_figure();
       ++pass) {
    best = std::min(best, seconds_of(clock, work));
  }
  return best;
}

// Figures by trace and row, for the CSV.
class Csv {
 public:
  explicit Csv(const std::string& path) {
    if (path.empty()) return;
    file_ = std::fopen(path.c_str(), "a");
    if (file_ == nullptr) throw work_failed("cannot append to " + path);
    if (std::ftell(file_) == 0) std::fputs("trace,row,figure,value\n", file_);
  }
  Csv(const Csv&) = delete;
  Csv& operator=(const Csv&) = delete;
  ~Csv() {
    if (file_ != nullptr) std::fclose(file_);
  }

  void add(const std::string& trace, const std::string& row, const char* figure, double value) {
    if (file_ == nullptr) return;
    fmt::print(file_, "\"{}\",\"{}\",{},{:.4f}\n", trace, row, figure, value);
  }

 private:
  std::FILE* file_ = nullptr;
};

// What is measured: the bits of a trace, in memory.
struct Sample {
  std::string name;
  TraceHeader header;
  NeuronPool pool;
  uint64_t step_count = 0;
  uint32_t task_steps = 0;     // 0: one task
  std::vector<uint64_t> rows;  // (step_count, layer_count, words_per_layer)

  double raw_bytes() const { return static_cast<double>(step_count * pool.total()) / 8; }
  uint64_t block_count() const { return (step_count + kBlockSteps - 1) / kBlockSteps; }
  uint32_t steps_in(uint64_t block) const {
    return static_cast<uint32_t>(std::min<uint64_t>(kBlockSteps, step_count - block * kBlockSteps));
  }
  const uint64_t* block(uint64_t block) const {
    return rows.data() + block * kBlockSteps * pool.words_per_step();
  }
};

// --- traces ---

struct Draw {
  double mean, concentration;
  bool clustered;
  double drift;

  std::string name() const {
    return fmt::format("70B, {:.0f} %, {}{}", 100 * mean, clustered ? "clustered" : "scattered",
                       drift > 0 ? fmt::format(", drift {}", drift) : "");
  }
};
// Concentrations: activations.md section 3.6.
constexpr Draw kDraws[] = {{0.15, 2.5, false, 0},   {0.20, 3.66, false, 0}, {0.28, 2.26, false, 0},
                           {0.15, 2.5, true, 0},    {0.20, 3.66, true, 0},  {0.28, 2.26, true, 0},
                           {0.20, 3.66, false, 0.5}};

ModelSpec spec_of(const Draw& draw, uint32_t layer_count) {
  ModelSpec spec = parse_model_spec(fmt::format("preset:relullama-70b,layers={}", layer_count));
  spec.regime.name = "bench";
  spec.regime.mean = static_cast<float>(draw.mean);
  spec.regime.concentration = static_cast<float>(draw.concentration);
  spec.regime.share_80 = spec.regime.whole_share_80 = spec.regime.correlation = 0;
  spec.regime.drift = static_cast<float>(draw.drift);
  spec.regime.profile = LayerProfile::flat;
  return spec;
}

TraceHeader header_of(const ModelSpec& spec, const NeuronPool& pool) {
  TraceHeader header;
  header.version = kVersion;
  header.shape = spec.shape;
  header.ffn_types = spec.dtype;
  header.model = spec.text;
  header.weight_provenance = "synthetic";
  header.weight_hash = header.prompts_hash = "0123456789abcdef";
  header.activation_rule = "relu>0";
  header.activation_thresholds.assign(spec.shape.layer_count, 0.0f);
  header.prompts = "drawn";
  header.layout = "pp1,tp1";
  header.config_json = "{}";
  header.pools = {pool};
  return header;
}

// Neurons by rate in runs of 128, the runs in random order: what a trained model's neighbours might
// share at best.
NeuronOrder clusters_of(std::span<const uint16_t> rates) {
  constexpr uint32_t kRun = 128;
  NeuronOrder sorted(rates.size()), clustered;
  std::iota(sorted.begin(), sorted.end(), 0);
  std::stable_sort(sorted.begin(), sorted.end(),
                   [&](uint32_t a, uint32_t b) { return rates[a] > rates[b]; });
  std::vector<uint32_t> runs(rates.size() / kRun);
  std::iota(runs.begin(), runs.end(), 0);
  std::shuffle(runs.begin(), runs.end(), std::mt19937_64(1));
  for (const uint32_t run : runs) {
    clustered.insert(clustered.end(), sorted.begin() + run * kRun,
                     sorted.begin() + (run + 1) * kRun);
  }
  return clustered;
}

// Neuron i of a layer becomes what neuron from[i] was.
void rename_neurons(Sample& sample, uint32_t layer, const NeuronOrder& from) {
  const uint32_t words = sample.pool.words_per_layer();
  const uint64_t stride = sample.pool.words_per_step();
  std::vector<uint64_t> before(from.size()), after(from.size());
  for (uint64_t block = 0; block < sample.block_count(); ++block) {
    uint64_t* rows = sample.rows.data() + block * kBlockSteps * stride + uint64_t{layer} * words;
    columns_of_rows(rows, stride, sample.steps_in(block), words, before.data());
    for (size_t i = 0; i < from.size(); ++i) after[i] = before[from[i]];
    rows_of_columns(after.data(), words, 0, sample.steps_in(block), rows, stride);
  }
}

Sample drawn(const Draw& draw, uint32_t layer_count, uint64_t step_count, uint32_t task_steps) {
  const ModelSpec spec = spec_of(draw, layer_count);
  ActivityProcess process(spec, {.predictor = {}});
  Sample sample{draw.name(), header_of(spec, process.pool()), process.pool(), step_count, 0, {}};
  if (draw.drift > 0) sample.task_steps = task_steps;
  sample.rows.resize(step_count * sample.pool.words_per_step());
  for (uint64_t begin = 0; begin < step_count; begin += kBlockSteps) {
    if (begin == 0 || (sample.task_steps > 0 && begin % sample.task_steps == 0)) {
      process.start_task(static_cast<uint32_t>(begin / task_steps));
    }
    process.next(kBlockSteps,
                 std::span(sample.rows)
                     .subspan(begin * sample.pool.words_per_step(),
                              kBlockSteps * sample.pool.words_per_step()),
                 {});
  }
  for (uint32_t layer = 0; draw.clustered && layer < layer_count; ++layer) {
    rename_neurons(sample, layer, clusters_of(process.rates(layer)));
  }
  return sample;
}

Sample recorded(const std::string& path) {
  const auto trace = open_trace(path);
  Sample sample;
  sample.name = "recorded: " + std::filesystem::path(path).filename().string();
  sample.header = trace->header();
  sample.pool = whole_model(trace->header());
  sample.header.pools = {sample.pool};
  sample.header.has_predicted = false;
  sample.header.magnitudes = MagnitudeFormat::none;
  sample.step_count =
      std::min(trace->step_count(),
               whole_blocks(kRecordedBytesMax / (sample.pool.words_per_step() * sizeof(uint64_t))));
  StepBlock block;
  trace->read(sample.pool, 0, sample.step_count, block);
  sample.rows = std::move(block.words);
  return sample;
}

// --- the bound ---

double entropy_of(double share) {
  if (share <= 0 || share >= 1) return 0;
  return -(share * std::log2(share) + (1 - share) * std::log2(1 - share));
}

struct Bound {
  double activity;
  double bytes;  // that independent neurons take, each at the frequency with which it fired
};

// How often each neuron of a layer fired in blocks [begin, end).
std::vector<uint64_t> counts_of(const Sample& sample, uint32_t layer, uint64_t begin,
                                uint64_t end) {
  const uint32_t words = sample.pool.words_per_layer();
  std::vector<uint64_t> columns(uint64_t{words} * 64), counts(sample.pool.neuron_count);
  for (uint64_t block = begin; block < end; ++block) {
    columns_of_rows(sample.block(block) + uint64_t{layer} * words, sample.pool.words_per_step(),
                    sample.steps_in(block), words, columns.data());
    for (size_t i = 0; i < counts.size(); ++i) counts[i] += bit_sums().count(&columns[i], 1);
  }
  return counts;
}

// With frequencies of every `window` steps, a multiple of 64.
Bound bound_of(const Sample& sample, uint64_t window) {
  Bound bound{0, 0};
  const uint64_t window_blocks = (window + kBlockSteps - 1) / kBlockSteps;
  for (uint64_t begin = 0; begin < sample.block_count(); begin += window_blocks) {
    const uint64_t end = std::min(begin + window_blocks, sample.block_count());
    const auto steps =
        static_cast<double>((end - 1 - begin) * kBlockSteps + sample.steps_in(end - 1));
    for (uint32_t layer = 0; layer < sample.pool.layer_count; ++layer) {
      for (const uint64_t count : counts_of(sample, layer, begin, end)) {
        bound.activity += static_cast<double>(count);
        bound.bytes += entropy_of(static_cast<double>(count) / steps) * steps / 8;
      }
    }
  }
  bound.activity /= sample.raw_bytes() * 8;
  return bound;
}

Bound bound_of(const Sample& sample) { return bound_of(sample, sample.step_count); }

// --- layouts and filters, in memory ---

enum class Layout { by_step, by_neuron, ordered, ordered_by_task };

using Chunk = std::vector<uint64_t>;

class Filter {
 public:
  virtual ~Filter() = default;
  virtual std::span<const std::byte> deflate(std::span<const uint64_t> words) = 0;
};

// zlib with one setting for all.
class PlainZlib final : public Filter {
 public:
  PlainZlib(int level, int strategy) {
    TC_CHECK(deflateInit2(&stream_, level, Z_DEFLATED, 15, 8, strategy) == Z_OK, "zlib");
  }
  ~PlainZlib() override { deflateEnd(&stream_); }

  std::span<const std::byte> deflate(std::span<const uint64_t> words) override {
    TC_CHECK(deflateReset(&stream_) == Z_OK, "zlib");
    out_.resize(deflateBound(&stream_, words.size_bytes()));
    stream_.next_in = reinterpret_cast<Bytef*>(const_cast<uint64_t*>(words.data()));
    stream_.avail_in = static_cast<uInt>(words.size_bytes());
    stream_.next_out = reinterpret_cast<Bytef*>(out_.data());
    stream_.avail_out = static_cast<uInt>(out_.size());
    TC_CHECK(::deflate(&stream_, Z_FINISH) == Z_STREAM_END, "zlib");
    return std::span<const std::byte>(out_).first(stream_.total_out);
  }

 private:
  z_stream stream_ = {};
  std::vector<std::byte> out_;
};

class OurPieces final : public Filter {
 public:
  std::span<const std::byte> deflate(std::span<const uint64_t> words) override {
    return deflater_.deflate(words);
  }

 private:
  WordDeflater deflater_;
};

struct Method {
  const char* name;
  Layout layout;
  std::function<std::unique_ptr<Filter>()> make;
};

const std::vector<Method>& methods() {
  static const auto gzip = [] { return std::make_unique<PlainZlib>(1, Z_DEFAULT_STRATEGY); };
  static const auto runs = [] { return std::make_unique<PlainZlib>(1, Z_RLE); };
  static const auto ours = [] { return std::make_unique<OurPieces>(); };
  static const std::vector<Method> list = {
      {"by step, gzip 1", Layout::by_step, gzip},
      {"by neuron, runs", Layout::by_neuron, runs},
      {"ordered, runs", Layout::ordered, runs},
      {"ordered, pieces (ours)", Layout::ordered, ours},
      {"ordered anew each task, pieces", Layout::ordered_by_task, ours},
  };
  return list;
}

NeuronOrder natural_order(const NeuronPool& pool) {
  NeuronOrder order(pool.total());
  for (size_t i = 0; i < order.size(); ++i) {
    order[i] = static_cast<uint32_t>(i % pool.neuron_count);
  }
  return order;
}

NeuronOrder order_at(const Sample& sample, uint64_t block) {
  const uint32_t steps = sample.steps_in(block);
  return order_by_activity(sample.pool, {sample.block(block), steps * sample.pool.words_per_step()},
                           steps);
}

// The chunks of one block, as the trace cuts them.
void add_rows(const Sample& sample, uint64_t block, uint32_t layers, std::vector<Chunk>& chunks) {
  const uint64_t width = uint64_t{layers} * sample.pool.words_per_layer();
  for (uint64_t at = 0; at < sample.pool.words_per_step(); at += width) {
    Chunk& chunk = chunks.emplace_back();
    for (uint32_t step = 0; step < sample.steps_in(block); ++step) {
      const uint64_t* row = sample.block(block) + step * sample.pool.words_per_step() + at;
      chunk.insert(chunk.end(), row, row + width);
    }
  }
}

void add_columns(const Sample& sample, uint64_t block, uint32_t layers, const NeuronOrder& order,
                 std::vector<Chunk>& chunks) {
  const uint64_t words = sample.pool.words_per_layer(), neurons = sample.pool.neuron_count;
  std::vector<uint64_t> columns(words * 64);
  for (uint32_t layer = 0; layer < sample.pool.layer_count; ++layer) {
    if (layer % layers == 0) chunks.emplace_back();
    columns_of_rows(sample.block(block) + layer * words, sample.pool.words_per_step(),
                    sample.steps_in(block), static_cast<uint32_t>(words), columns.data());
    for (uint64_t i = 0; i < neurons; ++i) {
      chunks.back().push_back(columns[order[layer * neurons + i]]);
    }
  }
}

std::vector<Chunk> chunks_of(const Sample& sample, Layout layout) {
  const uint32_t layers =
      layers_per_chunk(sample.pool.layer_count, sample.pool.neuron_count * sizeof(uint64_t));
  std::vector<Chunk> chunks;
  NeuronOrder order =
      layout == Layout::by_neuron ? natural_order(sample.pool) : order_at(sample, 0);
  for (uint64_t block = 0; block < sample.block_count(); ++block) {
    const bool new_task = sample.task_steps > 0 && block * kBlockSteps % sample.task_steps == 0;
    if (layout == Layout::ordered_by_task && new_task) order = order_at(sample, block);
    layout == Layout::by_step ? add_rows(sample, block, layers, chunks)
                              : add_columns(sample, block, layers, order, chunks);
  }
  return chunks;
}

using Stored = std::vector<std::vector<std::byte>>;

Stored stored_of(const std::vector<Chunk>& chunks, Filter& filter) {
  Stored stored;
  for (const Chunk& chunk : chunks) {
    const auto bytes = filter.deflate(chunk);
    stored.emplace_back(bytes.begin(), bytes.end());
  }
  return stored;
}

class ZlibInflater {
 public:
  ZlibInflater() { TC_CHECK(inflateInit(&stream_) == Z_OK, "zlib"); }
  ~ZlibInflater() { inflateEnd(&stream_); }
  ZlibInflater(const ZlibInflater&) = delete;
  ZlibInflater& operator=(const ZlibInflater&) = delete;

  void decode(std::span<const std::byte> stored, Chunk& chunk) {
    inflateReset(&stream_);
    stream_.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(stored.data()));
    stream_.avail_in = static_cast<uInt>(stored.size());
    stream_.next_out = reinterpret_cast<Bytef*>(chunk.data());
    stream_.avail_out = static_cast<uInt>(chunk.size() * sizeof(uint64_t));
    TC_CHECK(::inflate(&stream_, Z_FINISH) == Z_STREAM_END, "zlib");
  }

 private:
  z_stream stream_ = {};
};

void check_decodes(const std::vector<Chunk>& chunks, const Stored& stored) {
  Chunk decoded;
  for (size_t i = 0; i < chunks.size(); ++i) {
    decoded.assign(chunks[i].size(), 0);
    TC_CHECK(inflate(stored[i], std::as_writable_bytes(std::span(decoded))), "libdeflate decodes");
    TC_CHECK(decoded == chunks[i], "what was deflated");
  }
}

struct FilterFigures {
  double ratio, bound_share;                 // raw over stored; of the bound, in %
  double write, read_zlib, read_libdeflate;  // MB/s a core
};

FilterFigures measure(const Options& options, const Sample& sample, const Bound& bound,
                      const Method& method) {
  const std::vector<Chunk> chunks = chunks_of(sample, method.layout);
  const auto filter = method.make();
  const Stored stored = stored_of(chunks, *filter);
  check_decodes(chunks, stored);
  double bytes = 0;
  for (const auto& chunk : stored) bytes += static_cast<double>(chunk.size());
  Chunk decoded(std::max(chunks.front().size(), chunks.back().size()));
  ZlibInflater zlib;
  const auto rate = [&](const std::function<void(size_t)>& work) {
    const double seconds = best_seconds(options, CLOCK_THREAD_CPUTIME_ID, [&] {
      for (size_t i = 0; i < chunks.size(); ++i) work(i);
    });
    return sample.raw_bytes() / seconds / 1e6;
  };
  return {sample.raw_bytes() / bytes, 100 * bound.bytes / bytes,
          rate([&](size_t i) { filter->deflate(chunks[i]); }),
          rate([&](size_t i) { zlib.decode(stored[i], decoded); }), rate([&](size_t i) {
            const auto out = std::as_writable_bytes(std::span(decoded).first(chunks[i].size()));
            TC_CHECK(inflate(stored[i], out), "libdeflate decodes");
          })};
}

void print_filters(const Options& options, const Sample& sample, const Bound& bound, Csv& csv) {
  fmt::print("  {:<32}{:>7}{:>10}{:>9}{:>11}{:>17}\n", "in memory, MB/s a core", "ratio",
             "of bound", "write", "read zlib", "read libdeflate");
  for (const Method& method : methods()) {
    if (method.layout == Layout::ordered_by_task && sample.task_steps == 0) continue;
    const FilterFigures figures = measure(options, sample, bound, method);
    fmt::print("  {:<32}{:>7.3f}{:>8.1f} %{:>9.0f}{:>11.0f}{:>17.0f}\n", method.name, figures.ratio,
               figures.bound_share, figures.write, figures.read_zlib, figures.read_libdeflate);
    csv.add(sample.name, method.name, "ratio", figures.ratio);
    csv.add(sample.name, method.name, "bound_share", figures.bound_share);
    csv.add(sample.name, method.name, "write_mb_per_s", figures.write);
    csv.add(sample.name, method.name, "read_zlib_mb_per_s", figures.read_zlib);
    csv.add(sample.name, method.name, "read_libdeflate_mb_per_s", figures.read_libdeflate);
  }
}

// --- end to end ---

// Calls append(step) for every step, and times it where `append_seconds` is given.
void append_all(TraceWriter& writer, const Sample& sample, double* append_seconds = nullptr) {
  const uint64_t stride = sample.pool.words_per_step();
  for (uint64_t step = 0; step < sample.step_count; ++step) {
    const StepInfo info{1, static_cast<uint32_t>(step % 4096), 0, Phase::decode,
                        static_cast<uint32_t>(step)};
    const double begin = seconds_on(CLOCK_THREAD_CPUTIME_ID);
    writer.append(info, {1, 1, 1, 1},
                  {std::span(sample.rows).subspan(step * stride, stride), {}, {}});
    if (append_seconds != nullptr) *append_seconds += seconds_on(CLOCK_THREAD_CPUTIME_ID) - begin;
  }
  writer.end_task({1, 0, static_cast<uint32_t>(sample.step_count), 1, {1}});
}

void write_trace(const std::string& path, const Sample& sample) {
  const auto writer = create_shard(path, sample.header, 0);
  append_all(*writer, sample);
  writer->finish();
}

void drop_from_cache(const std::string& path) {
  const int file = ::open(path.c_str(), O_RDONLY);
  TC_CHECK(file >= 0, path);
  ::fdatasync(file);
  ::posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
  ::close(file);
}

// The way of every consumer that streams a trace.
void read_all(const TraceReader& trace, const NeuronPool& pool) {
  for_each_block(trace, pool, 0, trace.step_count(), [](const StepBlock&) {});
}

void check_reads(const TraceReader& trace, const Sample& sample) {
  for_each_block(trace, sample.pool, 0, sample.step_count, [&](const StepBlock& block) {
    const uint64_t* expected = sample.rows.data() + block.step_begin * sample.pool.words_per_step();
    TC_CHECK(std::equal(block.words.begin(), block.words.end(), expected), "what was written");
  });
}

struct Speed {
  double per_core, wall;  // MB/s of raw bits
};

struct FileFigures {
  Speed write;
  double read_per_core;        // for each second of CPU time, of however many threads
  double read_all, read_cold;  // all cores, wall; cold: dropped from the page cache
  double bytes, once_bytes;    // of the shard; the order of the neurons, which is there once
};

Speed measure_write(const Options& options, const Sample& sample, const std::string& path) {
  double cpu = 1e9;
  const double wall = best_seconds(options, CLOCK_MONOTONIC, [&] {
    cpu = std::min(cpu, seconds_of(CLOCK_PROCESS_CPUTIME_ID, [&] { write_trace(path, sample); }));
  });
  return {sample.raw_bytes() / cpu / 1e6, sample.raw_bytes() / wall / 1e6};
}

FileFigures measure_file(const Options& options, const Sample& sample) {
  const std::string path = options.folder + "/trace_bench.h5", shard = shard_path(path, 0);
  FileFigures figures{};
  figures.write = measure_write(options, sample, path);
  figures.bytes = static_cast<double>(std::filesystem::file_size(shard));
  figures.once_bytes = static_cast<double>(open_hdf5(shard)->open(dataset::kOrder)->stored_bytes());
  write_master(path);
  const double raw = sample.raw_bytes() / 1e6;
  const auto one = open_trace(path, {.threads = 1});
  const auto all = open_trace(path, {.threads = available_cores()});
  check_reads(*all, sample);
  figures.read_per_core =
      raw / best_seconds(options, CLOCK_PROCESS_CPUTIME_ID, [&] { read_all(*one, sample.pool); });
  figures.read_all =
      raw / best_seconds(options, CLOCK_MONOTONIC, [&] { read_all(*all, sample.pool); });
  double cold = 1e9;
  for (int pass = 0; pass < 3; ++pass) {
    drop_from_cache(shard);
    cold = std::min(cold, seconds_of(CLOCK_MONOTONIC, [&] { read_all(*all, sample.pool); }));
  }
  figures.read_cold = raw / cold;
  std::filesystem::remove(path);
  std::filesystem::remove(shard);
  return figures;
}

const char* verdict(bool held) { return held ? "held" : "MISSED"; }

void print_file(const Options& options, const Sample& sample, const Bound& bound, Csv& csv) {
  const FileFigures figures = measure_file(options, sample);
  const double bits_share = 100 * bound.bytes / (figures.bytes - figures.once_bytes);
  fmt::print(
      "  as a file: {:.1f} MB, ratio {:.3f}, {:.1f} % of the bound ({:.1f} % without the order of "
      "the neurons, {:.2f} MB once a file; wanted {:.0f}: {})\n",
      figures.bytes / 1e6, sample.raw_bytes() / figures.bytes, 100 * bound.bytes / figures.bytes,
      bits_share, figures.once_bytes / 1e6, kBoundShareMin, verdict(bits_share >= kBoundShareMin));
  fmt::print("    write {:>6.0f} MB/s a core (wanted {:.0f}: {}), wall {:.0f} MB/s\n",
             figures.write.per_core, kWriteMin, verdict(figures.write.per_core >= kWriteMin),
             figures.write.wall);
  fmt::print(
      "    read  {:>6.0f} MB/s a core (wanted {:.0f}: {}), wall of {} cores {:.0f} MB/s, cold "
      "{:.0f} MB/s\n",
      figures.read_per_core, kReadMin, verdict(figures.read_per_core >= kReadMin),
      available_cores(), figures.read_all, figures.read_cold);
  csv.add(sample.name, "file", "bytes", figures.bytes);
  csv.add(sample.name, "file", "bound_share", 100 * bound.bytes / figures.bytes);
  csv.add(sample.name, "file", "bound_share_without_order", bits_share);
  csv.add(sample.name, "file", "write_mb_per_core_s", figures.write.per_core);
  csv.add(sample.name, "file", "write_wall_mb_per_s", figures.write.wall);
  csv.add(sample.name, "file", "read_mb_per_core_s", figures.read_per_core);
  csv.add(sample.name, "file", "read_wall_mb_per_s", figures.read_all);
  csv.add(sample.name, "file", "read_cold_mb_per_s", figures.read_cold);
}

// --- limits of the machine ---

struct Limits {
  double disk_write, disk_read;  // bytes per second
  double memory_one, memory_all;
};

void write_synced(const std::string& path, const std::vector<std::byte>& bytes) {
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  TC_CHECK(file >= 0, path);
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t n = ::write(file, bytes.data() + done, bytes.size() - done);
    TC_CHECK(n > 0, path);
    done += static_cast<size_t>(n);
  }
  TC_CHECK(::fdatasync(file) == 0 && ::close(file) == 0, path);
}

void read_whole(const std::string& path, std::vector<std::byte>& bytes) {
  const int file = ::open(path.c_str(), O_RDONLY);
  TC_CHECK(file >= 0, path);
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t n = ::read(file, bytes.data() + done, bytes.size() - done);
    TC_CHECK(n > 0, path);
    done += static_cast<size_t>(n);
  }
  ::close(file);
}

Limits measure_limits(const Options& options, double file_bytes) {
  const std::string path = options.folder + "/trace_bench.limit";
  std::vector<std::byte> bytes(static_cast<size_t>(file_bytes), std::byte{0x5a});
  double written = 1e9, read = 1e9;
  for (int pass = 0; pass < 3; ++pass) {
    written = std::min(written, seconds_of(CLOCK_MONOTONIC, [&] { write_synced(path, bytes); }));
    drop_from_cache(path);
    read = std::min(read, seconds_of(CLOCK_MONOTONIC, [&] { read_whole(path, bytes); }));
  }
  std::filesystem::remove(path);
  bytes.assign(uint64_t{256} << 20, std::byte{0x5a});
  const double seconds = options.seconds_per_figure();
  return {file_bytes / written, file_bytes / read,
          read_bandwidth(bytes.data(), bytes.size(), 1, seconds),
          read_bandwidth(bytes.data(), bytes.size(), static_cast<int>(available_cores()), seconds)};
}

void print_limits(const Limits& limits, double file_bytes, Csv& csv) {
  fmt::print(
      "this machine: disk writes {:.0f} MB/s and reads {:.0f} MB/s (a file of {:.0f} MB, synced, "
      "dropped from the cache); memory reads {:.1f} GB/s with one core, {:.1f} GB/s with {}\n",
      limits.disk_write / 1e6, limits.disk_read / 1e6, file_bytes / 1e6, limits.memory_one / 1e9,
      limits.memory_all / 1e9, available_cores());
  csv.add("machine", "disk", "write_mb_per_s", limits.disk_write / 1e6);
  csv.add("machine", "disk", "read_mb_per_s", limits.disk_read / 1e6);
  csv.add("machine", "memory", "read_gb_per_s_one", limits.memory_one / 1e9);
  csv.add("machine", "memory", "read_gb_per_s_all", limits.memory_all / 1e9);
}

// --- the recorder ---

struct RecorderFigures {
  double append_ms, writer_ms;  // a step, CPU time
};

RecorderFigures measure_recorder(const Options& options, const Sample& sample) {
  const std::string path = options.folder + "/trace_bench.h5";
  RecorderFigures best{1e9, 1e9};
  const double to_ms = 1e3 / static_cast<double>(sample.step_count);
  for (int pass = 0; pass < 5; ++pass) {
    double append = 0, mine = 0;
    const double all = seconds_of(CLOCK_PROCESS_CPUTIME_ID, [&] {
      mine = seconds_of(CLOCK_THREAD_CPUTIME_ID, [&] {
        const auto writer = create_shard(path, sample.header, 0);
        append_all(*writer, sample, &append);
        writer->finish();
      });
    });
    best.append_ms = std::min(best.append_ms, append * to_ms);
    best.writer_ms = std::min(best.writer_ms, (all - mine) * to_ms);
  }
  std::filesystem::remove(shard_path(path, 0));
  return best;
}

// What a step reads, at the least: of the FFN what is active; all else of the model, whole.
void print_share(const char* what, double bytes, const Limits& limits,
                 const RecorderFigures& figures, const std::string& name, Csv& csv) {
  const double step_ms = bytes / limits.memory_all * 1e3;
  const double share = 100 * (figures.append_ms + figures.writer_ms) / step_ms;
  fmt::print(
      "    of {:<36} {:>5.2f} GiB at {:.1f} GB/s, {:>4.0f} ms: append() {:.2f} %, both {:.2f} % "
      "(wanted below {:.0f}: {})\n",
      what, bytes / 0x1p30, limits.memory_all / 1e9, step_ms, 100 * figures.append_ms / step_ms,
      share, kRecorderShareMax, verdict(share < kRecorderShareMax));
  csv.add(name, what, "step_ms", step_ms);
  csv.add(name, what, "recorder_share", share);
}

void print_recorder(const Options& options, const Draw& draw, const Limits& limits, Csv& csv) {
  const ModelShape shape = shape_preset("relullama-70b").shape;
  const Sample sample = drawn(draw, shape.layer_count, options.recorder_blocks() * kBlockSteps, 1);
  const RecorderFigures figures = measure_recorder(options, sample);
  const auto whole = static_cast<double>(bytes_of(DType::q4_0, parameter_count(shape)));
  const auto ffn = static_cast<double>(ffn_bytes(shape, DType::q4_0));
  fmt::print("  {}: append() {:.3f} ms a step, writer thread {:.3f} ms of CPU time\n", sample.name,
             figures.append_ms, figures.writer_ms);
  csv.add(sample.name, "recorder", "append_ms", figures.append_ms);
  csv.add(sample.name, "recorder", "writer_ms", figures.writer_ms);
  print_share("active FFN neurons alone, 4-bit", ffn * draw.mean, limits, figures, sample.name,
              csv);
  print_share("the whole step, 4-bit", ffn * draw.mean + whole - ffn, limits, figures, sample.name,
              csv);
}

// 80 layers in one block: rows of a step lie 280 KiB apart.
void print_whole_steps(const Options& options, Csv& csv) {
  const uint32_t layers = shape_preset("relullama-70b").shape.layer_count;
  Sample sample = drawn(kDraws[1], layers, options.recorder_blocks() * kBlockSteps, 1);
  sample.name += fmt::format(", {} layers", layers);
  const Bound bound = bound_of(sample);
  fmt::print("\n{}, {} steps\n", sample.name, sample.step_count);
  print_file(options, sample, bound, csv);
}

void print_sample(const Options& options, const Sample& sample, Csv& csv) {
  const Bound bound = bound_of(sample);
  fmt::print(
      "\n{}: {} layers of {} neurons, {} steps, {:.1f} MB raw, {:.1f} % active\n"
      "  bound of independent neurons: ratio {:.3f}\n",
      sample.name, sample.pool.layer_count, sample.pool.neuron_count, sample.step_count,
      sample.raw_bytes() / 1e6, 100 * bound.activity, sample.raw_bytes() / bound.bytes);
  if (sample.task_steps > 0) {
    fmt::print("  with the frequencies of each task of {} steps: ratio {:.3f}\n", sample.task_steps,
               sample.raw_bytes() / bound_of(sample, sample.task_steps).bytes);
  }
  csv.add(sample.name, "bound", "ratio", sample.raw_bytes() / bound.bytes);
  csv.add(sample.name, "bound", "activity", bound.activity);
  print_filters(options, sample, bound, csv);
  print_file(options, sample, bound, csv);
}

void run(const Options& options) {
  Csv csv(options.csv);
  const double file_bytes = options.quick ? 16e6 : 128e6;
  const Limits limits = measure_limits(options, file_bytes);
  print_limits(limits, file_bytes, csv);
  if (!options.trace.empty()) print_sample(options, recorded(options.trace), csv);
  for (const Draw& draw : kDraws) {
    print_sample(options,
                 drawn(draw, options.layer_count(), options.step_count(), options.task_steps()),
                 csv);
  }
  print_whole_steps(options, csv);
  fmt::print("\nthe recorder of 80 layers, beside what a step takes to read from memory\n");
  for (const Draw& draw : kDraws) {
    if (!draw.clustered && draw.drift == 0) print_recorder(options, draw, limits, csv);
  }
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("Times the storage of traces.");
  app.add_flag("--quick", options.quick, "small traces, short passes");
  app.add_option("--trace", options.trace, "also measure this recorded trace");
  app.add_option("--folder", options.folder, "for files of up to 150 MB, removed at the end");
  app.add_option("--csv", options.csv, "append the figures to this file");
  CLI11_PARSE(app, argc, argv);
  try {
    run(options);
  } catch (const Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    return error.exit_code();
  }
  return 0;
}
