// Methods of mappings, lists and numbers; those of text are in string_methods.cc.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "loaders/chat_template/operations.h"

namespace sluice::chat_template {
namespace {

Value Pair(const Value& key, const Value& value) {
  List pair;
  pair.is_tuple = true;
  pair.items = {key, value};
  return Value(std::move(pair));
}

Value CallDictMethod(Context& context, const Value& self, const std::string& name,
                     const CallArguments& arguments) {
  const Dict& dict = *self.dict();
  if (name == "get") {
    Parameters parameters(context, "get", arguments, {"key", "default"});
    if (context.failed()) return {};
    if (parameters[0] == nullptr) return context.Fail("get() needs a key");
    if (const Value* found = context.Find(dict, *parameters[0])) return *found;
    return parameters[1] != nullptr ? *parameters[1] : Value(None{});
  }
  Parameters parameters(context, name, arguments, {});
  if (context.failed() || !context.Copy(dict.items.size() * 4 * sizeof(Value))) return {};
  if (name == "copy") return self;
  List list;
  for (const auto& [key, value] : dict.items) {
    list.items.push_back(name == "keys" ? key : name == "values" ? value : Pair(key, value));
  }
  return context.Make(std::move(list));
}

Value CallListMethod(Context& context, const Value& self, const std::string& name,
                     const CallArguments& arguments) {
  Parameters parameters(context, name, arguments, {"value"});
  if (context.failed()) return {};
  if (name == "copy") return self;
  if (parameters[0] == nullptr) return context.Fail(fmt::format("{}() needs a value", name));
  int64_t count = 0;
  const std::vector<Value>& items = self.list()->items;
  for (size_t i = 0; i < items.size(); ++i) {
    if (!context.Step()) return {};
    if (!context.Equals(items[i], *parameters[0])) continue;
    if (name == "index") return Value(static_cast<int64_t>(i));
    ++count;
  }
  if (name == "index") return context.Fail("the value is not in the list");
  return Value(count);
}

}  // namespace

bool HasMethod(const Value& self, std::string_view name) {
  if (self.is_string()) return IsStringMethod(name);
  if (self.dict() != nullptr) {
    return name == "get" || name == "items" || name == "keys" || name == "values" || name == "copy";
  }
  if (const List* list = self.list()) {
    return name == "count" || name == "index" || (name == "copy" && !list->is_tuple);
  }
  return self.is_float() && name == "is_integer";
}

Value CallMethod(Context& context, const BoundMethod& method, const CallArguments& arguments) {
  if (!context.Step()) return {};
  const Value& self = method.self;
  if (const MarkedString* text = self.string()) {
    return context.Copy(text->size()) ? CallStringMethod(context, *text, method.name, arguments)
                                      : Value();
  }
  if (self.dict() != nullptr) return CallDictMethod(context, self, method.name, arguments);
  if (self.list() != nullptr) return CallListMethod(context, self, method.name, arguments);
  return Value(std::floor(self.number()) == self.number());
}

}  // namespace sluice::chat_template
