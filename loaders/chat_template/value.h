// The values of the template language: Python's, as far as templates can tell.
#ifndef SLUICE_LOADERS_CHAT_TEMPLATE_VALUE_H_
#define SLUICE_LOADERS_CHAT_TEMPLATE_VALUE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "loaders/chat_template/marked_string.h"

namespace sluice::chat_template {

class Value;
struct List;
struct Dict;
struct BoundMethod;
class Object;
class Context;
struct CallArguments;

// What a missing name or field evaluates to: prints as nothing, fails when it is used.
struct Undefined {
  std::shared_ptr<const std::string> message;  // why an operation on it fails; may be null
};
struct None {};

// A value. Strings, lists and mappings are shared and immutable; objects belong to the interpreter
// that made them and live as long as it does, so no cycle can keep memory alive.
class Value {
 public:
  Value() = default;                                        // undefined
  Value(None) : data_(None{}) {}                            // NOLINT: implicit
  Value(bool value) : data_(value) {}                       // NOLINT: implicit
  Value(int64_t value) : data_(value) {}                    // NOLINT: implicit
  Value(int value) : data_(static_cast<int64_t>(value)) {}  // NOLINT: implicit
  Value(double value) : data_(value) {}                     // NOLINT: implicit
  Value(MarkedString text)                                  // NOLINT: implicit
      : data_(std::make_shared<const MarkedString>(std::move(text))) {}
  Value(List list);                         // NOLINT: implicit
  Value(Dict dict);                         // NOLINT: implicit
  Value(BoundMethod method);                // NOLINT: implicit
  Value(Object* object) : data_(object) {}  // NOLINT: implicit
  Value(const void*) = delete;              // else a pointer would turn into a bool

  static Value UndefinedWith(std::string message);
  // Text that the engine or the template wrote.
  static Value Text(std::string text) {
    return Value(MarkedString(std::move(text), Origin::kTemplate));
  }

  bool is_undefined() const { return std::holds_alternative<Undefined>(data_); }
  bool is_none() const { return std::holds_alternative<None>(data_); }
  bool is_bool() const { return std::holds_alternative<bool>(data_); }
  bool is_int() const { return std::holds_alternative<int64_t>(data_); }
  bool is_float() const { return std::holds_alternative<double>(data_); }
  bool is_string() const { return string() != nullptr; }
  bool is_number() const { return is_bool() || is_int() || is_float(); }
  // A bool counts as 0 or 1, as in Python.
  bool is_integral() const { return is_bool() || is_int(); }

  // REQUIRES: is_bool(), is_integral(), is_number().
  bool boolean() const { return std::get<bool>(data_); }
  int64_t integer() const { return is_bool() ? boolean() : std::get<int64_t>(data_); }
  double number() const {
    return is_float() ? std::get<double>(data_) : static_cast<double>(integer());
  }

  // Null when the value is of another type. Lists include tuples.
  const MarkedString* string() const { return Get<MarkedString>(); }
  const List* list() const { return Get<List>(); }
  const Dict* dict() const { return Get<Dict>(); }
  const BoundMethod* method() const { return Get<BoundMethod>(); }
  Object* object() const {
    const auto* held = std::get_if<Object*>(&data_);
    return held == nullptr ? nullptr : *held;
  }
  const std::string* undefined_message() const {
    const auto* held = std::get_if<Undefined>(&data_);
    return held == nullptr ? nullptr : held->message.get();
  }

  bool Truth() const;
  // Levels of lists, mappings and methods below and including this value: 0 for a string or number.
  int depth() const;
  // Python's name of the type, for messages.
  std::string TypeName() const;

 private:
  template <typename T>
  const T* Get() const {
    const auto* held = std::get_if<std::shared_ptr<const T>>(&data_);
    return held == nullptr ? nullptr : held->get();
  }

  std::variant<Undefined, None, bool, int64_t, double, std::shared_ptr<const MarkedString>,
               std::shared_ptr<const List>, std::shared_ptr<const Dict>,
               std::shared_ptr<const BoundMethod>, Object*>
      data_;
};

struct List {
  std::vector<Value> items;
  bool is_tuple = false;
  int depth = 1;  // set when the list becomes a value
};

// A mapping that keeps the order of insertion.
struct Dict {
  std::vector<std::pair<Value, Value>> items;
  int depth = 1;  // set when the mapping becomes a value

  // Null when there is no such key. Keys that are not strings are compared one by one.
  const Value* Find(const Value& key) const;
  const Value* Find(std::string_view key) const;
  void Set(Value key, Value value);

 private:
  std::unordered_map<std::string, size_t> string_keys_;
  bool has_other_keys_ = false;
};

// `value.name` where `name` is a method of the value's type.
struct BoundMethod {
  Value self;
  std::string name;
};

// Something with behaviour: a macro, a function, a namespace, the variable `loop`.
class Object {
 public:
  virtual ~Object() = default;
  virtual std::string TypeName() const = 0;
  // As printed, for example "<Macro 'name'>".
  virtual std::string Repr() const = 0;
  // Undefined when there is none of that name.
  virtual Value Attribute(Context& context, const std::string& name);
  virtual bool IsCallable() const { return false; }
  virtual Value Call(Context& context, const CallArguments& arguments);
};

// A comparison that is longer is given up: two values can share parts so often that it would not
// end.
inline constexpr uint64_t kMaxEqualWork = uint64_t{1} << 22;
// Python's ==. Adds the number of elements compared to *work; false when that exceeds
// kMaxEqualWork.
bool Equal(const Value& a, const Value& b, uint64_t* work);

// repr() of a float: the shortest text that reads back as the same number.
std::string FloatRepr(double value);

}  // namespace sluice::chat_template

#endif  // SLUICE_LOADERS_CHAT_TEMPLATE_VALUE_H_
