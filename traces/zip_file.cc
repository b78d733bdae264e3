#include "traces/zip_file.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <set>

#include "models/byte_reader.h"
#include "models/error.h"

namespace thermocline {
namespace {

constexpr uint32_t kLocalMark = 0x04034b50, kEntryMark = 0x02014b50, kEndMark = 0x06054b50;
constexpr size_t kLocalBytes = 30, kEndBytes = 22, kCommentBytesMax = 65535;
constexpr size_t kEntriesMax = 64;  // torch.save writes seven for a tensor
constexpr uint32_t kInZip64 = 0xffffffff;
constexpr size_t kAlignment = 64;
constexpr uint16_t kPaddingId = 0x4354;  // of the extra field that aligns an entry
constexpr uint16_t kDosDay = 0x0021;     // 1980-01-01, the format's first
constexpr uint16_t kVersion = 20, kStored = 0;

// An entry of the central directory.
struct Listed {
  std::string name;
  uint32_t crc, size, offset;
};

struct Directory {
  uint32_t entry_count, size, offset;
};

// The end record is the last thing in the file but for a comment of the length that it says.
size_t find_end(std::span<const std::byte> bytes, const std::string& path) {
  const size_t furthest = bytes.size() - std::min(bytes.size(), kEndBytes + kCommentBytesMax);
  for (size_t at = bytes.size(); at-- > furthest;) {
    if (bytes.size() - at < kEndBytes) continue;
    ByteReader reader(bytes.subspan(at), path);
    if (reader.read<uint32_t>("end mark") != kEndMark) continue;
    reader.take(16, "end record");
    if (reader.read<uint16_t>("comment length") == reader.left()) return at;
  }
  throw bad_input(path, "a zip archive, as torch.save writes since torch 1.6",
                  "no end of an archive");
}

Directory read_end(std::span<const std::byte> bytes, size_t at, const std::string& path) {
  ByteReader reader(bytes.subspan(at), path);
  reader.take(4, "end mark");
  const auto disk = reader.read<uint16_t>("disk"), first = reader.read<uint16_t>("first disk");
  const auto here = reader.read<uint16_t>("entries here");
  Directory directory = {};
  directory.entry_count = reader.read<uint16_t>("entries");
  directory.size = reader.read<uint32_t>("directory size");
  directory.offset = reader.read<uint32_t>("directory offset");
  if (disk != 0 || first != 0 || here != directory.entry_count ||
      directory.entry_count > kEntriesMax) {
    throw bad_input(path, fmt::format("one archive of at most {} entries", kEntriesMax),
                    fmt::format("{} entries", directory.entry_count));
  }
  if (uint64_t{directory.offset} + directory.size > at) {
    throw bad_input(path, "a directory before its end record",
                    fmt::format("{} bytes at {}", directory.size, directory.offset));
  }
  return directory;
}

Listed read_listed(ByteReader& reader) {
  if (reader.read<uint32_t>("entry mark") != kEntryMark) {
    throw bad_input(reader.path(), "an entry of the zip directory", "another mark");
  }
  reader.take(4, "versions");
  const auto flags = reader.read<uint16_t>("flags");
  const auto method = reader.read<uint16_t>("method");
  reader.take(4, "time");
  Listed entry = {};
  entry.crc = reader.read<uint32_t>("crc");
  const auto packed = reader.read<uint32_t>("packed size");
  entry.size = reader.read<uint32_t>("size");
  const auto name_bytes = reader.read<uint16_t>("name length");
  const auto extra_bytes = reader.read<uint16_t>("extra length");
  const auto comment_bytes = reader.read<uint16_t>("comment length");
  reader.take(8, "attributes");
  entry.offset = reader.read<uint32_t>("offset");
  entry.name = reader.text(name_bytes, "name");
  reader.take(uint64_t{extra_bytes} + comment_bytes, "extra fields");
  const bool plain = method == kStored && packed == entry.size && flags % 2 == 0;
  if (!plain || entry.size == kInZip64 || entry.offset == kInZip64) {
    throw bad_input(reader.path(), "entries that are stored, not compressed",
                    fmt::format("method {}, flags {:#x}", method, flags));
  }
  return entry;
}

// The local header repeats the name; its own lengths say where the bytes begin.
ZipEntry read_entry(std::span<const std::byte> bytes, const Listed& listed,
                    const std::string& path) {
  ByteReader reader(bytes, path);
  reader.take(listed.offset, "bytes before an entry");
  const auto mark = reader.read<uint32_t>("local mark");
  reader.take(kLocalBytes - 8, "local header");
  const auto name_bytes = reader.read<uint16_t>("name length");
  const auto extra_bytes = reader.read<uint16_t>("extra length");
  const std::string_view name = reader.text(name_bytes, "name");
  reader.take(extra_bytes, "extra fields");
  if (mark != kLocalMark || name != listed.name) {
    throw bad_input(path, "entry " + listed.name.substr(0, 60) + " where the directory has it",
                    "something else");
  }
  ZipEntry entry = {listed.name, reader.text(listed.size, "entry")};
  if (crc32(entry.bytes) != listed.crc) {
    throw bad_input(path, fmt::format("CRC-32 {:08x} of {}", listed.crc, listed.name.substr(0, 60)),
                    fmt::format("{:08x}", crc32(entry.bytes)));
  }
  return entry;
}

class Output {
 public:
  template <class T>
  void number(T value) {
    bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  template <class T, class... More>
  void number(T value, More... more) {
    number(value);
    number(more...);
  }
  std::string bytes;
};

// Version, flags, method, time, day, CRC and sizes: the same in both headers.
void write_facts(Output& out, const ZipEntry& entry) {
  const auto size = static_cast<uint32_t>(entry.bytes.size());
  out.number(kVersion, uint16_t{0}, kStored, uint16_t{0}, kDosDay, crc32(entry.bytes), size, size,
             static_cast<uint16_t>(entry.name.size()));
}

void write_local(Output& out, const ZipEntry& entry) {
  const size_t header = kLocalBytes + entry.name.size() + 4;  // 4: id and length of the padding
  const size_t padding = (kAlignment - (out.bytes.size() + header) % kAlignment) % kAlignment;
  out.number(kLocalMark);
  write_facts(out, entry);
  out.number(static_cast<uint16_t>(4 + padding));
  out.bytes += entry.name;
  out.number(kPaddingId, static_cast<uint16_t>(padding));
  out.bytes.append(padding, '\0');
  out.bytes += entry.bytes;
}

void write_listed(Output& out, const ZipEntry& entry, size_t offset) {
  out.number(kEntryMark, kVersion);
  write_facts(out, entry);
  out.number(uint16_t{0}, uint16_t{0}, uint16_t{0}, uint16_t{0}, uint32_t{0},
             static_cast<uint32_t>(offset));
  out.bytes += entry.name;
}

}  // namespace

uint32_t crc32(std::string_view bytes) {
  return static_cast<uint32_t>(
      ::crc32_z(0, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
}

std::vector<ZipEntry> parse_zip(std::span<const std::byte> bytes, const std::string& path) {
  const Directory directory = read_end(bytes, find_end(bytes, path), path);
  ByteReader reader(bytes.subspan(directory.offset, directory.size), path);
  std::vector<ZipEntry> entries;
  std::set<std::string> names;
  for (uint32_t i = 0; i < directory.entry_count; ++i) {
    entries.push_back(read_entry(bytes, read_listed(reader), path));
    if (!names.insert(entries.back().name).second) {
      throw bad_input(path, "each name once", "'" + entries.back().name.substr(0, 60) + "' twice");
    }
  }
  return entries;
}

std::string zip_of(const std::vector<ZipEntry>& entries) {
  Output out;
  std::vector<size_t> offsets;
  for (const ZipEntry& entry : entries) {
    offsets.push_back(out.bytes.size());
    write_local(out, entry);
  }
  const size_t directory = out.bytes.size();
  for (size_t i = 0; i < entries.size(); ++i) write_listed(out, entries[i], offsets[i]);
  const size_t size = out.bytes.size() - directory;
  TC_CHECK(out.bytes.size() < kInZip64 && entries.size() <= kEntriesMax, "an archive below 4 GiB");
  const auto count = static_cast<uint16_t>(entries.size());
  out.number(kEndMark, uint16_t{0}, uint16_t{0}, count, count, static_cast<uint32_t>(size),
             static_cast<uint32_t>(directory), uint16_t{0});
  return out.bytes;
}

}  // namespace thermocline
