// The FFN of Q4_0 layers of LLaMA-70B on two backends at once: hot neurons on a device, cold ones
// on the host.
//
//   side_by_side_bench [BACKEND [LAYERS [HOT% [ACTIVE% [TOKENS [CSV]]]]]]      auto, 2, 50, 18, 1
//
// device, host: a layer's hot part and its cold part, each alone. both: the two as a run has them
// (runtime/side_by_side.h), beside the larger of the two alone plus the merge: what a run reaches
// that leaves neither waiting is 1.00; one after the other would be `in turn`. With BACKEND cpu
// both parts are on the cores, one after the other. move: hot bundles changed for others while
// nothing else runs. Appends its row to CSV.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "models/error.h"
#include "runtime/node_facts.h"
#include "runtime/side_by_side.h"

using namespace thermocline;

namespace {

constexpr uint32_t kNeurons = 28672;
constexpr int kDim = 8192;
constexpr int kWarmPasses = 2, kPasses = 10;

struct Setting {
  std::string backend = "auto";
  uint32_t layers = 2;
  double hot_percent = 50, active_percent = 18;
  int tokens = 1;
};

double seconds_of(const std::function<void()>& work) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point begin = Clock::now();
  work();
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// A Q4_0 row of the file format: random codes, scales of 2^-7.
void fill_row(std::mt19937_64& random, std::vector<std::byte>& row) {
  constexpr size_t kBlockBytes = 18;
  constexpr uint16_t kScale = 0x2000;
  for (size_t at = 0; at < row.size(); at += kBlockBytes) {
    const uint64_t codes[] = {random(), random()};
    std::memcpy(row.data() + at, &kScale, sizeof kScale);
    std::memcpy(row.data() + at + sizeof kScale, codes, sizeof codes);
  }
}

// All bundles of the layers, in host memory.
class Bundles {
 public:
  Bundles(Backend& host, uint32_t layers) {
    const uint64_t row_bytes = bytes_of(DType::q4_0, kDim), stride = 3 * row_bytes;
    for (uint32_t layer = 0; layer < layers; ++layer) {
      memory_.push_back(host.allocate(kNeurons * stride));
      BundleRows of_layer;
      for (size_t i = 0; i < 3; ++i)
        of_layer[i] = {DType::q4_0, kNeurons, kDim, stride, memory_.back().get() + i * row_bytes};
      host.run_on_host(kNeurons, [&](int begin, int end) {
        std::mt19937_64 random(layer * kNeurons + static_cast<uint32_t>(begin));
        std::vector<std::byte> row(row_bytes);
        for (int n = begin; n < end; ++n)
          for (const WeightView& w : of_layer) {
            fill_row(random, row);
            host.place_rows(w, n, n + 1, row.data());
          }
      });
      rows_.push_back(of_layer);
    }
  }
  const std::vector<BundleRows>& rows() const { return rows_; }

 private:
  std::vector<std::shared_ptr<std::byte>> memory_;
  std::vector<BundleRows> rows_;
};

HotSet random_hot(const NeuronPool& pool, uint64_t count, std::mt19937_64& random) {
  HotSet hot(pool);
  while (hot.count() < count) hot.insert(static_cast<uint32_t>(random() % pool.total()));
  return hot;
}

class Bench {
 public:
  Bench(Backend& device, Backend& host, const Setting& setting)
      : device_(device),
        host_(host),
        setting_(setting),
        pool_{0, setting.layers, 0, kNeurons},
        bundles_(host, setting.layers),
        hot_max_(
            static_cast<uint64_t>(setting.hot_percent / 100 * static_cast<double>(pool_.total()))),
        tier_(device, host, pool_, std::make_unique<WholeBundles>(bundles_.rows()), hot_max_),
        parts_(device, tier_, pool_, kDim, setting.tokens) {
    for (int t = 0; t < setting.tokens; ++t) rows_.push_back({0, static_cast<uint32_t>(t), 0});
    const auto tokens = static_cast<uint64_t>(setting.tokens);
    input_.resize(tokens * kDim);
    std::normal_distribution<float> normal;
    for (float& value : input_) value = normal(random_);
    x_ = device.allocate(input_.size() * sizeof(float));
    device.upload(x_.get(), input_.data(), input_.size() * sizeof(float));
    hidden_ = device.allocate(tokens * kNeurons * sizeof(float));
    active_ = device.allocate(tokens * pool_.words_per_step() * sizeof(uint64_t));
    partial_ = device.allocate(input_.size() * sizeof(float));
    cold_hidden_.resize(tokens * kNeurons);
    cold_active_.resize(tokens * pool_.words_per_step());
    cold_sum_.resize(input_.size());
    place_threshold();
  }

