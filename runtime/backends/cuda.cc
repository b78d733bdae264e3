// The backend for NVIDIA GPUs: one device, one stream, the operations of runtime/kernels/cuda.h;
// and a stream beside it for rows that move.
#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "models/error.h"
#include "runtime/backend.h"
#include "runtime/kernels/cuda.h"
#include "runtime/kernels/cuda_layout.h"
#include "runtime/thread_pool.h"

namespace TC_CUDA_NAMESPACE {
namespace {

constexpr int kRowsMax = 4096;  // of one forward
constexpr uint64_t kStagingBytes = 4 << 20;
constexpr uint64_t kScratchBytes = 64 << 20;   // partial sums of sum_rows and attention
constexpr uint64_t kBlockBytesMax = 96 << 10;  // shared memory that every device from sm_80 has
constexpr int kColumnsMax = 1 << 18;           // so that partial sums fit into the scratch

// A device of a node that fails is taken out of service: which one it was, the message says.
[[noreturn]] void fail(int device, const std::string& operation, CudaError error) {
  throw work_failed("cuda device " + std::to_string(device) + ": " + operation + ": " + error);
}
void check_on(int device, CudaError error, const std::string& operation) {
  if (error != nullptr) fail(device, operation, error);
}

std::string architecture(const CudaDevice& device) {
  return "sm_" + std::to_string(device.compute_major) + std::to_string(device.compute_minor);
}

std::string unusable() {
  const char* reason = nullptr;
  if (cuda_device_count(&reason) == 0) return reason;
  CudaDevice device;
  if (const CudaError error = cuda_device(0, &device); error != nullptr) return error;
  if (device.compute_major >= 8) return "";
  return std::string(device.name) + " is " + architecture(device) + ", too old: sm_80 is needed";
}

struct FreePinned {
  void operator()(std::byte* memory) const { cuda_free_pinned(memory); }
};
struct DestroyStream {
  void operator()(CUstream_st* stream) const { cuda_stream_destroy(stream); }
};
struct DestroyEvent {
  void operator()(CUevent_st* event) const { cuda_event_destroy(event); }
};
using Event = std::unique_ptr<CUevent_st, DestroyEvent>;
struct DestroyGraph {
  void operator()(CUgraphExec_st* graph) const { cuda_graph_destroy(graph); }
};

using Pinned = std::unique_ptr<std::byte, FreePinned>;
using Stream = std::unique_ptr<CUstream_st, DestroyStream>;

Pinned make_pinned(int device, uint64_t bytes) {
  void* memory = nullptr;
  check_on(device, cuda_allocate_pinned(bytes, &memory),
           "allocate " + std::to_string(bytes) + " bytes of pinned memory");
  return Pinned(static_cast<std::byte*>(memory));
}
Stream make_stream(int device) {
  CudaStream made = nullptr;
  check_on(device, cuda_stream_create(&made), "make a stream");
  return Stream(made);
}
Event make_event(int device) {
  CudaEvent made = nullptr;
  check_on(device, cuda_event_create(&made), "make an event");
  return Event(made);
}

// A stream with host memory from which it copies.
struct Lane {
  explicit Lane(int device)
      : stream(make_stream(device)), pinned(make_pinned(device, kStagingBytes)) {}
  Stream stream;
  Pinned pinned;
};

// A batch is one copy to a buffer of the device, from where a kernel takes its rows to their
// places. The next batch is put together while one is under way.
class CudaRowMover final : public RowMover {
 public:
  CudaRowMover(int device, uint64_t row_bytes, uint32_t batch_rows,
               std::shared_ptr<std::byte> buffer)
      : device_(device),
        row_bytes_(row_bytes),
        head_bytes_(head_bytes(batch_rows)),
        buffer_(std::move(buffer)),
        stream_(make_stream(device)) {
    for (Slot& slot : slots_)
      slot = {make_pinned(device, head_bytes_ + row_bytes * batch_rows), make_event(device)};
  }
  ~CudaRowMover() override { cuda_stream_wait(stream_.get()); }

  // The places of a batch lie before its rows, which begin at a multiple of 64 bytes.
  static uint64_t head_bytes(uint32_t batch_rows) {
    return (uint64_t{batch_rows} * sizeof(uint32_t) + 63) / 64 * 64;
  }

