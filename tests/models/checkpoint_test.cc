// Checkpoints whatever their format: the registry's contract, finding tensors, naming files.
#include "models/checkpoint.h"
#include "models/mapped_file.h"

#include <catch2/catch.hpp>
#include <map>
#include <random>

#include "models/cli.h"
#include "tests/file_bytes.h"
#include "tests/gguf_parts.h"
#include "tests/hf_files.h"
#include "tests/models/parse_bytes.h"
#include "tests/support.h"

namespace thermocline::test {
namespace {

using Catch::Matchers::Contains;

// A small valid file of each registered format.
std::string valid_bytes(const std::string& format) {
  const std::map<std::string, std::string> files = {
      {"gguf", small_gguf(DType::q8_0).bytes()},
      {"llama2c", small_llama2c()},
      {"powerinfer", small_powerinfer(DType::q8_0).bytes()},
      {"safetensors", small_safetensors(DType::f16).bytes()}};
  INFO("a new format needs a small file here: " << format);
  REQUIRE(files.contains(format));
  return files.at(format);
}

// What lies beside it: of use to one format, not seen by the others.
const std::map<std::string, std::string>& files_beside() {
  static const std::map<std::string, std::string> files = {
      {"config.json", hf_config(small_shape())}};
  return files;
}

void put_byte(const std::string& path, uint64_t at, char value) {
  std::FILE* file = std::fopen(path.c_str(), "r+b");
  REQUIRE(file != nullptr);
  std::fseek(file, static_cast<long>(at), SEEK_SET);
  std::fputc(value, file);
  std::fclose(file);
}

}  // namespace

TEST_CASE("every format knows its own file and refuses damaged ones") {
  for (const std::string& name : checkpoint_formats().names()) {
    INFO(name);
    const CheckpointFormat& format = checkpoint_formats().by_name(name);
    const std::string bytes = valid_bytes(name);
    CHECK(format.matches(std::as_bytes(std::span(bytes)), "model"));
    CHECK_FALSE(format.matches({}, "model"));
    CHECK(parse_bytes(name, bytes, files_beside())->shape().ffn_dim == 160);
    std::mt19937 random(1);
    for (int i = 0; i < 200; ++i) {
      const std::string cut = bytes.substr(0, random() % bytes.size());
      input_error([&] { parse_bytes(name, cut, files_beside()); });
      std::string noise(random() % 200, '\0');
      for (char& byte : noise) byte = static_cast<char>(random() % 256);
      input_error([&] { parse_bytes(name, noise, files_beside()); });
    }
  }
}

TEST_CASE("every format finds its file by content") {
  const TempDir folder;
  for (const auto& [name, bytes] : files_beside()) write_file(folder / name, bytes);
  for (const std::string& name : checkpoint_formats().names()) {
    write_file(folder / name, valid_bytes(name));
    const auto checkpoint = open_checkpoint(folder / name);
    CHECK(checkpoint->path() == folder / name);
    CHECK(checkpoint->get("blk.1.ffn_gate.weight", 160, 64).bytes.size() > 0);
  }
}

TEST_CASE("files that are no checkpoint are refused with the formats that are read") {
  const TempDir folder;
  write_file(folder / "empty", "");
  write_file(folder / "text", "Once upon a time");
  for (const char* name : {"empty", "text"}) {
    CHECK_THAT(input_error([&] { open_checkpoint(folder / name); }),
               Contains("a checkpoint (gguf, llama2c, "));
  }
  write_file(folder / "text.bin", "Once upon a time there was");
  CHECK_THAT(input_error([&] { open_checkpoint(folder / "text.bin"); }), Contains("text.bin"));
  input_error([&] { open_checkpoint(folder / "missing"); });
  input_error([&] { open_checkpoint(folder.path()); });
}

TEST_CASE("rows are found wherever a format stores them") {
  const std::string bytes = "aabbccddeeff";
  TensorView tensor{.name = "t",
                    .dtype = DType::f16,
                    .rows = 6,
                    .cols = 1,
                    .bytes = std::as_bytes(std::span(bytes))};
  const auto order = [&] {
    std::string found;
    for (uint64_t row = 0; row < tensor.rows; ++row) {
      found += static_cast<char>(*tensor.row(row));
    }
    return found;
  };
  CHECK(tensor.contiguous());
  CHECK(order() == "abcdef");
  tensor.half_split_head_dim = 6;  // stored: pairs 0 1 2, first halves, then second halves
  CHECK_FALSE(tensor.contiguous());
  CHECK(order() == "adbecf");
  tensor.half_split_head_dim = 2;
  CHECK(order() == "abcdef");
  tensor = {.name = "t",
            .dtype = DType::f16,
            .rows = 3,
            .cols = 1,
            .bytes = std::as_bytes(std::span(bytes)),
            .row_stride = 4};
  CHECK_FALSE(tensor.contiguous());
  CHECK(order() == "ace");
  CHECK(tensor.byte_count() == 6);
}

TEST_CASE("find may be null: get says what it expected and what it found") {
  const auto checkpoint = parse_bytes("gguf", small_gguf(DType::f16).bytes());
  CHECK(checkpoint->find("blk.2.ffn_up.weight") == nullptr);
  REQUIRE(checkpoint->find("blk.1.ffn_up.weight") != nullptr);
  CHECK(checkpoint->find("blk.1.ffn_up.weight")->rows == 160);
  CHECK_THAT(input_error([&] { checkpoint->get("blk.1.ffn_up.weight", 64, 160); }),
             Contains("of 64 x 160, found 160 x 64"));
  CHECK_THAT(input_error([&] { checkpoint->get("nothing", 1, 2); }),
             Contains("tensor nothing of 1 x 2, found no such tensor"));
}

namespace {

std::string hash_of(const std::string& path) {
  const MappedFile file = map_file(path);
  return checkpoint_hash({{path, file.owner, file.bytes}});
}

}  // namespace

TEST_CASE("a checkpoint's hash follows its size, head, samples and tail") {
  const TempDir folder;
  const std::string path = folder / "file";
  const uint64_t mib = 1 << 20, size = 65 * mib;
  write_file(path, "");
  const std::string hash_of_nothing = hash_of(path);
  std::filesystem::resize_file(path, size);  // zeros that take no room
  const std::string hash = hash_of(path);
  CHECK(hash.size() == 16);
  CHECK(hash != hash_of_nothing);
  CHECK(hash_of(path) == hash);
  for (const uint64_t at : {uint64_t{0}, mib - 1, 64 * mib, 64 * mib + 4095, size - 1}) {
    INFO("byte " << at);
    put_byte(path, at, 'b');
    CHECK(hash_of(path) != hash);
    put_byte(path, at, 0);
    CHECK(hash_of(path) == hash);
  }
  std::filesystem::resize_file(path, size + 1);
  CHECK(hash_of(path) != hash);
}

}  // namespace thermocline::test