  void run(std::FILE* csv) {
    tier_.follow(random_hot(pool_, hot_max_, random_).words());
    tier_.wait_for_moves();
    tier_.begin_pass();
    const double device = per_layer([&] { device_alone(); });
    const double host = per_layer([&] { host_alone(); });
    both();  // warms up
    const SideBySideTimes before = parts_.times();
    const double both_ms = per_layer([&] { both(); });
    const double layers = setting_.layers * (kPasses + kWarmPasses);
    const double merge =
        static_cast<double>(parts_.times().merge_ns - before.merge_ns) * 1e-6 / layers;
    const double least = std::max(device, host) + merge;
    std::printf(
        "device  %8.3f ms a layer, %llu bundles in %.0f MiB\nhost    %8.3f ms\nmerge   %8.3f ms\n"
        "both    %8.3f ms: %.2f of the larger plus the merge; in turn %.2f\n",
        device, static_cast<unsigned long long>(hot_max_),
        static_cast<double>(tier_.size().total()) * 0x1p-20, host, merge, both_ms, both_ms / least,
        (device + host + merge) / least);
    std::printf("        by the run's own marks %.2f\n", parts_.times().both_over_larger());
    move();
    if (csv == nullptr) return;
    std::fprintf(csv, "\"%s\",%u,%.1f,%.1f,%d,%.4f,%.4f,%.4f,%.4f,%.3f\n",
                 device_.describe().c_str(), setting_.layers, setting_.hot_percent,
                 setting_.active_percent, setting_.tokens, device, host, merge, both_ms,
                 both_ms / least);
  }

 private:
  GateUpCall call(uint32_t layer) const {
    return {{},
            {},
            FfnActivation::fatrelu,
            threshold_,
            {},
            reinterpret_cast<const float*>(x_.get()),
            reinterpret_cast<float*>(hidden_.get()),
            reinterpret_cast<uint64_t*>(active_.get()) + size_t{layer} * pool_.words_per_layer(),
            pool_.words_per_step(),
            nullptr};
  }

  // So that the wanted share of the neurons is active: from the gates of the first layer.
  void place_threshold() {
    host_.begin(rows_);
    std::vector<float> magnitudes(cold_hidden_.size());
    const auto& rows = bundles_.rows()[0];
    host_.gate_and_up({rows[kGateRow],
                       rows[kUpRow],
                       FfnActivation::relu,
                       0,
                       {},
                       input_.data(),
                       cold_hidden_.data(),
                       cold_active_.data(),
                       pool_.words_per_step(),
                       magnitudes.data()});
    const auto active = static_cast<std::ptrdiff_t>(setting_.active_percent / 100 *
                                                    static_cast<double>(magnitudes.size()));
    std::nth_element(magnitudes.begin(), magnitudes.begin() + active, magnitudes.end(),
                     std::greater<>());
    threshold_ = magnitudes[static_cast<size_t>(active)];
  }

  double per_layer(const std::function<void()>& pass) const {
    for (int i = 0; i < kWarmPasses; ++i) pass();
    const double seconds = seconds_of([&] {
      for (int i = 0; i < kPasses; ++i) pass();
    });
    return seconds * 1e3 / kPasses / setting_.layers;
  }

  void device_alone() {
    device_.begin(rows_);
    for (uint32_t layer = 0; layer < setting_.layers; ++layer) {
      GateUpCall hot = call(layer);
      hot.gate = tier_.device_rows(layer, kGateRow);
      hot.up = tier_.device_rows(layer, kUpRow);
      hot.candidates = {tier_.hot_on_device(layer), 0};
      device_.gate_and_up(hot);
      device_.sum_rows(tier_.device_rows(layer, kDownRow), {hot.active, hot.active_stride},
                       hot.hidden, reinterpret_cast<float*>(partial_.get()));
    }
    device_.wait();
  }

