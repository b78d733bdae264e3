// Times the CUDA operations on LLaMA-70B's shapes and prints GB/s beside what the device copies.
//
//   cuda_bench [CSV]     appends its rows to CSV
//
// Weights are read from memory, not from the L2: passes go through a buffer of several GiB. Every
// figure is the mean of passes that are queued together, after one that is not timed.
#include <chrono>
#include <cstdio>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "models/error.h"
#include "runtime/backend.h"
#include "runtime/kernels/cuda.h"

using namespace thermocline;

namespace {

constexpr uint64_t kBufferBytes = uint64_t{4} << 30;
constexpr double kSecondsPerRow = 0.2;
constexpr int kDim = 8192, kNeurons = 28672, kHeads = 64, kKvHeads = 8, kHeadDim = 128;
constexpr int kKvDim = kKvHeads * kHeadDim, kPositions = 2048, kRowsMax = 64;
constexpr DType kTuned[] = {DType::f16,  DType::bf16, DType::q8_0,
                            DType::q4_0, DType::q4_k, DType::q6_k};

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

struct Bench {
  Backend& on;
  std::FILE* csv;
  // Small numbers in every format: an f16 scale or a bf16 exponent below one.
  std::shared_ptr<std::byte> weights = on.allocate(kBufferBytes);
  std::shared_ptr<std::byte> x = floats(uint64_t{kRowsMax} * kNeurons);
  std::shared_ptr<std::byte> y = floats(uint64_t{kRowsMax} * kNeurons);
  std::shared_ptr<std::byte> hidden = floats(uint64_t{kRowsMax} * kNeurons);
  std::shared_ptr<std::byte> q = floats(uint64_t{kRowsMax} * kDim);
  std::shared_ptr<std::byte> k = floats(uint64_t{kRowsMax} * kKvDim);
  std::shared_ptr<std::byte> v = floats(uint64_t{kRowsMax} * kKvDim);
  std::shared_ptr<std::byte> cache = floats(uint64_t{2} * kKvDim * kPositions);
  std::shared_ptr<std::byte> norm = floats(kDim);
  std::shared_ptr<std::byte> active = on.allocate(uint64_t{kRowsMax} * kNeurons / 8);
  std::shared_ptr<std::byte> mask = on.allocate(uint64_t{kRowsMax} * kNeurons / 8);
  std::shared_ptr<std::byte> frequencies = on.allocate(sizeof(double) * kHeadDim / 2);
  double limit = 0;  // bytes a second that a copy reads and writes

  std::shared_ptr<std::byte> floats(uint64_t count) { return on.allocate(count * sizeof(float)); }
  static float* of(const std::shared_ptr<std::byte>& memory) {
    return reinterpret_cast<float*>(memory.get());
  }

  void fill() {
    std::vector<std::byte> part(uint64_t{64} << 20);
    for (uint64_t i = 0; i < part.size(); ++i)
      part[i] = i % 2 == 1 ? std::byte{0x2c} : static_cast<std::byte>(i * 2654435761u >> 13);
    for (uint64_t at = 0; at < kBufferBytes; at += part.size())
      on.upload(weights.get() + at, part.data(), part.size());
    const std::vector<float> halves(uint64_t{kRowsMax} * kDim, 0.5f);
    on.upload(x.get(), halves.data(), halves.size() * sizeof(float));
  }

  // The mean of the passes that fit the time; work(pass).
  double mean_seconds(const std::function<void(int)>& work) {
    work(0);
    on.wait();
    int passes = 4;
    for (int done = 1;; done += passes, passes *= 4) {
      const auto begin = std::chrono::steady_clock::now();
      for (int i = 0; i < passes; ++i) work(done + i);
      on.wait();
      const double took = seconds_since(begin);
      if (took > kSecondsPerRow) return took / passes;
    }
  }

  void print(const std::string& name, const std::string& type, int tokens, double bytes,
             double seconds) {
    std::printf("%-30s %-5s %3d tokens %8.1f MB %9.4f ms %7.1f GB/s %4.0f %%\n", name.c_str(),
                type.c_str(), tokens, bytes / 1e6, seconds * 1e3, bytes / seconds / 1e9,
                100 * bytes / seconds / limit);
    if (csv != nullptr)
      std::fprintf(csv, "%s,%s,%d,%.0f,%.6f,%.3f,%.3f\n", name.c_str(), type.c_str(), tokens, bytes,
                   seconds * 1e3, bytes / seconds / 1e9, bytes / seconds / limit);
  }

