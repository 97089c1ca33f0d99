// What one rendering has: budgets, the first error, and the objects that templates make.
#ifndef SLUICE_LOADERS_CHAT_TEMPLATE_CONTEXT_H_
#define SLUICE_LOADERS_CHAT_TEMPLATE_CONTEXT_H_

#include <cstdint>
#include <ctime>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "formats/status.h"
#include "loaders/chat_template/chat_template.h"
#include "loaders/chat_template/value.h"

namespace sluice::chat_template {

// Levels of lists and mappings in one another.
inline constexpr int kMaxValueDepth = 64;

// The evaluated arguments of a call.
struct CallArguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

// The first failure sticks: everything that runs after it returns undefined values, and every loop
// asks Step() or failed() and ends.
class Context {
 public:
  Context(const ChatTemplateLimits& limits, std::time_t now) : limits_(limits), now_(now) {}

  // Spends `count` steps. False when there are none left, or something has failed before.
  bool Step(uint64_t count = 1);
  // Accounts for `bytes` that are read or copied. False as above.
  bool Copy(uint64_t bytes);

  // Records the error with the current line. Returns undefined.
  Value Fail(ErrorCode code, const std::string& message);
  Value Fail(const std::string& message) { return Fail(ErrorCode::kInvalidArgument, message); }
  Value Unsupported(const std::string& what) { return Fail(ErrorCode::kUnsupported, what); }

  bool failed() const { return !status_.ok(); }
  const Status& status() const { return status_; }
  void set_line(int line) { line_ = line; }
  std::time_t now() const { return now_; }

  // Values within the budgets; undefined, and a failure, when they are not.
  Value Make(MarkedString text);
  Value Make(List list);
  Value Make(Dict dict);
  // Sets a key while a mapping is built; fails when the key is a list or a mapping.
  void Set(Dict* dict, Value key, Value value);
  // Looks a key up; null when there is none.
  const Value* Find(const Dict& dict, const Value& key);
  bool Equals(const Value& a, const Value& b);

  // True, and a failure is recorded, when text of this size is too long.
  bool TooLong(uint64_t bytes);
  uint64_t max_string_bytes() const { return limits_.max_output_bytes; }

  // Keeps the object until the rendering ends.
  template <typename T>
  T* Own(std::unique_ptr<T> object) {
    T* raw = object.get();
    objects_.push_back(std::move(object));
    return raw;
  }

 private:
  const ChatTemplateLimits limits_;
  const std::time_t now_;
  uint64_t steps_ = 0;
  uint64_t copied_bytes_ = 0;
  int line_ = 1;
  Status status_;
  std::vector<std::unique_ptr<Object>> objects_;
};

// Assigns the arguments of a call to parameter names, as Python does; fails on one too many.
class Parameters {
 public:
  Parameters(Context& context, std::string_view function, const CallArguments& arguments,
             std::initializer_list<std::string_view> names);

  // The argument, or null when it was not given. REQUIRES: index < number of names.
  const Value* operator[](size_t index) const { return values_[index]; }
  // The argument as a type; `missing` when it was not given or is None; fails on another type.
  int64_t Integer(size_t index, int64_t missing);
  const MarkedString* Text(size_t index);  // null: not given
  bool Truth(size_t index, bool missing) const {
    return values_[index] == nullptr ? missing : values_[index]->Truth();
  }
  // As Text, but fails when it was not given, and returns empty text then.
  const MarkedString& RequiredText(size_t index);

 private:
  void FailType(size_t index, std::string_view expected);

  Context& context_;
  std::string function_;
  std::vector<const Value*> values_;
};

}  // namespace sluice::chat_template

#endif  // SLUICE_LOADERS_CHAT_TEMPLATE_CONTEXT_H_
