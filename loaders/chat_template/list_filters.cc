// Filters on lists and mappings.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "loaders/chat_template/filters.h"
#include "loaders/chat_template/operations.h"

namespace sluice::chat_template {
namespace {

Value Count(Context& context, const Value& input, const CallArguments& arguments) {
  Parameters parameters(context, "length", arguments, {});
  return Length(context, input);
}

Value Default(Context& context, const Value& input, const CallArguments& arguments) {
  Parameters parameters(context, "default", arguments, {"default_value", "boolean"});
  const bool replaces = input.is_undefined() || (parameters.Truth(1, false) && !input.Truth());
  if (!replaces) return input;
  return parameters[0] != nullptr ? *parameters[0] : Value::Text("");
}

Value First(Context& context, const Value& input, const CallArguments& arguments) {
  Parameters parameters(context, "first", arguments, {});
  const std::vector<Value> items = Elements(context, input);
  return items.empty() ? Value::UndefinedWith("No first item, sequence was empty.") : items.front();
}

Value Last(Context& context, const Value& input, const CallArguments& arguments) {
  Parameters parameters(context, "last", arguments, {});
  const std::vector<Value> items = Elements(context, input);
  return items.empty() ? Value::UndefinedWith("No last item, sequence was empty.") : items.back();
}

Value ToList(Context& context, const Value& input, const CallArguments& arguments) {
  Parameters parameters(context, "list", arguments, {});
  List list;
  list.items = Elements(context, input);
  return context.Make(std::move(list));
}

Value Reverse(Context& context, const Value& input, const CallArguments& arguments) {
  Parameters parameters(context, "reverse", arguments, {});
  std::vector<Value> items = Elements(context, input);
  std::reverse(items.begin(), items.end());
  if (input.is_string()) {
    MarkedString text;
    for (const Value& item : items) {
      if (item.is_string()) text.Append(*item.string());
    }
    return context.Make(std::move(text));
  }
  List list;
  list.items = std::move(items);
  return context.Make(std::move(list));
}

Value Items(Context& context, const Value& input, const CallArguments& arguments) {
  Parameters parameters(context, "items", arguments, {});
  if (input.is_undefined()) return context.Make(List());
  if (input.dict() == nullptr) return context.Fail("Can only get item pairs from a mapping.");
  return CallMethod(context, BoundMethod{input, "items"}, {});
}

Value Join(Context& context, const Value& input, const CallArguments& arguments) {
  Parameters parameters(context, "join", arguments, {"d", "attribute"});
  const MarkedString separator =
      parameters[0] != nullptr ? ToText(context, *parameters[0]) : MarkedString();
  MarkedString out;
  bool first = true;
  for (const Value& item : Elements(context, input)) {
    const MarkedString text =
        ToText(context, parameters[1] != nullptr && !parameters[1]->is_none()
                            ? AttributeOf(context, item, *parameters[1], nullptr)
                            : item);
    if (context.failed() || context.TooLong(out.size() + separator.size() + text.size())) return {};
    if (!first) out.Append(separator);
    out.Append(text);
    first = false;
  }
  return context.failed() ? Value() : context.Make(std::move(out));
}

// The rest of the arguments behind the first `used`, for the filter or test that they name.
CallArguments Rest(const CallArguments& arguments, size_t used) {
  CallArguments rest;
  rest.positional.assign(arguments.positional.begin() +
                             static_cast<ptrdiff_t>(std::min(used, arguments.positional.size())),
                         arguments.positional.end());
  rest.named = arguments.named;
  return rest;
}

Value Map(Context& context, const Value& input, const CallArguments& arguments) {
  List list;
  if (!input.Truth()) return context.Make(std::move(list));  // jinja2 accepts None here
  if (arguments.positional.empty()) {
    Parameters parameters(context, "map", arguments, {"attribute", "default"});
    if (context.failed()) return {};
    if (parameters[0] == nullptr) return context.Fail("map requires a filter argument");
    for (const Value& item : Elements(context, input)) {
      if (!context.Step()) return {};
      list.items.push_back(AttributeOf(context, item, *parameters[0], parameters[1]));
    }
    return context.failed() ? Value() : context.Make(std::move(list));
  }
  const MarkedString* name = arguments.positional[0].string();
  if (name == nullptr) return context.Fail("map needs the name of a filter");
  const CallArguments rest = Rest(arguments, 1);
  for (const Value& item : Elements(context, input)) {
    list.items.push_back(ApplyFilter(context, name->text(), item, rest));
    if (context.failed()) return {};
  }
  return context.Make(std::move(list));
}

template <bool by_attribute, bool wanted>
Value Select(Context& context, const Value& input, const CallArguments& arguments) {
  if (!input.Truth()) return context.Make(List());  // jinja2 accepts None here
  constexpr size_t kTestAt = by_attribute ? 1 : 0;
  const std::vector<Value>& given = arguments.positional;
  if (given.size() < kTestAt) return context.Fail("Missing parameter for attribute name");
  const MarkedString* name = given.size() > kTestAt ? given[kTestAt].string() : nullptr;
  if (given.size() > kTestAt && name == nullptr) return context.Fail("a test is named by text");
  const CallArguments rest = Rest(arguments, kTestAt + 1);
  List list;
  for (const Value& item : Elements(context, input)) {
    if (!context.Step()) return {};
    const Value tested = by_attribute ? AttributeOf(context, item, given[0], nullptr) : item;
    const bool passes =
        name != nullptr ? ApplyTest(context, name->text(), tested, rest) : tested.Truth();
    if (context.failed()) return {};
    if (passes == wanted) list.items.push_back(item);
  }
  return context.failed() ? Value() : context.Make(std::move(list));
}

Value Attr(Context& context, const Value& input, const CallArguments& arguments) {
  Parameters parameters(context, "attr", arguments, {"name"});
  const MarkedString& name = parameters.RequiredText(0);
  if (context.failed()) return {};
  // Unlike a dot, this does not look into mappings.
  if (input.dict() != nullptr && !HasMethod(input, name.text())) {
    return Value::UndefinedWith(fmt::format("'dict object' has no attribute '{}'", name.text()));
  }
  return GetAttribute(context, input, name.text());
}

Value Batch(Context& context, const Value& input, const CallArguments& arguments) {
  Parameters parameters(context, "batch", arguments, {"linecount", "fill_with"});
  const int64_t count = parameters.Integer(0, 0);
  if (count <= 0) return context.Fail("batch needs a positive count");
  const auto size = static_cast<size_t>(count);
  List batches;
  List batch;
  for (Value& item : Elements(context, input)) {
    batch.items.push_back(std::move(item));
    if (batch.items.size() == size) batches.items.push_back(context.Make(std::exchange(batch, {})));
  }
  if (!batch.items.empty()) {
    if (parameters[1] != nullptr && !parameters[1]->is_none()) {
      if (!context.Step(size - batch.items.size())) return {};
      batch.items.resize(size, *parameters[1]);
    }
    batches.items.push_back(context.Make(std::move(batch)));
  }
  return context.failed() ? Value() : context.Make(std::move(batches));
}

}  // namespace

Value AttributeOf(Context& context, const Value& value, const Value& attribute,
                  const Value* missing) {
  Value found = value;
  if (const MarkedString* path = attribute.string()) {
    std::string_view rest = path->text();
    for (bool more = true; more && context.Step();) {
      const size_t dot = rest.find('.');
      more = dot != std::string_view::npos;
      const std::string_view part = rest.substr(0, dot);
      if (more) rest.remove_prefix(dot + 1);
      int64_t index;
      const auto read = std::from_chars(part.data(), part.data() + part.size(), index);
      const bool is_index =
          read.ec == std::errc() && read.ptr == part.data() + part.size() && part[0] != '-';
      found = GetItem(context, found, is_index ? Value(index) : Value::Text(std::string(part)));
      if (found.is_undefined() && missing != nullptr) found = *missing;
    }
  } else {
    found = GetItem(context, found, attribute);
    if (found.is_undefined() && missing != nullptr) found = *missing;
  }
  return found;
}

FilterList ListFilters() {
  return {
      {"length", Count},
      {"count", Count},
      {"default", Default},
      {"d", Default},
      {"first", First},
      {"last", Last},
      {"list", ToList},
      {"reverse", Reverse},
      {"items", Items},
      {"join", Join},
      {"map", Map},
      {"select", Select<false, true>},
      {"reject", Select<false, false>},
      {"selectattr", Select<true, true>},
      {"rejectattr", Select<true, false>},
      {"attr", Attr},
      {"batch", Batch},
  };
}

}  // namespace sluice::chat_template
