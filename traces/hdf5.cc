#include "traces/hdf5.h"

#include "models/error.h"

namespace thermocline {

void Hdf5Dataset::check_block(Element element, const Extent& count, uint64_t size) const {
  uint64_t total = 1;
  for (const uint64_t n : count) total *= n;
  TC_CHECK(element == this->element(), "the element type of a dataset");
  TC_CHECK(total == size, "a block and its memory");
}

}  // namespace thermocline

#ifndef THERMOCLINE_HAVE_HDF5

namespace thermocline {

std::unique_ptr<Hdf5File> create_hdf5(const std::string& path) {
  throw work_failed(path + ": built without HDF5: traces cannot be written");
}
std::unique_ptr<Hdf5File> open_hdf5(const std::string& path) {
  throw work_failed(path + ": built without HDF5: traces cannot be read");
}

}  // namespace thermocline

#else

#include <hdf5.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <functional>
#include <mutex>
#include <utility>

#include "traces/ordered_file.h"

namespace thermocline {
namespace {

constexpr uint64_t kChunkBytesMax = uint64_t{256} << 20;  // what a file may make us allocate
constexpr uint64_t kChunkCacheBytes = uint64_t{1} << 20;
constexpr uint64_t kTextCountMax = 65536;

std::recursive_mutex& library_mutex() {
  static std::recursive_mutex mutex;
  return mutex;
}

// Holds the library and keeps it quiet: its error printing is a setting of each thread.
class Locked {
 public:
  Locked() : lock_(library_mutex()) {
    // No clean-up at exit: a file that nobody closed stays as its last flush left it.
    static const bool prepared = H5dont_atexit() >= 0 && H5PLset_loading_state(0) >= 0;
    thread_local const bool quiet = H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr) >= 0;
    TC_CHECK(prepared && quiet, "HDF5 starts");
  }

 private:
  std::lock_guard<std::recursive_mutex> lock_;
};

struct FileState {
  std::string path;
  std::unique_ptr<OrderedFile> disk;  // of a file that is being written
  bool sealed = false;                // of one that is read
  uint64_t size = 0;                  // the same: bytes when it was opened
};

// The innermost reason on this thread's error stack.
std::string library_reason() {
  std::string reason;
  const auto visit = [](unsigned depth, const H5E_error2_t* error, void* out) -> herr_t {
    if (depth == 0 && error->desc != nullptr) *static_cast<std::string*>(out) = error->desc;
    return 0;
  };
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, visit, &reason);
  return reason.empty() ? "an unknown HDF5 error" : reason;
}

[[noreturn]] void fail(FileState& file, const std::string& what, const std::string& reason) {
  if (!file.disk) throw bad_input(file.path, what, reason);
  file.disk->abandon();
  const int error = file.disk->error();
  throw work_failed(file.path + ": cannot write " + what + ": " +
                    (error != 0 ? std::strerror(error) : reason));
}

template <class Result>
Result check(FileState& file, Result result, const std::string& what) {
  if (result < 0) fail(file, what, library_reason());
  return result;
}

// Owns an identifier of the library.
class Handle {
 public:
  using Close = herr_t (*)(hid_t);
  Handle() = default;
  Handle(std::shared_ptr<FileState> file, hid_t id, Close close, const std::string& what)
      : file_(std::move(file)), id_(check(*file_, id, what)), close_(close) {}
  Handle(Handle&& other) noexcept
      : file_(std::move(other.file_)),
        id_(std::exchange(other.id_, H5I_INVALID_HID)),
        close_(other.close_) {}
  Handle& operator=(Handle&& other) noexcept {
    std::swap(file_, other.file_);
    std::swap(id_, other.id_);
    std::swap(close_, other.close_);
    return *this;
  }
  ~Handle() { close(); }

  // False if the library could not.
  bool close() {
    if (id_ < 0) return true;
    const Locked locked;
    return close_(std::exchange(id_, H5I_INVALID_HID)) >= 0;
  }
  hid_t id() const { return id_; }

 private:
  std::shared_ptr<FileState> file_;
  hid_t id_ = H5I_INVALID_HID;
  Close close_ = nullptr;
};

struct ElementType {
  Element element;
  hid_t stored;  // little-endian
  hid_t memory;
};