  // Copies half of the buffer onto the other half: what is read and what is written count.
  void copy() {
    constexpr uint64_t kHalf = kBufferBytes / 2;
    CudaStream stream = nullptr;
    const auto check = [](CudaError error) {
      if (error != nullptr) throw work_failed(std::string("copy: ") + error);
    };
    check(cuda_stream_create(&stream));
    const double seconds = mean_seconds([&](int) {
      check(cuda_copy(weights.get() + kHalf, weights.get(), kHalf, stream));
      check(cuda_stream_wait(stream));
    });
    check(cuda_stream_destroy(stream));
    limit = 2 * kHalf / seconds;
    print("copy", "", 1, 2.0 * kHalf, seconds);
  }

  // Matrix `index` of those that the buffer holds, with rows of `bundle` rows' bytes.
  WeightView matrix(DType type, int rows, int cols, uint64_t index, int part = 0, int bundle = 1) {
    const uint64_t row = bytes_of(type, static_cast<uint64_t>(cols)), stride = row * bundle;
    const uint64_t bytes = stride * static_cast<uint64_t>(rows);
    return {type, rows, cols, stride,
            weights.get() + index % (kBufferBytes / bytes) * bytes + row * part};
  }

  static std::string name_of_type(DType type) { return std::string(facts(type).name); }

  void dense(DType type, int rows, int tokens) {
    const double seconds = mean_seconds([&](int pass) {
      const Product product[] = {{matrix(type, rows, kDim, pass), of(y)}};
      on.multiply(product, of(x), tokens);
    });
    print("multiply " + std::to_string(rows) + "x" + std::to_string(kDim), name_of_type(type),
          tokens, static_cast<double>(bytes_of(type, uint64_t{kDim} * rows)), seconds);
  }

  // Sets `share` percent of the bits of every token; returns how many rows any token needs.
  int set_mask(int percent, int tokens) {
    std::vector<uint64_t> words(static_cast<size_t>(tokens) * kNeurons / 64);
    uint64_t state = 1;
    for (uint64_t& word : words)
      for (int bit = 0; bit < 64; ++bit) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        word |= static_cast<uint64_t>(static_cast<int>((state >> 40) % 100) < percent) << bit;
      }
    on.upload(mask.get(), words.data(), words.size() * sizeof(uint64_t));
    int any = 0;
    for (int n = 0; n < kNeurons; ++n) {
      bool needed = false;
      for (int t = 0; t < tokens; ++t)
        needed |= (words[static_cast<size_t>(t) * kNeurons / 64 + n / 64] >> n % 64 & 1) != 0;
      any += needed;
    }
    return any;
  }

  NeuronMask mask_words() const {
    return {reinterpret_cast<const uint64_t*>(mask.get()), kNeurons / 64};
  }

  // Every candidate is active: gate and up are read for them alone.
  void gate_and_up(DType type, uint64_t pass, const NeuronMask& candidates) {
    on.gate_and_up({matrix(type, kNeurons, kDim, pass, 0, 3),
                    matrix(type, kNeurons, kDim, pass, 1, 3), FfnActivation::fatrelu, -1e30f,
                    candidates, of(x), of(hidden), reinterpret_cast<uint64_t*>(active.get()),
                    kNeurons / 64, nullptr});
  }

  void begin(int tokens) {
    std::vector<TokenRow> rows;
    for (int t = 0; t < tokens; ++t)
      rows.push_back({t, static_cast<uint32_t>(kPositions / 2 + t), 0});
    on.begin(rows);
  }

  void sparse(DType type, int percent, int tokens) {
    begin(tokens);
    const double rows = set_mask(percent, tokens);
    const double bytes = rows * static_cast<double>(bytes_of(type, kDim));
    const std::string share = " " + std::to_string(percent) + " %";
    double seconds = mean_seconds([&](int pass) { gate_and_up(type, pass, mask_words()); });
    print("gate_and_up" + share, name_of_type(type), tokens, 2 * bytes, seconds);
    seconds = mean_seconds([&](int pass) {
      on.sum_rows(matrix(type, kNeurons, kDim, pass, 2, 3), mask_words(), of(hidden), of(y));
    });
    print("sum_rows" + share, name_of_type(type), tokens, bytes, seconds);
  }

