#include "models/tokenizer_document.h"

#include <fmt/format.h>

#include "models/error.h"
#include "models/pieces.h"

namespace thermocline {
namespace {

using Json = nlohmann::json;

constexpr size_t kDepthMax = 32;               // files in use nest seven deep
constexpr size_t kValueMax = size_t{1} << 18;  // outside vocab and merges: seven an added token

// Takes the parser's events. nlohmann's parser does not recurse, and neither does this.
class Reader final : public nlohmann::json_sax<Json> {
 public:
  explicit Reader(const std::string& path) : path_(path) {}
  TokenizerDocument take() { return std::move(document_); }

  bool null() override { return put(nullptr); }
  bool boolean(bool value) override { return put(value); }
  bool number_integer(number_integer_t value) override { return put(value); }
  bool number_unsigned(number_unsigned_t value) override { return put(value); }
  bool number_float(number_float_t value, const string_t&) override { return put(value); }
  bool string(string_t& value) override { return put(std::move(value)); }
  bool binary(binary_t&) override { refuse("JSON", "binary data"); }

  bool start_object(size_t) override {
    if (place_ != Place::rest) refuse(expected_here(), "an object");
    const bool vocab = at_model_key("vocab");
    open(Json::object());
    if (vocab) place_ = Place::vocab;
    return true;
  }

  bool key(string_t& key) override {
    if (place_ == Place::rest) {
      if (open_.back()->contains(key)) refuse("keys that differ", "'" + key + "' twice");
      if (open_.size() == 1) in_model_ = key == "model";
    }
    key_ = std::move(key);
    return true;
  }

  bool end_object() override { return close(); }

  bool start_array(size_t) override {
    if (place_ == Place::merges) {
      place_ = Place::merge;
      pair_.clear();
      return true;
    }
    if (place_ != Place::rest) refuse(expected_here(), "an array");
    const bool merges = at_model_key("merges");
    open(Json::array());
    if (merges) place_ = Place::merges;
    return true;
  }

  bool end_array() override {
    if (place_ != Place::merge) return close();
    if (pair_.size() != 2) refuse(expected_here(), fmt::format("{} texts", pair_.size()));
    document_.merges.push_back({std::move(pair_[0]), std::move(pair_[1])});
    place_ = Place::merges;
    return true;
  }

  bool parse_error(size_t position, const std::string&, const Json::exception& error) override {
    const std::string_view what = error.what();
    const size_t tag = what.find("] ");
    throw bad_input(fmt::format("{} at byte {}", path_, position), "JSON",
                    std::string(what.substr(tag == std::string_view::npos ? 0 : tag + 2)));
  }

 private:
  enum class Place { rest, vocab, merges, merge };

  [[noreturn]] void refuse(const std::string& expected, const std::string& found) const {
    throw bad_input(path_, expected, found);
  }

  const char* expected_here() const {
    return place_ == Place::vocab ? "model.vocab with an id for each piece"
                                  : "model.merges of \"left right\" or [\"left\", \"right\"]";
  }

  // Whether the value that comes next is document.model.KEY.
  bool at_model_key(std::string_view key) const {
    return open_.size() == 2 && in_model_ && open_.back()->is_object() && key_ == key;
  }

  Json& insert(Json value) {
    if (++value_count_ > kValueMax) {
      refuse(fmt::format("at most {} values besides vocab and merges", kValueMax), "more");
    }
    if (open_.empty()) return document_.rest = std::move(value);
    Json& parent = *open_.back();
    if (!parent.is_array()) return parent[key_] = std::move(value);
    parent.push_back(std::move(value));
    return parent.back();
  }

  void open(Json container) {
    if (open_.size() == kDepthMax) refuse(fmt::format("values nested {} deep", kDepthMax), "more");
    open_.push_back(&insert(std::move(container)));
  }

  bool close() {
    if (place_ != Place::rest) *open_.back() = nullptr;
    place_ = Place::rest;
    open_.pop_back();
    return true;
  }

  bool put(Json value) {
    switch (place_) {
      case Place::rest:
        insert(std::move(value));
        return true;
      case Place::vocab:
        if (!value.is_number_integer()) break;
        document_.vocab.emplace_back(std::move(key_), id_of(value));
        return true;
      case Place::merges:
        if (!value.is_string()) break;
        document_.merges.push_back(parse_merge(value.get_ref<const std::string&>(), path_));
        return true;
      case Place::merge:
        if (!value.is_string() || pair_.size() == 2) break;
        pair_.push_back(std::move(value.get_ref<std::string&>()));
        return true;
    }
    refuse(expected_here(), value.type_name());
  }

  // Beyond 2^63 is as wrong as 2^63 - 1.
  static int64_t id_of(const Json& value) {
    return value.is_number_unsigned() && value.get<uint64_t>() > INT64_MAX ? INT64_MAX
                                                                           : value.get<int64_t>();
  }

  const std::string& path_;
  TokenizerDocument document_;
  Place place_ = Place::rest;
  std::vector<Json*> open_;  // objects and arrays, the innermost last
  std::string key_;          // of the value that comes next
  bool in_model_ = false;    // inside document.model
  size_t value_count_ = 0;
  std::vector<std::string> pair_;  // of a merge
};

}  // namespace

TokenizerDocument read_tokenizer_document(std::span<const std::byte> bytes,
                                          const std::string& path) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  Reader reader(path);
  Json::sax_parse(text.begin(), text.end(), &reader);
  return reader.take();
}

}  // namespace thermocline
