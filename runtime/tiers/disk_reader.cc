#include "runtime/tiers/disk_reader.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/random_access_file.hpp>
#include <boost/asio/thread_pool.hpp>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <deque>
#include <list>
#include <mutex>
#include <thread>

#include "models/error.h"

namespace thermocline {
namespace {

namespace asio = boost::asio;

constexpr int kReadThreads = 32;  // of the engine that has nothing but pread

// Past the page cache; where the file system cannot (tmpfs), through it.
int open_file(const std::string& path, bool direct) {
  int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | (direct ? O_DIRECT : 0));
  if (file < 0 && direct && errno == EINVAL) file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) throw work_failed(path + ": cannot be opened: " + std::strerror(errno));
  return file;
}

// Reads that ended, handed from the threads of an engine to the owner.
class Ended {
 public:
  Ended(std::string path, double patience)
      : path_(std::move(path)), patience_(std::chrono::duration<double>(patience)) {}

  void add_started(size_t count) {
    const std::lock_guard lock(mutex_);
    under_way_ += count;
  }
  void add(uint64_t tag) {
    const std::lock_guard lock(mutex_);
    --under_way_;
    tags_.push_back(tag);
    changed_.notify_one();
  }
  void fail(const DiskRead& read, const std::string& why) {
    const std::lock_guard lock(mutex_);
    --under_way_;
    if (failure_.empty()) {
      failure_ =
          fmt::format("{}: {} bytes at {} cannot be read: {}", path_, read.bytes, read.offset, why);
    }
    changed_.notify_one();
  }
  std::vector<uint64_t> take(bool wait) {
    std::unique_lock lock(mutex_);
    const auto some = [this] { return !tags_.empty() || !failure_.empty() || under_way_ == 0; };
    double waited = 0;
    while (wait && !changed_.wait_for(lock, patience_, some)) {
      waited += patience_.count();
      fmt::print(stderr, "{}: no read has ended for {:.3g} s, {} are under way; waiting on\n",
                 path_, waited, under_way_);
    }
    if (!failure_.empty()) throw work_failed(failure_);
    return std::move(tags_);
  }
  void wait_for_all() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return under_way_ == 0; });
  }

 private:
  const std::string path_;
  const std::chrono::duration<double> patience_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<uint64_t> tags_;
  size_t under_way_ = 0;
  std::string failure_;
};

// What is left of a read of which `bytes` came.
DiskRead rest_of(const DiskRead& read, uint64_t bytes) {
  return {read.offset + bytes, read.bytes - bytes, read.to + bytes, read.tag};
}

// Asio has one read of a file object under way at a time: there are as many objects as the disk
// shall see reads.
class UringReader final : public DiskReader {
 public:
  UringReader(const std::string& path, bool direct, double patience)
      : ended_(path, patience), work_(context_.get_executor()) {
    for (int i = 0; i < kDepth; ++i) {
      files_.emplace_back(context_, open_file(path, direct));
      idle_.push_back(&files_.back());
    }
    thread_ = std::thread([this] { context_.run(); });
  }
  ~UringReader() override {
    ended_.wait_for_all();
    work_.reset();
    thread_.join();
  }

  const char* name() const override { return "io_uring"; }
  void start(const std::vector<DiskRead>& reads) override {
    ended_.add_started(reads.size());
    asio::post(context_, [this, reads] {
      queue_.insert(queue_.end(), reads.begin(), reads.end());
      while (!idle_.empty() && !queue_.empty()) {
        asio::random_access_file* file = idle_.back();
        idle_.pop_back();
        next(*file);
      }
    });
  }
  std::vector<uint64_t> finished() override { return ended_.take(false); }
  std::vector<uint64_t> wait() override { return ended_.take(true); }

 private:
  static constexpr int kDepth = 64;

  // The rest is the context's thread's.
  void next(asio::random_access_file& file) {
    if (queue_.empty()) return idle_.push_back(&file);
    const DiskRead read = queue_.front();
    queue_.pop_front();
    run(file, read);
  }
  void run(asio::random_access_file& file, const DiskRead& read) {
    file.async_read_some_at(
        read.offset, asio::buffer(read.to, read.bytes),
        [this, &file, read](const boost::system::error_code& error, size_t bytes) {
          if (!error && bytes > 0 && bytes < read.bytes) return run(file, rest_of(read, bytes));
          next(file);
          if (error == asio::error::eof || (!error && bytes == 0)) {
            ended_.fail(read, "the file ends before");
          } else if (error) {
            ended_.fail(read, error.message());
          } else {
            ended_.add(read.tag);
          }
        });
  }

  Ended ended_;
  asio::io_context context_{1};
  asio::executor_work_guard<asio::io_context::executor_type> work_;
  std::list<asio::random_access_file> files_;
  std::vector<asio::random_access_file*> idle_;
  std::deque<DiskRead> queue_;
  std::thread thread_;
};

class ThreadsReader final : public DiskReader {
 public:
  ThreadsReader(const std::string& path, bool direct, double patience)
      : ended_(path, patience), file_(open_file(path, direct)) {}
  ~ThreadsReader() override {
    threads_.join();
    ::close(file_);
  }

  const char* name() const override { return "threads"; }
  void start(const std::vector<DiskRead>& reads) override {
    ended_.add_started(reads.size());
    for (const DiskRead& read : reads) asio::post(threads_, [this, read] { run(read); });
  }
  std::vector<uint64_t> finished() override { return ended_.take(false); }
  std::vector<uint64_t> wait() override { return ended_.take(true); }

 private:
  void run(DiskRead read) {
    while (read.bytes > 0) {
      const ssize_t got = ::pread(file_, read.to, read.bytes, static_cast<off_t>(read.offset));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return ended_.fail(read, std::strerror(errno));
      if (got == 0) return ended_.fail(read, "the file ends before");
      read = rest_of(read, static_cast<uint64_t>(got));
    }
    ended_.add(read.tag);
  }

  Ended ended_;
  int file_;
  asio::thread_pool threads_{kReadThreads};
};

}  // namespace

std::unique_ptr<DiskReader> open_disk_reader(const std::string& path, const std::string& engine,
                                             bool direct, double patience) {
  if (engine == "threads") return std::make_unique<ThreadsReader>(path, direct, patience);
  if (engine != "auto" && engine != "io_uring") {
    throw bad_usage(engine + ": expected auto, io_uring or threads");
  }
  try {
    return std::make_unique<UringReader>(path, direct, patience);
  } catch (const boost::system::system_error& error) {
    if (engine == "auto") return std::make_unique<ThreadsReader>(path, direct, patience);
    throw work_failed(std::string("io_uring cannot be used here: ") + error.what());
  }
}

uint64_t direct_alignment(const std::string& path) {
  constexpr uint64_t kSector = 512, kPage = 4096;
  const int file = open_file(path, true);
  alignas(kPage) std::byte room[kSector];
  const bool takes_sectors = ::pread(file, room, kSector, kSector) >= 0;
  ::close(file);
  return takes_sectors ? kSector : kPage;
}

}  // namespace thermocline
