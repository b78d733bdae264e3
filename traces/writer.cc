// One rank's shard: append() fills blocks, a thread of the writer's own puts them on the disk.
#include <fmt/format.h>

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <filesystem>
#include <map>
#include <mutex>
#include <optional>
#include <thread>

#include "models/error.h"
#include "traces/hdf5.h"
#include "traces/schema.h"
#include "traces/trace.h"

namespace thermocline {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kBlockBytes = uint64_t{1} << 20;
constexpr uint64_t kBlockStepsMax = 64;
constexpr uint64_t kColumnChunk = 512;  // steps; columns are small and not compressed
constexpr size_t kQueuedBlocksMax = 4;

// Consecutive steps on their way to the disk, and the tasks that ended among them.
struct PendingBlock {
  std::vector<StepInfo> infos;
  std::vector<StepTimes> times;
  std::vector<uint64_t> words;  // (steps, layer_count, words_per_layer)
  std::vector<TaskRecord> tasks;
};

// The file itself. Its blocks are whole chunks, so that no compressed chunk is ever replaced: a
// chunk that is rewritten moves, and the space that it leaves would be used again before the
// disk hears of it.
class ShardFile {
 public:
  ShardFile(const std::string& path, const TraceHeader& header, uint32_t rank, uint64_t block_steps,
            int gzip_level)
      : file_(create_hdf5(path)), pool_(header.pools[rank]), checksum_(header, rank) {
    write_header(*file_, header, kShardKind);
    file_->write_number<uint32_t>("rank", rank);
    file_->write_number<uint8_t>("finished", 0);
    const uint64_t layers = pool_.layer_count, width = pool_.bytes_per_layer();
    active_ = file_->create({dataset::kActive,
                             Element::u8,
                             {0, layers, width},
                             {block_steps, layers, width},
                             gzip_level});
    popcounts_ =
        file_->create({dataset::kPopcounts, Element::u32, {0, layers}, {block_steps, layers}});
    for (const Column& column : kStepColumns) add_column(column);
    for (const Column& column : kTimeColumns) add_column(column);
    for (const Column& column : kTaskColumns) add_column(column);
    commit();
  }

  void write(const PendingBlock& block) {
    write_bits(block);
    write_steps(block.infos);
    write_times(block.times);
    step_count_ += block.infos.size();
    write_tasks(block.tasks);
    file_->flush();
    commit();
  }

  void finish() {
    for (const TaskRecord& task : tasks_) checksum_.add(task);
    file_->write_text("checksum", checksum_.hex());
    file_->write_number<uint8_t>("finished", 1);
    file_->flush();
    active_.reset();
    popcounts_.reset();
    columns_.clear();
    file_->close();
  }

 private:
  void add_column(const Column& column) {
    columns_[column.name] = file_->create({column.name, column.element, {0}, {kColumnChunk}});
  }

  // A reader of an unfinished file believes step_count, which is written when the steps are safe.
  void commit() {
    file_->write_number<uint64_t>("step_count", step_count_);
    file_->flush();
  }

  void write_bits(const PendingBlock& block) {
    const uint64_t steps = block.infos.size(), layers = pool_.layer_count;
    const uint64_t words = pool_.words_per_layer(), width = pool_.bytes_per_layer();
    std::vector<uint8_t> bytes(steps * layers * width);
    std::vector<uint32_t> counts(steps * layers);
    for (uint64_t row = 0; row < steps * layers; ++row) {
      const ActiveSet active{std::span(block.words).subspan(row * words, words)};
      TC_CHECK(spare_bits_are_zero(active), "bits past the last neuron of a layer");
      counts[row] = active.count();
      std::memcpy(bytes.data() + row * width, active.words.data(), width);
    }
    active_->extend(step_count_ + steps);
    active_->write<uint8_t>({step_count_, 0, 0}, {steps, layers, width}, bytes);
    popcounts_->extend(step_count_ + steps);
    popcounts_->write<uint32_t>({step_count_, 0}, {steps, layers}, counts);
    for (uint64_t i = 0; i < steps; ++i) {
      checksum_.add(block.infos[i], block.times[i], std::span(counts).subspan(i * layers, layers));
    }
  }

  bool spare_bits_are_zero(const ActiveSet& active) const {
    const uint32_t used = pool_.neuron_count % 64;
    return used == 0 || active.words.back() >> used == 0;
  }

  template <class T, class Row, class Field>
  void write_column(const char* name, uint64_t begin, const std::vector<Row>& rows, Field field) {
    std::vector<T> values;
    for (const Row& row : rows) values.push_back(static_cast<T>(row.*field));
    Hdf5Dataset& column = *columns_.at(name);
    column.extend(begin + rows.size());
    column.write<T>({begin}, {rows.size()}, values);
  }

