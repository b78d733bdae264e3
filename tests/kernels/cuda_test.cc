// The matrix kernels on a GPU against double precision; without a device only the listing is
// tested.
#ifdef THERMOCLINE_HAVE_CUDA
#include "runtime/kernels/cuda.h"

#include <catch2/catch.hpp>

#include "tests/kernels/reference.h"

using namespace thermocline;
using namespace thermocline::test;

namespace {

void check(CudaError error) {
  INFO((error == nullptr ? "" : error));
  REQUIRE(error == nullptr);
}

bool has_device() {
  const char* reason = nullptr;
  if (cuda_device_count(&reason) > 0) return true;
  WARN("skipped: no GPU can be used: " << reason);
  return false;
}

struct Stream {
  CudaStream stream = nullptr;
  Stream() { check(cuda_stream_create(&stream)); }
  ~Stream() { cuda_stream_destroy(stream); }
};

// A copy of a vector in device memory.
template <class T>
struct OnDevice {
  T* data = nullptr;
  size_t bytes;
  CudaStream stream;

  OnDevice(const std::vector<T>& values, CudaStream on)
      : bytes(values.size() * sizeof(T)), stream(on) {
    void* memory = nullptr;
    check(cuda_allocate(bytes, &memory));
    data = static_cast<T*>(memory);
    check(cuda_copy(data, values.data(), bytes, stream));
    check(cuda_stream_wait(stream));
  }
  ~OnDevice() { cuda_free(data); }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;
  std::vector<T> fetch() const {
    std::vector<T> values(bytes / sizeof(T));
    check(cuda_copy(values.data(), data, bytes, stream));
    check(cuda_stream_wait(stream));
    return values;
  }
};

constexpr float kUntouched = -12345;

struct Problem {
  Matrix w;
  int tokens, x_stride, y_stride, mask_stride;
  std::vector<float> x, a;
  std::vector<uint64_t> mask;

  Problem(DType dtype, int rows, int cols, int token_count, std::mt19937_64& random)
      : w(random_matrix(dtype, rows, cols, random)),
        tokens(token_count),
        x_stride(cols + 3),
        y_stride(rows + 5),
        mask_stride(rows / 64 + 2),
        x(random_floats(static_cast<size_t>(tokens) * x_stride, random)),
        a(random_floats(static_cast<size_t>(tokens) * y_stride, random)),
        mask(random_mask(tokens, mask_stride, 0.4, random)) {}

  std::vector<float> matmul(bool masked, int split, CudaStream stream) const {
    const OnDevice<std::byte> weights(w.bytes, stream);
    const OnDevice<float> inputs(x, stream);
    const OnDevice<uint64_t> bits(mask, stream);
    const OnDevice<float> y(std::vector<float>(static_cast<size_t>(tokens) * y_stride, kUntouched),
                            stream);
    for (const auto& [begin, end] : {std::pair{0, split}, std::pair{split, w.rows}})
      check(masked ? cuda_matmul_masked(w.dtype, weights.data, w.cols, begin, end, bits.data,
                                        mask_stride, inputs.data, x_stride, tokens, y.data,
                                        y_stride, stream)
                   : cuda_matmul(w.dtype, weights.data, w.cols, begin, end, inputs.data, x_stride,
                                 tokens, y.data, y_stride, stream));
    return y.fetch();
  }

  std::vector<float> weighted(int split, CudaStream stream) const {
    const OnDevice<std::byte> weights(w.bytes, stream);
    const OnDevice<float> factors(a, stream), y(x, stream);
    const OnDevice<uint64_t> bits(mask, stream);
    for (const auto& [begin, end] : {std::pair{0, split}, std::pair{split, w.cols}})
      check(cuda_weighted_rows(w.dtype, weights.data, w.rows, w.cols, begin, end, bits.data,
                               mask_stride, factors.data, y_stride, tokens, y.data, x_stride,
                               stream));
    return y.fetch();
  }
};

void check_matmul(const Problem& p, CudaStream stream) {
  const auto dense = p.matmul(false, p.w.rows / 2, stream);
  const auto masked = p.matmul(true, p.w.rows / 3, stream);
  REQUIRE(p.matmul(false, 0, stream) == dense);
  bool close = true, chosen = true;
  for (int t = 0; t < p.tokens; ++t)
    for (int r = 0; r < p.y_stride; ++r) {
      const float y = dense[t * p.y_stride + r];
      const bool inside = r < p.w.rows;
      const Sum sum = inside ? dot(p.w, r, p.x.data() + t * p.x_stride) : Sum{kUntouched, 0};
      close &= std::fabs(y - sum.value) <= (p.w.cols / 32 + 14) * 0x1p-24 * sum.size;
      const bool active = inside && bit_of(p.mask.data() + t * p.mask_stride, r);
      chosen &= masked[t * p.y_stride + r] == (active ? y : kUntouched);
    }
  REQUIRE(close);
  REQUIRE(chosen);
}

void check_weighted_rows(const Problem& p, CudaStream stream) {
  const int unit = facts(p.w.dtype).items_per_block;
  const auto y = p.weighted(p.w.cols / 2 / unit * unit, stream);
  REQUIRE(p.weighted(0, stream) == y);
  bool close = true;
  for (int t = 0; t < p.tokens; ++t)
    for (int c = 0; c < p.x_stride; ++c) {
      Sum sum;
      sum.add(p.x[t * p.x_stride + c]);
      for (int r = 0; c < p.w.cols && r < p.w.rows; ++r)
        if (bit_of(p.mask.data() + t * p.mask_stride, r))
          sum.add(p.w.at(r, c) * p.a[t * p.y_stride + r]);
      // 128 groups of rows, added in order.
      close &= std::fabs(y[t * p.x_stride + c] - sum.value) <=
               (p.w.rows / 128 + 132) * 0x1p-24 * sum.size;
    }
  REQUIRE(close);
}

}  // namespace

TEST_CASE("a machine lists its GPUs or says why it has none", "[gpu]") {
  const char* reason = "unset";
  const int count = cuda_device_count(&reason);
  REQUIRE((count > 0) == (reason == nullptr));
  for (int i = 0; i < count; ++i) {
    CudaDevice device;
    check(cuda_device(i, &device));
    REQUIRE(device.memory_bytes > 0);
    REQUIRE(device.compute_major >= 8);
  }
  CudaDevice none;
  REQUIRE(cuda_device(count, &none) != nullptr);
}

TEST_CASE("matrix kernels on a GPU agree with double precision", "[gpu]") {
  if (!has_device()) return;
  check(cuda_use_device(0));
  const Stream on;
  std::mt19937_64 random(21);
  for (const DType dtype : kAllTypes)
    for (const int cols : {32, 64, 320, 1024, 33, 1, 331})
      for (const int rows : {1, 5, 64, 130, 400})
        for (const int tokens : {1, 2, 4, 5, 9}) {
          if (cols % facts(dtype).items_per_block != 0) continue;
          INFO(facts(dtype).name << " " << rows << "x" << cols << ", " << tokens << " tokens");
          const Problem problem(dtype, rows, cols, tokens, random);
          check_matmul(problem, on.stream);
          check_weighted_rows(problem, on.stream);
        }
}
#endif
