// The disk tier beside its limits: up and down rows of Q4_0 layers of LLaMA-70B in a file.
//
//   tier_bench FOLDER [LAYERS [ACTIVE% [HOT% [LIMIT_MIB]]]]     8 layers, 18 %, 50 %, no limit
//
// raw: threads that read single bundles at random from the same file. tier: what BundleStore reads
//   for a random set of active neurons whose share is not hot, without computing; then with up and
//   down of a token, one layer after the other. mapped: the same arithmetic on the file as mmap
//   shows it. LIMIT_MIB: of this process, page cache included, by a memory cgroup of its own
//   (root); without one, the mapped file is in the page cache once it was read.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "models/error.h"
#include "models/quantize.h"
#include "runtime/node_facts.h"
#include "runtime/tiers/bundle_store.h"

using namespace thermocline;

namespace {

using Clock = std::chrono::steady_clock;

constexpr uint32_t kNeurons = 28672;
constexpr int kDim = 8192;
constexpr int kRawThreads = 64;
constexpr double kRawSeconds = 3;
constexpr int kSteps = 6;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

uint64_t row_bytes() { return bytes_of(DType::q4_0, kDim); }

// A cgroup of this process' own inside of its present one; removed by the last line of main.
class MemoryLimit {
 public:
  explicit MemoryLimit(uint64_t bytes) {
    if (bytes == 0) return;
    std::string root = "/sys/fs/cgroup", file = "memory.max";
    std::ifstream groups("/proc/self/cgroup");
    for (std::string line; std::getline(groups, line);) {
      const size_t path = line.find(':', line.find(':') + 1) + 1;
      if (line.find(":memory:") != std::string::npos) {  // version 1
        home_ = root + "/memory" + line.substr(path);
        file = "memory.limit_in_bytes";
        break;
      }
      if (line.starts_with("0::")) home_ = root + line.substr(path);
    }
    group_ = home_ + "/tier_bench_" + std::to_string(::getpid());
    std::error_code error;
    std::filesystem::create_directory(group_, error);
    if (error) throw work_failed(group_ + ": no cgroup can be made: " + error.message());
    put(group_ + "/" + file, std::to_string(bytes));
    put(group_ + "/cgroup.procs", std::to_string(::getpid()));
  }
  ~MemoryLimit() {
    if (group_.empty()) return;
    put(home_ + "/cgroup.procs", std::to_string(::getpid()));
    std::error_code ignored;
    std::filesystem::remove(group_, ignored);
  }

