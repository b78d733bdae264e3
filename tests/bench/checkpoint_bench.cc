// Times what checkpoints cost: opening a 70B header, reading tensors against dd from the same disk
// and the same (cold) cache, converting f32 to q4_0.
//
//   checkpoint_bench [FOLDER [THREADS]]     writes up to 3 GB into FOLDER (default /tmp), removed
//   at
//                                           the end
//
// Limits: 100 ms to open; 90 % of dd; 1 GB/s of f32 a core.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <thread>
#include <vector>

#include "models/cli.h"
#include "models/convert.h"
#include "models/gguf_writer.h"
#include "models/model_spec.h"
#include "models/tensor_stream.h"
#include "models/weights.h"
#include "tests/file_bytes.h"

using namespace thermocline;

namespace {

constexpr int kPasses = 5;

double seconds_of(const std::function<void()>& work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// Of LLaMA-2-70B in q4_0: 723 tensors and 32,000 tokens, data of zeros that take no blocks.
void write_70b_header(const std::string& path) {
  const ModelShape shape = shape_preset("llama-2-70b").shape;
  test::GgufFile file;
  test::set_shape(file, shape);
  test::Bytes pieces, scores;
  pieces.put(test::kGgufArray).put(test::kGgufString).put<uint64_t>(32000);
  scores.put(test::kGgufArray).put(test::kGgufF32).put<uint64_t>(32000);
  for (uint32_t i = 0; i < 32000; ++i) {
    pieces.text("piece" + std::to_string(i));
    scores.put(-static_cast<float>(i));
  }
  file.set_text("tokenizer.ggml.model", "llama");
  file.set("tokenizer.ggml.tokens", pieces);
  file.set("tokenizer.ggml.scores", scores);
  test::Bytes infos;
  uint64_t offset = 0, count = 0;
  const auto add = [&](const std::string& name, uint64_t rows, uint64_t cols) {
    const DType dtype = rows == 1 ? DType::f32 : DType::q4_0;
    infos.text(name).put<uint32_t>(rows == 1 ? 1 : 2).put(cols);
    if (rows > 1) infos.put(rows);
    infos.put(facts(dtype).ggml_id).put(offset);
    offset += rows * bytes_of(dtype, cols);
    ++count;
  };
  add("token_embd.weight", shape.vocab_size, shape.model_dim);
  for (uint32_t layer = 0; layer < shape.layer_count; ++layer) {
    for (const test::MadeTensor& tensor : test::layer_tensors(shape)) {
      add("blk." + std::to_string(layer) + "." + tensor.name, tensor.rows, tensor.cols);
    }
  }
  add("output_norm.weight", 1, shape.model_dim);
  add("output.weight", shape.vocab_size, shape.model_dim);
  std::string bytes = file.bytes();  // no tensors yet: their number is at byte 8
  std::memcpy(bytes.data() + 8, &count, sizeof count);
  bytes += infos.str();
  std::ofstream(path, std::ios::binary) << bytes;
  std::filesystem::resize_file(path, (bytes.size() + 31) / 32 * 32 + offset);
  std::printf("70B header: %llu tensors, %.1f GB (sparse)\n",
              static_cast<unsigned long long>(count), static_cast<double>(offset) * 1e-9);
}

void bench_open(const std::string& folder) {
  const std::string path = folder + "/header.gguf";
  write_70b_header(path);
  const ModelSpec spec = parse_model_spec(path);
  std::vector<double> open_ms, weights_ms;
  for (int i = 0; i < kPasses; ++i) {
    open_ms.push_back(seconds_of([&] { open_checkpoint(path); }) * 1e3);
    weights_ms.push_back(seconds_of([&] { open_weights(spec); }) * 1e3);
  }
  std::printf("open_checkpoint %26.1f ms (limit 100)\n", median(open_ms));
  std::printf("open_weights, which also hashes samples %2.1f ms\n", median(weights_ms));
  std::filesystem::remove(path);
}

// One layer of 70B's dimensions, the down projection by neuron. The values do not matter but are
// finite: every other byte is the upper half of a small f16, bf16 or f32.
void write_layer(const std::string& path, DType dtype, uint32_t ffn_dim) {
  ModelShape shape = shape_preset("llama-2-70b").shape;
  shape.layer_count = 1;
  shape.ffn_dim = ffn_dim;
  shape.vocab_size = 32;
  const auto fill_of = [](uint64_t row_bytes) {
    return [row_bytes](uint64_t begin, uint64_t end, std::byte* out, uint64_t stride) {
      for (uint64_t row = begin; row < end; ++row, out += stride) {
        for (uint64_t i = 0; i < row_bytes; ++i) {
          out[i] = i % 2 == 1 ? std::byte{0x2c}
                              : static_cast<std::byte>((row * row_bytes + i) * 2654435761u >> 13);
        }
      }
    };
  };
  std::vector<OutputTensor> tensors;
  const auto add = [&](const std::string& name, uint64_t rows, uint64_t cols) {
    const DType type = rows == 1 ? DType::f32 : dtype;
    tensors.push_back(plain_tensor(name, {type, rows, cols, fill_of(bytes_of(type, cols))}));
  };
  add("token_embd.weight", shape.vocab_size, shape.model_dim);
  for (const test::MadeTensor& tensor : test::layer_tensors(shape)) {
    const bool down = std::string(tensor.name) == "ffn_down.weight";
    add(std::string("blk.0.") + (down ? "ffn_down_t.weight" : tensor.name),
        down ? tensor.cols : tensor.rows, down ? tensor.rows : tensor.cols);
  }
  add("output_norm.weight", 1, shape.model_dim);
  GgufOutput output(path);
  output.set_text("general.architecture", "llama");
  set_shape_keys(output, shape);
  stream_tensors(output, tensors, available_cores());
  output.finish();
}

void drop_from_cache(const std::string& path) {
  const int file = ::open(path.c_str(), O_RDONLY);
  ::fsync(file);
  ::posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
  ::close(file);
}

constexpr Matrix kLayerMatrices[] = {Matrix::q,    Matrix::k,  Matrix::v,     Matrix::o,
                                     Matrix::gate, Matrix::up, Matrix::down_t};

// Every matrix of the layer, as a rank takes its share: whole matrices into memory.
uint64_t read_layer(const WeightSource& weights, std::vector<std::byte>& buffer) {
  uint64_t bytes = 0;
  for (const Matrix matrix : kLayerMatrices) {
    const auto [rows, cols] = size_of(matrix, weights.shape());
    weights.read(matrix, 0, {0, rows, 0, cols}, buffer.data());
    bytes += rows * bytes_of(weights.dtype(matrix, 0), cols);
  }
  return bytes;
}

double dd_rate(const std::string& path, const char* flags) {
  drop_from_cache(path);
  const std::string command = "dd if='" + path + "' of=/dev/null bs=1M " + flags + " 2>/dev/null";
  const double bytes = static_cast<double>(std::filesystem::file_size(path));
  return bytes * 1e-9 / seconds_of([&] {
           if (std::system(command.c_str()) != 0) std::abort();
         });
}

// The best of the passes, which take turns: a shared disk is never slower than it can be.
void bench_read(const std::string& folder) {
  const std::string path = folder + "/layer.gguf";
  write_layer(path, DType::q8_0, 28672);
  std::vector<std::byte> buffer(uint64_t{256} << 20);
  double dd = 0, dd_direct = 0, ours = 0;
  for (int i = 0; i < kPasses; ++i) {
    dd = std::max(dd, dd_rate(path, ""));
    dd_direct = std::max(dd_direct, dd_rate(path, "iflag=direct"));
    drop_from_cache(path);
    const auto weights = open_weights(parse_model_spec(path));
    uint64_t bytes = 0;
    const double seconds = seconds_of([&] { bytes = read_layer(*weights, buffer); });
    ours = std::max(ours, static_cast<double>(bytes) * 1e-9 / seconds);
  }
  const double limit = std::max(dd, dd_direct);
  std::printf(
      "cold file of %.2f GB: dd %.2f GB/s, dd iflag=direct %.2f GB/s, tensors %.2f GB/s, "
      "%.0f %% of the faster dd (limit 90)\n",
      static_cast<double>(std::filesystem::file_size(path)) * 1e-9, dd, dd_direct, ours,
      100 * ours / limit);
  std::filesystem::remove(path);
}

void bench_convert(const std::string& folder, uint32_t threads) {
  const std::string in = folder + "/f32.gguf", out = folder + "/q4_0.gguf";
  write_layer(in, DType::f32, 4096);
  for (const GgufLayout layout : {GgufLayout::plain, GgufLayout::bundles}) {
    std::vector<double> rates;
    for (int i = 0; i < 3; ++i) {
      Conversion result;
      const double seconds = seconds_of([&] {
        result = convert_checkpoint(
            in, out, {.dtype = DType::q4_0, .layout = layout, .thread_count = threads});
      });
      rates.push_back(static_cast<double>(result.element_count) * 4e-9 / seconds);
      std::filesystem::remove(out);
    }
    std::printf("convert f32 to q4_0, %s, %u threads: %.2f GB/s of f32 (limit 1 a core)\n",
                std::string(name_of(layout)).c_str(), threads, median(rates));
  }
  std::filesystem::remove(in);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string root = argc > 1 ? argv[1] : "/tmp";
  const uint32_t threads = argc > 2 ? std::max(1, std::atoi(argv[2])) : 1;
  const std::string folder = root + "/checkpoint_bench";
  std::filesystem::create_directories(folder);
  bench_open(folder);
  bench_read(folder);
  bench_convert(folder, threads);
  std::filesystem::remove_all(folder);
}