// IEEE 754 binary16, which this version of the library has no name for.
hid_t half_type() {
  const hid_t type = H5Tcopy(H5T_IEEE_F32LE);
  const bool made = H5Tset_fields(type, 15, 10, 5, 0, 10) >= 0 && H5Tset_size(type, 2) >= 0 &&
                    H5Tset_ebias(type, 15) >= 0;
  TC_CHECK(made, "HDF5 makes a type of 16 bits");
  return type;
}

const std::vector<ElementType>& element_types() {
  static const hid_t half = half_type();
  static const std::vector<ElementType> table = {
      {Element::u8, H5T_STD_U8LE, H5T_NATIVE_UINT8},
      {Element::f16, half, half},
      {Element::u32, H5T_STD_U32LE, H5T_NATIVE_UINT32},
      {Element::u64, H5T_STD_U64LE, H5T_NATIVE_UINT64},
      {Element::i32, H5T_STD_I32LE, H5T_NATIVE_INT32},
      {Element::f32, H5T_IEEE_F32LE, H5T_NATIVE_FLOAT},
  };
  return table;
}

const ElementType& type_of(Element element) {
  for (const ElementType& type : element_types()) {
    if (type.element == element) return type;
  }
  TC_CHECK(false, "every element has a type");
  return element_types()[0];
}

Handle space_of(const std::shared_ptr<FileState>& file, const Extent& extent,
                const hsize_t* extent_max = nullptr) {
  const std::vector<hsize_t> dims(extent.begin(), extent.end());
  return {file, H5Screate_simple(static_cast<int>(dims.size()), dims.data(), extent_max), H5Sclose,
          "a dataspace"};
}

void select(FileState& file, hid_t space, const Extent& begin, const Extent& count) {
  const std::vector<hsize_t> start(begin.begin(), begin.end());
  const std::vector<hsize_t> block(count.begin(), count.end());
  check(file,
        H5Sselect_hyperslab(space, H5S_SELECT_SET, start.data(), nullptr, block.data(), nullptr),
        "a selection");
}

class Dataset final : public Hdf5Dataset {
 public:
  Dataset(std::shared_ptr<FileState> file, std::string name, Handle handle)
      : file_(std::move(file)), name_("dataset " + std::move(name)), handle_(std::move(handle)) {
    read_type();
    read_extent();
    read_layout();
  }

  Element element() const override { return type_->element; }
  const Extent& extent() const override { return extent_; }
  const Extent& chunk() const override { return chunk_; }
  bool deflated() const override { return deflated_; }
  uint64_t stored_bytes() const override {
    const Locked locked;
    return H5Dget_storage_size(handle_.id());
  }
  uint64_t chunk_bytes() const { return chunk_bytes_; }

  void extend(uint64_t rows) override {
    const Locked locked;
    Extent grown = extent_;
    grown[0] = rows;
    const std::vector<hsize_t> dims(grown.begin(), grown.end());
    check(*file_, H5Dset_extent(handle_.id(), dims.data()), name_);
    extent_ = grown;
  }

  void write_bytes(const Extent& begin, const Extent& count, const void* data) override {
    const Locked locked;
    const Handle here = selection(begin, count);
    const Handle memory = space_of(file_, count);
    check(*file_, H5Dwrite(handle_.id(), type_->memory, memory.id(), here.id(), H5P_DEFAULT, data),
          name_);
  }

  void read_bytes(const Extent& begin, const Extent& count, void* data) const override {
    const Locked locked;
    const Handle here = selection(begin, count);
    const Handle memory = space_of(file_, count);
    check(*file_, H5Dread(handle_.id(), type_->memory, memory.id(), here.id(), H5P_DEFAULT, data),
          name_);
  }

  void write_chunk(const Extent& begin, std::span<const std::byte> stored) override {
    const Locked locked;
    const std::vector<hsize_t> at(begin.begin(), begin.end());
    check(*file_,
          H5Dwrite_chunk(handle_.id(), H5P_DEFAULT, 0, at.data(), stored.size(), stored.data()),
          name_);
  }

  void read_chunk(const Extent& begin, std::vector<std::byte>& stored) const override {
    const Locked locked;
    const std::vector<hsize_t> at(begin.begin(), begin.end());
    hsize_t size = 0;
    check(*file_, H5Dget_chunk_storage_size(handle_.id(), at.data(), &size), name_);
    if (size == 0 || size > file_->size) fail(*file_, "a chunk of " + name_, "none, or too large");
    stored.resize(size);
    uint32_t skipped_filters = 0;
    check(*file_,
          H5Dread_chunk(handle_.id(), H5P_DEFAULT, at.data(), &skipped_filters, stored.data()),
          name_);
    if (skipped_filters != 0) fail(*file_, "a compressed chunk of " + name_, "another");
  }

