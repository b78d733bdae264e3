// Tiers: what is read is what was written, budgets hold, and no hot set changes a result.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <chrono>
#include <cstring>
#include <fstream>
#include <random>
#include <thread>

#include "models/cli.h"
#include "models/error.h"
#include "runtime/tiers/bundle_store.h"
#include "tests/runtime/hot_sets.h"
#include "tests/runtime/local_run.h"
#include "tests/runtime/random_weights.h"
#include "tests/runtime/tier_runs.h"
#include "tests/support.h"

namespace thermocline::test {
namespace {

constexpr uint64_t kSector = 512;

std::unique_ptr<Backend> cpu(int threads = 1) {
  return backends().by_name("cpu").make({threads, RankOnHost{}, 0});
}

// Byte i of bundle n of layer l.
std::byte byte_of(uint32_t layer, uint32_t neuron, uint64_t i) {
  return static_cast<std::byte>(31 * layer + 7 * neuron + 3 * i + neuron * i / 64);
}

// A file of bundles of `bytes` in each layer: 1300, which direct reads pad to 1536, for example.
std::unique_ptr<BundleFile> make_file(const std::string& path, const NeuronPool& pool,
                                      const std::vector<uint64_t>& bytes) {
  auto file = std::make_unique<BundleFile>(path, lay_out_bundles(bytes, pool.neuron_count, kSector),
                                           "test");
  for (uint32_t layer = 0; layer < pool.layer_count && !file->is_made(); ++layer)
    for (uint32_t n = 0; n < pool.neuron_count; ++n) {
      std::vector<std::byte> bundle(file->layout().strides[layer]);
      for (uint64_t i = 0; i < bundle.size(); ++i) bundle[i] = byte_of(layer, n, i);
      file->write(layer, n, bundle);
    }
  file->finish();
  return file;
}

// A guess at what 150 neurons need that is right for three of four.
std::vector<uint64_t> mostly(std::vector<uint64_t> needed, std::mt19937_64& random) {
  for (uint64_t& word : needed) word ^= random() & random();
  needed.back() &= (uint64_t{1} << 150 % 64) - 1;
  return needed;
}

const char* const kEngines[] = {"io_uring", "threads"};

// The engines that can be used here.
std::vector<std::string> engines(const std::string& path) {
  std::vector<std::string> found;
  for (const char* engine : kEngines) {
    try {
      open_disk_reader(path, engine);
      found.emplace_back(engine);
    } catch (const Error& error) {
      WARN("skipped: " << error.what());
    }
  }
  return found;
}

}  // namespace

TEST_CASE("reads bring what lies in the file, and say where they fail", "[tiers]") {
  const TempDir dir;
  const NeuronPool pool{0, 2, 0, 64};
  const auto file = make_file(dir / "bundles", pool, {1300, 1300});
  CHECK_THROWS_AS(open_disk_reader(dir / "nothing", "auto"), Error);
  CHECK_THROWS_AS(open_disk_reader(file->path(), "telepathy"), Error);
  for (const std::string& engine : engines(file->path())) {
    INFO(engine);
    const auto reader = open_disk_reader(file->path(), engine);
    CHECK(reader->name() == engine);
    CHECK(reader->wait().empty());  // nothing is under way
    const auto memory = cpu()->allocate(128 * 1536);
    std::vector<DiskRead> reads;
    for (uint32_t i = 0; i < 128; ++i)
      reads.push_back({file->layout().at(i % 2, i / 2), 1536, memory.get() + i * 1536, i});
    reader->start(reads);
    std::vector<int> seen(128);
    for (size_t count = 0; count < 128;) {
      for (const uint64_t tag : reader->wait()) {
        ++seen[tag];
        ++count;
      }
    }
    CHECK(seen == std::vector<int>(128, 1));
    bool same = true;
    for (uint32_t i = 0; i < 128; ++i)
      for (uint64_t b = 0; b < 1536; ++b)
        same &= memory.get()[i * 1536 + b] == byte_of(i % 2, i / 2, b);
    CHECK(same);
    reader->start({{file->layout().file_bytes, 1536, memory.get(), 0}});
    CHECK_THROWS_WITH(reader->wait(), Catch::Contains("bundles") && Catch::Contains("ends before"));
  }
}

// What a pipe's reader gets when somebody writes, an engine gets from a disk that hangs for a
// while.
TEST_CASE("a disk that answers nothing is named, and waited for", "[tiers]") {
  const TempDir dir;
  const std::string pipe = dir / "pipe";
  REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
  const int writer = ::open(pipe.c_str(), O_RDWR | O_CLOEXEC);
  REQUIRE(writer >= 0);
  std::unique_ptr<DiskReader> reader;
  try {
    reader = open_disk_reader(pipe, "io_uring", false, 0.05);
  } catch (const Error& error) {
    WARN("skipped: " << error.what());
    ::close(writer);
    return;
  }
  const std::string text = dir / "stderr";
  const int log = ::open(text.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
  const int before = ::dup(STDERR_FILENO);
  std::byte room[8] = {};
  reader->start({{0, 8, room, 7}});
  std::thread answer([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    CHECK(::write(writer, "answered", 8) == 8);
  });
  ::dup2(log, STDERR_FILENO);
  const std::vector<uint64_t> tags = reader->wait();
  ::dup2(before, STDERR_FILENO);
  answer.join();
  for (const int file : {before, log, writer}) ::close(file);
  CHECK(tags == std::vector<uint64_t>{7});
  CHECK(std::memcmp(room, "answered", 8) == 0);
  CHECK_THAT(read_file(text), Catch::Contains("pipe: no read has ended for 0.05 s, 1 are under"));
}

TEST_CASE("a bundle file is made once, and anew where it is of something else", "[tiers]") {
  const TempDir dir;
  const NeuronPool pool{0, 1, 0, 40};
  const std::string path = dir / "bundles";
  const auto layout = lay_out_bundles(std::vector<uint64_t>{900}, 40, kSector);
  CHECK(layout.strides[0] == 1024);
  CHECK(layout.file_bytes == 4096 + 40 * 1024);
  CHECK(layout.is_direct());
  const auto small = lay_out_bundles(std::vector<uint64_t>{900, 144}, 40, kSector);
  CHECK_FALSE(small.is_direct());  // 144 bytes would take 512
  CHECK(small.strides == std::vector<uint64_t>{912, 144});
  make_file(path, pool, {900});
  CHECK(BundleFile(path, layout, "test").is_made());
  CHECK_FALSE(std::filesystem::exists(path + ".tmp"));
  SECTION("another model") {
    CHECK_FALSE(BundleFile(path, layout, "test of another").is_made());
    CHECK_FALSE(std::filesystem::exists(path));  // gone, and nothing unfinished took its name
    CHECK_FALSE(std::filesystem::exists(path + ".tmp"));
  }
  SECTION("cut short") {
    std::filesystem::resize_file(path, layout.file_bytes - 1);
    CHECK_FALSE(BundleFile(path, layout, "test").is_made());
  }
  SECTION("a damaged first block") {
    std::fstream(path, std::ios::in | std::ios::out | std::ios::binary).seekp(3).put('x');
    CHECK_FALSE(BundleFile(path, layout, "test").is_made());
  }
  SECTION("no room") {
    auto huge = layout;
    huge.file_bytes = uint64_t{1} << 60;
    CHECK_THROWS_WITH(BundleFile(path, huge, "test"), Catch::Contains("of which the disk has"));
  }
  SECTION("no folder") {
    CHECK_THROWS_AS(BundleFile(dir / "none/bundles", layout, "test"), Error);
    CHECK_THROWS_WITH(alignment_in(dir / "none"), Catch::Contains("no file can be made there"));
  }
}

TEST_CASE("whatever is hot, a layer gets the bundles that it needs", "[tiers]") {
  const TempDir dir;
  const NeuronPool pool{3, 4, 16, 150};
  std::mt19937_64 random(5);
  const std::vector<uint64_t> bytes = GENERATE(std::vector<uint64_t>{1300, 1300, 1300, 1300},
                                               std::vector<uint64_t>{512, 9000, 600, 700});
  const auto file = make_file(dir / "bundles", pool, bytes);
  const auto backend = cpu();
  const bool ahead = GENERATE(false, true);
  for (const std::string& engine : engines(file->path()))
    for (const uint64_t budget : {0, 1, 200, 600, 5000}) {
      INFO(engine << ", budget " << budget << (ahead ? ", with reads ahead" : ""));
      BundleStore store(*backend, pool, *file, budget, engine);
      CHECK(store.hot_bytes() == std::min<uint64_t>(budget, 600) * file->layout().stride_max());
      HotSet hot = random_hot(pool, std::min<uint64_t>(budget, 600), random);
      store.set_hot(&hot);
      bool right = true, counted = true;
      uint64_t needed_count = 0;
      for (int step = 0; step < 40; ++step) {
        store.begin_pass();
        if (step % 3 == 0) store.wait_for_moves();
        for (uint32_t layer = 0; layer < 4; ++layer) {
          std::vector<uint64_t> needed(pool.words_per_layer());
          for (uint32_t n = 0; n < 150; ++n)
            needed[n / 64] |= uint64_t{random() % 100 < (step % 5 == 0 ? 95u : 20u)} << n % 64;
          if (ahead) store.read_ahead(layer, mostly(needed, random));
          store.request(layer, needed);
          if (step % 3 == 0)  // all of the hot set had come
            for (uint32_t n = 0; n < 150; ++n) {
              const bool here = (store.here()[n / 64] >> n % 64 & 1) != 0;
              const bool hot_here =
                  (needed[n / 64] >> n % 64 & 1) != 0 && hot.contains(layer * 150 + n);
              counted &= ahead ? here || !hot_here : here == hot_here;
            }
          store.wait();
          const WeightView view = store.view(layer, DType::f32, 25, 100);
          for (uint32_t n = 0; n < 150; ++n) {
            if ((needed[n / 64] >> n % 64 & 1) == 0) continue;
            ++needed_count;
            const std::byte* row = view.row(static_cast<int>(n));
            for (uint64_t b = 0; b < 100; ++b) right &= row[b] == byte_of(layer, n, 100 + b);
          }
          store.release();
        }
        hot = step % 7 == 6 ? random_hot(pool, hot.count(), random) : changed(hot, random);
      }
      CHECK(right);
      CHECK(counted);
      const TierCounters& counters = store.counters();
      CHECK(counters.needed == needed_count);
      CHECK((budget > 0 || counters.here == 0));
      CHECK((budget < 600 || counters.read_count == 0 || counters.moved_count > 0));
      const uint64_t place_max = ahead ? 150 + 150 / 4 : 150;
      CHECK(store.staging_bytes() <= place_max * file->layout().stride_max());
      CHECK((counters.ahead_count > 0) == (ahead && budget < 600));
      CHECK(counters.ahead_used <= counters.ahead_count);
      CHECK((budget > 1 || !ahead || counters.ahead_used > 0));
      CHECK(counters.ahead_bytes <= counters.read_bytes);
    }
}

TEST_CASE("the budget is what memory really holds", "[tiers]") {
  const TempDir dir;
  const NeuronPool pool{0, 2, 0, 8192};
  const auto file = std::make_unique<BundleFile>(
      dir / "bundles", lay_out_bundles(std::vector<uint64_t>{8192, 8192}, 8192, kSector), "test");
  const std::vector<std::byte> bundles(uint64_t{8192} << 13, std::byte{1});
  for (uint32_t layer = 0; layer < 2; ++layer) file->write(layer, 0, bundles);
  file->finish();
  const auto backend = cpu();
  const uint64_t before = resident_bytes();
  BundleStore store(*backend, pool, *file, 4096);  // a quarter of 128 MiB
  std::mt19937_64 random(2);
  std::vector<uint64_t> some(pool.words_per_layer());
  for (int step = 0; step < 12; ++step) {
    const HotSet hot = random_hot(pool, 4096, random);
    store.follow(hot.words());
    for (uint32_t layer = 0; layer < 2; ++layer) {
      for (uint64_t& word : some) word = random() & random() & random();
      store.request(layer, some);
      store.wait();
      store.release();
    }
  }
  store.wait_for_moves();
  const uint64_t held = resident_bytes() - before, budget = store.hot_bytes();
  INFO("held " << held << ", budget " << budget << ", staged " << store.staging_bytes());
  CHECK(budget == uint64_t{32} << 20);
  CHECK(held >= budget);
  CHECK(held <= budget + store.staging_bytes() + resident_slack(budget));
}

TEST_CASE("tiers change no logit, whatever moves", "[tiers][long]") {
  const TempDir dir;
  const auto activation = GENERATE(FfnActivation::relu, FfnActivation::silu);
  const ModelShape shape = small_shape(activation);
  for (const DType dtype : {DType::f32, DType::q4_0}) {
    const RandomWeights source(shape, dtype);
    for (const char* layout : {"pp1,tp1", "pp1,tp2"}) {
      INFO(facts(dtype).name << " " << layout);
      LocalRunOptions options;
      options.layout = layout;
      options.threads = 2;
      options.batch = 2;
      options.tasks = {{0, 0, {1, 5, 9, 20, 33}, {4, 8, 15, 16, 23}, 0},
                       {1, 1, {1, 7, 7, 2}, {3, 1, 4, 1, 5, 9, 2, 6}, 0},
                       {2, 2, {1, 2}, {}, 12}};
      const LocalRunResult whole = run_locally(source, options);
      for (const uint64_t percent : {0, 30, 100}) {
        INFO("budget " << percent << " %");
        const uint64_t bundle = bundle_bytes(shape, bundle_types(source));
        options.tiers = {dir / "", bundle * shape.neuron_count() * percent / 100,
                         source.hash() + std::string(facts(dtype).name) + layout[6], bundle};
        std::vector<Mover*> movers(2);
        options.observer = [&](const Partition& partition, uint32_t rank) {
          auto mover = std::make_unique<Mover>();
          const NeuronPool pool = partition.ranks[rank].pool();
          mover->count = pool.total() * percent / 100;
          mover->hot = HotSet(pool);
          movers[rank] = mover.get();
          return mover;
        };
        options.hot = [&](uint32_t rank) { return &movers[rank]->hot; };
        for (const char* lookahead : {"exact", "sign:threshold=0.48"}) {
          options.lookahead = lookahead;
          const LocalRunResult tiered = run_locally(source, options);
          CHECK(tiered.logits == whole.logits);
          CHECK(tiered.active == whole.active);
          CHECK(tiered.tiers[0].needed > 0);
          if (percent == 0) CHECK(tiered.tiers[0].here == 0);
          const bool reads_ahead = std::string(lookahead) != "exact";
          CHECK((tiered.tiers[0].ahead_used > 0) == reads_ahead);  // nothing is hot at first
        }
        options.lookahead = "exact";
      }
    }
  }
}

}  // namespace thermocline::test
