// The operations of a forward pass on NVIDIA GPUs, and the memory and streams that they need.
//
// Goals: pointers and ints in device memory and an explicit stream; no CUDA header needed to call
//   them. Results are the same for every run and do not depend on the other tokens of a call: every
//   sum has one order, whatever the token count, the mask of other rows, or the alignment.
// Non-goals: choosing devices, placing weights, growing buffers (runtime/backends/cuda.cc).
// Weights lie in rows that cuda_pack_row (runtime/kernels/cuda_layout.h) has packed.
// Activations are f32, (token_count, width), row-major, without gaps.
// Errors: functions that can fail return null for success, else CUDA's message.
// Thread-safety: as CUDA's runtime; calls act on the calling thread's current device.
#pragma once

#include <cstddef>
#include <cstdint>

#include "runtime/kernels/weight_view.h"

// Tests compile the same sources for the host, under another name.
#ifndef TC_CUDA_NAMESPACE
#define TC_CUDA_NAMESPACE thermocline
#endif

struct CUstream_st;
struct CUevent_st;
struct CUgraphExec_st;

namespace TC_CUDA_NAMESPACE {

using CudaStream = CUstream_st*;    // cudaStream_t
using CudaEvent = CUevent_st*;      // cudaEvent_t
using CudaGraph = CUgraphExec_st*;  // cudaGraphExec_t
using CudaError = const char*;      // null: success

struct CudaDevice {
  char name[256];
  uint64_t memory_bytes;
  int compute_major, compute_minor;  // 8, 0: sm_80
  int multiprocessor_count;
};

// How many devices can be used. Where there are none, *reason says why; else it is null.
int cuda_device_count(const char** reason);
CudaError cuda_device(int index, CudaDevice* device);
CudaError cuda_use_device(int index);
CudaError cuda_free_bytes(uint64_t* bytes);

CudaError cuda_stream_create(CudaStream* stream);
CudaError cuda_stream_destroy(CudaStream stream);
CudaError cuda_stream_wait(CudaStream stream);  // until all work given to it is done

// An event is reached once all work that its stream was given before it is done.
CudaError cuda_event_create(CudaEvent* event);
CudaError cuda_event_destroy(CudaEvent event);
CudaError cuda_event_record(CudaEvent event, CudaStream stream);
CudaError cuda_event_wait(CudaEvent event);
CudaError cuda_event_is_reached(CudaEvent event, bool* reached);
CudaError cuda_event_ms(CudaEvent first, CudaEvent second, float* ms);  // between two reached ones

CudaError cuda_allocate(uint64_t bytes, void** memory);
CudaError cuda_free(void* memory);
CudaError cuda_allocate_pinned(uint64_t bytes, void** memory);  // host memory that copies go from
CudaError cuda_free_pinned(void* memory);
CudaError cuda_fill_zero(void* memory, uint64_t bytes, CudaStream stream);
// Between host and device or within either, in the stream's order.
CudaError cuda_copy(void* to, const void* from, uint64_t bytes, CudaStream stream);
// `count` rows of `bytes`, packed in host memory, to rows that begin `stride` bytes apart.
CudaError cuda_copy_rows(void* to, uint64_t stride, const void* from, uint64_t bytes, int count,
                         CudaStream stream);

// What the stream is given between the two becomes a graph instead of being done.
CudaError cuda_capture_begin(CudaStream stream);
CudaError cuda_capture_end(CudaStream stream, CudaGraph* graph);
CudaError cuda_graph_launch(CudaGraph graph, CudaStream stream);
CudaError cuda_graph_destroy(CudaGraph graph);

struct CudaTokenRow {
  int32_t token;
  uint32_t position, slot;
};

// Bits of rows, little bit order, `stride` words a token; stride 0: all tokens share them.
struct CudaMask {
  const uint64_t* words;  // null: every row
  uint64_t stride;
};

// x[t] = row rows[t].token - first_token of `table`; zeros where it has no such row.
CudaError cuda_embed(const WeightView& table, uint32_t first_token, const CudaTokenRow* rows,
                     int token_count, float* x, CudaStream stream);

// y = x / sqrt(mean(x^2) + epsilon) * weight, the mean in f64
CudaError cuda_rms_norm(const float* x, const float* weight, int dim, float epsilon,
                        int token_count, float* y, CudaStream stream);

// x += y
CudaError cuda_add(float* x, const float* y, uint64_t count, CudaStream stream);

// y (token_count, w.rows) = x w^T
struct CudaProduct {
  WeightView w;
  float* y;
};

// All products of one x (token_count, cols of each).
CudaError cuda_multiply(const CudaProduct* products, int product_count, const float* x,
                        int token_count, CudaStream stream);

enum class CudaActivation : int { relu, fatrelu, silu };

// hidden = act(gate x) * (up x) of the neurons that are computed: the active ones of `candidates`
// for relu (g > 0) and fatrelu (g >= threshold), all of them for silu, where |act(g)| > threshold
// makes a neuron active.
struct CudaGateUp {
  WeightView gate, up;  // (neurons, model_dim); rows may have places, in device memory
  CudaActivation activation;
  float threshold;
  CudaMask candidates;
  const float* x;          // (token_count, model_dim)
  float* hidden;           // (token_count, neurons)
  uint64_t* active;        // (token_count, active_stride), zero beyond the last neuron in its word
  uint64_t active_stride;  // words
  float* magnitudes;       // (token_count, neurons): |act(gate x)| of candidates; may be null
};
CudaError cuda_gate_and_up(const CudaGateUp& call, int token_count, CudaStream stream);

// y[t] = sum over rows r of `mask` of a[t][r] * w[r]          y: (token_count, w.cols)
// Rows of w may have places, in device memory.
// scratch: at least cuda_sum_rows_scratch floats; with more, more tokens are summed at once.
uint64_t cuda_sum_rows_scratch(const WeightView& w);
CudaError cuda_sum_rows(const WeightView& w, const CudaMask& mask, const float* a, int token_count,
                        float* y, float* scratch, uint64_t scratch_floats, CudaStream stream);

// Keys and values of slot s and kv head h are (position_max, head_dim) f32 at
// keys + s * slot_stride + h * head_stride, and alike for values; strides in floats.
struct CudaAttention {
  const float *q, *k, *v;  // (token_count, heads * head_dim), before rotation
  float *keys, *values;
  uint64_t slot_stride, head_stride;
  int position_max;
  int head_count, kv_head_count, head_dim;
  const double* frequencies;  // (head_dim / 2), radians a position
  float* out;                 // (token_count, head_count * head_dim)
};
// The shared memory that a thread block of it needs; a device of sm_80 has 163 KiB.
uint64_t cuda_attention_block_bytes(int head_dim, int heads_per_kv_head);
// Rotates q and k, stores k and v at each row's position, and attends to every position up to it.
// scratch: at least cuda_attention_scratch floats; with more, more tokens are attended at once.
uint64_t cuda_attention_scratch(const CudaAttention& call, int token_count);
CudaError cuda_attend(const CudaAttention& call, const CudaTokenRow* rows, int token_count,
                      float* scratch, uint64_t scratch_floats, CudaStream stream);

// bits[t]: the rows of `signs` that differ from the signs of x[t] in at most differing_max columns.
// Signs as runtime/kernels/signs.h has them: (rows, ceil(cols / 64)) words.
struct CudaSigns {
  const uint64_t* signs;
  int rows, cols;
  int differing_max;
  const float* x;   // (token_count, cols)
  uint64_t* bits;   // (token_count, stride), zero beyond the last row in its word
  uint64_t stride;  // words
};
// scratch: at least one float for each 32 columns, rounded up to an even number; with more, more
// tokens are matched at once.
CudaError cuda_match_signs(const CudaSigns& call, int token_count, float* scratch,
                           uint64_t scratch_floats, CudaStream stream);

// x = max(x, 0); 0 for a NaN
CudaError cuda_relu(float* x, uint64_t count, CudaStream stream);

// Bit i of bits[t]: whether scores[t][i] >= threshold.   scores: (token_count, width)
CudaError cuda_mark_reached(const float* scores, int width, float threshold, int token_count,
                            uint64_t* bits, uint64_t stride, CudaStream stream);

// out[t] = words of mask row t & words   words: (word_count), out: (token_count, word_count)
CudaError cuda_intersect(const CudaMask& mask, const uint64_t* words, int word_count,
                         int token_count, uint64_t* out, CudaStream stream);

// Row i of `from` (count, bytes) to `to` + places[i] * bytes; bytes is even.
CudaError cuda_scatter_rows(const void* from, uint64_t bytes, const uint32_t* places, int count,
                            void* to, CudaStream stream);

}  // namespace TC_CUDA_NAMESPACE
