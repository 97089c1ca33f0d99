#include "loaders/chat_template/value.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>

namespace sluice::chat_template {
namespace {

bool EqualLists(const List& a, const List& b, uint64_t* work) {
  if (a.is_tuple != b.is_tuple || a.items.size() != b.items.size()) return false;
  for (size_t i = 0; i < a.items.size(); ++i) {
    if (!Equal(a.items[i], b.items[i], work)) return false;
  }
  return true;
}

bool EqualDicts(const Dict& a, const Dict& b, uint64_t* work) {
  if (a.items.size() != b.items.size()) return false;
  for (const auto& [key, value] : a.items) {
    const Value* other = b.Find(key);
    if (other == nullptr || !Equal(value, *other, work)) return false;
  }
  return true;
}

}  // namespace

Value::Value(List list) {
  for (const Value& item : list.items) list.depth = std::max(list.depth, 1 + item.depth());
  data_ = std::make_shared<const List>(std::move(list));
}

Value::Value(Dict dict) {
  for (const auto& [key, value] : dict.items) {
    dict.depth = std::max({dict.depth, 1 + key.depth(), 1 + value.depth()});
  }
  data_ = std::make_shared<const Dict>(std::move(dict));
}

Value::Value(BoundMethod method) : data_(std::make_shared<const BoundMethod>(std::move(method))) {}

Value Value::UndefinedWith(std::string message) {
  Value value;
  value.data_ = Undefined{std::make_shared<const std::string>(std::move(message))};
  return value;
}

bool Value::Truth() const {
  if (is_undefined() || is_none()) return false;
  if (is_bool()) return boolean();
  if (is_int()) return integer() != 0;
  if (is_float()) return number() != 0;
  if (const MarkedString* text = string()) return !text->empty();
  if (const List* items = list()) return !items->items.empty();
  if (const Dict* mapping = dict()) return !mapping->items.empty();
  return true;
}

int Value::depth() const {
  if (const List* items = list()) return items->depth;
  if (const Dict* mapping = dict()) return mapping->depth;
  if (const BoundMethod* bound = method()) return 1 + bound->self.depth();
  return 0;
}

std::string Value::TypeName() const {
  if (is_undefined()) return "Undefined";
  if (is_none()) return "NoneType";
  if (is_bool()) return "bool";
  if (is_int()) return "int";
  if (is_float()) return "float";
  if (is_string()) return "str";
  if (const List* items = list()) return items->is_tuple ? "tuple" : "list";
  if (dict() != nullptr) return "dict";
  if (Object* held = object()) return held->TypeName();
  return "builtin_function_or_method";
}

const Value* Dict::Find(std::string_view key) const {
  const auto found = string_keys_.find(std::string(key));
  return found == string_keys_.end() ? nullptr : &items[found->second].second;
}

const Value* Dict::Find(const Value& key) const {
  if (const MarkedString* text = key.string()) return Find(text->text());
  if (!has_other_keys_) return nullptr;
  uint64_t work = 0;
  for (const auto& item : items) {
    if (Equal(item.first, key, &work)) return &item.second;
  }
  return nullptr;
}

void Dict::Set(Value key, Value value) {
  if (const Value* present = Find(key)) {
    *const_cast<Value*>(present) = std::move(value);  // this mapping is not const here
    return;
  }
  if (const MarkedString* text = key.string()) {
    string_keys_.emplace(text->text(), items.size());
  } else {
    has_other_keys_ = true;
  }
  items.emplace_back(std::move(key), std::move(value));
}

bool Equal(const Value& a, const Value& b, uint64_t* work) {
  if (++*work > kMaxEqualWork) return false;
  if (a.is_number() && b.is_number()) {
    if (a.is_integral() && b.is_integral()) return a.integer() == b.integer();
    return a.number() == b.number();
  }
  if (a.is_undefined() || a.is_none()) {
    return (a.is_undefined() && b.is_undefined()) || (a.is_none() && b.is_none());
  }
  if (a.is_string() && b.is_string()) {
    *work += std::min(a.string()->size(), b.string()->size()) / 64;
    return a.string()->text() == b.string()->text();
  }
  if (a.list() != nullptr && b.list() != nullptr) return EqualLists(*a.list(), *b.list(), work);
  if (a.dict() != nullptr && b.dict() != nullptr) return EqualDicts(*a.dict(), *b.dict(), work);
  if (a.object() != nullptr || b.object() != nullptr) return a.object() == b.object();
  return false;
}

std::string FloatRepr(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char buffer[64];
  const auto scientific =
      std::to_chars(buffer, buffer + sizeof(buffer), value, std::chars_format::scientific);
  const std::string text(buffer, scientific.ptr);
  const size_t mark = text.find('e');
  const int exponent = std::atoi(text.c_str() + mark + 1);
  if (exponent < -4 || exponent >= 16) return text;
  const auto fixed =
      std::to_chars(buffer, buffer + sizeof(buffer), value, std::chars_format::fixed);
  std::string plain(buffer, fixed.ptr);
  if (plain.find('.') == std::string::npos) plain += ".0";
  return plain;
}

}  // namespace sluice::chat_template