 private:
  static void put(const std::string& path, const std::string& text) {
    std::ofstream out(path);
    out << text << std::flush;
    if (!out) std::fprintf(stderr, "%s: cannot be written\n", path.c_str());
  }
  std::string home_, group_;
};

// Random codes, scales of 2^-7.
void fill_bundles(std::vector<std::byte>& bundles, std::mt19937_64& random) {
  for (size_t i = 0; i + 8 <= bundles.size(); i += 8) {
    const uint64_t word = random();
    std::memcpy(bundles.data() + i, &word, 8);
  }
  const uint16_t scale = 0x2000;
  const size_t codes = kDim / 2;
  for (size_t row = 0; row + row_bytes() <= bundles.size(); row += row_bytes())
    for (size_t at = codes; at < row_bytes(); at += 2)
      std::memcpy(bundles.data() + row + at, &scale, 2);
}

std::unique_ptr<BundleFile> make_file(const std::string& folder, uint32_t layers) {
  const std::vector<uint64_t> bytes(layers, 2 * row_bytes());
  auto file = std::make_unique<BundleFile>(folder + "/tier_bench.bundles",
                                           lay_out_bundles(bytes, kNeurons, alignment_in(folder)),
                                           "tier_bench");
  std::mt19937_64 random(1);
  constexpr uint32_t kAtOnce = 1024;
  for (uint32_t layer = 0; layer < layers && !file->is_made(); ++layer)
    for (uint32_t n = 0; n < kNeurons; n += kAtOnce) {
      std::vector<std::byte> bundles(kAtOnce * file->layout().strides[layer]);
      fill_bundles(bundles, random);
      file->write(layer, n, bundles);
    }
  file->finish();
  return file;
}

// Bytes a second of bundles at random, kRawThreads at a time.
double raw_rate(const BundleFile& file) {
  const BundleLayout& layout = file.layout();
  const uint64_t bytes = layout.strides[0];
  std::atomic<uint64_t> total{0};
  std::vector<std::thread> threads;
  const Clock::time_point begin = Clock::now();
  for (int t = 0; t < kRawThreads; ++t)
    threads.emplace_back([&, t] {
      const int fd = ::open(file.path().c_str(), O_RDONLY | O_DIRECT);
      auto* room = static_cast<std::byte*>(std::aligned_alloc(4096, (bytes + 4095) / 4096 * 4096));
      std::mt19937_64 random(static_cast<uint64_t>(t));
      while (fd >= 0 && seconds_since(begin) < kRawSeconds) {
        const auto layer = static_cast<uint32_t>(random() % layout.strides.size());
        const auto neuron = static_cast<uint32_t>(random() % kNeurons);
        const auto at = static_cast<off_t>(layout.at(layer, neuron));
        if (::pread(fd, room, bytes, at) != static_cast<ssize_t>(bytes)) break;
        total += bytes;
      }
      std::free(room);
      ::close(fd);
    });
  for (std::thread& thread : threads) thread.join();
  return static_cast<double>(total) / seconds_since(begin);
}

std::vector<uint64_t> random_words(double percent, std::mt19937_64& random) {
  std::vector<uint64_t> words(kNeurons / 64);
  for (uint32_t n = 0; n < kNeurons; ++n)
    words[n / 64] |= uint64_t{(random() >> 11) * 0x1p-53 * 100 < percent} << n % 64;
  return words;
}

// One token's up and down rows on a backend.
class Arithmetic {
 public:
  explicit Arithmetic(Backend& backend)
      : backend_(backend), x_(kDim, 0.5f), hidden_(kNeurons, 1.0f), y_(kDim) {
    backend_.begin(rows_);
  }
  void up(const WeightView& w, std::span<const uint64_t> words) {
    backend_.scale_by_rows(w, {words.data(), 0}, x_.data(), hidden_.data());
  }
  void down(const WeightView& w, std::span<const uint64_t> words) {
    backend_.sum_rows(w, {words.data(), 0}, hidden_.data(), y_.data());
    std::fill(hidden_.begin(), hidden_.end(), 1.0f);
    sum_ += y_[0];
  }
  double sum() const { return sum_; }