  std::byte* staging() override {
    check(cuda_use_device(device_), "use the device");
    Slot& slot = slots_[started_ % kSlots];
    if (started_ >= kSlots) {
      check(cuda_event_wait(slot.left.get()), "wait for moves");
      arrived_ = std::max(arrived_, started_ - kSlots + 1);
    }
    return slot.memory.get() + head_bytes_;
  }

  void start(std::byte* to, std::span<const uint32_t> places) override {
    Slot& slot = slots_[started_ % kSlots];
    std::memcpy(slot.memory.get(), places.data(), places.size_bytes());
    const CudaStream stream = stream_.get();
    check(cuda_copy(buffer_.get(), slot.memory.get(), head_bytes_ + places.size() * row_bytes_,
                    stream),
          "copy moves");
    check(cuda_scatter_rows(buffer_.get() + head_bytes_, row_bytes_,
                            reinterpret_cast<const uint32_t*>(buffer_.get()),
                            static_cast<int>(places.size()), to, stream),
          "bring moves to their places");
    check(cuda_event_record(slot.left.get(), stream), "mark moves");
    ++started_;
  }

  uint64_t arrived() override {
    for (bool reached = true; reached && arrived_ < started_; arrived_ += reached ? 1 : 0)
      check(cuda_event_is_reached(slots_[arrived_ % kSlots].left.get(), &reached), "look at moves");
    return arrived_;
  }

  void wait() override {
    check(cuda_stream_wait(stream_.get()), "wait for moves");
    arrived_ = started_;
  }

 private:
  static constexpr uint64_t kSlots = 2;
  struct Slot {
    Pinned memory;
    Event left;
  };

  void check(CudaError error, const char* operation) const { check_on(device_, error, operation); }

  int device_;
  uint64_t row_bytes_, head_bytes_;
  std::shared_ptr<std::byte> buffer_;  // on the device, as large as a slot's memory
  Slot slots_[kSlots];
  Stream stream_;  // ends before what it copies from
  uint64_t started_ = 0, arrived_ = 0;
};

class CudaBackend final : public Backend {
 public:
  explicit CudaBackend(const BackendOptions& options)
      : device_(options.device), pool_(options.thread_count) {
    use_device();
    check(cuda_device(device_, &facts_), "look at the device");
    main_ = std::make_unique<Lane>(device_);
    scratch_ = allocate(kScratchBytes);
    rows_ = allocate(sizeof(TokenRow) * kRowsMax);
  }

  ~CudaBackend() override { cuda_stream_wait(stream()); }

  std::string describe() const override {
    return std::string(facts_.name) + ", " + architecture(facts_);
  }
  bool uses_host_memory() const override { return false; }

  uint64_t free_bytes() const override {
    use_device();
    uint64_t bytes = 0;
    check(cuda_free_bytes(&bytes), "ask for free memory");
    return bytes;
  }

  std::string refusal_of_matrix(DType dtype, int cols) const override {
    const int items = static_cast<int>(thermocline::facts(dtype).items_per_block);
    const std::string type(thermocline::facts(dtype).name);
    if (cols % items != 0)
      return type + " needs rows of a multiple of " + std::to_string(items) + " columns, not " +
             std::to_string(cols);
    if (cols > kColumnsMax)
      return "rows of " + std::to_string(cols) + " columns are longer than " +
             std::to_string(kColumnsMax);
    return "";
  }

  std::string refusal_of_attention(int head_dim, int heads_per_kv_head) const override {
    if (head_dim % 2 != 0) return "heads of an odd width cannot be rotated in pairs";
    const uint64_t bytes = cuda_attention_block_bytes(head_dim, heads_per_kv_head);
    if (bytes <= kBlockBytesMax) return "";
    return std::to_string(heads_per_kv_head) + " heads of " + std::to_string(head_dim) +
           " for each kv head need " + std::to_string(bytes) + " bytes of shared memory, of " +
           std::to_string(kBlockBytesMax);
  }

  std::shared_ptr<std::byte> allocate(uint64_t bytes) override;
  void place_rows(const WeightView& w, int row_begin, int row_end, const std::byte* host) override;
  void upload(void* to, const void* host, uint64_t bytes) override;
  void download(void* host, const void* from, uint64_t bytes) override;