  // A layer at position 1024, with bundles of the chosen neurons alone.
  void queue_layer(DType type, uint64_t pass, int tokens, const NeuronMask& chosen) {
    const uint64_t residual = uint64_t{kDim} * static_cast<uint64_t>(tokens);
    on.rms_norm(of(x), of(norm), kDim, 1e-5f, tokens, of(y));
    const Product qkv[] = {{matrix(type, kDim, kDim, pass), of(q)},
                           {matrix(type, kKvDim, kDim, pass + 1), of(k)},
                           {matrix(type, kKvDim, kDim, pass + 2), of(v)}};
    on.multiply(qkv, of(x), tokens);
    const uint64_t head_stride = uint64_t{kPositions} * kHeadDim;
    const KvView kv{of(cache), of(cache) + kKvHeads * head_stride, 0, head_stride, kPositions};
    on.attend({of(q), of(k), of(v), kv, kHeads, kKvHeads, kHeadDim,
               reinterpret_cast<const double*>(frequencies.get()), of(y)});
    const Product output[] = {{matrix(type, kDim, kDim, pass + 7), of(q)}};
    on.multiply(output, of(x), tokens);
    on.add(of(y), of(q), residual);
    on.rms_norm(of(x), of(norm), kDim, 1e-5f, tokens, of(y));
    gate_and_up(type, pass, chosen);
    on.sum_rows(matrix(type, kNeurons, kDim, pass, 2, 3), chosen, of(hidden), of(q));
    on.add(of(y), of(q), residual);
  }

  void layer(DType type, int percent, int tokens) {
    begin(tokens);
    const uint64_t neurons = static_cast<uint64_t>(set_mask(percent, tokens));
    constexpr int kGraphs = 4;  // of other weights each
    const double seconds = mean_seconds([&](int pass) {
      const uint64_t which = static_cast<uint64_t>(pass % kGraphs);
      const uint64_t key = which + kGraphs * static_cast<uint64_t>(percent);
      on.run_queued(key, [&] { queue_layer(type, which, tokens, mask_words()); });
    });
    const uint64_t rows = 2 * (kDim + kKvDim) + 3 * neurons;
    const uint64_t cached = uint64_t{2} * kKvDim * (kPositions / 2 + 1) * sizeof(float);
    print("layer, " + std::to_string(percent) + " % of neurons", name_of_type(type), tokens,
          static_cast<double>(bytes_of(type, rows * kDim) + cached), seconds);
  }
};

void run(Backend& on, std::FILE* csv) {
  Bench bench{on, csv};
  bench.fill();
  bench.copy();
  for (const DType type : kTuned) {
    bench.dense(type, kDim, 1);
    bench.dense(type, kNeurons, 1);
    for (const int percent : {18, 28}) bench.sparse(type, percent, 1);
  }
  for (const DType type : {DType::f16, DType::q4_0})
    for (const int tokens : {4, 8, 64}) {
      bench.dense(type, kNeurons, tokens);
      bench.sparse(type, 18, tokens);
    }
  for (const int tokens : {1, 64})
    for (const int percent : {18, 100}) bench.layer(DType::q4_0, percent, tokens);
}

}  // namespace

int main(int argc, char** argv) {
  const BackendEntry* cuda = backends().by_name_or_null("cuda");
  const std::string reason = cuda == nullptr ? "built without CUDA" : cuda->unusable();
  if (!reason.empty()) {
    std::printf("no GPU can be used: %s\n", reason.c_str());
    return 0;
  }
  std::FILE* csv = argc > 1 ? std::fopen(argv[1], "a") : nullptr;
  if (argc > 1 && csv == nullptr) {
    std::fprintf(stderr, "cannot append to %s\n", argv[1]);
    return 1;
  }
  if (csv != nullptr && std::ftell(csv) == 0)
    std::fprintf(csv, "name,dtype,tokens,bytes,ms,gb_per_s,share_of_copy\n");
  const auto backend = cuda->make({});
  std::printf("%s\n", backend->describe().c_str());
  run(*backend, csv);
  if (csv != nullptr && std::fclose(csv) != 0) return 1;
  return 0;
}
