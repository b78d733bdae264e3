// NpyWriter: rows of f32 streamed into a NumPy .npy file (format 1.0, NEP 1).
//
// Goals: bounded memory; the file appears under its name only when whole.
// Non-goals: other types and orders. Thread-safety: one thread.
#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <span>
#include <string>

namespace thermocline {

class NpyWriter {
 public:
  NpyWriter(const std::string& path, uint64_t width);  // writes PATH.tmp
  ~NpyWriter();                                        // without finish(): removes it
  NpyWriter(const NpyWriter&) = delete;
  NpyWriter& operator=(const NpyWriter&) = delete;

  void append(std::span<const float> row);  // (width)
  void finish();                            // shape (rows, width); renames

 private:
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  [[noreturn]] void fail(const std::string& what) const;
  void write(const void* bytes, size_t count);
  std::string header() const;

  std::string path_;
  uint64_t width_;
  uint64_t row_count_ = 0;
  std::unique_ptr<std::FILE, Close> file_;
};

}  // namespace thermocline
