// One rank's shard: append() fills blocks, a thread of the writer's own puts them on the disk.
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <filesystem>
#include <map>
#include <mutex>
#include <optional>
#include <thread>

#include "models/bit_sums.h"
#include "models/error.h"
#include "traces/bit_columns.h"
#include "traces/deflate.h"
#include "traces/hdf5.h"
#include "traces/magnitude_codes.h"
#include "traces/schema.h"
#include "traces/trace.h"

namespace thermocline {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kColumnChunk = 512;  // steps; columns are small and not compressed
constexpr uint64_t kQueuedBytesMax = uint64_t{64} << 20;
constexpr size_t kQueuedBlocksMax = 4;

// Consecutive steps on their way to the disk, and the tasks that ended among them.
struct PendingBlock {
  std::vector<StepInfo> infos;
  std::vector<StepTimes> times;
  std::vector<uint64_t> active;     // (steps, layer_count, words_per_layer)
  std::vector<uint64_t> predicted;  // the same
  std::vector<uint64_t> magnitude_steps;
  std::vector<std::vector<std::byte>> magnitudes;  // encoded, (layer_count, neuron_count) each
  std::vector<TaskRecord> tasks;
};

// The file itself. Its chunks of bits are written once, because a chunk that is rewritten moves,
// and the space that it leaves would be used again before the disk hears of it.
class ShardFile {
 public:
  ShardFile(const std::string& path, const TraceHeader& header, uint32_t rank)
      : file_(create_hdf5(path)),
        pool_(header.pools[rank]),
        magnitude_format_(header.magnitudes),
        checksum_(header, rank) {
    write_header(*file_, header, kShardKind);
    file_->write_number<uint32_t>("rank", rank);
    file_->write_number<uint8_t>("finished", 0);
    order_dataset_ = create_order(*file_, pool_);
    active_.emplace(*file_, dataset::kActive, pool_);
    add_rows(dataset::kPopcounts);
    if (header.has_predicted) {
      predicted_.emplace(*file_, dataset::kPredicted, pool_);
      add_rows(dataset::kPredictedPopcounts);
    }
    if (header.magnitudes != MagnitudeFormat::none) add_magnitudes();
    for (const Column& column : kStepColumns) add_column(column);
    for (const Column& column : kTimeColumns) add_column(column);
    for (const Column& column : kTaskColumns) add_column(column);
    add_column({dataset::kGenerated, Element::i32});
    commit();
  }

  void write(const PendingBlock& block) {
    if (!block.infos.empty()) write_bits(block);
    write_magnitudes(block);
    write_steps(block.infos);
    write_times(block.times);
    step_count_ += block.infos.size();
    write_tasks(block.tasks);
    file_->flush();
    commit();
  }

  void finish() {
    if (order_.empty()) place_neurons({}, 0);
    for (const TaskRecord& task : tasks_) checksum_.add(task);
    file_->write_text("checksum", checksum_.hex());
    file_->write_number<uint8_t>("finished", 1);
    file_->flush();
    order_dataset_.reset();
    active_.reset();
    predicted_.reset();
    columns_.clear();
    file_->close();
  }

 private:
  void add_column(const Column& column) {
    columns_[column.name] = file_->create({column.name, column.element, {0}, {kColumnChunk}});
  }

  void add_rows(const char* name) {
    const uint64_t layers = pool_.layer_count;
    columns_[name] = file_->create({name, Element::u32, {0, layers}, {kBlockSteps, layers}});
  }

  void add_magnitudes() {
    const uint64_t layers = pool_.layer_count, neurons = pool_.neuron_count;
    const Element element = element_of(magnitude_format_);
    magnitude_layers_ = layers_per_chunk(pool_.layer_count, neurons * bytes_of(magnitude_format_));
    columns_[dataset::kMagnitudes] = file_->create({dataset::kMagnitudes,
                                                    element,
                                                    {0, layers, neurons},
                                                    {1, magnitude_layers_, neurons},
                                                    true});
    add_column({dataset::kMagnitudeSteps, Element::u64});
  }

