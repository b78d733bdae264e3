// The powerinfer format: torch's own files, ours, and archives and pickles that are neither.
#include <cmath>
#include <cstring>
#include <limits>

#include "tests/traces/conversions.h"
#include "traces/count_tensor.h"
#include "traces/tensor_pickle.h"
#include "traces/zip_file.h"

namespace thermocline::test {
namespace {

using Catch::Matchers::Contains;

const std::string kOracles = std::string(THERMOCLINE_SOURCE_DIR) + "/tests/oracles/count_tensors/";
const std::vector<uint32_t> kCounts = {0, 1, 65535, 70000, 4294967295, 12};

std::vector<uint32_t> parse(const std::string& bytes) {
  return parse_count_tensor(in_memory(bytes).bytes, "x.pt");
}

std::string message_of(const std::string& bytes) {
  const Failure failure = failure_of([&] { parse(bytes); });
  CHECK(failure.kind == ErrorKind::input);
  CHECK_THAT(failure.message, Contains("x.pt"));
  return failure.message;
}

// An archive of a tensor of any elements.
template <class T>
std::string tensor_of(const std::string& storage, const std::vector<T>& elements) {
  const std::string pickle = tensor_pickle(storage, elements.size());
  const std::string_view data(reinterpret_cast<const char*>(elements.data()),
                              elements.size() * sizeof(T));
  return zip_of({{"a/data.pkl", pickle}, {"a/data/0", data}, {"a/version", "3\n"}});
}

std::string archive_with(const std::string& pickle) {
  static const std::string data(16, '\0');
  return zip_of({{"a/data.pkl", pickle}, {"a/data/0", data}});
}

TEST_CASE("a CRC-32 is the one of zip files") {
  CHECK(crc32("123456789") == 0xcbf43926);  // the check value of ISO 3309 catalogues
  CHECK(crc32("") == 0);
}

TEST_CASE("files that torch.save wrote read as the numbers that went into them") {
  // tests/oracles/make_count_tensors.py: neuron i of layer l counts (i * 2654435761 + l) % 100003.
  for (uint32_t layer = 0; layer < 4; ++layer) {
    const std::string path = kOracles + "activation_" + std::to_string(layer) + ".pt";
    INFO(path);
    std::vector<uint32_t> expected;
    for (uint64_t i = 0; i < 300; ++i) {
      expected.push_back(static_cast<uint32_t>((i * 2654435761u + layer) % 100003));
    }
    CHECK(parse_count_tensor(map_file(path).bytes, path) == expected);
  }
  const std::string view = kOracles + "view.pt";
  CHECK(parse_count_tensor(map_file(view).bytes, view) == std::vector<uint32_t>{2, 3, 4, 5});
}

TEST_CASE("files of torch.save that are no plain tensor of counts are refused with what they are") {
  const auto message = [](const std::string& name) {
    const Failure failure =
        failure_of([&] { parse_count_tensor(map_file(kOracles + name).bytes, name); });
    CHECK(failure.kind == ErrorKind::input);
    return failure.message;
  };
  CHECK_THAT(message("parameter.pt"), Contains("torch._utils._rebuild_parameter"));
  CHECK_THAT(message("half.pt"), Contains("torch.HalfStorage"));
  CHECK_THAT(message("matrix.pt"), Contains("one dimension"));
  CHECK_THAT(message("legacy.pt"), Contains("since torch 1.6"));
}

TEST_CASE("a tensor of counts reads as it was written, in every type") {
  CHECK(parse(count_tensor(kCounts, "activation_0")) == kCounts);
  CHECK(parse(count_tensor({}, "empty")).empty());
  CHECK(parse(count_tensor(std::vector<uint32_t>(70000, 3), "large")).size() == 70000);
  CHECK(parse(tensor_of<float>("FloatStorage", {0, 1, 16777216})) ==
        std::vector<uint32_t>{0, 1, 16777216});
  CHECK(parse(tensor_of<double>("DoubleStorage", {4294967295.0})) ==
        std::vector<uint32_t>{4294967295});
  CHECK(parse(tensor_of<int32_t>("IntStorage", {7})) == std::vector<uint32_t>{7});
}

TEST_CASE("elements that are no counts are refused with the neuron") {
  const float nan = std::nanf(""), infinity = std::numeric_limits<float>::infinity();
  for (const float wrong : {-1.0f, 0.5f, nan, infinity, 4294967296.0f}) {
    CHECK_THAT(message_of(tensor_of<float>("FloatStorage", {1, wrong})), Contains("neuron 1"));
  }
  CHECK_THAT(message_of(tensor_of<int64_t>("LongStorage", {-1})), Contains("-1 of neuron 0"));
  CHECK_THAT(message_of(tensor_of<int64_t>("LongStorage", {int64_t{1} << 32})),
             Contains("neuron 0"));
  CHECK_THAT(message_of(tensor_of<int32_t>("LongStorage", {1, 2, 3})), Contains("12 bytes"));
}

TEST_CASE("a file of counts that is cut anywhere is an Error") {
  const std::string whole = count_tensor(kCounts, "a");
  for (size_t size = 0; size < whole.size(); ++size) {
    INFO(size);
    message_of(whole.substr(0, size));
  }
}

TEST_CASE("a flipped bit anywhere is an Error or changes no count") {
  const std::string whole = count_tensor(kCounts, "a");
  size_t refused = 0;
  for (size_t bit = 0; bit < 8 * whole.size(); ++bit) {
    std::string damaged = whole;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << bit % 8));
    try {
      if (parse(damaged) != kCounts) FAIL("bit " << bit);
    } catch (const Error&) {
      ++refused;
    }
  }
  CHECK(refused > whole.size());  // the rest are times, versions and padding
}