  void wait() override {
    check(cuda_stream_wait(stream()), "wait for the stream");
    staged_ = 0;
  }

  void run_on_host(int count, const std::function<void(int, int)>& work) override {
    pool_.run(count, 1, work);
  }

  void begin(std::span<const TokenRow> rows) override {
    TC_CHECK(rows.size() <= kRowsMax, std::to_string(rows.size()) + " rows in one forward");
    token_count_ = static_cast<int>(rows.size());
    upload(rows_.get(), rows.data(), rows.size_bytes());
  }

  void run_queued(uint64_t key, const std::function<void()>& queue) override;

  void embed(const WeightView& table, uint32_t first_token, float* x) override {
    check(cuda_embed(table, first_token, rows(), token_count_, x, stream()), "embed");
  }

  void rms_norm(const float* x, const float* weight, int dim, float epsilon, int count,
                float* y) override {
    check(cuda_rms_norm(x, weight, dim, epsilon, count, y, stream()), "rms_norm");
  }

  void multiply(std::span<const Product> products, const float* x, int count) override {
    std::vector<CudaProduct> list;
    for (const Product& product : products) list.push_back({product.w, product.y});
    check(cuda_multiply(list.data(), static_cast<int>(list.size()), x, count, stream()),
          "multiply");
  }

  void attend(const AttentionCall& call) override {
    const CudaAttention attention{call.q,
                                  call.k,
                                  call.v,
                                  call.cache.keys,
                                  call.cache.values,
                                  call.cache.slot_stride,
                                  call.cache.head_stride,
                                  call.cache.position_max,
                                  call.head_count,
                                  call.kv_head_count,
                                  call.head_dim,
                                  call.frequencies,
                                  call.out};
    check(cuda_attend(attention, rows(), token_count_, scratch(), kScratchFloats, stream()),
          "attend");
  }

  void gate_and_up(const GateUpCall& call) override {
    const CudaGateUp gate_up{call.gate,
                             call.up,
                             activation_of(call.activation),
                             call.threshold,
                             mask_of(call.candidates),
                             call.x,
                             call.hidden,
                             call.active,
                             call.active_stride,
                             call.magnitudes};
    check(cuda_gate_and_up(gate_up, token_count_, stream()), "gate_and_up");
  }

  void sum_rows(const WeightView& w, const NeuronMask& mask, const float* a, float* y) override {
    check(cuda_sum_rows(w, mask_of(mask), a, token_count_, y, scratch(), kScratchFloats, stream()),
          "sum_rows");
  }

  std::shared_ptr<std::byte> allocate_host(uint64_t bytes) override {
    use_device();
    const uint64_t size = std::max<uint64_t>(bytes, 1);
    Pinned memory = make_pinned(device_, size);
    std::memset(memory.get(), 0, size);
    return std::shared_ptr<std::byte>(std::move(memory));
  }
  void queue_copy(void* to, const void* from, uint64_t bytes) override {
    if (bytes > 0) check(cuda_copy(to, from, bytes, stream()), "copy");
  }
  void mark(uint32_t number) override {
    while (marks_.size() <= number) marks_.push_back(make_event(device_));
    check(cuda_event_record(marks_[number].get(), stream()), "set a mark");
  }
  void wait_for(uint32_t number) override {
    check(cuda_event_wait(marks_[number].get()), "wait for a mark");
  }
  uint64_t ns_between(uint32_t first, uint32_t second) override {
    float ms = 0;
    check(cuda_event_ms(marks_[first].get(), marks_[second].get(), &ms), "time marks");
    return static_cast<uint64_t>(std::max(0.0, double{ms} * 1e6));
  }
  void intersect(const NeuronMask& mask, const uint64_t* words, uint32_t word_count,
                 uint64_t* bits) override {
    check(cuda_intersect(mask_of(mask), words, static_cast<int>(word_count), token_count_, bits,
                         stream()),
          "intersect");
  }
  void pack_row(DType dtype, int cols, const std::byte* from, std::byte* to) const override {
    cuda_pack_row(dtype, cols, from, to);
  }
  std::unique_ptr<RowMover> make_mover(uint64_t row_bytes, uint32_t batch_rows) override {
    return std::make_unique<CudaRowMover>(device_, row_bytes, batch_rows,
                                          allocate(mover_bytes(row_bytes, batch_rows)));
  }
  uint64_t mover_bytes(uint64_t row_bytes, uint32_t batch_rows) const override {
    return CudaRowMover::head_bytes(batch_rows) + row_bytes * batch_rows;
  }