  void write_steps(const std::vector<StepInfo>& infos) {
    write_column<int32_t>(dataset::kToken, step_count_, infos, &StepInfo::token);
    write_column<uint32_t>(dataset::kPosition, step_count_, infos, &StepInfo::position);
    write_column<uint32_t>(dataset::kTask, step_count_, infos, &StepInfo::task);
    write_column<uint8_t>(dataset::kPhase, step_count_, infos, &StepInfo::phase);
    write_column<uint32_t>(dataset::kPass, step_count_, infos, &StepInfo::pass);
  }

  void write_times(const std::vector<StepTimes>& times) {
    write_column<uint64_t>(dataset::kCompute, step_count_, times, &StepTimes::compute_ns);
    write_column<uint64_t>(dataset::kTransfer, step_count_, times, &StepTimes::transfer_ns);
    write_column<uint64_t>(dataset::kComm, step_count_, times, &StepTimes::comm_ns);
    write_column<uint64_t>(dataset::kWait, step_count_, times, &StepTimes::wait_ns);
  }

  void write_tasks(const std::vector<TaskRecord>& tasks) {
    if (tasks.empty()) return;
    write_column<int32_t>(dataset::kTaskId, tasks_.size(), tasks, &TaskRecord::task_id);
    write_column<uint32_t>(dataset::kTaskBegin, tasks_.size(), tasks, &TaskRecord::step_begin);
    write_column<uint32_t>(dataset::kTaskSteps, tasks_.size(), tasks, &TaskRecord::step_count);
    write_column<uint32_t>(dataset::kTaskPrompt, tasks_.size(), tasks, &TaskRecord::prompt_tokens);
    tasks_.insert(tasks_.end(), tasks.begin(), tasks.end());
  }

  std::unique_ptr<Hdf5File> file_;
  NeuronPool pool_;
  std::unique_ptr<Hdf5Dataset> active_;
  std::unique_ptr<Hdf5Dataset> popcounts_;
  std::map<std::string, std::unique_ptr<Hdf5Dataset>> columns_;
  uint64_t step_count_ = 0;
  std::vector<TaskRecord> tasks_;  // written
  ShardChecksum checksum_;
};

class Writer final : public TraceWriter {
 public:
  Writer(std::string partial, std::string final_path, const TraceHeader& header, uint32_t rank,
         uint64_t block_steps, int gzip_level)
      : partial_path_(std::move(partial)),
        final_path_(std::move(final_path)),
        pool_(header.pools[rank]),
        block_steps_(block_steps),
        file_(std::make_unique<ShardFile>(partial_path_, header, rank, block_steps, gzip_level)),
        thread_([this] { write_blocks(); }) {}

  ~Writer() override {
    try {
      stop();
    } catch (const Error&) {
      // Reported to nobody: who wants to know calls finish().
    }
  }

  void append(const StepInfo& info, const StepTimes& times, const StepData& data) override {
    const std::span<const uint64_t> words = data.active;
    TC_CHECK(words.size() == pool_.words_per_step(), "words of the rank's whole pool");
    TC_CHECK(thread_.joinable(), "append after finish");
    block_.infos.push_back(info);
    block_.times.push_back(times);
    block_.words.insert(block_.words.end(), words.begin(), words.end());
    if (block_.infos.size() == block_steps_) hand_over();
  }

  void end_task(const TaskRecord& task) override { block_.tasks.push_back(task); }

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
      changed_.wait(lock, [this] { return queue_.size() < kQueuedBlocksMax || error_; });
      if (error_) std::rethrow_exception(error_);
      queue_.push_back(std::move(block_));
    }
    changed_.notify_all();
    block_ = {};
    block_.words.reserve(block_steps_ * pool_.words_per_step());
  }

  void write_blocks() {
    while (std::optional<PendingBlock> block = next_block()) {
      try {
        if (!block->infos.empty() || !block->tasks.empty()) file_->write(*block);
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
  const uint64_t block_steps_;
  PendingBlock block_;
  std::mutex mutex_;  // of what follows, up to error_
  std::condition_variable changed_;
  std::deque<PendingBlock> queue_;
  bool stopping_ = false;
  std::exception_ptr error_;
  std::unique_ptr<ShardFile> file_;  // the thread's, until it has ended
  std::thread thread_;
};

uint64_t default_block_steps(const NeuronPool& pool) {
  const uint64_t step_bytes = uint64_t{pool.layer_count} * pool.bytes_per_layer();
  return std::clamp<uint64_t>(kBlockBytes / step_bytes, 4, kBlockStepsMax);
}

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
                                          uint32_t rank, const ShardOptions& options) {
  TC_CHECK(rank < header.pools.size(), "a pool for every rank");
  TC_CHECK(header.activation_thresholds.size() == header.shape.layer_count,
           "an activation threshold for every layer");
  validate(header.shape, path);
  validate_pools(header, path);
  if (rank == 0) remove_older(path);
  remove_older(shard_path(path, rank));
  remove_older(partial_path(path, rank));
  const uint64_t block_steps =
      options.flush_steps > 0 ? options.flush_steps : default_block_steps(header.pools[rank]);
  return std::make_unique<Writer>(partial_path(path, rank), shard_path(path, rank), header, rank,
                                  block_steps, options.gzip_level);
}

}  // namespace thermocline