  void host_alone() {
    host_.begin(rows_);
    for (uint32_t layer = 0; layer < setting_.layers; ++layer) {
      GateUpCall cold = call(layer);
      cold.gate = tier_.host_rows(layer, kGateRow);
      cold.up = tier_.host_rows(layer, kUpRow);
      cold.candidates = {tier_.cold(layer).data(), 0};
      cold.x = input_.data();
      cold.hidden = cold_hidden_.data();
      cold.active = cold_active_.data() + size_t{layer} * pool_.words_per_layer();
      host_.gate_and_up(cold);
      host_.sum_rows(tier_.host_rows(layer, kDownRow), {cold.active, cold.active_stride},
                     cold.hidden, cold_sum_.data());
    }
  }

  void both() {
    device_.begin(rows_);
    parts_.begin(rows_);
    for (uint32_t layer = 0; layer < setting_.layers; ++layer)
      parts_.ffn(layer, call(layer), reinterpret_cast<float*>(partial_.get()));
    std::vector<uint64_t> words(rows_.size() * pool_.words_per_step());
    device_.download(words.data(), active_.get(), words.size() * sizeof(uint64_t));
    parts_.end(words);
  }

  void move() {
    const uint64_t before = tier_.counters().moved_bytes;
    const HotSet other = random_hot(pool_, hot_max_, random_);
    const double seconds = seconds_of([&] {
      tier_.follow(other.words());
      tier_.wait_for_moves();
    });
    const double moved = static_cast<double>(tier_.counters().moved_bytes - before);
    std::printf("move    %8.3f GB/s, %.0f MiB\n", moved / seconds * 1e-9, moved * 0x1p-20);
  }

  Backend& device_;
  Backend& host_;
  Setting setting_;
  NeuronPool pool_;
  std::mt19937_64 random_{3};
  Bundles bundles_;
  uint64_t hot_max_;
  DeviceTier tier_;
  SideBySide parts_;
  std::vector<TokenRow> rows_;
  std::shared_ptr<std::byte> x_, hidden_, active_, partial_;
  std::vector<float> input_, cold_hidden_, cold_sum_;
  std::vector<uint64_t> cold_active_;
  float threshold_ = 0;
};

void bench(const Setting& setting, const std::string& csv_path) {
  const BackendEntry& entry = choose_backend(setting.backend);
  const BackendOptions options{static_cast<int>(cores_of_process(1)), RankOnHost{}, 0};
  const auto host = backends().by_name("cpu").make(options);
  const auto device = entry.make(entry.name == "cpu" ? options : BackendOptions{});
  std::printf("%s (%s) and cpu (%s): %u layers, %.0f %% hot, %.0f %% active, %d tokens\n",
              entry.name.c_str(), device->describe().c_str(), host->describe().c_str(),
              setting.layers, setting.hot_percent, setting.active_percent, setting.tokens);
  std::FILE* csv = csv_path.empty() ? nullptr : std::fopen(csv_path.c_str(), "a");
  if (csv == nullptr && !csv_path.empty()) throw work_failed(csv_path + ": cannot be written");
  Bench(*device, *host, setting).run(csv);
  if (csv != nullptr) std::fclose(csv);
}

}  // namespace

int main(int argc, char** argv) {
  const auto number = [&](int i, double otherwise) {
    return argc > i ? std::atof(argv[i]) : otherwise;
  };
  Setting setting;
  if (argc > 1) setting.backend = argv[1];
  const double layers = number(2, setting.layers), tokens = number(5, setting.tokens);
  setting.hot_percent = number(3, setting.hot_percent);
  setting.active_percent = number(4, setting.active_percent);
  if (layers < 1 || layers > 80 || setting.hot_percent < 0 || setting.hot_percent > 100 ||
      setting.active_percent <= 0 || setting.active_percent > 45 || tokens < 1 || tokens > 64) {
    std::fprintf(
        stderr,
        "usage: side_by_side_bench [BACKEND [LAYERS [HOT%% [ACTIVE%% [TOKENS [CSV]]]]]]: 1 "
        "to 80 layers, at most 45 %% active, 1 to 64 tokens\n");
    return 2;
  }
  setting.layers = static_cast<uint32_t>(layers);
  setting.tokens = static_cast<int>(tokens);
  try {
    bench(setting, argc > 6 ? argv[6] : "");
  } catch (const Error& error) {
    std::fprintf(stderr, "side_by_side_bench: %s\n", error.what());
    return 1;
  }
  return 0;
}
