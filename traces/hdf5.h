// HDF5 behind one door: files, datasets, attributes. Only hdf5.cc includes the library's header.
//
// Goals: one place that calls HDF5, checks every result and turns its error stack into an Error;
//   nothing of HDF5 on stderr; what comes from a file is checked before memory is taken for it.
// Non-goals: a general wrapper; types, filters and layouts that a trace does not use.
// Reading fails with Error{input}, writing with Error{failed}. Killed at any moment or after a
//   failed write, the file is as the last flush() left it (traces/ordered_file.h).
// Thread-safety: every call takes one process-wide lock, so objects may be used from any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

namespace thermocline {

// f16: in memory its bits, as uint16_t.
enum class Element : uint8_t { u8, f16, u32, u64, i32, f32 };

template <class T>
constexpr Element element_of() {
  if constexpr (std::is_same_v<T, uint8_t>) return Element::u8;
  if constexpr (std::is_same_v<T, uint16_t>) return Element::f16;
  if constexpr (std::is_same_v<T, uint32_t>) return Element::u32;
  if constexpr (std::is_same_v<T, uint64_t>) return Element::u64;
  if constexpr (std::is_same_v<T, int32_t>) return Element::i32;
  if constexpr (std::is_same_v<T, float>) return Element::f32;
}

constexpr uint64_t bytes_of(Element element) {
  switch (element) {
    case Element::u8:
      return 1;
    case Element::f16:
      return 2;
    case Element::u64:
      return 8;
    default:
      return 4;
  }
}

using Extent = std::vector<uint64_t>;

struct DatasetSpec {
  std::string name;  // "steps/token": groups are made as needed
  Element element;
  Extent extent;  // at creation
  Extent chunk;   // empty: contiguous and of fixed extent; else the first dimension may grow
  bool deflated = false;  // chunks are zlib streams
};

// A block of a virtual dataset, and the whole dataset of another file that fills it.
struct VirtualBlock {
  std::string file;  // relative to the folder of the file that holds the virtual dataset
  std::string dataset;
  Extent source_extent;
  Extent begin;
  Extent count;
};

class Hdf5Dataset {
 public:
  virtual ~Hdf5Dataset() = default;
  virtual Element element() const = 0;
  virtual const Extent& extent() const = 0;
  virtual const Extent& chunk() const = 0;  // empty: not chunked
  // Chunks are zlib streams and nothing else.
  virtual bool deflated() const = 0;
  // Bytes in the file. HDF5 reads what was never stored as zeros: hold this against the extent.
  virtual uint64_t stored_bytes() const = 0;
  // Grows the first dimension.
  virtual void extend(uint64_t rows) = 0;
  virtual void write_bytes(const Extent& begin, const Extent& count, const void* data) = 0;
  virtual void read_bytes(const Extent& begin, const Extent& count, void* data) const = 0;
  // One chunk as it lies in the file: what the filter made of it. `begin`: of its first element.
  // Compressing here would hold the lock.
  virtual void write_chunk(const Extent& begin, std::span<const std::byte> stored) = 0;
  virtual void read_chunk(const Extent& begin, std::vector<std::byte>& stored) const = 0;

  // The block [begin, begin + count), row-major; data.size() is its number of elements.
  template <class T>
  void write(const Extent& begin, const Extent& count, std::span<const T> data) {
    check_block(element_of<T>(), count, data.size());
    write_bytes(begin, count, data.data());
  }
  template <class T>
  void read(const Extent& begin, const Extent& count, std::span<T> data) const {
    check_block(element_of<T>(), count, data.size());
    read_bytes(begin, count, data.data());
  }

 private:
  void check_block(Element element, const Extent& count, uint64_t size) const;
};

class Hdf5File {
 public:
  virtual ~Hdf5File() = default;
  virtual const std::string& path() const = 0;
  virtual uint64_t file_bytes() const = 0;  // at open
  // Of a file opened to read: close() sealed it, and its index is as it was then.
  virtual bool sealed() const = 0;

  virtual std::unique_ptr<Hdf5Dataset> create(const DatasetSpec& spec) = 0;
  // Elements that no block fills read as all ones, so that they cannot pass for zeros.
  virtual void create_virtual(const DatasetSpec& spec, const std::vector<VirtualBlock>& blocks) = 0;
  virtual std::unique_ptr<Hdf5Dataset> open(const std::string& name) const = 0;

  // Attributes of the root group. Numbers are scalars, texts UTF-8 of variable length.
  virtual void write_number_bytes(const std::string& name, Element element, const void* value) = 0;
  virtual void read_number_bytes(const std::string& name, Element element, void* value) const = 0;
  virtual void write_text(const std::string& name, const std::string& text) = 0;
  virtual std::string read_text(const std::string& name) const = 0;
  virtual void write_texts(const std::string& name, const std::vector<std::string>& texts) = 0;
  virtual std::vector<std::string> read_texts(const std::string& name) const = 0;

  virtual void flush() = 0;
  // Seals the file; datasets are closed first. The destructor closes without seal.
  virtual void close() = 0;

  template <class T>
  void write_number(const std::string& name, T value) {
    write_number_bytes(name, element_of<T>(), &value);
  }
  template <class T>
  T read_number(const std::string& name) const {
    T value{};
    read_number_bytes(name, element_of<T>(), &value);
    return value;
  }
};

// The parts of the library that this build has. Without HDF5 both throw Error{failed}.
std::unique_ptr<Hdf5File> create_hdf5(const std::string& path);  // replaces what is there
// To read. Error{input}: not HDF5, or its index was changed after it was sealed.
std::unique_ptr<Hdf5File> open_hdf5(const std::string& path);

}  // namespace thermocline
