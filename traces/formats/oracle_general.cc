#include "traces/formats/oracle_general.h"

#include <fmt/format.h>

#include <bit>
#include <cstring>
#include <limits>
#include <numeric>
#include <optional>

#include "models/error.h"
#include "models/new_file.h"
#include "models/units.h"

namespace thermocline {
namespace {

static_assert(std::endian::native == std::endian::little, "records are written as in memory");

constexpr int64_t kNever = -1;
// A step without any active neuron has no record. A file may hold so many of them, and one more for
// each record; a clock that runs faster does not count steps.
constexpr uint64_t kEmptyStepsMax = 4096;
constexpr uint64_t kReleasedRecords = uint64_t{1} << 20;

struct Record {
  uint32_t clock_time;
  uint64_t obj_id;
  uint32_t obj_size;
  int64_t next_access_vtime;
};

template <class T>
T field(const std::byte* record, size_t offset) {
  T value;
  std::memcpy(&value, record + offset, sizeof value);
  return value;
}

Record decoded(const std::byte* bytes) {
  return {field<uint32_t>(bytes, 0), field<uint64_t>(bytes, 4), field<uint32_t>(bytes, 12),
          field<int64_t>(bytes, 16)};
}

void encode(const Record& record, char* bytes) {
  std::memcpy(bytes, &record.clock_time, 4);
  std::memcpy(bytes + 4, &record.obj_id, 8);
  std::memcpy(bytes + 12, &record.obj_size, 4);
  std::memcpy(bytes + 16, &record.next_access_vtime, 8);
}

// Writes blocks and steps from the last to the first, each at its place.
class BackwardWriter {
 public:
  BackwardWriter(const Selection& selection, const std::string& path, const ExportOptions& options)
      : selection_(selection),
        options_(options),
        bundle_bytes_(static_cast<uint32_t>(selection.trace().header().bundle_bytes())),
        next_(selection.pool().total(), kNever) {
    count_records();
    options.sized(file_bytes());
    require_room(path, file_bytes());
    file_.emplace(path);
  }

  uint64_t file_bytes() const { return block_records_.back() * kOracleRecordBytes; }

  void write() {
    for (size_t block = selection_.block_count(); block-- > 0;) {
      stop_if_interrupted();
      write_block(block);
      options_.progress(selection_.step_count() - selection_.block_begin(block));
    }
    file_->finish();
  }

 private:
  // block_records_[i]: records before block i.
  void count_records() {
    block_records_ = {0};
    for (size_t block = 0; block < selection_.block_count(); ++block) {
      const std::vector<uint32_t> counts = selection_.popcounts(block);
      block_records_.push_back(
          std::accumulate(counts.begin(), counts.end(), block_records_.back()));
    }
  }

  void write_block(size_t block) {
    selection_.read(block, bits_);
    uint64_t end = block_records_[block + 1];
    for (uint64_t i = bits_.step_count; i-- > 0;) {
      const uint64_t begin = end - count_of(bits_.step(i));
      write_step(i, begin);
      end = begin;
    }
    TC_CHECK(end == block_records_[block], "as many bits as the popcounts say");
  }

  static uint64_t count_of(const ActiveStep& step) { return ActiveSet{step.words}.count(); }

  // A neuron comes once in a step, so within it any order will do.
  void write_step(uint64_t i, uint64_t begin) {
    bytes_.clear();
    Record record = {static_cast<uint32_t>(bits_.step_begin + i), 0, bundle_bytes_, 0};
    int64_t number = static_cast<int64_t>(begin);
    for_each_bit(selection_.pool(), bits_.step(i).words, [&](uint32_t flat) {
      record.obj_id = uint64_t{flat} + 1;
      record.next_access_vtime = next_[flat];
      next_[flat] = ++number;
      bytes_.resize(bytes_.size() + kOracleRecordBytes);
      encode(record, bytes_.data() + bytes_.size() - kOracleRecordBytes);
    });
    file_->write_at(begin * kOracleRecordBytes, bytes_);
  }

