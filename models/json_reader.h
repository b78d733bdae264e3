// Strict reading of JSON that other programs write: config.json, tokenizer.json, safetensors.
//
// Goals: a key that comes twice, deep nesting and values beyond a small multiple of the file's size
//   are Errors with the path and the byte; so is a field of another type than asked for.
// Non-goals: writing, comments, the order of keys.
// Thread-safety: pure functions; const methods may be called from any thread.
//   const nlohmann::json config = parse_json(file.bytes, file.path);
//   const auto layers = JsonView(config, file.path).at("num_hidden_layers").count();
#pragma once

#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>

namespace thermocline {

// Arrays and objects inside one another; files of known formats have fewer than ten.
inline constexpr size_t kJsonDepthMax = 64;
// Bytes in memory for a byte of the file, and for free. A vocabulary takes about eight.
inline constexpr uint64_t kJsonMemoryPerByte = 16, kJsonMemoryFree = uint64_t{1} << 20;

// The one value that `bytes` are. `path` is for messages; offsets count from `offset`, where the
// bytes lie in that file. Errors: not JSON (RFC 8259, UTF-8), or beyond the limits above.
nlohmann::json parse_json(std::span<const std::byte> bytes, const std::string& path,
                          uint64_t offset = 0);

// A value and where it is found, which Errors say: "PATH: rope_scaling.factor: expected …".
class JsonView {
 public:
  JsonView(const nlohmann::json& value, std::string path)
      : JsonView(value, std::move(path), false) {}

  const nlohmann::json& value() const { return *value_; }
  const std::string& place() const { return place_; }

  // The member; none where there is none or it is null. An Error if this is no object.
  std::optional<JsonView> find(const std::string& key) const;
  JsonView at(const std::string& key) const;  // an Error where find() is none
  JsonView at(size_t index) const;            // index < size()
  size_t size() const;                        // of an array; else an Error

  // The value, an Error if it is of another type.
  const std::string& text() const;
  uint64_t count() const;  // an integer from 0 on
  double number() const;
  bool flag() const;

  [[noreturn]] void refuse(const std::string& expected) const;  // "…, found VALUE"

 private:
  JsonView(const nlohmann::json& value, std::string place, bool nested)
      : value_(&value), place_(std::move(place)), nested_(nested) {}
  const nlohmann::json& of_type(bool holds, const char* expected) const;

  const nlohmann::json* value_;
  std::string place_;
  bool nested_;  // in another value
};

}  // namespace thermocline
