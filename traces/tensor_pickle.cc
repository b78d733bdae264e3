#include "traces/tensor_pickle.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <vector>

#include "models/byte_reader.h"
#include "models/error.h"

namespace thermocline {
namespace {

constexpr size_t kBytesMax = 4096;
constexpr std::string_view kRebuild = "torch._utils\n_rebuild_tensor_v2";
constexpr std::string_view kDict = "collections\nOrderedDict";
// module, newline, name, newline: what GLOBAL carries.
constexpr std::string_view kGlobals[] = {kRebuild,
                                         kDict,
                                         "torch\nFloatStorage",
                                         "torch\nDoubleStorage",
                                         "torch\nIntStorage",
                                         "torch\nLongStorage"};

// Values live in one list and refer to one another by index, so that nesting costs no recursion.
struct Value {
  enum class Kind { mark, integer, boolean, text, global, tuple, storage, dict, tensor };
  Kind kind;
  int64_t number = 0;                // of integer and boolean
  std::string text = {};             // of text and global
  std::vector<uint32_t> items = {};  // of tuple, storage and tensor
};
using Kind = Value::Kind;

class Machine {
 public:
  Machine(std::string_view bytes, const std::string& path)
      : reader_(std::as_bytes(std::span(bytes)), path + ": data.pkl") {}

  TensorPickle run() {
    if (op() != 0x80 || reader_.read<uint8_t>("protocol") != 2) fail("protocol 2");
    for (uint8_t code = op(); code != '.'; code = op()) {
      if (!constant(code) && !tuple(code) && !memo(code) && !call(code)) {
        fail(fmt::format("opcodes of a plain tensor, not {:#04x}", code));
      }
    }
    if (reader_.left() != 0) fail("nothing behind the end");
    const uint32_t result = pop(Kind::tensor);
    if (!stack_.empty()) fail("one value");
    return tensor(values_[result]);
  }

 private:
  uint8_t op() { return reader_.read<uint8_t>("opcode"); }

  bool constant(uint8_t code) {
    switch (code) {
      case 'X':
        push({Kind::text, 0, std::string(reader_.text(reader_.read<uint32_t>("length"), "text"))});
        return true;
      case 'K':
        push({Kind::integer, reader_.read<uint8_t>("integer")});
        return true;
      case 'M':
        push({Kind::integer, reader_.read<uint16_t>("integer")});
        return true;
      case 'J':
        push({Kind::integer, reader_.read<int32_t>("integer")});
        return true;
      case 0x88:
      case 0x89:
        push({Kind::boolean, code == 0x88});
        return true;
      case 'c':
        push({Kind::global, 0, global()});
        return true;
      default:
        return false;
    }
  }

  std::string global() {
    std::string name;
    for (int lines = 0; lines < 2;) {
      const auto c = static_cast<char>(reader_.read<uint8_t>("name"));
      lines += c == '\n';
      name += c;
    }
    name.pop_back();
    if (std::count(std::begin(kGlobals), std::end(kGlobals), name) == 0) {
      std::replace(name.begin(), name.end(), '\n', '.');
      fail("the names of a plain tensor of float, double, int or long, not " + name);
    }
    return name;
  }

  bool tuple(uint8_t code) {
    switch (code) {
      case '(':
        push({Kind::mark});
        return true;
      case ')':
        push({Kind::tuple});
        return true;
      case 't':
        push_tuple(above_mark(), true);
        return true;
      case 0x85:
      case 0x86:
      case 0x87:
        push_tuple(code - 0x84u, false);
        return true;
      default:
        return false;
    }
  }

  // How many values lie above the last mark.
  size_t above_mark() const {
    for (size_t i = stack_.size(); i-- > 0;) {
      if (values_[stack_[i]].kind == Kind::mark) return stack_.size() - 1 - i;
    }
    fail("a mark");
  }

  // The last `count` values, and the mark below them.
  void push_tuple(size_t count, bool marked) {
    if (stack_.size() < count) fail("as many values as a tuple takes");
    Value value = {Kind::tuple};
    value.items.assign(stack_.end() - static_cast<ptrdiff_t>(count), stack_.end());
    for (const uint32_t item : value.items) {
      if (values_[item].kind == Kind::mark) fail("values in a tuple");
    }
    stack_.resize(stack_.size() - count - (marked ? 1 : 0));
    push(std::move(value));
  }

  bool memo(uint8_t code) {
    switch (code) {
      case 'q':
        memo_[reader_.read<uint8_t>("memo")] = top();
        return true;
      case 'r':
        memo_[reader_.read<uint32_t>("memo")] = top();
        return true;
      case 'h':
        recall(reader_.read<uint8_t>("memo"));
        return true;
      case 'j':
        recall(reader_.read<uint32_t>("memo"));
        return true;
      default:
        return false;
    }
  }

  void recall(uint32_t index) {
    const auto found = memo_.find(index);
    if (found == memo_.end()) fail("a value that was remembered");
    stack_.push_back(found->second);
  }