  // A reader of an unfinished file believes step_count, which is written when the steps are safe.
  void commit() {
    file_->write_number<uint64_t>("step_count", step_count_);
    file_->flush();
  }

  void place_neurons(std::span<const uint64_t> rows, uint32_t step_count) {
    order_ = order_by_activity(pool_, rows, step_count);
    write_order(*order_dataset_, pool_, order_);
  }

  void write_bits(const PendingBlock& block) {
    const auto steps = static_cast<uint32_t>(block.infos.size());
    if (order_.empty()) place_neurons(block.active, steps);
    active_->write(block.active, steps, order_);
    const std::vector<uint32_t> counts = write_popcounts(dataset::kPopcounts, block.active);
    const uint64_t layers = pool_.layer_count;
    for (uint64_t i = 0; i < steps; ++i) {
      checksum_.add(block.infos[i], block.times[i], std::span(counts).subspan(i * layers, layers));
    }
    if (!predicted_) return;
    predicted_->write(block.predicted, steps, order_);
    write_popcounts(dataset::kPredictedPopcounts, block.predicted);
  }

  std::vector<uint32_t> write_popcounts(const char* name, const std::vector<uint64_t>& rows) {
    const uint64_t words = pool_.words_per_layer(), layers = pool_.layer_count;
    std::vector<uint32_t> counts(rows.size() / words);
    for (uint64_t row = 0; row < counts.size(); ++row) {
      TC_CHECK(spare_bits_are_zero(rows[(row + 1) * words - 1]), "bits past the last neuron");
      counts[row] = static_cast<uint32_t>(bit_sums().count(rows.data() + row * words, words));
    }
    Hdf5Dataset& column = *columns_.at(name);
    column.extend(step_count_ + counts.size() / layers);
    column.write<uint32_t>({step_count_, 0}, {counts.size() / layers, layers}, counts);
    return counts;
  }

  bool spare_bits_are_zero(uint64_t last_word) const {
    const uint32_t used = pool_.neuron_count % 64;
    return used == 0 || last_word >> used == 0;
  }

  void write_magnitudes(const PendingBlock& block) {
    if (block.magnitudes.empty()) return;
    Hdf5Dataset& rows = *columns_.at(dataset::kMagnitudes);
    const uint64_t begin = rows.extent()[0];
    rows.extend(begin + block.magnitudes.size());
    const uint64_t chunk_bytes =
        uint64_t{magnitude_layers_} * pool_.neuron_count * bytes_of(magnitude_format_);
    for (uint64_t i = 0; i < block.magnitudes.size(); ++i) {
      const std::span<const std::byte> row(block.magnitudes[i]);
      for (uint64_t at = 0; at < row.size(); at += chunk_bytes) {
        rows.write_chunk({begin + i, at / chunk_bytes * magnitude_layers_, 0},
                         deflate_bytes(row.subspan(at, chunk_bytes)));
      }
    }
    append(dataset::kMagnitudeSteps, block.magnitude_steps);
  }

  template <class T>
  void append(const char* name, const std::vector<T>& values) {
    if (values.empty()) return;
    Hdf5Dataset& column = *columns_.at(name);
    const uint64_t begin = column.extent()[0];
    column.extend(begin + values.size());
    column.write<T>({begin}, {values.size()}, values);
  }

  template <class T, class Row, class Field>
  void append_field(const char* name, const std::vector<Row>& rows, Field field) {
    std::vector<T> values;
    for (const Row& row : rows) values.push_back(static_cast<T>(row.*field));
    append(name, values);
  }

  void write_steps(const std::vector<StepInfo>& infos) {
    append_field<int32_t>(dataset::kToken, infos, &StepInfo::token);
    append_field<uint32_t>(dataset::kPosition, infos, &StepInfo::position);
    append_field<uint32_t>(dataset::kTask, infos, &StepInfo::task);
    append_field<uint8_t>(dataset::kPhase, infos, &StepInfo::phase);
    append_field<uint32_t>(dataset::kPass, infos, &StepInfo::pass);
  }