  const Selection& selection_;
  const ExportOptions& options_;
  uint32_t bundle_bytes_;
  std::vector<int64_t> next_;  // (layer, neuron): number of the record after, from 1
  std::vector<uint64_t> block_records_;
  std::optional<NewFile> file_;
  StepBlock bits_;
  std::string bytes_;  // of one step
};

ExportResult write_oracle_general(const Selection& selection, const std::string& path,
                                  const ExportOptions& options) {
  if (options.by_task) throw bad_usage("oracle-general: --by-task is for counts");
  BackwardWriter writer(selection, path, options);
  writer.write();
  ExportResult result = {writer.file_bytes(), left_out(selection.trace())};
  result.notes.emplace_back(
      "left out: tokens, positions, tasks, phases; last steps without firings");
  result.notes.emplace_back("obj_id is 1 + layer * ffn_dim + neuron, layers from 0");
  return result;
}

// Follows what each record promises of the next one of its object.
class Promises {
 public:
  Promises(uint64_t object_count, uint64_t record_count, const std::string& path)
      : promised_(object_count, kUnseen), record_count_(record_count), path_(path) {}

  void check(uint64_t index, uint64_t object, int64_t next) {
    const int64_t promised = promised_[object];
    const auto here = static_cast<int64_t>(index);
    if (promised == kNever) fail(index, "no record of an object that is not accessed again", "one");
    if (promised != kUnseen) {
      if (base_ < 0) base_ = promised - here;
      if (base_ != 0 && base_ != 1) base_ = 1;
      if (promised != here + base_) {
        fail(index, fmt::format("this object in record {}, as next_access_vtime says", promised),
             fmt::format("it in record {}", here + base_));
      }
    }
    const bool never = next == kNever || next == std::numeric_limits<int64_t>::max();
    const bool later = next > here && static_cast<uint64_t>(next) <= record_count_;
    if (!never && !later) {
      fail(index,
           fmt::format("a next_access_vtime of -1 or from {} to {}", here + 1, record_count_),
           fmt::format("{}", next));
    }
    promised_[object] = never ? kNever : next;
  }

  void finish() const {
    for (const int64_t promised : promised_) {
      if (promised < 0) continue;
      throw bad_input(path_, fmt::format("an access in record {}, as promised", promised),
                      fmt::format("none in {} records", record_count_));
    }
  }

 private:
  static constexpr int64_t kUnseen = -2;

  [[noreturn]] void fail(uint64_t index, const std::string& expected,
                         const std::string& found) const {
    throw bad_input(fmt::format("{}: record {} (from 0)", path_, index), expected, found);
  }

  std::vector<int64_t> promised_;
  uint64_t record_count_;
  const std::string& path_;
  int64_t base_ = -1;  // what the first record is called: 0 or 1; -1: not known yet
};

class OracleRecords final : public TraceSource {
 public:
  OracleRecords(const MappedFile& file, std::string path, const ImportOptions& options)
      : file_(file), path_(std::move(path)), bundle_bytes_(options.bundle_bytes) {
    if (options.layer_count == 0 || options.ffn_dim == 0) {
      throw bad_usage(
          "oracle-general does not say how many layers and neurons a model has: give "
          "--model, --like or --shape layers=N,ffn_dim=N,...");
    }
    record_count_ = file.bytes.size() / kOracleRecordBytes;
    if (file.bytes.empty() || file.bytes.size() % kOracleRecordBytes != 0) {
      throw bad_input(path_, "records of 24 bytes", fmt::format("{} bytes", file.bytes.size()));
    }
    facts_.layer_count = options.layer_count;
    facts_.ffn_dim = options.ffn_dim;
    // Everything is checked once before anything is written.
    walk([this](const StepInfo&, std::span<const uint64_t>) { ++facts_.step_count; },
         options.scanned);
    facts_.tasks = bare_task(facts_.step_count);
    facts_.hash = hash_of({file}, options);
  }

