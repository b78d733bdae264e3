// gate_and_up: the gated FFN up to its hidden values, and which neurons are active.
#include "runtime/kernels/cuda_rows.h"

namespace TC_CUDA_NAMESPACE {
namespace {

constexpr int kNeurons = 32;  // of a thread block: half a word of active bits

struct GateUpArguments {
  PlacedRows gate, up;
  CudaActivation activation;
  float threshold;
  CudaMask candidates;
  const float* x;
  float* hidden;
  uint32_t* active;        // halves of words
  uint64_t active_stride;  // halves
  float* magnitudes;
  int token_count;
};

enum Phase : int { kGate, kUp, kPhaseEnd };

struct Activated {
  float value;
  bool active;
};

__device__ inline Activated activate(CudaActivation activation, float threshold, float g) {
  if (activation == CudaActivation::silu) {
    const float value = g / (1.0f + expf(-g));
    return {value, fabsf(value) > threshold};
  }
  const bool active = activation == CudaActivation::relu ? g > 0.0f : g >= threshold;
  return {active ? g : 0.0f, active};
}

// Bits of the block's neurons in a mask; those that there are.
__device__ inline uint32_t half_word(const CudaMask& mask, int token, int first, int neurons) {
  const int left = neurons - first;
  const uint32_t existing = left >= kNeurons ? ~0u : left <= 0 ? 0 : (1u << left) - 1;
  if (mask.words == nullptr || existing == 0) return existing;
  const uint64_t word = mask.words[static_cast<uint64_t>(token) * mask.stride + first / 64];
  return static_cast<uint32_t>(word >> first % 64) & existing;
}

// What a block knows of its neurons.
template <int T>
struct Neurons {
  uint32_t wanted[T];  // bits of those that each token computes
  uint8_t active[T][kNeurons];
  uint8_t list[kNeurons];  // those that any token computes, ascending
};

template <int T>
__device__ int make_list(Neurons<T>& neurons) {
  uint32_t any = 0;
  for (int t = 0; t < T; ++t) any |= neurons.wanted[t];
  const uint32_t i = threadIdx.x;
  if (i < kNeurons && (any >> i & 1) != 0)
    neurons.list[__popc(any & ((1u << i) - 1))] = static_cast<uint8_t>(i);
  __syncthreads();
  return __popc(any);
}

// Warp t packs the bits of token t; where only active neurons are computed, they are wanted next.
template <int T>
__device__ void write_active(const GateUpArguments& a, int token, int first, Neurons<T>& neurons) {
  const int t = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  if (t >= T || token + t >= a.token_count) return;
  const uint32_t bits = __ballot_sync(~0u, neurons.active[t][lane]);
  if (lane != 0) return;
  a.active[static_cast<uint64_t>(token + t) * a.active_stride + first / kNeurons] = bits;
  if (a.activation != CudaActivation::silu) neurons.wanted[t] = bits;
}

template <DType D, int T, bool kAligned>
__device__ void run_phase(const GateUpArguments& a, Phase phase, bool staged, int token, int first,
                          int count, Neurons<T>& neurons) {
  const PlacedRows& w = phase == kGate ? a.gate : a.up;
  const Tokens tokens{a.x + static_cast<size_t>(token) * w.cols, w.cols,
                      a.token_count - token < T ? a.token_count - token : T};
  const int share = (count + kWarps - 1) / kWarps;
  block_rows<D, T, kAligned>(
      tokens, staged, count, share, [&](int i) { return w.row(first + neurons.list[i]); },
      [&](int i, int t, float sum) {
        const int n = neurons.list[i];
        if ((neurons.wanted[t] >> n & 1) == 0) return;
        const size_t at = static_cast<size_t>(token + t) * w.rows + first + n;
        if (phase == kUp) {
          a.hidden[at] *= sum;
          return;
        }
        const Activated result = activate(a.activation, a.threshold, sum);
        a.hidden[at] = result.value;
        if (a.magnitudes != nullptr) a.magnitudes[at] = fabsf(result.value);
        neurons.active[t][n] = result.active;
      });
}

// Phases [begin, end): both where gate and up have one type; the second finds what the first
// wrote to hidden and active.
template <DType D, int T, bool kAligned>
__global__ void __launch_bounds__(kThreads, kBlocksPerMultiprocessor<T>)
    gate_and_up_kernel(GateUpArguments a, int begin, int end) {
  __shared__ Neurons<T> neurons;
  const int token_groups = (a.token_count + T - 1) / T;
  const int token = static_cast<int>(blockIdx.x) % token_groups * T;
  const int first = static_cast<int>(blockIdx.x) / token_groups * kNeurons;
  const bool from_active = begin == kUp && a.activation != CudaActivation::silu;
  for (int i = threadIdx.x; i < T * kNeurons; i += kThreads)
    neurons.active[i / kNeurons][i % kNeurons] = 0;
  if (threadIdx.x < T) {
    const int t = token + static_cast<int>(threadIdx.x);
    uint32_t wanted = 0;
    if (t < a.token_count && from_active)
      wanted = a.active[static_cast<uint64_t>(t) * a.active_stride + first / kNeurons];
    else if (t < a.token_count)
      wanted = half_word(a.candidates, t, first, a.gate.rows);
    neurons.wanted[threadIdx.x] = wanted;
  }
  __syncthreads();
  const bool one_tile = unit_count<D>(a.gate.cols) <= kTileUnits<D, T>;
#pragma unroll 1
  for (int phase = begin; phase < end; ++phase) {
    const int count = make_list(neurons);
    if (count > 0)
      run_phase<D, T, kAligned>(a, static_cast<Phase>(phase), one_tile && phase != begin, token,
                                first, count, neurons);
    __syncthreads();
    if (phase == kGate) write_active(a, token, first, neurons);
    __syncthreads();
  }
}

template <DType D>
CudaError run_phases(const GateUpArguments& a, bool aligned, Phase begin, Phase end,
                     CudaStream stream) {
  return for_token_count(a.token_count, aligned, [&]<int T, bool kAligned>() {
    const int blocks = ceil_div(a.gate.rows, 2 * kNeurons) * 2;  // whole words of active bits
    const dim3 grid(static_cast<unsigned>(blocks) *
                    static_cast<unsigned>(ceil_div(a.token_count, T)));
    return launch(gate_and_up_kernel<D, T, kAligned>, grid, kThreads, kTileBytes<D, T>, stream, a,
                  static_cast<int>(begin), static_cast<int>(end));
  });
}

}  // namespace

CudaError cuda_gate_and_up(const CudaGateUp& call, int token_count, CudaStream stream) {
  if (token_count <= 0 || call.gate.rows <= 0) return nullptr;
  // Little bit order and little-endian words: neuron n is bit n % 32 of half n / 32.
  const GateUpArguments a{placed_rows_of(call.gate),
                          placed_rows_of(call.up),
                          call.activation,
                          call.threshold,
                          call.candidates,
                          call.x,
                          call.hidden,
                          reinterpret_cast<uint32_t*>(call.active),
                          2 * call.active_stride,
                          call.magnitudes,
                          token_count};
  if (call.gate.dtype == call.up.dtype)
    return for_type(call.gate.dtype, [&]<DType D>() {
      const bool aligned = is_aligned<D>(call.gate) && is_aligned<D>(call.up);
      return run_phases<D>(a, aligned, kGate, kPhaseEnd, stream);
    });
  const CudaError error = for_type(call.gate.dtype, [&]<DType D>() {
    return run_phases<D>(a, is_aligned<D>(call.gate), kGate, kUp, stream);
  });
  if (error != nullptr) return error;
  return for_type(call.up.dtype, [&]<DType D>() {
    return run_phases<D>(a, is_aligned<D>(call.up), kUp, kPhaseEnd, stream);
  });
}

}  // namespace TC_CUDA_NAMESPACE