  void add(float* x, const float* y, uint64_t count) override {
    check(cuda_add(x, y, count, stream()), "add");
  }

  void match_signs(const SignCall& call) override {
    const CudaSigns signs{call.signs, call.rows, call.cols,  call.differing_max,
                          call.x,     call.bits, call.stride};
    check(cuda_match_signs(signs, token_count_, scratch(), kScratchFloats, stream()),
          "match_signs");
  }

  void relu(float* x, uint64_t count) override { check(cuda_relu(x, count, stream()), "relu"); }

  void mark_reached(const float* scores, int width, float threshold, uint64_t* bits,
                    uint64_t stride) override {
    check(cuda_mark_reached(scores, width, threshold, token_count_, bits, stride, stream()),
          "mark_reached");
  }

 private:
  static constexpr uint64_t kScratchFloats = kScratchBytes / sizeof(float);

  // What was queued for a key; the first time it only runs: that loads the kernels.
  struct Queued {
    bool ran = false;
    std::unique_ptr<CUgraphExec_st, DestroyGraph> graph;
  };

  static CudaActivation activation_of(FfnActivation activation) {
    switch (activation) {
      case FfnActivation::relu:
        return CudaActivation::relu;
      case FfnActivation::fatrelu:
        return CudaActivation::fatrelu;
      case FfnActivation::silu:
        break;
    }
    return CudaActivation::silu;
  }
  static CudaMask mask_of(const NeuronMask& mask) { return {mask.words, mask.stride}; }

  void check(CudaError error, const char* operation) const { check_on(device_, error, operation); }
  void use_device() const { check(cuda_use_device(device_), "use the device"); }
  CudaStream stream() const { return main_->stream.get(); }
  float* scratch() const { return reinterpret_cast<float*>(scratch_.get()); }
  const CudaTokenRow* rows() const { return reinterpret_cast<const CudaTokenRow*>(rows_.get()); }

  std::string of_free_text() const;
  std::byte* staging(uint64_t bytes);
  std::unique_ptr<Lane> take_loader();
  void give_back(std::unique_ptr<Lane> loader);
  void capture(const std::function<void()>& queue, Queued& queued);

  int device_;
  CudaDevice facts_ = {};
  ThreadPool pool_;
  std::unique_ptr<Lane> main_;
  uint64_t staged_ = 0;  // bytes of its pinned memory that copies may still read
  bool capturing_ = false;
  std::shared_ptr<std::byte> scratch_, rows_;
  int token_count_ = 0;
  std::vector<Event> marks_;
  std::map<std::pair<uint64_t, int>, Queued> queued_;  // by key and token count

