// sum_rows: weighted sums of the active rows of a matrix, without atomics.
//
// A block takes 32 units of columns and a group of rows; its warp i takes those words of the mask
//   (64 rows) whose index is i modulo all warps of all groups, in ascending order. Partial sums are
//   added over a block's warps, then over groups, each in order: a column's sum depends on its own
//   token's mask alone.
#include "runtime/kernels/cuda_launch.h"

namespace TC_CUDA_NAMESPACE {
namespace {

constexpr int kSumBlocksWanted = 528;  // four for each of an H200's multiprocessors

struct SumArguments {
  PlacedRows w;
  CudaMask mask;
  const float* a;
  float* partial;  // (groups, token_count, cols)
  int token_count;
  int groups;
};

// Rows whose units are asked for before the first is used: as many as registers allow.
template <DType D, int T>
constexpr int kAhead = kUnitColumns<D> > 32        ? 2
                       : T == 1 && kItems<D> < 256 ? 8
                                                   : 4;
template <DType D>
constexpr uint64_t kSumBytes = uint64_t{sizeof(float)} * kThreads* kUnitColumns<D>;

__device__ inline uint64_t mask_word(const SumArguments& s, int token, int word) {
  const int left = s.w.rows - 64 * word;
  const uint64_t existing = left >= 64 ? ~uint64_t{0} : (uint64_t{1} << left) - 1;
  if (token >= s.token_count) return 0;
  if (s.mask.words == nullptr) return existing;
  return s.mask.words[static_cast<uint64_t>(token) * s.mask.stride + word] & existing;
}

template <DType D>
__device__ inline void add_row(const Unit<D>& unit, int u, float factor,
                               float (&sums)[kUnitColumns<D>]) {
  const Scales<D> scales = scales_of<D>(unit, u);
#pragma unroll
  for (int quad = 0; quad < kQuads<D>; ++quad) {
    float w[kQuad];
    decode_quad<D>(unit, scales, u, quad, w);
#pragma unroll
    for (int e = 0; e < kQuad; ++e)
      sums[quad * kQuad + e] = fmaf(factor, w[e], sums[quad * kQuad + e]);
  }
}

// The rows of one word of the masks; bits: those of T tokens.
template <DType D, int T, bool kAligned>
__device__ inline void add_word(const SumArguments& s, int word, int u, int token,
                                const uint64_t (&bits)[T], float (&sums)[T][kUnitColumns<D>]) {
  uint64_t any = 0;
  for (int t = 0; t < T; ++t) any |= bits[t];
  while (any != 0) {
    int row[kAhead<D, T>];
    Unit<D> units[kAhead<D, T>];
#pragma unroll
    for (int i = 0; i < kAhead<D, T>; ++i) {
      row[i] = any != 0 ? __ffsll(static_cast<long long>(any)) - 1 : -1;
      any &= any - 1;
      const int r = 64 * word + (row[i] >= 0 ? row[i] : row[0]);
      units[i] = load_unit<D, kAligned>(s.w.row(r), s.w.cols, u);
    }
#pragma unroll
    for (int i = 0; i < kAhead<D, T>; ++i)
#pragma unroll
      for (int t = 0; t < T; ++t)
        if (row[i] >= 0 && bit_is_set(bits[t], row[i]))
          add_row<D>(units[i], u,
                     s.a[static_cast<size_t>(token + t) * s.w.rows + 64 * word + row[i]], sums[t]);
  }
}

// One token's sums over the block's warps, to its row of `partial`.
template <DType D>
__device__ void merge_warps(const float (&sums)[kUnitColumns<D>], int first_unit, int cols,
                            float* partial) {
  float* memory = reinterpret_cast<float*>(block_memory);  // (kWarps, kUnitColumns, kWarp)
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kUnitColumns<D>; ++i)
    memory[(warp * kUnitColumns<D> + i) * kWarp + lane] = sums[i];
  __syncthreads();
  for (int at = threadIdx.x; at < kUnitColumns<D> * kWarp; at += kThreads) {
    const int unit = first_unit + at % kWarp, i = at / kWarp;
    const int c = column_of<D>(unit, i / kQuad) + i % kQuad;
    if (unit >= unit_count<D>(cols) || c >= cols) continue;
    float sum = 0;
    for (int w = 0; w < kWarps; ++w) sum += memory[w * kUnitColumns<D> * kWarp + at];
    partial[c] = sum;
  }
}

template <DType D, int T, bool kAligned>
__global__ void __launch_bounds__(kThreads, T == 1 ? 2 : 1) sum_rows_kernel(SumArguments s) {
  const int units = unit_count<D>(s.w.cols), tiles = (units + kWarp - 1) / kWarp;
  const int first_unit = static_cast<int>(blockIdx.x) % tiles * kWarp;
  const int group = static_cast<int>(blockIdx.x) / tiles, token = static_cast<int>(blockIdx.y) * T;
  const int lane_unit = first_unit + static_cast<int>(threadIdx.x) % kWarp;
  const int u = lane_unit < units ? lane_unit : units - 1;
  float sums[T][kUnitColumns<D>];
#pragma unroll
  for (int t = 0; t < T; ++t)
#pragma unroll
    for (int i = 0; i < kUnitColumns<D>; ++i) sums[t][i] = 0;
  const int warp = group * kWarps + static_cast<int>(threadIdx.x) / kWarp;
  for (int word = warp; word < (s.w.rows + 63) / 64; word += s.groups * kWarps) {
    uint64_t bits[T];
    for (int t = 0; t < T; ++t) bits[t] = mask_word(s, token + t, word);
    add_word<D, T, kAligned>(s, word, u, token, bits, sums);
  }
#pragma unroll
  for (int t = 0; t < T; ++t)
    if (token + t < s.token_count)
      merge_warps<D>(
          sums[t], first_unit, s.w.cols,
          s.partial + (static_cast<size_t>(group) * s.token_count + token + t) * s.w.cols);
}

// y = partial sums added over groups in order; count: token_count * cols.
__global__ void merge_groups_kernel(const float* partial, int groups, int64_t count, float* y) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  float sum = 0;
  for (int group = 0; group < groups; ++group) sum += partial[group * count + i];
  y[i] = sum;
}

