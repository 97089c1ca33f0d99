// Operators.
#include <fmt/format.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "loaders/chat_template/operations.h"

namespace sluice::chat_template {
namespace {

const char* Symbol(Operator op) {
  switch (op) {
    case Operator::kAdd:
      return "+";
    case Operator::kSubtract:
      return "-";
    case Operator::kMultiply:
      return "*";
    case Operator::kDivide:
      return "/";
    case Operator::kFloorDivide:
      return "//";
    case Operator::kModulo:
      return "%";
    case Operator::kPower:
      return "**";
    case Operator::kLess:
      return "<";
    case Operator::kLessEqual:
      return "<=";
    case Operator::kGreater:
      return ">";
    case Operator::kGreaterEqual:
      return ">=";
    default:
      return "in";
  }
}

Value FailTypes(Context& context, Operator op, const Value& a, const Value& b) {
  for (const Value* value : {&a, &b}) {
    if (!value->is_undefined()) continue;
    const std::string* message = value->undefined_message();
    return context.Fail(message != nullptr ? *message : "the value is undefined");
  }
  return context.Fail(fmt::format("unsupported operand types for {}: '{}' and '{}'", Symbol(op),
                                  a.TypeName(), b.TypeName()));
}

Value FailOverflow(Context& context) {
  return context.Fail(ErrorCode::kLimitExceeded, "an integer beyond 64 bits");
}

int64_t FloorDivide(int64_t a, int64_t b) {
  const int64_t quotient = a / b;
  return a % b != 0 && (a < 0) != (b < 0) ? quotient - 1 : quotient;
}

double FloorModulo(double a, double b) {
  double rest = std::fmod(a, b);
  if (rest != 0 && (rest < 0) != (b < 0)) rest += b;
  return rest;
}

Value IntegerPower(Context& context, int64_t base, int64_t exponent) {
  if (exponent < 0) {
    if (base == 0) return context.Fail("0 cannot be raised to a negative power");
    return Value(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  }
  int64_t result = 1;
  for (; exponent > 0; exponent >>= 1) {
    if ((exponent & 1) != 0 && __builtin_mul_overflow(result, base, &result)) {
      return FailOverflow(context);
    }
    if (exponent > 1 && __builtin_mul_overflow(base, base, &base)) return FailOverflow(context);
  }
  return Value(result);
}

Value IntegerArithmetic(Context& context, Operator op, int64_t a, int64_t b) {
  int64_t result = 0;
  bool overflow = false;
  switch (op) {
    case Operator::kAdd:
      overflow = __builtin_add_overflow(a, b, &result);
      break;
    case Operator::kSubtract:
      overflow = __builtin_sub_overflow(a, b, &result);
      break;
    case Operator::kMultiply:
      overflow = __builtin_mul_overflow(a, b, &result);
      break;
    case Operator::kPower:
      return IntegerPower(context, a, b);
    default:
      if (b == 0) return context.Fail("division by zero");
      if (op == Operator::kDivide) return Value(static_cast<double>(a) / static_cast<double>(b));
      if (b == -1) {  // the quotient of the least integer would overflow
        if (op == Operator::kModulo) return Value(int64_t{0});
        overflow = __builtin_sub_overflow(int64_t{0}, a, &result);
        break;
      }
      result = FloorDivide(a, b);
      if (op == Operator::kModulo) result = a - result * b;
  }
  return overflow ? FailOverflow(context) : Value(result);
}

Value FloatArithmetic(Context& context, Operator op, double a, double b) {
  switch (op) {
    case Operator::kAdd:
      return Value(a + b);
    case Operator::kSubtract:
      return Value(a - b);
    case Operator::kMultiply:
      return Value(a * b);
    case Operator::kPower:
      return Value(std::pow(a, b));
    default:
      if (b == 0) return context.Fail("float division by zero");
      if (op == Operator::kDivide) return Value(a / b);
      if (op == Operator::kModulo) return Value(FloorModulo(a, b));
      return Value(std::floor(a / b));
  }
}

// Text or a list, repeated.
Value Repeat(Context& context, const Value& sequence, int64_t count) {
  const auto times = static_cast<uint64_t>(count < 0 ? 0 : count);
  if (const MarkedString* text = sequence.string()) {
    if (text->empty()) return sequence;
    if (times > context.max_string_bytes() || context.TooLong(times * text->size())) {
      context.TooLong(std::numeric_limits<uint64_t>::max());
      return {};
    }
    MarkedString out;
    for (uint64_t i = 0; i < times; ++i) out.Append(*text);
    return context.Make(std::move(out));
  }
  const List& list = *sequence.list();
  List out;
  out.is_tuple = list.is_tuple;
  if (!list.items.empty()) {
    if (times > context.max_string_bytes() || !context.Step(times * list.items.size())) {
      context.TooLong(std::numeric_limits<uint64_t>::max());
      return {};
    }
    for (uint64_t i = 0; i < times; ++i) {
      out.items.insert(out.items.end(), list.items.begin(), list.items.end());
    }
  }
  return context.Make(std::move(out));
}

Value Join(Context& context, const Value& a, const Value& b) {
  if (a.is_string()) {
    const bool html = a.string()->is_html() || b.string()->is_html();
    const size_t bytes = a.string()->size() + b.string()->size();
    if (context.TooLong(html ? 5 * bytes : bytes)) return {};
    MarkedString text = html ? EscapeHtml(*a.string()) : *a.string();
    text.Append(html ? EscapeHtml(*b.string()) : *b.string());
    return context.Make(std::move(text));
  }
  const size_t count = a.list()->items.size() + b.list()->items.size();
  if (!context.Copy(count * sizeof(Value))) return {};
  List list = *a.list();
  list.items.insert(list.items.end(), b.list()->items.begin(), b.list()->items.end());
  return context.Make(std::move(list));
}

bool IsSequence(const Value& value) { return value.is_string() || value.list() != nullptr; }

// -1, 0 or 1; 2 for NaN. Fails when the two have no order.
int Order(Context& context, Operator op, const Value& a, const Value& b) {
  if (!context.Step()) return 2;
  if (a.is_integral() && b.is_integral()) {
    return a.integer() < b.integer() ? -1 : a.integer() > b.integer();
  }
  if (a.is_number() && b.is_number()) {
    if (std::isnan(a.number()) || std::isnan(b.number())) return 2;
    return a.number() < b.number() ? -1 : a.number() > b.number();
  }
  if (a.is_string() && b.is_string()) {  // UTF-8 sorts as its characters do
    if (!context.Copy(std::min(a.string()->size(), b.string()->size()))) return 2;
    const int order = a.string()->text().compare(b.string()->text());
    return order < 0 ? -1 : order > 0;
  }
  if (a.list() != nullptr && b.list() != nullptr && a.list()->is_tuple == b.list()->is_tuple) {
    const auto& left = a.list()->items;
    const auto& right = b.list()->items;
    for (size_t i = 0; i < left.size() && i < right.size() && !context.failed(); ++i) {
      if (!context.Equals(left[i], right[i])) return Order(context, op, left[i], right[i]);
    }
    return left.size() < right.size() ? -1 : left.size() > right.size();
  }
  FailTypes(context, op, a, b);
  return 2;
}

}  // namespace

Value Arithmetic(Context& context, Operator op, const Value& a, const Value& b) {
  if (a.is_undefined() || b.is_undefined()) return FailTypes(context, op, a, b);
  if (a.is_integral() && b.is_integral()) {
    return IntegerArithmetic(context, op, a.integer(), b.integer());
  }
  if (a.is_number() && b.is_number()) return FloatArithmetic(context, op, a.number(), b.number());
  if (op == Operator::kModulo && a.is_string()) return PercentFormat(context, *a.string(), b);
  if (op == Operator::kMultiply) {
    if (IsSequence(a) && b.is_integral()) return Repeat(context, a, b.integer());
    if (IsSequence(b) && a.is_integral()) return Repeat(context, b, a.integer());
  }
  const bool same_lists =
      a.list() != nullptr && b.list() != nullptr && a.list()->is_tuple == b.list()->is_tuple;
  if (op == Operator::kAdd && ((a.is_string() && b.is_string()) || same_lists)) {
    return Join(context, a, b);
  }
  return FailTypes(context, op, a, b);
}

Value Negate(Context& context, const Value& value) {
  if (value.is_integral())
    return IntegerArithmetic(context, Operator::kSubtract, 0, value.integer());
  if (value.is_float()) return Value(-value.number());
  return FailTypes(context, Operator::kSubtract, Value(0), value);
}

bool Compare(Context& context, Operator op, const Value& a, const Value& b) {
  switch (op) {
    case Operator::kEqual:
      return context.Equals(a, b);
    case Operator::kNotEqual:
      return !context.Equals(a, b);
    case Operator::kIn:
      return Contains(context, b, a);
    case Operator::kNotIn:
      return !Contains(context, b, a);
    default:
      break;
  }
  if (a.is_undefined() || b.is_undefined()) {
    FailTypes(context, op, a, b);
    return false;
  }
  const int order = Order(context, op, a, b);
  if (order == 2) return false;
  if (op == Operator::kLess) return order < 0;
  if (op == Operator::kLessEqual) return order <= 0;
  return op == Operator::kGreater ? order > 0 : order >= 0;
}

bool Contains(Context& context, const Value& container, const Value& element) {
  if (container.is_undefined()) return false;
  if (const MarkedString* text = container.string()) {
    if (!element.is_string()) {
      context.Fail(
          fmt::format("'in <string>' requires string as left operand, not {}", element.TypeName()));
      return false;
    }
    return context.Copy(text->size()) &&
           Find(text->text(), element.string()->text()) != std::string_view::npos;
  }
  if (const Dict* dict = container.dict()) return context.Find(*dict, element) != nullptr;
  if (const List* list = container.list()) {
    for (const Value& item : list->items) {
      if (!context.Copy(sizeof(Value))) return false;
      if (context.Equals(item, element)) return true;
    }
    return false;
  }
  context.Fail(fmt::format("argument of type '{}' is not iterable", container.TypeName()));
  return false;
}

}  // namespace sluice::chat_template
