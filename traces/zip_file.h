// Zip archives of stored (not compressed) entries, as torch.save makes them.
//
// PKWARE's APPNOTE 6.3, sections 4.3.6 to 4.3.16. torch.save also writes a ZIP64 end record; for
//   archives below 4 GiB the classic one holds the same numbers, and that is what is read.
// Goals: every offset and length checked against the file; CRC-32 checked; the bytes of an entry
//   are a view into the file.
// Non-goals: compression, encryption, archives in parts or of 4 GiB and more.
// Thread-safety: pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace thermocline {

uint32_t crc32(std::string_view bytes);  // ISO 3309, as zip and gzip have it

struct ZipEntry {
  std::string name;
  std::string_view bytes;
};

// Error{input}: no archive, damage, more than 64 entries, anything of the non-goals.
std::vector<ZipEntry> parse_zip(std::span<const std::byte> bytes, const std::string& path);

// The archive of these entries; each one's bytes begin at a multiple of 64, as torch.load may map.
std::string zip_of(const std::vector<ZipEntry>& entries);

}  // namespace thermocline