  void write_times(const std::vector<StepTimes>& times) {
    append_field<uint64_t>(dataset::kCompute, times, &StepTimes::compute_ns);
    append_field<uint64_t>(dataset::kTransfer, times, &StepTimes::transfer_ns);
    append_field<uint64_t>(dataset::kComm, times, &StepTimes::comm_ns);
    append_field<uint64_t>(dataset::kWait, times, &StepTimes::wait_ns);
  }

  void write_tasks(const std::vector<TaskRecord>& tasks) {
    if (tasks.empty()) return;
    std::vector<int32_t> tokens;
    std::vector<uint32_t> token_counts;
    for (const TaskRecord& task : tasks) {
      tokens.insert(tokens.end(), task.generated.begin(), task.generated.end());
      token_counts.push_back(static_cast<uint32_t>(task.generated.size()));
    }
    append(dataset::kGenerated, tokens);
    append(dataset::kTaskGenerated, token_counts);
    append_field<int32_t>(dataset::kTaskId, tasks, &TaskRecord::task_id);
    append_field<uint32_t>(dataset::kTaskBegin, tasks, &TaskRecord::step_begin);
    append_field<uint32_t>(dataset::kTaskSteps, tasks, &TaskRecord::step_count);
    append_field<uint32_t>(dataset::kTaskPrompt, tasks, &TaskRecord::prompt_tokens);
    tasks_.insert(tasks_.end(), tasks.begin(), tasks.end());
  }

  std::unique_ptr<Hdf5File> file_;
  NeuronPool pool_;
  MagnitudeFormat magnitude_format_;
  uint32_t magnitude_layers_ = 0;  // that share a chunk
  NeuronOrder order_;
  std::unique_ptr<Hdf5Dataset> order_dataset_;
  std::optional<BitColumnsWriter> active_, predicted_;
  std::map<std::string, std::unique_ptr<Hdf5Dataset>> columns_;
  uint64_t step_count_ = 0;
  std::vector<TaskRecord> tasks_;  // written
  ShardChecksum checksum_;
};

class Writer final : public TraceWriter {
 public:
  Writer(std::string partial, std::string final_path, const TraceHeader& header, uint32_t rank)
      : partial_path_(std::move(partial)),
        final_path_(std::move(final_path)),
        pool_(header.pools[rank]),
        predicted_(header.has_predicted),
        magnitude_format_(header.magnitudes),
        queued_max_(std::clamp<uint64_t>(
            kQueuedBytesMax / (kBlockSteps * pool_.words_per_step() * sizeof(uint64_t)), 1,
            kQueuedBlocksMax)),
        file_(std::make_unique<ShardFile>(partial_path_, header, rank)),
        thread_([this] { write_blocks(); }) {}

  ~Writer() override {
    try {
      stop();
    } catch (const Error&) {
      // Reported to nobody: who wants to know calls finish().
    }
    if (file_ == nullptr || safe_steps_ > 0) return;
    file_.reset();  // a shard without a step is of no use to anybody
    std::error_code ignored;
    fs::remove(partial_path_, ignored);
  }

  void append(const StepInfo& info, const StepTimes& times, const StepData& data) override {
    TC_CHECK(data.active.size() == pool_.words_per_step(), "words of the rank's whole pool");
    TC_CHECK(data.predicted.size() == (predicted_ ? data.active.size() : 0), "as the header says");
    TC_CHECK(thread_.joinable(), "append after finish");
    block_.infos.push_back(info);
    block_.times.push_back(times);
    add_words(data.active, block_.active);
    add_words(data.predicted, block_.predicted);
    if (!data.magnitudes.empty()) add_magnitudes(data.magnitudes);
    ++step_count_;
    if (block_.infos.size() == kBlockSteps) hand_over();
  }

  void end_task(const TaskRecord& task) override { block_.tasks.push_back(task); }

  uint64_t safe_steps() const override { return safe_steps_; }

  void finish() override {
    TC_CHECK(thread_.joinable(), "finish once");
    stop();
    file_->finish();
    file_.reset();
    std::error_code failed;
    fs::rename(partial_path_, final_path_, failed);
    if (failed) throw work_failed(final_path_ + ": cannot rename: " + failed.message());
  }