  std::mutex loaders_mutex_;
  std::vector<std::unique_ptr<Lane>> loaders_;  // idle ones
};

static_assert(sizeof(CudaTokenRow) == sizeof(TokenRow));
static_assert(offsetof(CudaTokenRow, position) == offsetof(TokenRow, position));
static_assert(offsetof(CudaTokenRow, slot) == offsetof(TokenRow, slot));

// A device that is lost does not know either.
std::string CudaBackend::of_free_text() const {
  uint64_t bytes = 0;
  if (cuda_free_bytes(&bytes) != nullptr) return "";
  return ", of " + std::to_string(bytes) + " that are free";
}

std::shared_ptr<std::byte> CudaBackend::allocate(uint64_t bytes) {
  use_device();
  void* memory = nullptr;
  const CudaError error = cuda_allocate(std::max<uint64_t>(bytes, 1), &memory);
  if (error != nullptr)
    fail(device_, "allocate " + std::to_string(bytes) + " bytes" + of_free_text(), error);
  const std::shared_ptr<std::byte> owned(static_cast<std::byte*>(memory),
                                         [](std::byte* pointer) { cuda_free(pointer); });
  std::unique_ptr<Lane> loader = take_loader();
  check(cuda_fill_zero(memory, bytes, loader->stream.get()), "fill with zeros");
  check(cuda_stream_wait(loader->stream.get()), "fill with zeros");
  give_back(std::move(loader));
  return owned;
}

// Each caller has a stream and pinned memory of its own.
std::unique_ptr<Lane> CudaBackend::take_loader() {
  const std::lock_guard lock(loaders_mutex_);
  if (loaders_.empty()) return std::make_unique<Lane>(device_);
  std::unique_ptr<Lane> loader = std::move(loaders_.back());
  loaders_.pop_back();
  return loader;
}

void CudaBackend::give_back(std::unique_ptr<Lane> loader) {
  const std::lock_guard lock(loaders_mutex_);
  loaders_.push_back(std::move(loader));
}

void CudaBackend::place_rows(const WeightView& w, int row_begin, int row_end,
                             const std::byte* host) {
  use_device();
  std::unique_ptr<Lane> loader = take_loader();
  const uint64_t row_bytes = bytes_of(w.dtype, static_cast<uint64_t>(w.cols));
  const int at_once = static_cast<int>(kStagingBytes / row_bytes);
  TC_CHECK(at_once > 0, "a row of " + std::to_string(row_bytes) + " bytes");
  for (int row = row_begin; row < row_end; row += at_once) {
    const int count = std::min(at_once, row_end - row);
    for (int r = 0; r < count; ++r, host += row_bytes)
      cuda_pack_row(w.dtype, w.cols, host, loader->pinned.get() + r * row_bytes);
    check(cuda_copy_rows(const_cast<std::byte*>(w.row(row)), w.stride, loader->pinned.get(),
                         row_bytes, count, loader->stream.get()),
          "place rows");
    check(cuda_stream_wait(loader->stream.get()), "place rows");
  }
  give_back(std::move(loader));
}

// Room for `bytes` of pinned memory that no copy reads any more.
std::byte* CudaBackend::staging(uint64_t bytes) {
  if (staged_ + bytes > kStagingBytes) wait();
  std::byte* room = main_->pinned.get() + staged_;
  staged_ += bytes;
  return room;
}

void CudaBackend::upload(void* to, const void* host, uint64_t bytes) {
  TC_CHECK(!capturing_, "what is uploaded changes: it cannot be replayed");
  for (uint64_t at = 0; at < bytes;) {
    const uint64_t count = std::min(bytes - at, kStagingBytes);
    std::byte* room = staging(count);
    std::memcpy(room, static_cast<const std::byte*>(host) + at, count);
    check(cuda_copy(static_cast<std::byte*>(to) + at, room, count, stream()), "upload");
    at += count;
  }
}

void CudaBackend::download(void* host, const void* from, uint64_t bytes) {
  TC_CHECK(!capturing_, "a download waits: it cannot be replayed");
  for (uint64_t at = 0; at < bytes;) {
    const uint64_t count = std::min(bytes - at, kStagingBytes);
    std::byte* room = staging(count);
    check(cuda_copy(room, static_cast<const std::byte*>(from) + at, count, stream()), "download");
    wait();
    std::memcpy(static_cast<std::byte*>(host) + at, room, count);
    at += count;
  }
  if (bytes == 0) wait();
}

void CudaBackend::run_queued(uint64_t key, const std::function<void()>& queue) {
  Queued& queued = queued_[{key, token_count_}];
  if (!queued.ran) {
    queued.ran = true;
    queue();
    return;
  }
  if (queued.graph == nullptr) capture(queue, queued);
  check(cuda_graph_launch(queued.graph.get(), stream()), "launch a graph");
}

void CudaBackend::capture(const std::function<void()>& queue, Queued& queued) {
  check(cuda_capture_begin(stream()), "begin to capture a graph");
  capturing_ = true;
  CudaGraph graph = nullptr;
  const auto end = [&] {
    capturing_ = false;
    const CudaError error = cuda_capture_end(stream(), &graph);
    queued.graph.reset(graph);
    return error;
  };
  try {
    queue();
  } catch (...) {
    end();
    queued.graph.reset();
    throw;
  }
  check(end(), "capture a graph");
}

std::unique_ptr<Backend> make(const BackendOptions& options) {
  return std::make_unique<CudaBackend>(options);
}

THERMOCLINE_BACKEND(cuda, "NVIDIA GPUs from sm_80, through CUDA", unusable, make);

}  // namespace
}  // namespace TC_CUDA_NAMESPACE