 private:
  Handle selection(const Extent& begin, const Extent& count) const {
    TC_CHECK(begin.size() == extent_.size() && count.size() == extent_.size(), name_);
    for (size_t i = 0; i < extent_.size(); ++i) {
      TC_CHECK(begin[i] <= extent_[i] && count[i] <= extent_[i] - begin[i], name_);
    }
    Handle space = {file_, H5Dget_space(handle_.id()), H5Sclose, name_};
    select(*file_, space.id(), begin, count);
    return space;
  }

  void read_type() {
    const Handle stored = {file_, H5Dget_type(handle_.id()), H5Tclose, name_};
    for (const ElementType& type : element_types()) {
      if (H5Tequal(stored.id(), type.stored) > 0) type_ = &type;
    }
    if (type_ == nullptr) fail(*file_, name_ + " of a number type", "another type");
  }

  void read_extent() {
    const Handle space = {file_, H5Dget_space(handle_.id()), H5Sclose, name_};
    hsize_t dims[H5S_MAX_RANK] = {};
    const int rank = check(*file_, H5Sget_simple_extent_ndims(space.id()), name_);
    check(*file_, H5Sget_simple_extent_dims(space.id(), dims, nullptr), name_);
    extent_.assign(dims, dims + rank);
  }

  void read_layout() {
    const Handle plist = {file_, H5Dget_create_plist(handle_.id()), H5Pclose, name_};
    if (H5Pget_layout(plist.id()) != H5D_CHUNKED) return;
    hsize_t dims[H5S_MAX_RANK] = {};
    const int rank = check(*file_, H5Pget_chunk(plist.id(), H5S_MAX_RANK, dims), name_);
    chunk_bytes_ = bytes_of(type_->element);
    for (int i = 0; i < rank; ++i) {
      if (dims[i] == 0 || dims[i] > kChunkBytesMax / chunk_bytes_) {
        fail(*file_, name_ + " with chunks of at most 256 MiB", "larger chunks");
      }
      chunk_bytes_ *= dims[i];
    }
    chunk_.assign(dims, dims + rank);
    read_filters(plist);
  }

  void read_filters(const Handle& plist) {
    const int count = check(*file_, H5Pget_nfilters(plist.id()), name_);
    unsigned flags = 0, config = 0;
    size_t value_count = 0;
    deflated_ = count == 1 && H5Pget_filter2(plist.id(), 0, &flags, &value_count, nullptr, 0,
                                             nullptr, &config) == H5Z_FILTER_DEFLATE;
  }

  std::shared_ptr<FileState> file_;
  std::string name_;
  Handle handle_;
  const ElementType* type_ = nullptr;
  Extent extent_;
  Extent chunk_;
  uint64_t chunk_bytes_ = 0;  // 0: not chunked
  bool deflated_ = false;
};

class File final : public Hdf5File {
 public:
  File(std::shared_ptr<FileState> state, Handle handle)
      : state_(std::move(state)), handle_(std::move(handle)) {}

  const std::string& path() const override { return state_->path; }
  uint64_t file_bytes() const override { return state_->size; }
  bool sealed() const override { return state_->sealed; }

  std::unique_ptr<Hdf5Dataset> create(const DatasetSpec& spec) override {
    const Locked locked;
    const Handle plist = property_list(H5P_DATASET_CREATE);
    std::vector<hsize_t> extent_max(spec.extent.begin(), spec.extent.end());
    if (!spec.chunk.empty()) {
      extent_max[0] = H5S_UNLIMITED;
      const std::vector<hsize_t> chunk(spec.chunk.begin(), spec.chunk.end());
      check(*state_, H5Pset_chunk(plist.id(), static_cast<int>(chunk.size()), chunk.data()),
            spec.name);
    }
    if (spec.deflated) check(*state_, H5Pset_deflate(plist.id(), 1), spec.name);
    const Handle space = space_of(state_, spec.extent, extent_max.data());
    return make_dataset(spec, space, plist);
  }

