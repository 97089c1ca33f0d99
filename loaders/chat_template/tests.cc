// What stands behind `is`.
#include <fmt/format.h>

#include <unordered_map>

#include "loaders/chat_template/operations.h"

namespace sluice::chat_template {
namespace {

using Test = bool (*)(Context&, const Value&, const CallArguments&);

template <bool (Value::*predicate)() const>
bool Is(Context&, const Value& input, const CallArguments&) {
  return (input.*predicate)();
}

template <Operator op>
bool Compares(Context& context, const Value& input, const CallArguments& arguments) {
  Parameters parameters(context, "the test", arguments, {"other"});
  if (context.failed()) return false;
  if (parameters[0] == nullptr) {
    context.Fail("the test needs a value to compare with");
    return false;
  }
  return Compare(context, op, input, *parameters[0]);
}

template <bool wanted>
bool IsBool(Context&, const Value& input, const CallArguments&) {
  return input.is_bool() && input.boolean() == wanted;
}

template <bool upper>
bool IsCase(Context& context, const Value& input, const CallArguments&) {
  return CallStringMethod(context, ToText(context, input), upper ? "isupper" : "islower", {})
      .Truth();
}

bool IsDefined(Context&, const Value& input, const CallArguments&) { return !input.is_undefined(); }

bool IsMapping(Context&, const Value& input, const CallArguments&) {
  return input.dict() != nullptr;
}
bool IsSequence(Context&, const Value& input, const CallArguments&) {
  return input.is_string() || input.list() != nullptr || input.dict() != nullptr ||
         input.is_undefined();
}
bool IsCallable(Context&, const Value& input, const CallArguments&) {
  const Object* object = input.object();
  return input.is_undefined() || input.method() != nullptr ||
         (object != nullptr && object->IsCallable());
}

// The remainder by `divisor` of an integer.
bool Remainder(Context& context, const Value& input, int64_t divisor, int64_t* rest) {
  if (!input.is_integral() || divisor == 0) {
    context.Fail("the test needs an integer, and a divisor that is not 0");
    return false;
  }
  *rest = divisor == -1 ? 0 : input.integer() % divisor;
  return true;
}

template <bool wanted>
bool IsOdd(Context& context, const Value& input, const CallArguments&) {
  int64_t rest;
  return Remainder(context, input, 2, &rest) && (rest != 0) == wanted;
}

bool IsDivisible(Context& context, const Value& input, const CallArguments& arguments) {
  Parameters parameters(context, "divisibleby", arguments, {"num"});
  int64_t rest;
  return Remainder(context, input, parameters.Integer(0, 0), &rest) && rest == 0;
}

bool IsSame(Context& context, const Value& input, const CallArguments& arguments) {
  Parameters parameters(context, "sameas", arguments, {"other"});
  return !context.failed() && parameters[0] != nullptr &&
         parameters[0]->TypeName() == input.TypeName() && context.Equals(input, *parameters[0]);
}

const std::unordered_map<std::string_view, Test>& Tests() {
  static const auto* tests = new std::unordered_map<std::string_view, Test>{
      {"defined", IsDefined},
      {"undefined", Is<&Value::is_undefined>},
      {"none", Is<&Value::is_none>},
      {"boolean", Is<&Value::is_bool>},
      {"true", IsBool<true>},
      {"false", IsBool<false>},
      {"integer", Is<&Value::is_int>},
      {"float", Is<&Value::is_float>},
      {"number", Is<&Value::is_number>},
      {"string", Is<&Value::is_string>},
      {"mapping", IsMapping},
      {"sequence", IsSequence},
      {"iterable", IsSequence},
      {"callable", IsCallable},
      {"odd", IsOdd<true>},
      {"even", IsOdd<false>},
      {"divisibleby", IsDivisible},
      {"upper", IsCase<true>},
      {"lower", IsCase<false>},
      {"sameas", IsSame},
      {"in", Compares<Operator::kIn>},
      {"eq", Compares<Operator::kEqual>},
      {"==", Compares<Operator::kEqual>},
      {"equalto", Compares<Operator::kEqual>},
      {"ne", Compares<Operator::kNotEqual>},
      {"!=", Compares<Operator::kNotEqual>},
      {"lt", Compares<Operator::kLess>},
      {"<", Compares<Operator::kLess>},
      {"lessthan", Compares<Operator::kLess>},
      {"le", Compares<Operator::kLessEqual>},
      {"<=", Compares<Operator::kLessEqual>},
      {"gt", Compares<Operator::kGreater>},
      {">", Compares<Operator::kGreater>},
      {"greaterthan", Compares<Operator::kGreater>},
      {"ge", Compares<Operator::kGreaterEqual>},
      {">=", Compares<Operator::kGreaterEqual>},
  };
  return *tests;
}

}  // namespace

bool ApplyTest(Context& context, const std::string& name, const Value& input,
               const CallArguments& arguments) {
  if (!context.Step()) return false;
  const auto found = Tests().find(name);
  if (found != Tests().end()) return found->second(context, input, arguments);
  context.Unsupported(fmt::format("the test '{}'", name));
  return false;
}

}  // namespace sluice::chat_template
