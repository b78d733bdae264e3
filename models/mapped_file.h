// MappedFile: a whole file as read-only bytes.
//
// Goals: open once, share the mapping by shared_ptr. Errors name the path and the system's reason.
// Thread-safety: const after construction.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

namespace thermocline {

struct MappedFile {
  std::shared_ptr<const void> owner;  // unmaps when the last copy goes
  std::span<const std::byte> bytes;
};

// Lets go of the memory that pages of a mapping take; reading them again reads the file. `bytes`
// lie in what map_file mapped.
void release_pages(std::span<const std::byte> bytes);

MappedFile map_file(const std::string& path);  // Error{input} if it cannot be opened

}  // namespace thermocline