  void create_virtual(const DatasetSpec& spec, const std::vector<VirtualBlock>& blocks) override {
    const Locked locked;
    const Handle plist = property_list(H5P_DATASET_CREATE);
    const Handle space = space_of(state_, spec.extent);
    const uint64_t ones = ~uint64_t{0};
    check(*state_, H5Pset_fill_value(plist.id(), type_of(spec.element).memory, &ones), spec.name);
    for (const VirtualBlock& block : blocks) {
      select(*state_, space.id(), block.begin, block.count);
      const Handle source = space_of(state_, block.source_extent);
      check(*state_,
            H5Pset_virtual(plist.id(), space.id(), block.file.c_str(), block.dataset.c_str(),
                           source.id()),
            spec.name);
    }
    check(*state_, H5Sselect_all(space.id()), spec.name);
    make_dataset(spec, space, plist);
  }

  std::unique_ptr<Hdf5Dataset> open(const std::string& name) const override {
    const Locked locked;
    auto dataset = open_with_cache(name, kChunkCacheBytes);
    if (dataset->chunk_bytes() <= kChunkCacheBytes / 2) return dataset;
    const uint64_t cache_bytes = 2 * dataset->chunk_bytes();
    dataset.reset();  // the cache's size is fixed by the first open
    return open_with_cache(name, cache_bytes);
  }

  void write_number_bytes(const std::string& name, Element element, const void* value) override {
    const Locked locked;
    const ElementType& type = type_of(element);
    if (check(*state_, H5Aexists(handle_.id(), name.c_str()), name) == 0) {
      const Handle space = {state_, H5Screate(H5S_SCALAR), H5Sclose, name};
      Handle(
          state_,
          H5Acreate2(handle_.id(), name.c_str(), type.stored, space.id(), H5P_DEFAULT, H5P_DEFAULT),
          H5Aclose, "attribute " + name);
    }
    const Handle attribute = open_attribute(name);
    check(*state_, H5Awrite(attribute.id(), type.memory, value), "attribute " + name);
  }

  void read_number_bytes(const std::string& name, Element element, void* value) const override {
    const Locked locked;
    const Handle attribute = open_attribute(name);
    const Handle stored = {state_, H5Aget_type(attribute.id()), H5Tclose, name};
    const bool fits = H5Tequal(stored.id(), type_of(element).stored) > 0;
    if (!fits || count_of(attribute, name) != 1) {
      fail(*state_, "attribute " + name + " as one number", "something else");
    }
    check(*state_, H5Aread(attribute.id(), type_of(element).memory, value), "attribute " + name);
  }

  void write_text(const std::string& name, const std::string& text) override {
    const Locked locked;
    write_text_attribute(name, {state_, H5Screate(H5S_SCALAR), H5Sclose, name}, {text});
  }

  void write_texts(const std::string& name, const std::vector<std::string>& texts) override {
    const Locked locked;
    write_text_attribute(name, space_of(state_, {texts.size()}), texts);
  }

  std::string read_text(const std::string& name) const override {
    const std::vector<std::string> texts = read_texts(name);
    if (texts.size() != 1) fail(*state_, "attribute " + name + " as one text", "several");
    return texts[0];
  }

  std::vector<std::string> read_texts(const std::string& name) const override {
    const Locked locked;
    const Handle attribute = open_attribute(name);
    const Handle type = text_type();
    const Handle stored = {state_, H5Aget_type(attribute.id()), H5Tclose, name};
    if (H5Tis_variable_str(stored.id()) <= 0) {
      fail(*state_, "attribute " + name + " as text of variable length", "something else");
    }
    const uint64_t count = count_of(attribute, name);
    if (count > kTextCountMax) fail(*state_, "attribute " + name, std::to_string(count) + " texts");
    std::vector<char*> pointers(count);
    check(*state_, H5Aread(attribute.id(), type.id(), pointers.data()), "attribute " + name);
    std::vector<std::string> texts;
    for (char* text : pointers) {
      texts.emplace_back(text == nullptr ? "" : text);
      H5free_memory(text);
    }
    return texts;
  }

  void flush() override {
    const Locked locked;
    check(*state_, H5Fflush(handle_.id(), H5F_SCOPE_GLOBAL), "to disk");
  }

  void close() override {
    const Locked locked;
    const bool closed = handle_.close();
    if (!closed || (state_->disk && !state_->disk->seal())) {
      fail(*state_, "to disk", library_reason());
    }
  }

 private:
  Handle property_list(hid_t kind) const {
    return {state_, H5Pcreate(kind), H5Pclose, "a property list"};
  }

  Handle text_type() const {
    Handle type = {state_, H5Tcopy(H5T_C_S1), H5Tclose, "a text type"};
    check(*state_, H5Tset_size(type.id(), H5T_VARIABLE), "a text type");
    check(*state_, H5Tset_cset(type.id(), H5T_CSET_UTF8), "a text type");
    return type;
  }

