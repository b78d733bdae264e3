// attend: rotary positions, the KV cache, and attention split over positions.
//
// Splits are of kChunk positions whatever the token; a chunk's softmax is relative to its own
//   largest score, and chunks are merged in ascending order (Dao et al. 2023, flash-decoding).
// Positions and slots are read from device memory, so that a captured graph serves every step: the
//   grid covers position_max, and blocks beyond a token's position end at once.
#include "runtime/kernels/cuda_launch.h"

namespace TC_CUDA_NAMESPACE {
namespace {

constexpr int kChunk = 128;      // positions of a thread block
constexpr int kKeyTile = 32;     // keys in shared memory at once
constexpr int kHeadsAtOnce = 4;  // whose outputs a thread sums while it reads values once

struct AttentionArguments {
  CudaAttention call;
  const CudaTokenRow* rows;
  int splits;      // chunks of position_max
  float* rotated;  // (token_count, head_count * head_dim): q
  float* maxima;   // (token_count, head_count, splits): the largest score
  float* sums;     // likewise: sum of exp(score - largest)
  float* partial;  // (token_count, head_count, splits, head_dim): sum of exp(...) * value
};

__device__ inline float* cached(float* base, const CudaAttention& call, const CudaTokenRow& row,
                                int kv_head) {
  return base + row.slot * call.slot_stride + kv_head * call.head_stride;
}

// Turns pair i of a head by position * frequencies[i] radians.
__device__ inline void rotate(const float* from, int i, float cosine, float sine, float* to) {
  const float first = from[2 * i], second = from[2 * i + 1];
  to[2 * i] = first * cosine - second * sine;
  to[2 * i + 1] = first * sine + second * cosine;
}

// A block takes one token and one kv head with its query heads.
__global__ void __launch_bounds__(kThreads) rotate_kernel(AttentionArguments a) {
  const CudaAttention& call = a.call;
  const int dim = call.head_dim, group = call.head_count / call.kv_head_count;
  const int kv_head = static_cast<int>(blockIdx.x);
  const size_t token = blockIdx.y;
  const CudaTokenRow row = a.rows[token];
  const float* k = call.k + (token * call.kv_head_count + kv_head) * dim;
  const float* v = call.v + (token * call.kv_head_count + kv_head) * dim;
  const size_t at = static_cast<size_t>(row.position) * dim;
  float* key = cached(call.keys, call, row, kv_head) + at;
  float* value = cached(call.values, call, row, kv_head) + at;
  const size_t first_head = (token * call.head_count + static_cast<size_t>(kv_head) * group) * dim;
  for (int i = threadIdx.x; i < dim / 2; i += kThreads) {
    const double angle = row.position * call.frequencies[i];
    const float cosine = static_cast<float>(cos(angle)), sine = static_cast<float>(sin(angle));
    rotate(k, i, cosine, sine, key);
    for (int head = 0; head < group; ++head)
      rotate(call.q + first_head + head * dim, i, cosine, sine,
             a.rotated + first_head + head * dim);
  }
  for (int i = threadIdx.x; i < dim; i += kThreads) value[i] = v[i];
}

// The shared memory of attend_kernel.
struct ChunkMemory {
  float* q;       // (group, head_dim)
  float* keys;    // (kKeyTile, head_dim + 1), so that a column's elements lie in different banks
  float* scores;  // (group, kChunk)
};

__host__ __device__ inline int key_stride(int head_dim) { return head_dim + 1; }

__device__ inline ChunkMemory chunk_memory(int group, int dim) {
  float* memory = reinterpret_cast<float*>(block_memory);
  return {memory, memory + group * dim, memory + group * dim + kKeyTile * key_stride(dim)};
}

// scores = q k^T / sqrt(head_dim) of `count` positions, from `keys`.
__device__ void score_chunk(const ChunkMemory& memory, const float* keys, int count, int group,
                            int dim) {
  const float scale = 1.0f / sqrtf(static_cast<float>(dim));
  const int stride = key_stride(dim);
  for (int begin = 0; begin < count; begin += kKeyTile) {
    const int here = count - begin < kKeyTile ? count - begin : kKeyTile;
    __syncthreads();
    for (int i = threadIdx.x; i < here * dim; i += kThreads)
      memory.keys[i / dim * stride + i % dim] = keys[static_cast<size_t>(begin) * dim + i];
    __syncthreads();
    for (int i = threadIdx.x; i < group * kKeyTile; i += kThreads) {
      const int head = i / kKeyTile, p = i % kKeyTile;
      if (p >= here) continue;
      float even = 0, odd = 0;  // head_dim is even
      for (int d = 0; d < dim; d += 2) {
        even = fmaf(memory.q[head * dim + d], memory.keys[p * stride + d], even);
        odd = fmaf(memory.q[head * dim + d + 1], memory.keys[p * stride + d + 1], odd);
      }
      memory.scores[head * kChunk + begin + p] = (even + odd) * scale;
    }
  }
  __syncthreads();
}

__device__ inline float warp_largest(float value) {
  for (int half = kWarp / 2; half > 0; half /= 2)
    value = fmaxf(value, __shfl_xor_sync(~0u, value, half));
  return value;
}

// Scores become exp(score - largest); a warp takes a head.
__device__ void weigh_chunk(const AttentionArguments& a, const ChunkMemory& memory, int count,
                            int group, size_t first_head, int split) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for (int head = static_cast<int>(threadIdx.x) / kWarp; head < group; head += kWarps) {
    float* scores = memory.scores + head * kChunk;
    float largest = -INFINITY, sum = 0;
    for (int p = lane; p < count; p += kWarp) largest = fmaxf(largest, scores[p]);
    largest = warp_largest(largest);
    for (int p = lane; p < count; p += kWarp) {
      scores[p] = expf(scores[p] - largest);
      sum += scores[p];
    }
    sum = warp_sum(sum);
    if (lane != 0) continue;
    a.maxima[(first_head + head) * a.splits + split] = largest;
    a.sums[(first_head + head) * a.splits + split] = sum;
  }
  __syncthreads();
}

// partial = sum over positions of exp(...) * value. A thread takes a column of up to kHeadsAtOnce
// heads at a time.
__device__ void sum_values(const AttentionArguments& a, const ChunkMemory& memory,
                           const float* values, int count, int group, size_t first_head,
                           int split) {
  const int dim = a.call.head_dim;
  const int sets = kThreads / dim > 0 ? kThreads / dim : 1, columns = kThreads / sets;
  const int set = static_cast<int>(threadIdx.x) / columns;
  if (set >= sets) return;
  for (int d = static_cast<int>(threadIdx.x) % columns; d < dim; d += columns)
    for (int first = set; first < group; first += sets * kHeadsAtOnce) {
      float sums[kHeadsAtOnce] = {};
#pragma unroll 8
      for (int p = 0; p < count; ++p) {
        const float value = values[static_cast<size_t>(p) * dim + d];
#pragma unroll
        for (int i = 0; i < kHeadsAtOnce; ++i) {
          const int head = first + i * sets < group ? first + i * sets : first;
          sums[i] = fmaf(memory.scores[head * kChunk + p], value, sums[i]);
        }
      }
#pragma unroll
      for (int i = 0; i < kHeadsAtOnce; ++i)
        if (first + i * sets < group)
          a.partial[((first_head + first + i * sets) * a.splits + split) * dim + d] = sums[i];
    }
}

// A block takes a chunk of positions, a kv head with its query heads, and a token.
__global__ void __launch_bounds__(kThreads) attend_kernel(AttentionArguments a) {
  const CudaAttention& call = a.call;
  const int split = static_cast<int>(blockIdx.x), kv_head = static_cast<int>(blockIdx.y);
  const size_t token = blockIdx.z;
  const CudaTokenRow row = a.rows[token];
  const int begin = split * kChunk;
  const int rest = static_cast<int>(row.position) + 1 - begin;
  if (rest <= 0) return;
  const int count = rest < kChunk ? rest : kChunk;
  const int dim = call.head_dim, group = call.head_count / call.kv_head_count;
  const size_t first_head = token * call.head_count + static_cast<size_t>(kv_head) * group;
  const ChunkMemory memory = chunk_memory(group, dim);
  for (int i = threadIdx.x; i < group * dim; i += kThreads)
    memory.q[i] = a.rotated[first_head * dim + i];
  const size_t at = static_cast<size_t>(begin) * dim;
  score_chunk(memory, cached(call.keys, call, row, kv_head) + at, count, group, dim);
  weigh_chunk(a, memory, count, group, first_head, split);
  sum_values(a, memory, cached(call.values, call, row, kv_head) + at, count, group, first_head,
             split);
}

// A block takes a head of a token.
__global__ void merge_chunks_kernel(AttentionArguments a) {
  const int dim = a.call.head_dim;
  const size_t head = static_cast<size_t>(blockIdx.y) * a.call.head_count + blockIdx.x;
  const int used = static_cast<int>(a.rows[blockIdx.y].position) / kChunk + 1;
  const float* maxima = a.maxima + head * a.splits;
  const float* sums = a.sums + head * a.splits;
  float largest = maxima[0], total = 0;
  for (int s = 1; s < used; ++s) largest = fmaxf(largest, maxima[s]);
  for (int s = 0; s < used; ++s) total = fmaf(expf(maxima[s] - largest), sums[s], total);
  for (int d = threadIdx.x; d < dim; d += blockDim.x) {
    float sum = 0;
    for (int s = 0; s < used; ++s)
      sum = fmaf(expf(maxima[s] - largest), a.partial[(head * a.splits + s) * dim + d], sum);
    a.call.out[head * dim + d] = sum / total;
  }
}

// Floats of scratch: for q of every token, and for the chunks of one token.
uint64_t rotated_floats(const CudaAttention& call) {
  return static_cast<uint64_t>(call.head_count) * call.head_dim;
}
uint64_t chunk_floats(const CudaAttention& call) {
  return static_cast<uint64_t>(call.head_count) * ceil_div(call.position_max, kChunk) *
         (call.head_dim + 2);
}

CudaError attend_tokens(AttentionArguments a, int begin, int count, float* scratch,
                        CudaStream stream) {
  const uint64_t heads = static_cast<uint64_t>(count) * a.call.head_count;
  a.rows += begin;
  a.rotated += rotated_floats(a.call) * begin;
  a.call.out += rotated_floats(a.call) * begin;
  a.maxima = scratch;
  a.sums = a.maxima + heads * a.splits;
  a.partial = a.sums + heads * a.splits;
  const int group = a.call.head_count / a.call.kv_head_count;
  const unsigned tokens = static_cast<unsigned>(count);
  const CudaError error = launch(
      attend_kernel,
      dim3(static_cast<unsigned>(a.splits), static_cast<unsigned>(a.call.kv_head_count), tokens),
      kThreads, cuda_attention_block_bytes(a.call.head_dim, group), stream, a);
  if (error != nullptr) return error;
  return launch(merge_chunks_kernel, dim3(static_cast<unsigned>(a.call.head_count), tokens),
                kThreads / 2, 0, stream, a);
}

}  // namespace

