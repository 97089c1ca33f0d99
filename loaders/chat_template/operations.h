// The operations of the language on values. After a failure they return undefined (or false, or
// nothing) and the context has the reason.
#ifndef SLUICE_LOADERS_CHAT_TEMPLATE_OPERATIONS_H_
#define SLUICE_LOADERS_CHAT_TEMPLATE_OPERATIONS_H_

#include <string>
#include <string_view>
#include <vector>

#include "loaders/chat_template/ast.h"
#include "loaders/chat_template/context.h"
#include "loaders/chat_template/value.h"

namespace sluice::chat_template {

// --- text.cc
// str(value).
MarkedString ToText(Context& context, const Value& value);
// repr(value), appended.
void AppendRepr(Context& context, const Value& value, MarkedString* out);
// json.dumps(value, ...) of Python, appended. `indent` < 0: on one line.
struct JsonStyle {
  int64_t indent = -1;
  bool ensure_ascii = false;
  bool sort_keys = false;
  MarkedString item_separator;
  MarkedString key_separator;
};
void AppendJson(Context& context, const Value& value, const JsonStyle& style, MarkedString* out);

// --- arithmetic.cc
Value Arithmetic(Context& context, Operator op, const Value& a, const Value& b);
Value Negate(Context& context, const Value& value);
bool Compare(Context& context, Operator op, const Value& a, const Value& b);
// `element in container`.
bool Contains(Context& context, const Value& container, const Value& element);
// template % arguments and the filter format.
Value PercentFormat(Context& context, const MarkedString& format, const Value& arguments);

// --- access.cc
// value.name and value[key], as jinja2's sandbox resolves them.
Value GetAttribute(Context& context, const Value& value, const std::string& name);
Value GetItem(Context& context, const Value& value, const Value& key);
// value[start:stop:step]; none or undefined: left out.
Value GetSlice(Context& context, const Value& value, const Value& start, const Value& stop,
               const Value& step);
// What a loop over the value goes through: items, keys or characters.
std::vector<Value> Elements(Context& context, const Value& value);
// len(value).
Value Length(Context& context, const Value& value);
Value Call(Context& context, const Value& callee, const CallArguments& arguments);

// --- methods.cc, string_methods.cc
bool HasMethod(const Value& self, std::string_view name);
Value CallMethod(Context& context, const BoundMethod& method, const CallArguments& arguments);
Value CallStringMethod(Context& context, const MarkedString& self, const std::string& name,
                       const CallArguments& arguments);
bool IsStringMethod(std::string_view name);

// --- format.cc
// format.format(arguments) of Python.
Value StringFormat(Context& context, const MarkedString& format, const CallArguments& arguments);

// --- filters.cc, tests.cc
Value ApplyFilter(Context& context, const std::string& name, const Value& input,
                  const CallArguments& arguments);
bool ApplyTest(Context& context, const std::string& name, const Value& input,
               const CallArguments& arguments);

// --- globals.cc
class Namespace final : public Object {
 public:
  std::string TypeName() const override { return "Namespace"; }
  std::string Repr() const override { return "<Namespace>"; }
  Value Attribute(Context& context, const std::string& name) override;
  void Set(Context& context, const std::string& name, Value value);

 private:
  Dict attributes_;
};
// The functions that every template can call, by name. Owned by the context.
std::vector<std::pair<std::string, Value>> MakeGlobals(Context& context);
// What datetime.strftime gives in the C locale.
std::string FormatTime(Context& context, const std::string& format, std::time_t time);

}  // namespace sluice::chat_template

#endif  // SLUICE_LOADERS_CHAT_TEMPLATE_OPERATIONS_H_