  Handle open_attribute(const std::string& name) const {
    return {state_, H5Aopen(handle_.id(), name.c_str(), H5P_DEFAULT), H5Aclose,
            "attribute " + name};
  }

  uint64_t count_of(const Handle& attribute, const std::string& name) const {
    const Handle space = {state_, H5Aget_space(attribute.id()), H5Sclose, name};
    return static_cast<uint64_t>(
        check(*state_, H5Sget_simple_extent_npoints(space.id()), "attribute " + name));
  }

  void write_text_attribute(const std::string& name, const Handle& space,
                            const std::vector<std::string>& texts) {
    const Handle type = text_type();
    const Handle attribute = {
        state_,
        H5Acreate2(handle_.id(), name.c_str(), type.id(), space.id(), H5P_DEFAULT, H5P_DEFAULT),
        H5Aclose, "attribute " + name};
    std::vector<const char*> pointers;
    for (const std::string& text : texts) pointers.push_back(text.c_str());
    check(*state_, H5Awrite(attribute.id(), type.id(), pointers.data()), "attribute " + name);
  }

  std::unique_ptr<Dataset> make_dataset(const DatasetSpec& spec, const Handle& space,
                                        const Handle& plist) {
    const Handle links = property_list(H5P_LINK_CREATE);
    check(*state_, H5Pset_create_intermediate_group(links.id(), 1), spec.name);
    // No chunk cache: a write reaches the disk, or fails, before any metadata speaks of it.
    const Handle access = access_list(0);
    Handle id = {state_,
                 H5Dcreate2(handle_.id(), spec.name.c_str(), type_of(spec.element).stored,
                            space.id(), links.id(), plist.id(), access.id()),
                 H5Dclose, "dataset " + spec.name};
    return std::make_unique<Dataset>(state_, spec.name, std::move(id));
  }

  Handle access_list(uint64_t cache_bytes) const {
    Handle access = property_list(H5P_DATASET_ACCESS);
    check(*state_,
          H5Pset_chunk_cache(access.id(), H5D_CHUNK_CACHE_NSLOTS_DEFAULT, cache_bytes,
                             H5D_CHUNK_CACHE_W0_DEFAULT),
          "a chunk cache");
    return access;
  }

  std::unique_ptr<Dataset> open_with_cache(const std::string& name, uint64_t cache_bytes) const {
    const Handle access = access_list(cache_bytes);
    Handle id = {state_, H5Dopen2(handle_.id(), name.c_str(), access.id()), H5Dclose,
                 "dataset " + name};
    return std::make_unique<Dataset>(state_, name, std::move(id));
  }

  std::shared_ptr<FileState> state_;
  Handle handle_;
};

// HDF5's view of an OrderedFile: bits and columns are written at once, everything else waits for
// the end of a flush.
struct DriverFile {
  H5FD_t base;  // the library's part comes first
  OrderedFile* disk;
  haddr_t allocated_end;
};

DriverFile& driver_file(H5FD_t* file) { return *reinterpret_cast<DriverFile*>(file); }
const DriverFile& driver_file(const H5FD_t* file) {
  return *reinterpret_cast<const DriverFile*>(file);
}

herr_t status(bool succeeded) { return succeeded ? 0 : -1; }

H5FD_t* driver_open(const char*, unsigned, hid_t access, haddr_t) {
  const auto* disk = static_cast<OrderedFile* const*>(H5Pget_driver_info(access));
  return disk == nullptr ? nullptr : &(new DriverFile{{}, *disk, 0})->base;
}

herr_t driver_close(H5FD_t* file) {
  delete &driver_file(file);
  return 0;
}

int driver_compare(const H5FD_t* one, const H5FD_t* other) {
  const OrderedFile *a = driver_file(one).disk, *b = driver_file(other).disk;
  return a->same_file(*b) ? 0 : std::less<>()(a, b) ? -1 : 1;
}

herr_t driver_query(const H5FD_t*, unsigned long* features) {
  // No metadata accumulator: it joins blocks into writes of its own making.
  *features = H5FD_FEAT_AGGREGATE_METADATA | H5FD_FEAT_AGGREGATE_SMALLDATA |
              H5FD_FEAT_DEFAULT_VFD_COMPATIBLE;
  return 0;
}

haddr_t driver_allocated_end(const H5FD_t* file, H5FD_mem_t) {
  return driver_file(file).allocated_end;
}