uint64_t cuda_attention_block_bytes(int head_dim, int heads_per_kv_head) {
  return sizeof(float) * (static_cast<uint64_t>(heads_per_kv_head) * (head_dim + kChunk) +
                          uint64_t{kKeyTile} * key_stride(head_dim));
}

uint64_t cuda_attention_scratch(const CudaAttention& call, int token_count) {
  return rotated_floats(call) * token_count + chunk_floats(call);
}

CudaError cuda_attend(const CudaAttention& call, const CudaTokenRow* rows, int token_count,
                      float* scratch, uint64_t scratch_floats, CudaStream stream) {
  if (token_count <= 0) return nullptr;
  if (scratch_floats < cuda_attention_scratch(call, token_count))
    return "attention has too little scratch memory";
  const AttentionArguments a{call,    rows,   ceil_div(call.position_max, kChunk), scratch, nullptr,
                             nullptr, nullptr};
  // All keys first: a token attends to those of the same forward before it.
  const dim3 grid(static_cast<unsigned>(call.kv_head_count), static_cast<unsigned>(token_count));
  CudaError error = launch(rotate_kernel, grid, kThreads, 0, stream, a);
  const uint64_t for_q = rotated_floats(call) * token_count;
  const uint64_t at_once = (scratch_floats - for_q) / chunk_floats(call);
  const int step = at_once < uint64_t(token_count) ? static_cast<int>(at_once) : token_count;
  for (int begin = 0; begin < token_count && error == nullptr; begin += step) {
    const int count = token_count - begin < step ? token_count - begin : step;
    error = attend_tokens(a, begin, count, scratch + for_q, stream);
  }
  return error;
}

}  // namespace TC_CUDA_NAMESPACE
