// GGUF models in several files: whichever is named, all are read, and they must fit together.
#include "models/gguf_split.h"

#include <catch2/catch.hpp>

#include "models/cli.h"
#include "models/weights.h"
#include "tests/file_bytes.h"
#include "tests/gguf_parts.h"
#include "tests/models/parse_bytes.h"
#include "tests/support.h"

namespace thermocline::test {
namespace {

using Catch::Matchers::Contains;

constexpr uint32_t kPartCount = 3;

// Parses part `index`, the others beside it, under the names that gguf-split gives.
std::unique_ptr<Checkpoint> parse(const std::vector<GgufFile>& parts, uint32_t index = 0) {
  std::map<std::string, std::string> beside;
  for (uint32_t i = 0; i < parts.size(); ++i) {
    beside[gguf_part_name("model", i, kPartCount)] = parts[i].bytes();
  }
  return parse_bytes("gguf", parts[index].bytes(), beside,
                     "some/" + gguf_part_name("model", index, kPartCount));
}

std::string refused(const std::vector<GgufFile>& parts, uint32_t index = 0) {
  return input_error([&] { parse(parts, index); });
}

}  // namespace

TEST_CASE("a split GGUF model is the same from each of its parts") {
  const GgufFile whole = small_gguf(DType::q8_0);
  const auto parts = split_gguf(whole, kPartCount);
  const auto expected = parse_bytes("gguf", whole.bytes());
  for (uint32_t index = 0; index < kPartCount; ++index) {
    const auto checkpoint = parse(parts, index);
    CHECK(checkpoint->shape() == expected->shape());
    CHECK(checkpoint->files().size() == kPartCount);
    REQUIRE(checkpoint->tensors().size() == expected->tensors().size());
    for (const TensorView& tensor : expected->tensors()) {
      const TensorView& found = checkpoint->get(tensor.name, tensor.rows, tensor.cols);
      REQUIRE(found.bytes.size() == tensor.bytes.size());
      CHECK(std::memcmp(found.bytes.data(), tensor.bytes.data(), tensor.bytes.size()) == 0);
    }
  }
}

TEST_CASE("a first part may have keys and no tensors") {
  auto parts = split_gguf(small_gguf(DType::f32), kPartCount);
  parts[1].tensors.insert(parts[1].tensors.begin(), parts[0].tensors.begin(),
                          parts[0].tensors.end());
  parts[0].tensors.clear();
  CHECK(parse(parts, 2)->shape() == small_shape());
}

TEST_CASE("split files on disk open as one model") {
  const TempDir folder;
  const auto parts = split_gguf(small_gguf(DType::f16), kPartCount);
  for (uint32_t i = 0; i < kPartCount; ++i) {
    write_file(folder / gguf_part_name("model", i, kPartCount), parts[i].bytes());
  }
  const std::string second = folder / gguf_part_name("model", 1, kPartCount);
  CHECK(open_weights(parse_model_spec(second))->shape() == small_shape());
  std::filesystem::remove(folder / gguf_part_name("model", 2, kPartCount));
  CHECK_THAT(input_error([&] { open_checkpoint(second); }),
             Contains("model-00003-of-00003.gguf beside it"));
}

TEST_CASE("parts of a GGUF model that do not fit together are refused") {
  const auto whole = split_gguf(small_gguf(DType::f32), kPartCount);
  auto parts = whole;
  parts[0].set("split.tensors.count", Bytes().put<uint32_t>(5).put<int32_t>(4711));
  CHECK_THAT(refused(parts, 1), Contains("4711 tensors in all parts"));
  parts = whole;
  parts[1].set("split.no", Bytes().put<uint32_t>(2).put<uint16_t>(2));
  CHECK_THAT(refused(parts), Contains("split.no 1, found 2"));
  CHECK_THAT(refused(parts, 1), Contains("a name that ends in -00003-of-00003.gguf"));
  parts = whole;
  parts[2].set("split.count", Bytes().put<uint32_t>(2).put<uint16_t>(4));
  CHECK_THAT(refused(parts), Contains("split.count 3, found 4"));
  parts = whole;
  parts[0].set("split.no", Bytes().put<uint32_t>(2).put<uint16_t>(3));
  CHECK_THAT(refused(parts), Contains("split.no below split.count"));
  parts = whole;
  parts[2].tensors.push_back(parts[1].tensors.front());
  parts[1].tensors.pop_back();
  CHECK_THAT(refused(parts), Contains("tensors of different names"));
  parts = whole;
  parts[1].remove("split.no");
  CHECK_THAT(refused(parts), Contains("split.no"));
}

TEST_CASE("a part of a GGUF model under another name is refused") {
  const auto parts = split_gguf(small_gguf(DType::f32), kPartCount);
  for (const char* name : {"model.gguf", "model-00002-of-00003.gguf", "-00001-of-00003.gguf"}) {
    CHECK_THAT(input_error([&] { parse_bytes("gguf", parts[0].bytes(), {}, name); }),
               Contains("a name that ends in -00001-of-00003.gguf"));
  }
}

TEST_CASE("any part of a GGUF model cut at any byte is refused") {
  const auto parts = split_gguf(small_gguf(DType::q4_0, narrow_shape()), kPartCount);
  for (uint32_t cut = 0; cut < kPartCount; ++cut) {
    const std::string bytes = parts[cut].bytes();
    for (size_t size = 0; size < bytes.size(); ++size) {
      std::map<std::string, std::string> beside;
      for (uint32_t i = 0; i < kPartCount; ++i) {
        beside[gguf_part_name("FILE", i, kPartCount)] =
            i == cut ? bytes.substr(0, size) : parts[i].bytes();
      }
      const std::string named = gguf_part_name("FILE", 0, kPartCount);
      REQUIRE(input_error([&] {
                parse_bytes("gguf", beside.at(named), beside, named);
              }).starts_with("FILE"));
    }
  }
}

}  // namespace thermocline::test
