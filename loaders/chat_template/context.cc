#include "loaders/chat_template/context.h"

#include <fmt/format.h>

#include <algorithm>

namespace sluice::chat_template {

Value Object::Attribute(Context&, const std::string& name) {
  return Value::UndefinedWith(fmt::format("'{} object' has no attribute '{}'", TypeName(), name));
}

Value Object::Call(Context& context, const CallArguments&) {
  return context.Fail(fmt::format("'{}' object is not callable", TypeName()));
}

bool Context::Step(uint64_t count) {
  if (failed()) return false;
  steps_ += count;
  if (steps_ <= limits_.max_steps) return true;
  Fail(ErrorCode::kLimitExceeded,
       fmt::format("the template takes more than {} steps", limits_.max_steps));
  return false;
}

bool Context::Copy(uint64_t bytes) {
  if (failed()) return false;
  copied_bytes_ += bytes;
  if (copied_bytes_ <= limits_.max_copied_bytes) return true;
  Fail(ErrorCode::kLimitExceeded,
       fmt::format("the template copies more than {} bytes", limits_.max_copied_bytes));
  return false;
}

Value Context::Fail(ErrorCode code, const std::string& message) {
  if (status_.ok()) status_ = Status(code, fmt::format("line {}: {}", line_, message));
  return {};
}

bool Context::TooLong(uint64_t bytes) {
  if (bytes <= limits_.max_output_bytes) return false;
  Fail(ErrorCode::kLimitExceeded,
       fmt::format("text of more than {} bytes", limits_.max_output_bytes));
  return true;
}

Value Context::Make(MarkedString text) {
  if (TooLong(text.size()) || !Copy(text.size() + text.runs().size() * sizeof(MarkedString::Run))) {
    return {};
  }
  return Value(std::move(text));
}

Value Context::Make(List list) {
  if (!Copy(list.items.size() * sizeof(Value))) return {};
  Value value(std::move(list));
  if (value.depth() <= kMaxValueDepth) return value;
  return Fail(ErrorCode::kLimitExceeded, "lists in one another more than 64 levels deep");
}

Value Context::Make(Dict dict) {
  if (!Copy(dict.items.size() * 4 * sizeof(Value))) return {};
  Value value(std::move(dict));
  if (value.depth() <= kMaxValueDepth) return value;
  return Fail(ErrorCode::kLimitExceeded, "mappings in one another more than 64 levels deep");
}

void Context::Set(Dict* dict, Value key, Value value) {
  if (key.dict() != nullptr || (key.list() != nullptr && !key.list()->is_tuple)) {
    Fail(fmt::format("unhashable type: '{}'", key.TypeName()));
    return;
  }
  const bool cheap = key.is_string();
  if (!Copy(cheap ? key.string()->size() : 0) || !Step(cheap ? 0 : dict->items.size() / 8)) return;
  dict->Set(std::move(key), std::move(value));
}

const Value* Context::Find(const Dict& dict, const Value& key) {
  const bool cheap = key.is_string();
  if (!Copy(cheap ? key.string()->size() : 0) || !Step(cheap ? 0 : dict.items.size() / 8)) {
    return nullptr;
  }
  return dict.Find(key);
}

bool Context::Equals(const Value& a, const Value& b) {
  uint64_t work = 0;
  const bool equal = Equal(a, b, &work);
  if (work > kMaxEqualWork) {
    Fail(ErrorCode::kLimitExceeded, "a comparison takes too long");
    return false;
  }
  return Step(work / 16) && equal;
}

Parameters::Parameters(Context& context, std::string_view function, const CallArguments& arguments,
                       std::initializer_list<std::string_view> names)
    : context_(context), function_(function), values_(names.size(), nullptr) {
  if (arguments.positional.size() > names.size()) {
    context.Fail(fmt::format("{}() takes at most {} arguments", function_, names.size()));
    return;
  }
  for (size_t i = 0; i < arguments.positional.size(); ++i) values_[i] = &arguments.positional[i];
  for (const auto& [name, value] : arguments.named) {
    const auto* found = std::find(names.begin(), names.end(), name);
    const auto index = static_cast<size_t>(found - names.begin());
    if (found == names.end() || values_[index] != nullptr) {
      context.Fail(fmt::format("{}() got an unexpected argument '{}'", function_, name));
      return;
    }
    values_[index] = &value;
  }
}

void Parameters::FailType(size_t index, std::string_view expected) {
  const std::string found = values_[index] == nullptr ? "nothing" : values_[index]->TypeName();
  context_.Fail(fmt::format("{}() needs {}, not {}", function_, expected, found));
}

int64_t Parameters::Integer(size_t index, int64_t missing) {
  const Value* value = values_[index];
  if (value == nullptr || value->is_none()) return missing;
  if (value->is_integral()) return value->integer();
  FailType(index, "an integer");
  return missing;
}

const MarkedString* Parameters::Text(size_t index) {
  const Value* value = values_[index];
  if (value == nullptr || value->is_none()) return nullptr;
  if (!value->is_string()) FailType(index, "text");
  return value->string();
}

const MarkedString& Parameters::RequiredText(size_t index) {
  static const MarkedString kEmpty;
  const MarkedString* text = Text(index);
  if (text != nullptr) return *text;
  FailType(index, "text");
  return kEmpty;
}

}  // namespace sluice::chat_template
