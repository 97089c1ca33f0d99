// JSON from files that nobody vouches for, held in little memory: 16 bytes for each value and each
// member's name, and a copy of the strings.
#ifndef SLUICE_FORMATS_JSON_TREE_H_
#define SLUICE_FORMATS_JSON_TREE_H_

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "formats/status.h"

namespace sluice {

// One value of a JsonDocument, valid as long as that is. What is in an array or object lies behind
// it in memory, so a value cannot be copied; views and pointers of it can.
class JsonValue {
 public:
  JsonValue(const JsonValue&) = delete;
  JsonValue& operator=(const JsonValue&) = delete;
  JsonValue(JsonValue&&) = default;  // for the document's vector, before anything refers to it

  bool is_null() const { return kind_ == Kind::kNull; }
  bool is_boolean() const { return kind_ == Kind::kBoolean; }
  bool is_string() const { return kind_ == Kind::kString; }
  bool is_array() const { return kind_ == Kind::kArray; }
  bool is_object() const { return kind_ == Kind::kObject; }
  // Whole numbers are those written without fraction and exponent that fit 64 bits; the unsigned
  // ones those without a sign.
  bool is_unsigned() const { return kind_ == Kind::kUnsigned; }
  bool is_integer() const { return is_unsigned() || kind_ == Kind::kInteger; }
  bool is_number() const { return is_integer() || kind_ == Kind::kFloat; }

  // Each needs a value of that kind (AsInt64 also a number below 2^63, AsDouble any number).
  bool AsBool() const { return content_.boolean; }
  uint64_t AsUint64() const { return content_.whole; }
  int64_t AsInt64() const { return static_cast<int64_t>(content_.whole); }
  double AsDouble() const;
  std::string_view AsString() const { return {content_.text, extent_}; }

  // Elements of an array or members of an object; 0 for other values.
  size_t size() const { return is_array() || is_object() ? content_.count : 0; }
  bool empty() const { return size() == 0; }

  // The member of an object, even if it is null; nullptr if there is none, or this is no object.
  // Linear in the number of members, as nothing is kept to look them up by.
  const JsonValue* Find(std::string_view name) const;

  // The elements of an array: for (const JsonValue& element : array.elements()). Empty for others.
  class ElementIterator {
   public:
    explicit ElementIterator(const JsonValue* at) : at_(at) {}
    const JsonValue& operator*() const { return *at_; }
    const JsonValue* operator->() const { return at_; }
    ElementIterator& operator++() {
      at_ = at_->Next();
      return *this;
    }
    bool operator==(const ElementIterator&) const = default;

   private:
    const JsonValue* at_;
  };
  struct Elements {
    ElementIterator begin() const { return first; }
    ElementIterator end() const { return last; }
    ElementIterator first, last;
  };
  Elements elements() const {
    return {ElementIterator(this + 1), ElementIterator(is_array() ? Next() : this + 1)};
  }

  // The members of an object in the order of the file: for (const auto& [name, value] : ...).
  struct Member {
    std::string_view name;
    const JsonValue& value;
  };
  class MemberIterator {
   public:
    explicit MemberIterator(const JsonValue* at) : at_(at) {}
    Member operator*() const { return {at_->AsString(), at_[1]}; }
    MemberIterator& operator++() {
      at_ = at_[1].Next();
      return *this;
    }
    bool operator==(const MemberIterator&) const = default;

   private:
    const JsonValue* at_;
  };
  struct Members {
    MemberIterator begin() const { return first; }
    MemberIterator end() const { return last; }
    MemberIterator first, last;
  };
  Members members() const {
    return {MemberIterator(this + 1), MemberIterator(is_object() ? Next() : this + 1)};
  }

  // {}, for members that are absent.
  static const JsonValue& EmptyObject();

 private:
  friend class JsonTreeBuilder;
  enum class Kind : uint32_t {
    kNull,
    kBoolean,
    kUnsigned,
    kInteger,
    kFloat,
    kString,
    kArray,
    kObject,
  };
  explicit JsonValue(Kind kind) : kind_(kind) {}
  const JsonValue* Next() const { return this + (is_array() || is_object() ? extent_ : 1); }

  union Content {
    uint64_t whole;  // of an integer its two's complement
    double real;
    const char* text;
    uint64_t count;
    bool boolean;
  } content_ = {0};
  uint32_t extent_ = 1;  // of a string its bytes, of a container the values from it to its end
  Kind kind_;
};
static_assert(sizeof(JsonValue) == 16);

class JsonDocument {
 public:
  const JsonValue& root() const { return values_.front(); }
  const JsonValue& operator*() const { return root(); }
  const JsonValue* operator->() const { return &root(); }

 private:
  friend class JsonTreeBuilder;
  std::vector<JsonValue> values_;
  std::unique_ptr<char[]> text_;  // of the strings and names
};

// What ParseJsonTree takes for a text, but for the parser's copies of one token.
uint64_t JsonTreeBytes(std::string_view text);

// Parses one JSON text (RFC 8259, UTF-8). Beyond the grammar it refuses an object with the same
// name twice (kCorrupt), nesting deeper than `max_depth`, more values and names than `max_values`,
// and texts of 4 GiB (kLimitExceeded). Takes at most 9 bytes of memory for each byte of text, while
// it reads long strings 7 more, and keeps no reference to `text`.
Result<JsonDocument> ParseJsonTree(std::string_view text, size_t max_depth = 32,
                                   size_t max_values = 16'000'000);

}  // namespace sluice

#endif  // SLUICE_FORMATS_JSON_TREE_H_