herr_t driver_set_allocated_end(H5FD_t* file, H5FD_mem_t, haddr_t end) {
  driver_file(file).allocated_end = end;
  return 0;
}

haddr_t driver_end(const H5FD_t* file, H5FD_mem_t) { return driver_file(file).disk->end(); }

herr_t driver_read(H5FD_t* file, H5FD_mem_t, hid_t, haddr_t at, size_t size, void* bytes) {
  return status(driver_file(file).disk->read(at, {static_cast<std::byte*>(bytes), size}));
}

// Heaps of texts come as data (H5F_block_write), but damage to them can crash the library as damage
// to its index can. Data that happens to begin alike only waits a little.
bool is_text_heap(std::span<const std::byte> block) {
  constexpr std::string_view kSignature = "GCOL";
  return block.size() >= kSignature.size() &&
         std::memcmp(block.data(), kSignature.data(), kSignature.size()) == 0;
}

herr_t driver_write(H5FD_t* file, H5FD_mem_t kind, hid_t, haddr_t at, size_t size,
                    const void* bytes) {
  OrderedFile& disk = *driver_file(file).disk;
  const std::span block(static_cast<const std::byte*>(bytes), size);
  if (kind == H5FD_MEM_DRAW && !is_text_heap(block)) return status(disk.write_now(at, block));
  disk.write_at_commit(at, block);
  return 0;
}

herr_t driver_flush(H5FD_t* file, hid_t, hbool_t) {
  return status(driver_file(file).disk->commit());
}

herr_t driver_truncate(H5FD_t* file, hid_t, hbool_t) {
  const DriverFile& driver = driver_file(file);
  return status(driver.allocated_end == driver.disk->end() ||
                driver.disk->resize(driver.allocated_end));
}

hid_t ordered_driver() {
  static const hid_t id = [] {
    H5FD_class_t driver = {};
    driver.name = "thermocline_ordered";
    driver.maxaddr = (haddr_t{1} << 63) - 1;
    driver.fc_degree = H5F_CLOSE_WEAK;
    driver.fapl_size = sizeof(OrderedFile*);
    driver.open = driver_open;
    driver.close = driver_close;
    driver.cmp = driver_compare;
    driver.query = driver_query;
    driver.get_eoa = driver_allocated_end;
    driver.set_eoa = driver_set_allocated_end;
    driver.get_eof = driver_end;
    driver.read = driver_read;
    driver.write = driver_write;
    driver.flush = driver_flush;
    driver.truncate = driver_truncate;
    const H5FD_mem_t kinds[] = H5FD_FLMAP_DICHOTOMY;
    std::copy(std::begin(kinds), std::end(kinds), driver.fl_map);
    return H5FDregister(&driver);
  }();
  return id;
}

Handle file_access(const std::shared_ptr<FileState>& state) {
  return {state, H5Pcreate(H5P_FILE_ACCESS), H5Pclose, "a property list"};
}

}  // namespace

std::unique_ptr<Hdf5File> create_hdf5(const std::string& path) {
  const Locked locked;
  auto state = std::make_shared<FileState>();
  state->path = path;
  state->disk = std::make_unique<OrderedFile>(path);
  const Handle access = file_access(state);
  const OrderedFile* disk = state->disk.get();
  check(*state, H5Pset_driver(access.id(), ordered_driver(), &disk), "through our driver");
  Handle file = {state, H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access.id()), H5Fclose,
                 "the file"};
  return std::make_unique<File>(state, std::move(file));
}

std::unique_ptr<Hdf5File> open_hdf5(const std::string& path) {
  const Locked locked;
  auto state = std::make_shared<FileState>();
  state->path = path;
  if (!std::filesystem::exists(path)) throw bad_input(path, "an HDF5 file", "no such file");
  const SealState seal = check_seal(path);
  if (seal == SealState::broken) throw bad_input(path, "an index as it was sealed", "another");
  state->sealed = seal == SealState::intact;
  std::error_code unreadable;
  state->size = std::filesystem::file_size(path, unreadable);
  const Handle access = file_access(state);
  // Locks where the file system has them: not a file that is being written.
  check(*state, H5Pset_file_locking(access.id(), 1, 1), "file locking");
  Handle file = {state, H5Fopen(path.c_str(), H5F_ACC_RDONLY, access.id()), H5Fclose,
                 "an HDF5 file"};
  return std::make_unique<File>(state, std::move(file));
}

}  // namespace thermocline

#endif
