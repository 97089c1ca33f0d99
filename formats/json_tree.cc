#include "formats/json_tree.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "formats/quote.h"

namespace sluice {

double JsonValue::AsDouble() const {
  switch (kind_) {
    case Kind::kUnsigned:
      return static_cast<double>(content_.whole);
    case Kind::kInteger:
      return static_cast<double>(AsInt64());
    default:
      return content_.real;
  }
}

const JsonValue* JsonValue::Find(std::string_view name) const {
  for (const Member& member : members()) {
    if (member.name == name) return &member.value;
  }
  return nullptr;
}

const JsonValue& JsonValue::EmptyObject() {
  static const JsonValue empty(Kind::kObject);
  return empty;
}

namespace {

// How many values and names a text has at most, from the characters that separate them.
size_t CountValues(std::string_view text) {
  size_t separators = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      in_string = c != '"';
    } else if (c == '"') {
      in_string = true;
    } else {
      separators += c == ',' || c == ':' || c == '[' || c == '{';
    }
  }
  // "[1,1]": a value takes two bytes with what separates it.
  return std::min(separators, text.size() / 2) + 1;
}

}  // namespace

uint64_t JsonTreeBytes(std::string_view text) {
  return CountValues(text) * sizeof(JsonValue) + text.size();
}

// Builds the document from the events of the parser, which holds one token at a time.
class JsonTreeBuilder : public nlohmann::json_sax<nlohmann::json> {
 public:
  JsonTreeBuilder(std::string_view text, size_t max_depth, size_t max_values)
      : max_depth_(max_depth), max_values_(max_values), text_bytes_(text.size()) {
    document_.values_.reserve(std::min(CountValues(text), max_values));
    document_.text_ = std::make_unique_for_overwrite<char[]>(text.size());
  }

  JsonDocument Take() { return std::move(document_); }
  const Status& status() const { return status_; }

  bool null() override { return Add(JsonValue(Kind::kNull)); }
  bool boolean(bool value) override {
    JsonValue node(Kind::kBoolean);
    node.content_.boolean = value;
    return Add(std::move(node));
  }
  bool number_integer(number_integer_t value) override {
    JsonValue node(Kind::kInteger);
    node.content_.whole = static_cast<uint64_t>(value);
    return Add(std::move(node));
  }
  bool number_unsigned(number_unsigned_t value) override {
    JsonValue node(Kind::kUnsigned);
    node.content_.whole = value;
    return Add(std::move(node));
  }
  bool number_float(number_float_t value, const string_t& /*text*/) override {
    JsonValue node(Kind::kFloat);
    node.content_.real = value;
    return Add(std::move(node));
  }
  bool string(string_t& value) override { return AddString(value, /*is_value=*/true); }
  bool key(string_t& name) override { return AddString(name, /*is_value=*/false); }
  bool binary(binary_t& /*value*/) override { return false; }
  bool start_object(size_t /*count*/) override { return Open(Kind::kObject); }
  bool start_array(size_t /*count*/) override { return Open(Kind::kArray); }

  bool end_array() override {
    JsonValue& container = document_.values_[open_.back()];
    container.extent_ = static_cast<uint32_t>(document_.values_.size() - open_.back());
    open_.pop_back();
    return true;
  }

  bool end_object() override {
    const JsonValue& object = document_.values_[open_.back()];
    end_array();
    const std::string_view* twice = RepeatedName(object);
    if (twice == nullptr) return true;
    status_ = Status(ErrorCode::kCorrupt, "JSON key " + Quoted(*twice) + " appears twice");
    return false;
  }

  bool parse_error(size_t position, const std::string& /*token*/,
                   const nlohmann::detail::exception& /*error*/) override {
    status_ =
        Status(ErrorCode::kCorrupt, fmt::format("not valid UTF-8 JSON near byte {}", position));
    return false;
  }

 private:
  using Kind = JsonValue::Kind;

  bool Add(JsonValue value, bool is_value = true) {
    std::vector<JsonValue>& values = document_.values_;
    if (values.size() >= max_values_) {
      status_ = Status(ErrorCode::kLimitExceeded, "JSON with too many values");
      return false;
    }
    if (is_value && !open_.empty()) ++values[open_.back()].content_.count;
    values.push_back(std::move(value));
    return true;
  }

  bool AddString(const std::string& text, bool is_value) {
    // What a string means is never longer than how it is written.
    if (text.size() > text_bytes_ - used_text_) return false;
    JsonValue node(Kind::kString);
    node.content_.text = document_.text_.get() + used_text_;
    node.extent_ = static_cast<uint32_t>(text.size());
    std::memcpy(document_.text_.get() + used_text_, text.data(), text.size());
    used_text_ += text.size();
    return Add(std::move(node), is_value);
  }

  bool Open(Kind kind) {
    if (open_.size() >= max_depth_) {
      status_ = Status(ErrorCode::kLimitExceeded,
                       fmt::format("JSON nested deeper than {} levels", max_depth_));
      return false;
    }
    if (!Add(JsonValue(kind))) return false;
    open_.push_back(document_.values_.size() - 1);
    return true;
  }

  // By sorting, since what a hash table takes for names can be chosen to collide.
  const std::string_view* RepeatedName(const JsonValue& object) {
    constexpr size_t kFew = 8;
    names_.clear();
    for (const JsonValue::Member& member : object.members()) {
      if (object.size() <= kFew &&
          std::find(names_.begin(), names_.end(), member.name) != names_.end()) {
        names_.front() = member.name;
        return &names_.front();
      }
      names_.push_back(member.name);
    }
    if (object.size() <= kFew) return nullptr;
    std::sort(names_.begin(), names_.end());
    const auto twice = std::adjacent_find(names_.begin(), names_.end());
    return twice == names_.end() ? nullptr : &*twice;
  }

  size_t max_depth_;
  size_t max_values_;
  size_t text_bytes_;
  size_t used_text_ = 0;
  JsonDocument document_;
  std::vector<size_t> open_;             // containers not closed yet
  std::vector<std::string_view> names_;  // of one object
  Status status_;
};

Result<JsonDocument> ParseJsonTree(std::string_view text, size_t max_depth, size_t max_values) {
  if (text.size() > UINT32_MAX) {
    return Status(ErrorCode::kLimitExceeded, fmt::format("JSON of {} bytes", text.size()));
  }
  JsonTreeBuilder builder(text, max_depth, max_values);
  if (!nlohmann::json::sax_parse(text, &builder)) {
    return builder.status().ok() ? Status(ErrorCode::kCorrupt, "not valid JSON") : builder.status();
  }
  return builder.Take();
}

}  // namespace sluice
