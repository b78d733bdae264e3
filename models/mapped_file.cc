#include "models/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>

#include "models/error.h"

namespace thermocline {
namespace {

class Descriptor {
 public:
  explicit Descriptor(const std::string& path) : fd_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int value() const { return fd_; }

 private:
  int fd_;
};

Error unreadable(const std::string& path) {
  return bad_input(path, "a readable file", std::strerror(errno));
}

}  // namespace

void release_pages(std::span<const std::byte> bytes) {
  static const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGE_SIZE));
  const auto address = reinterpret_cast<uintptr_t>(bytes.data());
  const uintptr_t begin = (address + page - 1) / page * page;
  const uintptr_t end = (address + bytes.size()) / page * page;
  // A hint: where it fails, the kernel takes the pages when it needs them.
  if (begin < end) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

MappedFile map_file(const std::string& path) {
  const Descriptor file(path);
  struct stat facts;
  if (file.value() < 0 || ::fstat(file.value(), &facts) != 0) throw unreadable(path);
  if (!S_ISREG(facts.st_mode)) {
    throw bad_input(path, "a regular file", S_ISDIR(facts.st_mode) ? "a folder" : "a device");
  }
  const auto size = static_cast<size_t>(facts.st_size);
  if (size == 0) return {};  // mmap refuses to map nothing
  void* const start = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.value(), 0);
  if (start == MAP_FAILED) throw unreadable(path);
  const auto unmap = [size](const void* mapped) { ::munmap(const_cast<void*>(mapped), size); };
  return {std::shared_ptr<const void>(start, unmap), {static_cast<const std::byte*>(start), size}};
}

}  // namespace thermocline
