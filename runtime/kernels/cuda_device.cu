// Devices, memory, streams and graphs.
#include "runtime/kernels/cuda_launch.h"

namespace TC_CUDA_NAMESPACE {

int cuda_device_count(const char** reason) {
  int count = 0, driver = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  *reason = nullptr;
  if (status == cudaSuccess && count > 0) return count;
  if (cudaDriverGetVersion(&driver) == cudaSuccess && driver == 0)
    *reason = "no NVIDIA driver is installed";
  else
    *reason = status == cudaSuccess ? "the driver lists no device" : cudaGetErrorString(status);
  return 0;
}

CudaError cuda_device(int index, CudaDevice* device) {
  cudaDeviceProp properties;
  const cudaError_t status = cudaGetDeviceProperties(&properties, index);
  if (status != cudaSuccess) return message(status);
  static_assert(sizeof device->name == sizeof properties.name);
  memcpy(device->name, properties.name, sizeof device->name);
  device->memory_bytes = properties.totalGlobalMem;
  device->compute_major = properties.major;
  device->compute_minor = properties.minor;
  device->multiprocessor_count = properties.multiProcessorCount;
  return nullptr;
}

CudaError cuda_use_device(int index) { return message(cudaSetDevice(index)); }

CudaError cuda_free_bytes(uint64_t* bytes) {
  size_t free = 0, total = 0;
  const cudaError_t status = cudaMemGetInfo(&free, &total);
  *bytes = free;
  return message(status);
}

CudaError cuda_stream_create(CudaStream* stream) {
  return message(cudaStreamCreateWithFlags(stream, cudaStreamNonBlocking));
}
CudaError cuda_stream_destroy(CudaStream stream) { return message(cudaStreamDestroy(stream)); }
CudaError cuda_stream_wait(CudaStream stream) { return message(cudaStreamSynchronize(stream)); }

CudaError cuda_event_create(CudaEvent* event) { return message(cudaEventCreate(event)); }
CudaError cuda_event_destroy(CudaEvent event) { return message(cudaEventDestroy(event)); }
CudaError cuda_event_record(CudaEvent event, CudaStream stream) {
  return message(cudaEventRecord(event, stream));
}
CudaError cuda_event_wait(CudaEvent event) { return message(cudaEventSynchronize(event)); }
CudaError cuda_event_is_reached(CudaEvent event, bool* reached) {
  const cudaError_t status = cudaEventQuery(event);
  *reached = status == cudaSuccess;
  if (status != cudaErrorNotReady) return message(status);
  cudaGetLastError();  // else the next launch would report it
  return nullptr;
}
CudaError cuda_event_ms(CudaEvent first, CudaEvent second, float* ms) {
  return message(cudaEventElapsedTime(ms, first, second));
}

CudaError cuda_allocate(uint64_t bytes, void** memory) {
  const cudaError_t status = cudaMalloc(memory, bytes);
  if (status != cudaSuccess) cudaGetLastError();  // else the next call would report it again
  return message(status);
}
CudaError cuda_free(void* memory) { return message(cudaFree(memory)); }
CudaError cuda_allocate_pinned(uint64_t bytes, void** memory) {
  return message(cudaHostAlloc(memory, bytes, cudaHostAllocDefault));
}
CudaError cuda_free_pinned(void* memory) { return message(cudaFreeHost(memory)); }

CudaError cuda_fill_zero(void* memory, uint64_t bytes, CudaStream stream) {
  return message(cudaMemsetAsync(memory, 0, bytes, stream));
}
CudaError cuda_copy(void* to, const void* from, uint64_t bytes, CudaStream stream) {
  return message(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream));
}
CudaError cuda_copy_rows(void* to, uint64_t stride, const void* from, uint64_t bytes, int count,
                         CudaStream stream) {
  return message(cudaMemcpy2DAsync(to, stride, from, bytes, bytes, static_cast<size_t>(count),
                                   cudaMemcpyHostToDevice, stream));
}

CudaError cuda_capture_begin(CudaStream stream) {
  return message(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
}

CudaError cuda_capture_end(CudaStream stream, CudaGraph* graph) {
  cudaGraph_t captured = nullptr;
  cudaError_t status = cudaStreamEndCapture(stream, &captured);
  if (status == cudaSuccess) status = cudaGraphInstantiate(graph, captured, 0);
  if (captured != nullptr) cudaGraphDestroy(captured);
  return message(status);
}

CudaError cuda_graph_launch(CudaGraph graph, CudaStream stream) {
  return message(cudaGraphLaunch(graph, stream));
}
CudaError cuda_graph_destroy(CudaGraph graph) { return message(cudaGraphExecDestroy(graph)); }

}  // namespace TC_CUDA_NAMESPACE
