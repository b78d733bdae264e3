// Runs a fuzz target without libFuzzer: its seeds and the files it is given, then mutations of
// them from a fixed seed, so that a failure comes back every time.
//
// TARGET [ITERATIONS] [--seed S] [--write-seeds FOLDER] [FILE|FOLDER]...
// Where the target dies, its input is written to crash-input in the current folder.
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <new>
#include <random>
#include <string>
#include <vector>

#include "tests/fuzz/fuzz.h"

namespace thermocline::fuzz {
namespace {

constexpr size_t kInputBytesMax = size_t{1} << 16;
constexpr size_t kAllocationBytesMax = size_t{1} << 26;  // a thousand times the largest input

struct Options {
  uint64_t iterations = 10000;
  uint64_t seed = 1;
  std::string seed_folder;  // where to write the seeds, if anywhere
  std::vector<std::string> corpus;
};

std::string current_input;  // for the signal handler

void write_crash_input() {
  std::FILE* file = std::fopen("crash-input", "wb");
  if (file == nullptr) return;
  std::fwrite(current_input.data(), 1, current_input.size(), file);
  std::fclose(file);
  std::fprintf(stderr, "the input is in crash-input (%zu bytes)\n", current_input.size());
}

void on_crash(int signal) {
  std::signal(signal, SIG_DFL);
  write_crash_input();
  ::raise(signal);
}

void run_one(const std::string& input) {
  current_input = input;
  // A copy of exactly the input's size, so that a sanitizer sees one byte too far.
  const std::vector<uint8_t> block(input.begin(), input.end());
  try {
    LLVMFuzzerTestOneInput(block.data(), block.size());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "not an Error: %s\n", error.what());
    write_crash_input();
    std::exit(1);
  }
}

// Numbers that lie about lengths, in the widths that files have them.
std::string hostile_number(std::mt19937_64& random) {
  const uint64_t values[] = {
      0,          1,          UINT64_MAX,       UINT64_MAX - 7, 1ull << 63,
      1ull << 62, 1ull << 32, (1ull << 32) - 1, 1ull << 31,     random() % 300};
  const uint64_t value = values[random() % std::size(values)];
  const size_t width = size_t{1} << random() % 4;
  return {reinterpret_cast<const char*>(&value), width};
}

using Mutation = void (*)(std::string& input, const std::string& other, std::mt19937_64& random);

// Each takes an input of at least one byte.
constexpr Mutation kMutations[] = {
    [](std::string& input, const std::string&, std::mt19937_64& random) {  // one bit
      input[random() % input.size()] ^= static_cast<char>(1 << random() % 8);
    },
    [](std::string& input, const std::string&, std::mt19937_64& random) {  // one byte
      input[random() % input.size()] = static_cast<char>(random());
    },
    [](std::string& input, const std::string&, std::mt19937_64& random) {  // a number
      const std::string number = hostile_number(random);
      const size_t at = random() % input.size();
      const size_t count = std::min(number.size(), input.size() - at);
      input.replace(at, count, number, 0, count);
    },
    [](std::string& input, const std::string&, std::mt19937_64& random) {  // cut the end
      input.resize(random() % input.size());
    },
    [](std::string& input, const std::string&, std::mt19937_64& random) {  // drop a part
      input.erase(random() % input.size(), random() % 64);
    },
    [](std::string& input, const std::string&, std::mt19937_64& random) {  // repeat a part
      const size_t at = random() % input.size();
      input.insert(at, input.substr(at, random() % 64));
    },
    [](std::string& input, const std::string& other, std::mt19937_64& random) {  // a foreign part
      if (other.empty()) return;
      input.insert(random() % input.size(), other, random() % other.size(), random() % 256);
    },
};

void mutate(std::string& input, const std::string& other, std::mt19937_64& random) {
  for (uint64_t count = 1 + random() % 4; count > 0 && !input.empty(); --count) {
    kMutations[random() % std::size(kMutations)](input, other, random);
  }
  if (input.size() > kInputBytesMax) input.resize(kInputBytesMax);
}

std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// The seeds, then the files given, in an order that no file system decides.
std::vector<std::string> read_corpus(const Options& options) {
  std::vector<std::string> inputs = seeds();
  for (const std::string& name : options.corpus) {
    std::vector<std::filesystem::path> paths;
    if (std::filesystem::is_directory(name)) {
      for (const auto& entry : std::filesystem::directory_iterator(name)) paths.push_back(entry);
      std::sort(paths.begin(), paths.end());
    } else {
      paths.emplace_back(name);
    }
    for (const auto& path : paths) inputs.push_back(read_file(path));
  }
  return inputs;
}

void write_seeds(const std::string& folder) {
  std::filesystem::create_directories(folder);
  size_t index = 0;
  for (const std::string& seed : seeds()) {
    const auto path = std::filesystem::path(folder) / ("seed-" + std::to_string(index++));
    std::ofstream(path, std::ios::binary) << seed;
  }
}

Options parse_options(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    const bool has_value = i + 1 < argc;
    if (argument == "--seed" && has_value) {
      options.seed = std::strtoull(argv[++i], nullptr, 10);
    } else if (argument == "--write-seeds" && has_value) {
      options.seed_folder = argv[++i];
    } else if (argument.find_first_not_of("0123456789") == std::string::npos) {
      options.iterations = std::strtoull(argument.c_str(), nullptr, 10);
    } else {
      options.corpus.push_back(argument);
    }
  }
  return options;
}

int run(const Options& options) {
  if (!options.seed_folder.empty()) {
    write_seeds(options.seed_folder);
    return 0;
  }
  for (const int signal : {SIGSEGV, SIGABRT, SIGFPE, SIGBUS, SIGILL}) std::signal(signal, on_crash);
  const std::vector<std::string> corpus = read_corpus(options);
  run_one("");
  for (const std::string& input : corpus) run_one(input);
  std::mt19937_64 random(options.seed);
  for (uint64_t i = 0; i < options.iterations; ++i) {
    std::string input = corpus[random() % corpus.size()];
    mutate(input, corpus[random() % corpus.size()], random);
    run_one(input);
  }
  std::printf("%zu inputs and %llu mutations of them, seed %llu: nothing but Errors\n",
              corpus.size(), static_cast<unsigned long long>(options.iterations),
              static_cast<unsigned long long>(options.seed));
  return 0;
}

}  // namespace
}  // namespace thermocline::fuzz

// Pages that nobody touches cost nothing, so an allocation by a lying length would pass unseen.
void* operator new(size_t size, const std::nothrow_t&) noexcept {
  if (size > thermocline::fuzz::kAllocationBytesMax) {
    std::fprintf(stderr, "an allocation of %zu bytes\n", size);
    std::abort();
  }
  return std::malloc(size);
}
// Neither is inlined, nor is delete: the compiler would see malloc() and free() where it expects
// the library's operators.
__attribute__((noinline)) void* operator new(size_t size) {
  void* block = ::operator new(size, std::nothrow);
  if (block == nullptr) throw std::bad_alloc();
  return block;
}

__attribute__((noinline)) void operator delete(void* block) noexcept { std::free(block); }
__attribute__((noinline)) void operator delete(void* block, size_t) noexcept { std::free(block); }

int main(int argc, char** argv) {
  return thermocline::fuzz::run(thermocline::fuzz::parse_options(argc, argv));
}
