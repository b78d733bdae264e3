// The backends that tests run on: those that can be used here, and CUDA's kernels emulated on the
// host.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "runtime/backend.h"
#include "tests/emulated/cuda.h"

namespace thermocline::test {

struct NamedBackend {
  std::string name;
  std::unique_ptr<Backend> backend;
};

inline std::vector<NamedBackend> all_backends(int thread_count = 2) {
  std::vector<NamedBackend> all;
  for (const BackendEntry* entry : backends().entries()) {
    if (entry->unusable().empty()) all.push_back({entry->name, entry->make({thread_count, {}, 0})});
  }
  if (kEmulatesCuda) all.push_back({"cuda, emulated", make_emulated_cuda_backend()});
  return all;
}

// A vector in a backend's memory.
template <class T>
struct Placed {
  Backend& backend;
  std::shared_ptr<std::byte> memory;
  size_t count;

  Placed(Backend& on, const std::vector<T>& values)
      : backend(on), memory(on.allocate(values.size() * sizeof(T))), count(values.size()) {
    backend.upload(data(), values.data(), count * sizeof(T));
  }
  T* data() const { return reinterpret_cast<T*>(memory.get()); }
  std::vector<T> fetch() const {
    std::vector<T> values(count);
    backend.download(values.data(), data(), count * sizeof(T));
    return values;
  }
};

}  // namespace thermocline::test
