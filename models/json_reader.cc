#include "models/json_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <vector>

#include "models/error.h"

namespace thermocline {
namespace {

using Json = nlohmann::json;

constexpr size_t kQuotedMax = 100;  // characters of the file in a message

std::string shortened(std::string text) {
  return text.size() <= kQuotedMax ? text : text.substr(0, kQuotedMax) + "…";
}

// The parser's input; it tells how far the parser has come.
struct CountingIterator {
  using iterator_category = std::forward_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  const char* at;
  const char** reached;

  reference operator*() const { return *at; }
  CountingIterator& operator++() {
    *reached = ++at;
    return *this;
  }
  CountingIterator operator++(int) {
    const CountingIterator before = *this;
    ++*this;
    return before;
  }
  bool operator==(const CountingIterator& other) const { return at == other.at; }
  bool operator!=(const CountingIterator& other) const { return at != other.at; }
};

// What values take beyond their text, in bytes: an element with the slack of a growing vector, a
// node of a map, a string on the heap.
constexpr uint64_t kElementBytes = 3 * sizeof(Json);
constexpr uint64_t kMemberBytes = 96 + sizeof(Json);
constexpr uint64_t kContainerBytes = 64;
constexpr uint64_t kTextBytes = sizeof(std::string) + 16;

// Builds the value from the parser's events, within the limits.
class Builder final : public nlohmann::json_sax<Json> {
 public:
  Builder(std::span<const std::byte> bytes, const std::string& path, uint64_t offset)
      : begin_(reinterpret_cast<const char*>(bytes.data())),
        end_(begin_ + bytes.size()),
        reached_(begin_),
        path_(path),
        offset_(offset),
        memory_left_(kJsonMemoryFree + kJsonMemoryPerByte * bytes.size()) {}

  Json build() {
    Json::sax_parse(CountingIterator{begin_, &reached_}, CountingIterator{end_, &reached_}, this);
    return std::move(root_);
  }

  bool null() override { return put(nullptr); }
  bool boolean(bool value) override { return put(value); }
  bool number_integer(int64_t value) override { return put(value); }
  bool number_unsigned(uint64_t value) override { return put(value); }
  bool number_float(double value, const std::string&) override { return put(value); }
  bool string(std::string& value) override {
    charge(kTextBytes + value.size());
    return put(std::move(value));
  }
  bool binary(Json::binary_t&) override { return false; }  // JSON has none
  bool start_object(size_t) override { return open(Json::object()); }
  bool start_array(size_t) override { return open(Json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(std::string& value) override {
    charge(kMemberBytes + value.size());
    const auto [member, added] = open_.back()->get_ref<Json::object_t&>().emplace(value, nullptr);
    if (!added) throw bad_input(place(), "keys of different names", quoted(value) + " again");
    member_ = &member->second;
    return true;
  }

  // `read`: bytes up to the token that is wrong, and the end of the text as one more.
  bool parse_error(size_t read, const std::string&, const Json::exception& error) override {
    std::string reason = error.what();  // "[json.exception.parse_error.101] parse error at …"
    if (const size_t end = reason.find("] "); end != std::string::npos) reason.erase(0, end + 2);
    reached_ = begin_ + std::min(read, static_cast<size_t>(end_ - begin_));
    throw bad_input(place(), "JSON", shortened(reason));
  }

 private:
  static std::string quoted(const std::string& key) { return fmt::format("'{}'", shortened(key)); }

  std::string place() const {
    return fmt::format("{} at byte {}", path_, offset_ + static_cast<uint64_t>(reached_ - begin_));
  }

  void charge(uint64_t bytes) {
    if (bytes > memory_left_) {
      throw bad_input(place(),
                      fmt::format("values that take at most {} bytes in memory for a byte of JSON",
                                  kJsonMemoryPerByte),
                      "more");
    }
    memory_left_ -= bytes;
  }

  // Where the next value goes: the open array, the member of the key just read, or the root.
  Json& place_value(Json&& value) {
    if (open_.empty()) return root_ = std::move(value);
    if (!open_.back()->is_array()) return *member_ = std::move(value);
    charge(kElementBytes);
    return open_.back()->get_ref<Json::array_t&>().emplace_back(std::move(value));
  }

  bool put(Json&& value) {
    place_value(std::move(value));
    return true;
  }

  bool open(Json&& container) {
    if (open_.size() == kJsonDepthMax) {
      throw bad_input(place(), fmt::format("values at most {} deep", kJsonDepthMax), "deeper ones");
    }
    charge(kContainerBytes);
    open_.push_back(&place_value(std::move(container)));
    return true;
  }

  bool close() {
    open_.pop_back();
    return true;
  }

  const char *begin_, *end_;
  const char* reached_;
  const std::string& path_;
  uint64_t offset_;
  uint64_t memory_left_;
  Json root_;
  std::vector<Json*> open_;  // outermost first; only the last one grows
  Json* member_ = nullptr;
};

}  // namespace

nlohmann::json parse_json(std::span<const std::byte> bytes, const std::string& path,
                          uint64_t offset) {
  return Builder(bytes, path, offset).build();
}

void JsonView::refuse(const std::string& expected) const {
  // A large value is not worth its text: what kind it is says enough.
  const std::string found =
      value_->is_structured()
          ? std::string(value_->type_name())
          : shortened(value_->dump(-1, ' ', false, Json::error_handler_t::replace));
  throw bad_input(place_, expected, found);
}

const nlohmann::json& JsonView::of_type(bool holds, const char* expected) const {
  if (!holds) refuse(expected);
  return *value_;
}

std::optional<JsonView> JsonView::find(const std::string& key) const {
  const Json& object = of_type(value_->is_object(), "an object");
  const auto member = object.find(key);
  if (member == object.end() || member->is_null()) return {};
  // The path is followed by ": ", names inside the file by dots.
  return JsonView(*member, place_ + (nested_ ? "." : ": ") + key, true);
}

JsonView JsonView::at(const std::string& key) const {
  if (const auto member = find(key)) return *member;
  throw bad_input(place_, "the field " + key, "no such field");
}

JsonView JsonView::at(size_t index) const {
  return JsonView(value_->at(index), fmt::format("{}[{}]", place_, index), true);
}

size_t JsonView::size() const { return of_type(value_->is_array(), "an array").size(); }

const std::string& JsonView::text() const {
  return of_type(value_->is_string(), "a text").get_ref<const std::string&>();
}

uint64_t JsonView::count() const {
  return of_type(value_->is_number_unsigned(), "an integer from 0 on").get<uint64_t>();
}

double JsonView::number() const { return of_type(value_->is_number(), "a number").get<double>(); }

bool JsonView::flag() const { return of_type(value_->is_boolean(), "true or false").get<bool>(); }

}  // namespace thermocline
