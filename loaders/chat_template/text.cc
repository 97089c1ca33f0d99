// Values as text: str(), repr() and json.dumps() of Python.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "loaders/chat_template/operations.h"

namespace sluice::chat_template {
namespace {

std::string Escape(const char* format, char32_t character) {
  char buffer[16];
  std::snprintf(buffer, sizeof(buffer), format, static_cast<unsigned>(character));
  return buffer;
}

void AppendStringRepr(const MarkedString& text, MarkedString* out) {
  const bool has_single = text.text().find('\'') != std::string::npos;
  const bool has_double = text.text().find('"') != std::string::npos;
  const char quote = has_single && !has_double ? '"' : '\'';
  out->Append(std::string_view(&quote, 1), Origin::kTemplate);
  for (size_t i = 0; i < text.size();) {
    const size_t bytes = CharacterBytes(text.text(), i);
    const char32_t c = CharacterAt(text.text(), i);
    std::string escaped;
    if (c == static_cast<char32_t>(quote) || c == U'\\') {
      escaped = {'\\', static_cast<char>(c)};
    } else if (c == U'\n') {
      escaped = "\\n";
    } else if (c == U'\r') {
      escaped = "\\r";
    } else if (c == U'\t') {
      escaped = "\\t";
    } else if (!IsPrintable(c)) {
      escaped = Escape(c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x", c);
    }
    if (escaped.empty()) {
      out->AppendRange(text, i, i + bytes);
    } else {
      out->Append(escaped, text.OriginAt(i));
    }
    i += bytes;
  }
  out->Append(std::string_view(&quote, 1), Origin::kTemplate);
}

std::string JsonEscape(char32_t c, bool ensure_ascii) {
  switch (c) {
    case U'"':
      return "\\\"";
    case U'\\':
      return "\\\\";
    case U'\n':
      return "\\n";
    case U'\r':
      return "\\r";
    case U'\t':
      return "\\t";
    case U'\f':
      return "\\f";
    case U'\b':
      return "\\b";
    default:
      break;
  }
  if (c < 0x20) return Escape("\\u%04x", c);
  if (!ensure_ascii || c < 0x7f) return {};
  if (c < 0x10000) return Escape("\\u%04x", c);
  return Escape("\\u%04x", 0xd800 + ((c - 0x10000) >> 10)) +
         Escape("\\u%04x", 0xdc00 + ((c - 0x10000) & 0x3ff));
}

void AppendJsonString(const MarkedString& text, bool ensure_ascii, MarkedString* out) {
  out->Append("\"", Origin::kTemplate);
  size_t copied = 0;
  for (size_t i = 0; i < text.size();) {
    const size_t bytes = CharacterBytes(text.text(), i);
    const std::string escaped = JsonEscape(CharacterAt(text.text(), i), ensure_ascii);
    if (!escaped.empty()) {
      out->AppendRange(text, copied, i);
      out->Append(escaped, text.OriginAt(i));
      copied = i + bytes;
    }
    i += bytes;
  }
  out->AppendRange(text, copied, text.size());
  out->Append("\"", Origin::kTemplate);
}

std::string JsonFloat(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value < 0 ? "-Infinity" : "Infinity";
  return FloatRepr(value);
}

class JsonWriter {
 public:
  JsonWriter(Context& context, const JsonStyle& style, MarkedString* out)
      : context_(context), style_(style), out_(*out) {}

  void Write(const Value& value, int64_t level) {
    if (!context_.Step() || context_.TooLong(out_.size())) return;
    if (value.is_none()) return Word("null");
    if (value.is_bool()) return Word(value.boolean() ? "true" : "false");
    if (value.is_int()) return Word(std::to_string(value.integer()));
    if (value.is_float()) return Word(JsonFloat(value.number()));
    if (const MarkedString* text = value.string()) {
      if (context_.Copy(text->size())) AppendJsonString(*text, style_.ensure_ascii, &out_);
      return;
    }
    if (const List* list = value.list()) return WriteList(*list, level);
    if (const Dict* dict = value.dict()) return WriteDict(*dict, level);
    context_.Fail(fmt::format("Object of type {} is not JSON serializable", value.TypeName()));
  }

 private:
  void Word(const std::string& text) { out_.Append(text, Origin::kTemplate); }

  void NewLine(int64_t level) {
    if (style_.indent < 0) return;
    const auto spaces = static_cast<uint64_t>(level) * static_cast<uint64_t>(style_.indent);
    if (context_.TooLong(out_.size() + spaces)) return;
    Word(fmt::format("\n{}", std::string(spaces, ' ')));
  }

  void WriteList(const List& list, int64_t level) {
    if (list.items.empty()) return Word("[]");
    Word("[");
    for (size_t i = 0; i < list.items.size() && !context_.failed(); ++i) {
      if (i > 0) out_.Append(style_.item_separator);
      NewLine(level + 1);
      Write(list.items[i], level + 1);
    }
    NewLine(level);
    Word("]");
  }

  void WriteDict(const Dict& dict, int64_t level) {
    if (dict.items.empty()) return Word("{}");
    std::vector<const std::pair<Value, Value>*> items;
    for (const auto& item : dict.items) items.push_back(&item);
    if (style_.sort_keys) Sort(&items);
    Word("{");
    for (size_t i = 0; i < items.size() && !context_.failed(); ++i) {
      if (i > 0) out_.Append(style_.item_separator);
      NewLine(level + 1);
      WriteKey(items[i]->first);
      out_.Append(style_.key_separator);
      Write(items[i]->second, level + 1);
    }
    NewLine(level);
    Word("}");
  }

  void Sort(std::vector<const std::pair<Value, Value>*>* items) {
    const bool sortable = std::all_of(items->begin(), items->end(),
                                      [](const auto* item) { return item->first.is_string(); });
    if (!sortable) {
      context_.Unsupported("sort_keys with keys that are not text");
      return;
    }
    if (!context_.Step(items->size())) return;
    std::stable_sort(items->begin(), items->end(), [](const auto* a, const auto* b) {
      return a->first.string()->text() < b->first.string()->text();
    });
  }

  void WriteKey(const Value& key) {
    if (const MarkedString* text = key.string()) {
      if (context_.Copy(text->size())) AppendJsonString(*text, style_.ensure_ascii, &out_);
    } else if (key.is_number() || key.is_none()) {
      Word("\"");
      Write(key, 0);
      Word("\"");
    } else {
      context_.Fail(
          fmt::format("keys must be str, int, float, bool or None, not {}", key.TypeName()));
    }
  }

  Context& context_;
  const JsonStyle& style_;
  MarkedString& out_;
};

// The parts of a list or mapping, as repr() separates them.
void AppendListRepr(Context& context, const List& list, MarkedString* out) {
  out->Append(list.is_tuple ? "(" : "[", Origin::kTemplate);
  for (size_t i = 0; i < list.items.size() && !context.failed(); ++i) {
    if (i > 0) out->Append(", ", Origin::kTemplate);
    AppendRepr(context, list.items[i], out);
  }
  if (list.is_tuple && list.items.size() == 1) out->Append(",", Origin::kTemplate);
  out->Append(list.is_tuple ? ")" : "]", Origin::kTemplate);
}

void AppendDictRepr(Context& context, const Dict& dict, MarkedString* out) {
  out->Append("{", Origin::kTemplate);
  for (size_t i = 0; i < dict.items.size() && !context.failed(); ++i) {
    if (i > 0) out->Append(", ", Origin::kTemplate);
    AppendRepr(context, dict.items[i].first, out);
    out->Append(": ", Origin::kTemplate);
    AppendRepr(context, dict.items[i].second, out);
  }
  out->Append("}", Origin::kTemplate);
}

}  // namespace

void AppendRepr(Context& context, const Value& value, MarkedString* out) {
  if (!context.Step() || context.TooLong(out->size())) return;
  if (const MarkedString* text = value.string()) {
    if (context.Copy(text->size())) AppendStringRepr(*text, out);
  } else if (const List* list = value.list()) {
    AppendListRepr(context, *list, out);
  } else if (const Dict* dict = value.dict()) {
    AppendDictRepr(context, *dict, out);
  } else if (value.is_undefined()) {
    out->Append("Undefined", Origin::kTemplate);
  } else {
    out->Append(ToText(context, value));
  }
}

MarkedString ToText(Context& context, const Value& value) {
  if (const MarkedString* text = value.string()) {
    return context.Copy(text->size()) ? *text : MarkedString();
  }
  std::string plain;
  if (value.is_undefined()) return {};
  if (value.is_none()) {
    plain = "None";
  } else if (value.is_bool()) {
    plain = value.boolean() ? "True" : "False";
  } else if (value.is_int()) {
    plain = std::to_string(value.integer());
  } else if (value.is_float()) {
    plain = FloatRepr(value.number());
  } else if (const Object* object = value.object()) {
    plain = object->Repr();
  } else if (const BoundMethod* method = value.method()) {
    plain = fmt::format("<built-in method {} of {} object>", method->name, method->self.TypeName());
  } else {
    MarkedString out;
    AppendRepr(context, value, &out);
    return out;
  }
  return MarkedString(std::move(plain), Origin::kTemplate);
}

void AppendJson(Context& context, const Value& value, const JsonStyle& style, MarkedString* out) {
  JsonWriter(context, style, out).Write(value, 0);
}

}  // namespace sluice::chat_template