  // BINPERSID and REDUCE: a storage by its description; a dict or a tensor by its arguments.
  bool call(uint8_t code) {
    if (code == 'Q') {
      push({Kind::storage, 0, "", values_[pop(Kind::tuple)].items});
      return true;
    }
    if (code != 'R') return false;
    const std::vector<uint32_t> arguments = values_[pop(Kind::tuple)].items;
    const std::string& callee = values_[pop(Kind::global)].text;
    if (callee == kDict && arguments.empty()) {
      push({Kind::dict});
    } else if (callee == kRebuild) {
      push({Kind::tensor, 0, "", arguments});
    } else {
      fail("a tensor or an empty dictionary");
    }
    return true;
  }

  void push(Value value) {
    values_.push_back(std::move(value));
    stack_.push_back(static_cast<uint32_t>(values_.size() - 1));
  }

  uint32_t top() const {
    if (stack_.empty()) fail("a value");
    return stack_.back();
  }

  uint32_t pop(Kind kind) {
    const uint32_t index = top();
    if (values_[index].kind != kind) fail("a value of another kind");
    stack_.pop_back();
    return index;
  }

  // (storage, offset, (count,), (1,), requires_grad, hooks)
  TensorPickle tensor(const Value& value) const {
    if (value.items.size() != 6) fail("six facts of a tensor");
    const Value& storage = item(value, 0, Kind::storage);
    TensorPickle facts = storage_of(storage);
    facts.offset = length(item(value, 1, Kind::integer));
    const Value& extent = item(value, 2, Kind::tuple);
    const Value& stride = item(value, 3, Kind::tuple);
    item(value, 4, Kind::boolean);
    item(value, 5, Kind::dict);
    if (extent.items.size() != 1 || stride.items.size() != 1) fail("one dimension");
    facts.count = length(item(extent, 0, Kind::integer));
    if (length(item(stride, 0, Kind::integer)) != 1) fail("elements side by side");
    if (facts.offset > facts.storage_count || facts.count > facts.storage_count - facts.offset) {
      fail("a tensor within its storage");
    }
    return facts;
  }

  // ("storage", class, key, place, count)
  TensorPickle storage_of(const Value& storage) const {
    if (storage.items.size() != 5) fail("five facts of a storage");
    const bool named = item(storage, 0, Kind::text).text == "storage";
    const std::string& name = item(storage, 1, Kind::global).text;
    if (!named || !name.ends_with("Storage")) fail("a storage");
    item(storage, 3, Kind::text);
    return {name.substr(name.find('\n') + 1), item(storage, 2, Kind::text).text,
            length(item(storage, 4, Kind::integer)), 0, 0};
  }

  const Value& item(const Value& of, size_t index, Kind kind) const {
    const Value& found = values_[of.items[index]];
    if (found.kind != kind) fail("facts of a tensor in their order");
    return found;
  }

  uint64_t length(const Value& integer) const {
    if (integer.number < 0) fail("a length");
    return static_cast<uint64_t>(integer.number);
  }

  [[noreturn]] void fail(const std::string& expected) const {
    throw bad_input(reader_.path(), expected,
                    fmt::format("something else before byte {}", reader_.offset()));
  }

  ByteReader reader_;
  std::vector<Value> values_;
  std::vector<uint32_t> stack_;
  std::map<uint32_t, uint32_t> memo_;
};

std::string text_op(std::string_view text) {
  const auto size = static_cast<uint32_t>(text.size());
  std::string op = "X";
  op.append(reinterpret_cast<const char*>(&size), sizeof size);
  return op.append(text);
}

std::string integer_op(uint64_t value) {
  if (value < 256) return {'K', static_cast<char>(value)};
  if (value < 65536) return {'M', static_cast<char>(value & 255), static_cast<char>(value >> 8)};
  TC_CHECK(value <= INT32_MAX, "a tensor of fewer than 2^31 elements");
  const auto number = static_cast<int32_t>(value);
  std::string op(1, 'J');
  return op.append(reinterpret_cast<const char*>(&number), sizeof number);
}

std::string global_op(std::string_view name) { return fmt::format("c{}\n", name); }

}  // namespace

TensorPickle parse_tensor_pickle(std::string_view bytes, const std::string& path) {
  if (bytes.size() > kBytesMax) {
    throw bad_input(path + ": data.pkl", fmt::format("at most {} bytes", kBytesMax),
                    fmt::format("{}", bytes.size()));
  }
  return Machine(bytes, path).run();
}

std::string tensor_pickle(const std::string& storage, uint64_t count) {
  const std::string number = integer_op(count);
  const std::string described =
      fmt::format("({}{}{}{}{}tQ", text_op("storage"), global_op("torch\n" + storage), text_op("0"),
                  text_op("cpu"), number);
  const std::string extent = number + "\x85", stride = integer_op(1) + "\x85";
  const std::string hooks = global_op(kDict) + ")R";
  return fmt::format("\x80\x02{}({}{}{}{}\x89{}tR.", global_op(kRebuild), described, integer_op(0),
                     extent, stride, hooks);
}

}  // namespace thermocline