// It follows from the matrix alone: not from tokens.
template <DType D>
int group_count(const WeightView& w) {
  const int tiles = ceil_div(ceil_div(w.cols, kUnitColumns<D>), kWarp);
  const int words = ceil_div(w.rows, 64);
  const int wanted = ceil_div(kSumBlocksWanted, tiles), useful = ceil_div(words, kWarps);
  return wanted < useful ? wanted : useful;
}

template <DType D>
CudaError sum_rows(SumArguments s, bool aligned, int tokens_at_once, float* y, CudaStream stream) {
  const int blocks = ceil_div(ceil_div(s.w.cols, kUnitColumns<D>), kWarp) * s.groups;
  const int token_count = s.token_count;
  for (int begin = 0; begin < token_count; begin += tokens_at_once) {
    s.token_count = token_count - begin < tokens_at_once ? token_count - begin : tokens_at_once;
    // Registers hold the sums of two tokens, but not of two times 64 columns.
    constexpr int kPair = kUnitColumns < D >> 32 ? 1 : 2;
    const int at_once = aligned && s.token_count > 1 ? kPair : 1;
    const auto kernel = !aligned       ? sum_rows_kernel<D, 1, false>
                        : at_once == 1 ? sum_rows_kernel<D, 1, true>
                                       : sum_rows_kernel<D, kPair, true>;
    const dim3 grid(static_cast<unsigned>(blocks),
                    static_cast<unsigned>(ceil_div(s.token_count, at_once)));
    CudaError error = launch(kernel, grid, kThreads, kSumBytes<D>, stream, s);
    if (error != nullptr) return error;
    const int64_t count = int64_t{s.token_count} * s.w.cols;
    constexpr int kMergeThreads = 64;  // small blocks: all multiprocessors take part
    error = launch(merge_groups_kernel,
                   dim3(static_cast<unsigned>((count + kMergeThreads - 1) / kMergeThreads)),
                   kMergeThreads, 0, stream, s.partial, s.groups, count, y);
    if (error != nullptr) return error;
    if (s.mask.words != nullptr) s.mask.words += s.mask.stride * s.token_count;
    s.a += static_cast<size_t>(s.token_count) * s.w.rows;
    y += count;
  }
  return nullptr;
}

int groups_of(const WeightView& w) {
  int groups = 0;
  for_type(w.dtype, [&]<DType D>() -> CudaError {
    groups = group_count<D>(w);
    return nullptr;
  });
  return groups;
}

}  // namespace

uint64_t cuda_sum_rows_scratch(const WeightView& w) {
  return static_cast<uint64_t>(groups_of(w)) * static_cast<uint64_t>(w.cols);
}

CudaError cuda_sum_rows(const WeightView& w, const CudaMask& mask, const float* a, int token_count,
                        float* y, float* scratch, uint64_t scratch_floats, CudaStream stream) {
  if (token_count <= 0 || w.cols <= 0) return nullptr;
  if (w.rows <= 0)
    return cuda_fill_zero(y, sizeof(float) * static_cast<uint64_t>(token_count) * w.cols, stream);
  const uint64_t at_once = scratch_floats / cuda_sum_rows_scratch(w);
  if (at_once == 0) return "sum_rows has too little scratch memory";
  const SumArguments s{placed_rows_of(w), mask, a, scratch, token_count, groups_of(w)};
  const int tokens = at_once < uint64_t(token_count) ? static_cast<int>(at_once) : token_count;
  return for_type(w.dtype,
                  [&]<DType D>() { return sum_rows<D>(s, is_aligned<D>(w), tokens, y, stream); });
}

}  // namespace TC_CUDA_NAMESPACE