TEST_CASE("archives that torch.save does not make are refused") {
  const std::string whole = count_tensor(kCounts, "a");
  CHECK_THAT(message_of("PK"), Contains("a zip archive"));
  const size_t listed = whole.find("PK\x01\x02");
  std::string packed = whole;
  packed[listed + 10] = 8;  // deflate
  CHECK_THAT(message_of(packed), Contains("stored, not compressed"));
  std::string far = whole;
  far.replace(listed + 42, 4, "\xfe\xff\xff\xff");
  CHECK_THAT(message_of(far), Contains("bytes before an entry"));
  std::string many = whole;
  many.replace(whole.size() - 14, 4, "\xff\xff\xff\xff");
  CHECK_THAT(message_of(many), Contains("at most 64 entries"));
  CHECK_THAT(message_of(zip_of({{"a/data", "x"}})), Contains("NAME/data.pkl"));
  CHECK_THAT(message_of(zip_of({{"a/x", "x"}, {"a/x", "x"}})), Contains("each name once"));
  const std::string pickle = tensor_pickle("LongStorage", 1);
  CHECK_THAT(message_of(zip_of({{"a/data.pkl", pickle}, {"a/byteorder", "big"}})),
             Contains("little-endian"));
  CHECK_THAT(message_of(zip_of({{"a/data.pkl", pickle}})), Contains("a/data/0"));
}

TEST_CASE("a pickle that would call something is refused by the name that it calls") {
  CHECK_THAT(message_of(archive_with("\x80\x02"
                                     "cos\nsystem\n(X\x02"
                                     "\0\0\0"
                                     "lstR.")),
             Contains("not os.system"));
}

TEST_CASE("pickles that are no plain tensor are refused, and nothing grows") {
  const std::string good = tensor_pickle("LongStorage", 2);
  const auto replaced = [&good](const std::string& from, const std::string& to) {
    std::string pickle = good;
    const size_t at = pickle.find(from);
    REQUIRE(at != std::string::npos);
    return archive_with(pickle.replace(at, from.size(), to));
  };
  CHECK(parse(archive_with(good)).size() == 2);
  CHECK_THAT(message_of(replaced("\x80\x02", "\x80\x04")), Contains("protocol 2"));
  CHECK_THAT(message_of(replaced("K\x02\x85", "K\x03\x85")), Contains("within its storage"));
  CHECK_THAT(message_of(replaced("K\x01\x85", "K\x02\x85")), Contains("side by side"));
  CHECK_THAT(message_of(replaced("K\x01\x85", "K\x01K\x01\x86")), Contains("one dimension"));
  CHECK_THAT(message_of(replaced("storage", "storagE")), Contains("a storage"));
  CHECK_THAT(message_of(replaced("R.", "R")), Contains("opcode"));
  CHECK_THAT(message_of(archive_with(good + ".")), Contains("behind the end"));
  CHECK_THAT(message_of(archive_with("\x80\x02.")), Contains("a value"));
  CHECK_THAT(message_of(archive_with("\x80\x02h\x05.")), Contains("remembered"));
  CHECK_THAT(message_of(archive_with("\x80\x02]")), Contains("0x5d"));
  CHECK_THAT(message_of(archive_with("\x80\x02t")), Contains("a mark"));
  CHECK_THAT(message_of(archive_with("\x80\x02\x87")), Contains("as a tuple takes"));
  // Tuples of tuples: a recursive reader's stack, or its memory, would not end.
  CHECK_THAT(message_of(archive_with("\x80\x02)" + std::string(4000, '\x85') + ".")),
             Contains("another kind"));
  std::string doubling = "\x80\x02)";
  for (int i = 0; i < 500; ++i) doubling += "q\x01h\x01\x86";
  CHECK_THAT(message_of(archive_with(doubling + ".")), Contains("another kind"));
  CHECK_THAT(message_of(archive_with(std::string(5000, ')'))), Contains("4096 bytes"));
}

TEST_CASE("layers are taken by number, without a gap, and all of one width") {
  const TempDir folder;
  const std::string counts = folder / "c/", out = folder / "o.h5", csv = folder / "o.csv";
  std::filesystem::create_directory(counts);
  const auto path_of_layer = [&](int layer) {
    return counts + "activation_" + std::to_string(layer) + ".pt";
  };
  for (int layer = 0; layer < 12; ++layer) {
    const std::vector<uint32_t> own(8, static_cast<uint32_t>(layer));
    write_file(path_of_layer(layer), count_tensor(own, "a"));
  }
  write_file(counts + "activation_012.pt", "not one of ours");
  write_file(counts + "readme.txt", "neither");
  const auto make = [&] {
    return convert(folder, {counts, out, "--shape", "model_dim=64", "--provenance", "real",
                            "--counted-steps", "20"});
  };
  CHECK(make().at("step_count") == 20);
  const std::vector<uint32_t> found = counts_of(*open_trace(out));
  for (size_t i = 0; i < found.size(); ++i) CHECK(found[i] == i / 8);  // not 0, 1, 10, 11, 2
  std::filesystem::remove(path_of_layer(3));
  CHECK_THAT(failure_of(make).message, Contains("activation_3.pt"));
  write_file(path_of_layer(3), count_tensor(std::vector<uint32_t>(7), "a"));
  CHECK_THAT(failure_of(make).message, Contains("expected 8 neurons, found 7"));
  write_file(path_of_layer(3), count_tensor(std::vector<uint32_t>(8, 21), "a"));
  CHECK_THAT(failure_of(make).message, Contains("--counted-steps, 20, found 21"));
  CHECK_THAT(failure_of([&] { convert(folder, {out, counts}); }).message, Contains("new folder"));
}

}  // namespace
}  // namespace thermocline::test