 private:
  Backend& backend_;
  std::vector<TokenRow> rows_{1};
  std::vector<float> x_, hidden_, y_;
  double sum_ = 0;
};

struct Timing {
  double seconds = 0, sum = 0;
};

// compute(layer, words) for kSteps passes over the layers; drawing the words is not timed.
template <class Compute>
double seconds_of(uint32_t layers, double active, Compute compute) {
  std::mt19937_64 random(7);
  double seconds = 0;
  for (uint32_t i = 0; i < kSteps * layers; ++i) {
    const auto words = random_words(active, random);
    const Clock::time_point begin = Clock::now();
    compute(i % layers, words);
    seconds += seconds_since(begin);
  }
  return seconds;
}

Timing run_tier(BundleStore& store, Arithmetic* arithmetic, uint32_t layers, double active) {
  const double seconds = seconds_of(layers, active, [&](uint32_t layer, const auto& words) {
    store.request(layer, words);
    const WeightView up = store.view(layer, DType::q4_0, kDim, 0);
    if (arithmetic != nullptr) arithmetic->up(up, store.here());
    store.wait();
    if (arithmetic != nullptr) {
      arithmetic->up(up, store.coming());
      arithmetic->down(store.view(layer, DType::q4_0, kDim, row_bytes()), words);
    }
    store.release();
  });
  return {seconds, arithmetic == nullptr ? 0 : arithmetic->sum()};
}

Timing run_mapped(const BundleFile& file, Arithmetic& arithmetic, uint32_t layers, double active) {
  const BundleLayout& layout = file.layout();
  const int fd = ::open(file.path().c_str(), O_RDONLY);
  void* map = ::mmap(nullptr, layout.file_bytes, PROT_READ, MAP_SHARED, fd, 0);
  if (map == MAP_FAILED) throw work_failed(file.path() + ": cannot be mapped");
  const double seconds = seconds_of(layers, active, [&](uint32_t layer, const auto& words) {
    const auto view = [&](uint64_t offset) {
      return WeightView{DType::q4_0, static_cast<int>(kNeurons), kDim, layout.strides[layer],
                        static_cast<const std::byte*>(map) + layout.offsets[layer] + offset};
    };
    arithmetic.up(view(0), words);
    arithmetic.down(view(row_bytes()), words);
  });
  ::munmap(map, layout.file_bytes);
  ::close(fd);
  return {seconds, arithmetic.sum()};
}

void bench(const std::string& folder, uint32_t layers, double active, double hot_percent,
           const char* engine) {
  const auto backend =
      backends().by_name("cpu").make({static_cast<int>(cores_of_process(1)), RankOnHost{}, 0});
  const auto file = make_file(folder, layers);
  std::printf("%s: %u layers of %u bundles of %llu bytes, %.0f %% active, %.0f %% hot\n",
              file->path().c_str(), layers, kNeurons,
              static_cast<unsigned long long>(file->layout().strides[0]), active, hot_percent);
  const double raw = raw_rate(*file);
  std::printf("raw     %7.3f GB/s, %d reads of a bundle at a time\n", raw * 1e-9, kRawThreads);

  const NeuronPool pool{0, layers, 0, kNeurons};
  HotSet hot(pool);
  std::mt19937_64 random(3);
  const auto hot_max = static_cast<uint64_t>(hot_percent / 100 * static_cast<double>(pool.total()));
  while (hot.count() < hot_max) hot.insert(static_cast<uint32_t>(random() % pool.total()));
  BundleStore store(*backend, pool, *file, hot_max, engine);
  store.follow(hot.words());
  store.wait_for_moves();

  const double layer_count = kSteps * layers;
  const TierCounters before = store.counters();
  const double reading = run_tier(store, nullptr, layers, active).seconds;
  const TierCounters& after = store.counters();
  const auto missed =
      static_cast<double>((after.needed - after.here) - (before.needed - before.here));
  const double useful = missed * static_cast<double>(file->layout().strides[0]) / reading;
  const double read = static_cast<double>(after.read_bytes - before.read_bytes) / reading;
  std::printf(
      "tier    %7.3f GB/s of what was missing (%.0f %% of raw), %.3f GB/s with gaps; %.1f ms "
      "a layer, %s\n",
      useful * 1e-9, 100 * useful / raw, read * 1e-9, 1e3 * reading / layer_count, store.engine());
  Arithmetic of_tier(*backend), of_map(*backend);
  const Timing tier = run_tier(store, &of_tier, layers, active);
  const Timing mapped = run_mapped(*file, of_map, layers, active);
  std::printf("layer   %7.1f ms in tiers, %.1f ms mapped: %.2fx; results %s\n",
              1e3 * tier.seconds / layer_count, 1e3 * mapped.seconds / layer_count,
              mapped.seconds / tier.seconds, tier.sum == mapped.sum ? "equal" : "DIFFER");
  std::printf("memory  %.0f MiB for hot bundles, %.0f MiB staged at most, %.0f MiB peak RSS\n",
              static_cast<double>(store.hot_bytes()) * 0x1p-20,
              static_cast<double>(store.staging_bytes()) * 0x1p-20,
              static_cast<double>(peak_rss_bytes()) * 0x1p-20);
}

}  // namespace

int main(int argc, char** argv) {
  const auto number = [&](int i, double otherwise) {
    return argc > i ? std::atof(argv[i]) : otherwise;
  };
  const double layers = number(2, 8), active = number(3, 18), hot = number(4, 50);
  if (argc < 2 || layers < 1 || layers > 80 || active <= 0 || active > 100 || hot < 0 ||
      hot > 100) {
    std::fprintf(stderr,
                 "usage: tier_bench FOLDER [LAYERS [ACTIVE%% [HOT%% [LIMIT_MIB [ENGINE]]]]]\n");
    return 2;
  }
  try {
    const MemoryLimit limit(static_cast<uint64_t>(number(5, 0) * 0x1p20));
    bench(argv[1], static_cast<uint32_t>(layers), active, hot, argc > 6 ? argv[6] : "auto");
  } catch (const Error& error) {
    std::fprintf(stderr, "tier_bench: %s\n", error.what());
    return 1;
  }
  return 0;
}