  void read(const StepVisit& visit) const override { walk(visit, {}); }

 private:
  using Scanned = std::function<void(uint64_t done, uint64_t total)>;

  void walk(const StepVisit& visit, const Scanned& scanned) const {
    const NeuronPool pool = this->pool();
    Promises promises(pool.total(), record_count_, path_);
    std::vector<uint64_t> words(pool.words_per_step());
    uint64_t step = 0;
    for (uint64_t i = 0; i < record_count_; ++i) {
      const Record record = decoded(file_.bytes.data() + i * kOracleRecordBytes);
      check(record, i, step);
      for (; step < record.clock_time; ++step) {
        visit(bare_step(step), words);
        std::fill(words.begin(), words.end(), 0);
      }
      set_bit(words, record, i);
      promises.check(i, record.obj_id - 1, record.next_access_vtime);
      if ((i + 1) % kReleasedRecords == 0) release_before(i + 1, scanned);
    }
    visit(bare_step(step), words);
    promises.finish();
  }

  void check(const Record& record, uint64_t index, uint64_t step) const {
    if (record.clock_time < step) {
      fail(index, fmt::format("a clock_time from {}", step), record.clock_time);
    }
    if (record.clock_time > kEmptyStepsMax + 2 * index) {
      fail(index, "a clock_time that counts steps from 0", record.clock_time);
    }
    if (record.obj_id == 0 || record.obj_id > pool().total()) {
      fail(index, fmt::format("an obj_id from 1 to {}, a neuron", pool().total()), record.obj_id);
    }
    if (bundle_bytes_ != 0 && record.obj_size != bundle_bytes_) {
      fail(index, fmt::format("an obj_size of {}, a bundle's bytes", bundle_bytes_),
           record.obj_size);
    }
  }

  void set_bit(std::vector<uint64_t>& words, const Record& record, uint64_t index) const {
    const uint64_t flat = record.obj_id - 1;
    const uint64_t layer = flat / facts_.ffn_dim, neuron = flat % facts_.ffn_dim;
    uint64_t& word = words[layer * pool().words_per_layer() + neuron / 64];
    const uint64_t bit = uint64_t{1} << (neuron % 64);
    if ((word & bit) != 0) fail(index, "each object once in a step, found again", record.obj_id);
    word |= bit;
  }

  void release_before(uint64_t record, const Scanned& scanned) const {
    stop_if_interrupted();
    if (scanned) scanned(record * kOracleRecordBytes, file_.bytes.size());
    const uint64_t bytes = kReleasedRecords * kOracleRecordBytes;
    release(file_, file_.bytes.subspan(record * kOracleRecordBytes - bytes, bytes));
  }

  [[noreturn]] void fail(uint64_t index, const std::string& expected, uint64_t found) const {
    throw bad_input(fmt::format("{}: record {} (from 0)", path_, index), expected,
                    fmt::format("{}", found));
  }

  MappedFile file_;
  std::string path_;
  uint64_t bundle_bytes_, record_count_ = 0;
};

std::unique_ptr<TraceSource> open_oracle_general(const std::string& path,
                                                 const ImportOptions& options) {
  return parse_oracle_records(map_file(path), path, options);
}

}  // namespace

std::unique_ptr<TraceSource> parse_oracle_records(const MappedFile& file, const std::string& path,
                                                  const ImportOptions& options) {
  return std::make_unique<OracleRecords>(file, path, options);
}

THERMOCLINE_TRACE_FORMAT(oracle_general,
                         "libCacheSim's oracleGeneral: a record for each active neuron",
                         Carries::accesses, write_oracle_general, open_oracle_general,
                         ".oracleGeneral", ".oracleGeneral.bin");

}  // namespace thermocline
