#include "models/tensor_stream.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>

#include "models/cli.h"
#include "models/error.h"

namespace thermocline {
namespace {

constexpr uint64_t kChunkBytes = uint64_t{4} << 20;
// Of bundles: a transposition then reads whole cache lines and whole blocks of neurons.
constexpr uint64_t kBundleRowMultiple = 256;
constexpr uint64_t kPageBytes = 4096, kSectorBytes = 512;
constexpr uint64_t kPagePaddingPercentMax = 5;
constexpr auto kPause = std::chrono::milliseconds(100);  // between looks at progress and signals

struct Chunk {
  const OutputTensor* tensor;
  uint64_t row_begin, row_end;
};

std::vector<Chunk> chunks_of(const std::vector<OutputTensor>& tensors) {
  std::vector<Chunk> chunks;
  for (const OutputTensor& tensor : tensors) {
    const uint64_t unit = std::max<uint64_t>(1, tensor.row_multiple * tensor.row_bytes);
    const uint64_t rows = std::max<uint64_t>(1, kChunkBytes / unit) * tensor.row_multiple;
    for (uint64_t begin = 0; begin < tensor.rows; begin += rows) {
      chunks.push_back({&tensor, begin, std::min(begin + rows, tensor.rows)});
    }
  }
  return chunks;
}

// Threads take chunks in order, make them side by side, and write each when its turn comes.
class Stream {
 public:
  Stream(GgufOutput& output, const std::vector<OutputTensor>& tensors)
      : output_(output), chunks_(chunks_of(tensors)) {}

  void run(uint32_t thread_count, const std::function<void(uint64_t)>& progress) {
    if (interrupted()) throw interruption();
    std::vector<std::thread> threads;
    for (uint32_t i = 0; i < thread_count; ++i) threads.emplace_back([this] { work(); });
    watch(progress);
    for (std::thread& thread : threads) thread.join();
    if (failure_) std::rethrow_exception(failure_);
    if (progress) progress(bytes_written_);
  }

 private:
  Error interruption() const {
    return work_failed(output_.path() +
                       ": interrupted, so nothing was written; the same command begins anew");
  }

  void work() {
    std::vector<std::byte> buffer;
    for (;;) {
      std::unique_lock lock(mutex_);
      if (failure_ || taken_ == chunks_.size()) return;
      const size_t mine = taken_++;
      lock.unlock();
      try {
        make(chunks_[mine], buffer);
        lock.lock();
        changed_.wait(lock, [&] { return failure_ || turn_ == mine; });
        if (failure_) return;
        lock.unlock();  // nobody else has the turn
        output_.append(buffer);
        lock.lock();
        bytes_written_ += buffer.size();
        ++turn_;
      } catch (...) {
        if (!lock.owns_lock()) lock.lock();
        // The earliest chunk's failure is the one that a single thread would meet.
        if (!failure_ || mine < failed_) {
          failure_ = std::current_exception();
          failed_ = mine;
        }
      }
      changed_.notify_all();
    }
  }

  static void make(const Chunk& chunk, std::vector<std::byte>& buffer) {
    const uint64_t row_bytes = chunk.tensor->row_bytes;
    buffer.assign((chunk.row_end - chunk.row_begin) * row_bytes, std::byte{});
    chunk.tensor->fill(chunk.row_begin, chunk.row_end, buffer.data(), row_bytes);
  }

  // Until all is written or something failed: progress, signals, and finished tensors.
  void watch(const std::function<void(uint64_t)>& progress) {
    size_t seen = 0;  // chunks whose tensors were told
    std::unique_lock lock(mutex_);
    while (!failure_ && turn_ < chunks_.size()) {
      changed_.wait_for(lock, kPause);
      const size_t turn = turn_;
      const uint64_t bytes = bytes_written_;
      if (interrupted() && !failure_) {
        failure_ = std::make_exception_ptr(interruption());
        failed_ = 0;
      }
      lock.unlock();
      changed_.notify_all();
      tell_done(seen, turn);
      if (progress) progress(bytes);
      lock.lock();
    }
    const size_t turn = turn_;
    lock.unlock();
    tell_done(seen, turn);
  }

  void tell_done(size_t& seen, size_t turn) const {
    for (; seen < turn; ++seen) {
      const Chunk& chunk = chunks_[seen];
      if (chunk.row_end == chunk.tensor->rows && chunk.tensor->done) chunk.tensor->done();
    }
  }

  GgufOutput& output_;
  const std::vector<Chunk> chunks_;
  std::mutex mutex_;
  std::condition_variable changed_;
  size_t taken_ = 0;            // chunks that a thread has taken
  size_t turn_ = 0;             // the chunk to be written next
  uint64_t bytes_written_ = 0;  // of data
  std::exception_ptr failure_;
  size_t failed_ = 0;  // the chunk whose failure that is
};

}  // namespace

OutputTensor plain_tensor(const std::string& name, RowSource source) {
  std::vector<uint64_t> dimensions = {source.cols};
  if (source.rows > 1) dimensions.push_back(source.rows);
  return {name,        facts(source.dtype).ggml_id,         std::move(dimensions),
          source.rows, bytes_of(source.dtype, source.cols), std::move(source.fill)};
}

OutputTensor bundle_tensor(const std::string& name, RowSource gate, RowSource up, RowSource down_t,
                           uint64_t stride) {
  const uint64_t rows = gate.rows;
  const auto parts = std::make_shared<const std::vector<RowSource>>(
      std::vector<RowSource>{std::move(gate), std::move(up), std::move(down_t)});
  const auto fill = [parts](uint64_t begin, uint64_t end, std::byte* out, uint64_t out_stride) {
    for (const RowSource& part : *parts) {
      part.fill(begin, end, out, out_stride);
      out += bytes_of(part.dtype, part.cols);
    }
  };
  return {name, kGgmlI8, {stride, rows}, rows, stride, fill, kBundleRowMultiple};
}

uint64_t bundle_stride(uint64_t bundle_bytes) {
  const auto padded = [bundle_bytes](uint64_t unit) {
    return (bundle_bytes + unit - 1) / unit * unit;
  };
  const uint64_t pages = padded(kPageBytes);
  const bool cheap = (pages - bundle_bytes) * 100 < bundle_bytes * kPagePaddingPercentMax;
  return cheap ? pages : padded(kSectorBytes);
}

void stream_tensors(GgufOutput& output, const std::vector<OutputTensor>& tensors,
                    uint32_t thread_count, const std::function<void(uint64_t)>& progress) {
  for (const OutputTensor& tensor : tensors) {
    output.add_tensor(tensor.name, tensor.ggml_type, tensor.dimensions, tensor.byte_count());
  }
  output.begin();
  Stream(output, tensors).run(std::max(1u, thread_count), progress);
}

}  // namespace thermocline
