// BundleFile: the FFN bundles of a rank as its backend wants them, in a file that tiers read from.
//
// A block of 4096 bytes says whose bundles these are; then come the layers, one after the other,
//   each a bundle a neuron. Bundles begin at multiples of what direct reads want.
// Goals: made once, used again by every run that would make the same; a file of another model,
//   share or version is never read, since the first block is compared as a whole. No partial file
//   under the final name. Non-goals: moving it to another machine.
// Errors: no room, or a failing disk: Error that names the file.
// Thread-safety: write() from several threads, on different neurons.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "models/new_file.h"

namespace thermocline {

// Alignment of bundles that direct reads would pad too much: the budget would not hold.
inline constexpr uint64_t kNotDirect = 16;

// Where the bundles of each layer lie; bytes.
struct BundleLayout {
  uint32_t neuron_count = 0;      // of a layer
  std::vector<uint64_t> strides;  // from one bundle of a layer to the next
  std::vector<uint64_t> offsets;  // of a layer's first bundle
  uint64_t file_bytes = 0;
  uint64_t alignment = 0;

  bool is_direct() const { return alignment != kNotDirect; }  // read past the page cache
  uint64_t at(uint32_t layer, uint32_t neuron) const {
    return offsets[layer] + neuron * strides[layer];
  }
  uint64_t stride_max() const;
};

// bundle_bytes: of each layer. Where `alignment` would pad one by more than a quarter: kNotDirect.
BundleLayout lay_out_bundles(std::span<const uint64_t> bundle_bytes, uint32_t neuron_count,
                             uint64_t alignment);

// What direct reads in a folder want: it makes and removes a small file there.
uint64_t alignment_in(const std::string& folder);

class BundleFile {
 public:
  // `identity`, of at most 4000 bytes, names everything that the bytes depend on.
  BundleFile(std::string path, BundleLayout layout, const std::string& identity);
  const std::string& path() const { return path_; }
  const BundleLayout& layout() const { return layout_; }
  bool is_made() const { return !file_.has_value(); }  // by an earlier run, or finish()

  // `bundles` (count, stride of the layer) for neurons from `neuron` on.
  void write(uint32_t layer, uint32_t neuron, std::span<const std::byte> bundles);
  void finish();
  bool is_new() const { return is_new_; }  // since finish()
  void remove_new();                       // what finish() made, not what an earlier run did

 private:
  bool found() const;

  std::string path_;
  BundleLayout layout_;
  std::vector<std::byte> head_;  // the first block
  std::optional<NewFile> file_;
  bool is_new_ = false;
};

}  // namespace thermocline