 private:
  static void add_words(std::span<const uint64_t> words, std::vector<uint64_t>& rows) {
    rows.reserve(words.size() * kBlockSteps);
    rows.insert(rows.end(), words.begin(), words.end());
  }

  void add_magnitudes(std::span<const float> magnitudes) {
    TC_CHECK(magnitude_format_ != MagnitudeFormat::none && magnitudes.size() == pool_.total(),
             "magnitudes of the rank's whole pool");
    std::vector<std::byte> row(magnitudes.size() * bytes_of(magnitude_format_));
    encode(magnitudes.data(), magnitudes.size(), magnitude_format_, row.data());
    block_.magnitude_steps.push_back(step_count_);
    block_.magnitudes.push_back(std::move(row));
  }

  // Writes what is left and ends the thread.
  void stop() {
    if (!thread_.joinable()) return;
    {
      const std::lock_guard lock(mutex_);
      queue_.push_back(std::move(block_));
      stopping_ = true;
    }
    changed_.notify_all();
    thread_.join();
    if (error_) std::rethrow_exception(error_);
  }

  void hand_over() {
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return queue_.size() < queued_max_ || error_; });
      if (error_) std::rethrow_exception(error_);
      queue_.push_back(std::move(block_));
    }
    changed_.notify_all();
    block_ = {};
  }

  void write_blocks() {
    while (std::optional<PendingBlock> block = next_block()) {
      try {
        if (!block->infos.empty() || !block->tasks.empty()) file_->write(*block);
        safe_steps_ += block->infos.size();
      } catch (...) {
        const std::lock_guard lock(mutex_);
        error_ = std::current_exception();
        break;
      }
    }
    changed_.notify_all();
  }

  // Nothing when all is written and no more will come.
  std::optional<PendingBlock> next_block() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !queue_.empty() || stopping_; });
    if (queue_.empty()) return std::nullopt;
    PendingBlock block = std::move(queue_.front());
    queue_.pop_front();
    lock.unlock();
    changed_.notify_all();
    return block;
  }

  const std::string partial_path_;
  const std::string final_path_;
  const NeuronPool pool_;
  const bool predicted_;
  const MagnitudeFormat magnitude_format_;
  const size_t queued_max_;
  uint64_t step_count_ = 0;  // appended
  std::atomic<uint64_t> safe_steps_{0};
  PendingBlock block_;
  std::mutex mutex_;  // of what follows, up to error_
  std::condition_variable changed_;
  std::deque<PendingBlock> queue_;
  bool stopping_ = false;
  std::exception_ptr error_;
  std::unique_ptr<ShardFile> file_;  // the thread's, until it has ended
  std::thread thread_;
};

void remove_older(const std::string& path) {
  std::error_code failed;
  fs::remove(path, failed);
  if (failed) throw work_failed(path + ": cannot replace: " + failed.message());
}

}  // namespace

std::string shard_path(const std::string& path, uint32_t rank) {
  const fs::path master(path);
  const fs::path name =
      fmt::format("{}.rank{:04}{}", master.stem().string(), rank, master.extension().string());
  return (master.parent_path() / name).string();
}

std::string partial_path(const std::string& path, uint32_t rank) {
  return shard_path(path, rank) + ".partial";
}

std::unique_ptr<TraceWriter> create_shard(const std::string& path, const TraceHeader& header,
                                          uint32_t rank) {
  TC_CHECK(rank < header.pools.size(), "a pool for every rank");
  TC_CHECK(header.activation_thresholds.size() == header.shape.layer_count,
           "an activation threshold for every layer");
  validate(header.shape, path);
  validate_pools(header, path);
  if (rank == 0) remove_older(path);
  remove_older(shard_path(path, rank));
  remove_older(partial_path(path, rank));
  try {
    return std::make_unique<Writer>(partial_path(path, rank), shard_path(path, rank), header, rank);
  } catch (const Error&) {  // half a header is of no use to anybody
    std::error_code ignored;
    fs::remove(partial_path(path, rank), ignored);
    throw;
  }
}

}  // namespace thermocline
