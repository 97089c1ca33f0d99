// Attributes, items, slices, elements and calls.
#include <fmt/format.h>

#include <algorithm>

#include "loaders/chat_template/operations.h"

namespace sluice::chat_template {
namespace {

// jinja2's name of a value in messages about missing attributes.
std::string Described(const Value& value) {
  return value.is_none() ? "None" : fmt::format("{} object", value.TypeName());
}

Value FailUndefined(Context& context, const Value& value) {
  const std::string* message = value.undefined_message();
  return context.Fail(message != nullptr ? *message : "the value is undefined");
}

// Methods that change a list or a mapping: the sandbox hides them.
bool IsForbidden(const Value& value, const std::string& name) {
  static constexpr std::string_view kListNames[] = {"append", "clear",  "extend",  "insert",
                                                    "pop",    "remove", "reverse", "sort"};
  static constexpr std::string_view kDictNames[] = {"clear", "pop", "popitem", "setdefault",
                                                    "update"};
  if (value.dict() != nullptr) {
    return std::find(std::begin(kDictNames), std::end(kDictNames), name) != std::end(kDictNames);
  }
  return value.list() != nullptr && !value.list()->is_tuple &&
         std::find(std::begin(kListNames), std::end(kListNames), name) != std::end(kListNames);
}

Value Missing(const Value& value, const std::string& name) {
  return Value::UndefinedWith(fmt::format("'{}' has no attribute '{}'", Described(value), name));
}

// The method `name` of the value, or undefined.
Value MethodOf(const Value& value, const std::string& name) {
  if (IsForbidden(value, name)) {
    return Value::UndefinedWith(
        fmt::format("access to attribute '{}' of '{}' object is unsafe.", name, value.TypeName()));
  }
  if (HasMethod(value, name)) return Value(BoundMethod{value, name});
  return Missing(value, name);
}

// The index behind Python's rules for negative ones; -1 when it is out of range.
int64_t Position(int64_t index, size_t count) {
  const auto size = static_cast<int64_t>(count);
  if (index < 0) index += size;
  return index >= 0 && index < size ? index : -1;
}

Value ItemAt(Context& context, const Value& value, int64_t index) {
  if (const List* list = value.list()) {
    const int64_t position = Position(index, list->items.size());
    if (position >= 0) return list->items[static_cast<size_t>(position)];
  } else {
    const MarkedString& text = *value.string();
    if (!context.Copy(text.size())) return {};
    const int64_t position = Position(index, CountCharacters(text.text()));
    if (position >= 0) {
      const size_t begin = CharacterOffset(text.text(), static_cast<size_t>(position));
      return context.Make(text.Range(begin, begin + CharacterBytes(text.text(), begin)));
    }
  }
  return Value::UndefinedWith(fmt::format("'{}' has no element {}", Described(value), index));
}

// Start, stop and step of a slice over `count` elements, as Python's slice.indices().
struct SliceRange {
  int64_t start = 0;
  int64_t stop = 0;
  int64_t step = 1;
};

bool SliceBound(Context& context, const Value& value, int64_t* bound) {
  if (value.is_none()) return true;
  if (!value.is_integral()) {
    context.Fail("slice indices must be integers or None");
    return false;
  }
  *bound = value.integer();
  return true;
}

bool ResolveSlice(Context& context, const Value& start, const Value& stop, const Value& step,
                  int64_t count, SliceRange* range) {
  if (!SliceBound(context, step, &range->step)) return false;
  if (range->step == 0) {
    context.Fail("slice step cannot be zero");
    return false;
  }
  const bool forward = range->step > 0;
  const int64_t lowest = forward ? 0 : -1;
  const int64_t highest = forward ? count : count - 1;
  range->start = forward ? lowest : highest;
  range->stop = forward ? highest : lowest;
  if (!SliceBound(context, start, &range->start) || !SliceBound(context, stop, &range->stop)) {
    return false;
  }
  const auto clamp = [&](const Value& given, int64_t bound) {
    if (given.is_none()) return bound;
    if (bound < 0) bound += count;
    return std::clamp(bound, lowest, highest);
  };
  range->start = clamp(start, range->start);
  range->stop = clamp(stop, range->stop);
  return true;
}

// Positions of the elements of a slice.
std::vector<size_t> SlicePositions(const SliceRange& range) {
  std::vector<size_t> positions;
  int64_t at = range.start;
  while (range.step > 0 ? at < range.stop : at > range.stop) {
    positions.push_back(static_cast<size_t>(at));
    if (__builtin_add_overflow(at, range.step, &at)) break;
  }
  return positions;
}

Value SliceText(Context& context, const MarkedString& text, const SliceRange& range) {
  if (range.step == 1) {
    if (range.start >= range.stop) return context.Make(MarkedString());
    const size_t begin = CharacterOffset(text.text(), static_cast<size_t>(range.start));
    const size_t rest = CharacterOffset(std::string_view(text.text()).substr(begin),
                                        static_cast<size_t>(range.stop - range.start));
    return context.Make(text.Range(begin, begin + rest));
  }
  std::vector<size_t> offsets;
  for (size_t i = 0; i < text.size(); i += CharacterBytes(text.text(), i)) offsets.push_back(i);
  if (!context.Copy(offsets.size() * sizeof(size_t))) return {};
  MarkedString out;
  for (const size_t position : SlicePositions(range)) {
    const size_t begin = offsets[position];
    out.AppendRange(text, begin, begin + CharacterBytes(text.text(), begin));
  }
  return context.Make(std::move(out));
}

}  // namespace

Value GetAttribute(Context& context, const Value& value, const std::string& name) {
  if (context.failed()) return {};
  if (value.is_undefined()) return FailUndefined(context, value);
  if (Object* object = value.object()) return object->Attribute(context, name);
  const Value method = MethodOf(value, name);
  if (method.method() != nullptr || IsForbidden(value, name)) return method;
  if (const Dict* dict = value.dict()) {
    if (const Value* item = dict->Find(name)) return *item;
  }
  return method;
}

Value GetItem(Context& context, const Value& value, const Value& key) {
  if (value.is_undefined()) return FailUndefined(context, value);
  const MarkedString* name = key.string();
  if (Object* object = value.object()) {
    if (name != nullptr) return object->Attribute(context, name->text());
    return Value::UndefinedWith(fmt::format("'{}' has no such element", Described(value)));
  }
  if (const Dict* dict = value.dict()) {
    if (const Value* item = context.Find(*dict, key)) return *item;
    if (context.failed()) return {};
  }
  if ((value.list() != nullptr || value.is_string()) && key.is_integral()) {
    return ItemAt(context, value, key.integer());
  }
  if (name == nullptr) {
    return Value::UndefinedWith(fmt::format("'{}' has no such element", Described(value)));
  }
  return context.Copy(name->size()) ? MethodOf(value, name->text()) : Value();
}

Value GetSlice(Context& context, const Value& value, const Value& start, const Value& stop,
               const Value& step) {
  if (value.is_undefined()) return FailUndefined(context, value);
  const MarkedString* text = value.string();
  const List* list = value.list();
  if (text == nullptr && list == nullptr) {
    return context.Fail(fmt::format("'{}' object has no slices", value.TypeName()));
  }
  if (text != nullptr && !context.Copy(text->size())) return {};
  const size_t count = text != nullptr ? CountCharacters(text->text()) : list->items.size();
  SliceRange range;
  if (!ResolveSlice(context, start, stop, step, static_cast<int64_t>(count), &range)) return {};
  if (text != nullptr) return SliceText(context, *text, range);
  List out;
  out.is_tuple = list->is_tuple;
  for (const size_t position : SlicePositions(range)) out.items.push_back(list->items[position]);
  return context.Make(std::move(out));
}

std::vector<Value> Elements(Context& context, const Value& value) {
  std::vector<Value> elements;
  if (context.failed() || value.is_undefined()) return elements;
  if (const List* list = value.list()) {
    if (context.Copy(list->items.size() * sizeof(Value))) elements = list->items;
  } else if (const Dict* dict = value.dict()) {
    if (!context.Copy(dict->items.size() * sizeof(Value))) return elements;
    for (const auto& item : dict->items) elements.push_back(item.first);
  } else if (const MarkedString* text = value.string()) {
    if (!context.Step(text->size())) return elements;
    for (size_t i = 0; i < text->size();) {
      const size_t next = i + CharacterBytes(text->text(), i);
      elements.push_back(context.Make(text->Range(i, next)));
      i = next;
    }
  } else {
    context.Fail(fmt::format("'{}' object is not iterable", value.TypeName()));
  }
  return elements;
}

Value Length(Context& context, const Value& value) {
  if (value.is_undefined()) return Value(0);
  if (const List* list = value.list()) return Value(static_cast<int64_t>(list->items.size()));
  if (const Dict* dict = value.dict()) return Value(static_cast<int64_t>(dict->items.size()));
  if (const MarkedString* text = value.string()) {
    if (!context.Copy(text->size())) return {};
    return Value(static_cast<int64_t>(CountCharacters(text->text())));
  }
  return context.Fail(fmt::format("object of type '{}' has no len()", value.TypeName()));
}

Value Call(Context& context, const Value& callee, const CallArguments& arguments) {
  if (const BoundMethod* method = callee.method()) return CallMethod(context, *method, arguments);
  if (Object* object = callee.object()) return object->Call(context, arguments);
  if (callee.is_undefined()) return FailUndefined(context, callee);
  return context.Fail(fmt::format("'{}' object is not callable", callee.TypeName()));
}

}  // namespace sluice::chat_template
