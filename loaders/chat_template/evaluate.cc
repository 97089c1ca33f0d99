// The expressions of the interpreter.
#include <fmt/format.h>

#include <utility>

#include "loaders/chat_template/interpreter.h"
#include "loaders/chat_template/operations.h"

namespace sluice::chat_template {

Value Interpreter::Eval(const Expr& expr) {
  if (!Enter()) return {};
  ++nesting_;
  context_.set_line(expr.line);
  Value value = EvalNode(expr);
  --nesting_;
  return value;
}

Value Interpreter::EvalNode(const Expr& expr) {
  switch (expr.kind) {
    case ExprKind::kConstant:
      return expr.constant;
    case ExprKind::kName:
    case ExprKind::kNamespaceRef:
      return EvalName(expr);
    case ExprKind::kList:
    case ExprKind::kTuple:
      return EvalSequence(expr);
    case ExprKind::kDict:
      return EvalDict(expr);
    case ExprKind::kGetAttribute:
      return GetAttribute(context_, Eval(*expr.children[0]), expr.name);
    case ExprKind::kGetItem:
      return EvalGetItem(expr);
    case ExprKind::kSlice:
      return context_.Fail("a slice outside of brackets");
    case ExprKind::kCall:
      return EvalCall(expr, nullptr);
    case ExprKind::kFilter:
      return EvalFilter(expr);
    case ExprKind::kTest: {
      const Value input = Eval(*expr.children[0]);
      const CallArguments arguments = EvalArguments(expr.arguments());
      return context_.failed() ? Value() : Value(ApplyTest(context_, expr.name, input, arguments));
    }
    case ExprKind::kNot:
      return Value(!Eval(*expr.children[0]).Truth());
    case ExprKind::kNegate:
      return Negate(context_, Eval(*expr.children[0]));
    case ExprKind::kPlus: {
      const Value value = Eval(*expr.children[0]);
      return value.is_number() ? value : context_.Fail("bad operand for unary +");
    }
    case ExprKind::kAnd:
    case ExprKind::kOr:
      for (size_t i = 0;; ++i) {
        Value value = Eval(*expr.children[i]);
        const bool decides = value.Truth() == (expr.kind == ExprKind::kOr);
        if (decides || i + 1 == expr.children.size() || context_.failed()) return value;
      }
    case ExprKind::kArithmetic: {
      const Value a = Eval(*expr.children[0]);
      const Value b = Eval(*expr.children[1]);
      return context_.failed() ? Value() : Arithmetic(context_, expr.op, a, b);
    }
    case ExprKind::kCompare:
      return EvalCompare(expr);
    case ExprKind::kConcat:
      return EvalConcat(expr);
    case ExprKind::kConditional: {
      const bool taken = Eval(*expr.children[0]).Truth();
      if (taken) return Eval(*expr.children[1]);
      if (expr.children[2] != nullptr) return Eval(*expr.children[2]);
      return Value::UndefinedWith("the inline if had no else");
    }
  }
  return {};
}

Value Interpreter::EvalName(const Expr& expr) {
  for (const Scope* scope = scope_; scope != nullptr; scope = scope->parent) {
    const auto found = scope->names.find(expr.name);
    if (found != scope->names.end()) return found->second;
  }
  return Value::UndefinedWith(fmt::format("'{}' is undefined", expr.name));
}

Value Interpreter::EvalSequence(const Expr& expr) {
  List list;
  list.is_tuple = expr.kind == ExprKind::kTuple;
  list.items.reserve(expr.children.size());
  for (const ExprPtr& child : expr.children) list.items.push_back(Eval(*child));
  return context_.failed() ? Value() : context_.Make(std::move(list));
}

Value Interpreter::EvalDict(const Expr& expr) {
  Dict dict;
  for (size_t i = 0; i + 1 < expr.children.size() && !context_.failed(); i += 2) {
    Value key = Eval(*expr.children[i]);
    Value value = Eval(*expr.children[i + 1]);
    context_.Set(&dict, std::move(key), std::move(value));
  }
  return context_.failed() ? Value() : context_.Make(std::move(dict));
}

Value Interpreter::EvalGetItem(const Expr& expr) {
  const Value value = Eval(*expr.children[0]);
  const Expr& key = *expr.children[1];
  if (key.kind != ExprKind::kSlice) {
    const Value index = Eval(key);
    return context_.failed() ? Value() : GetItem(context_, value, index);
  }
  Value bounds[3];
  for (size_t i = 0; i < 3; ++i) {
    bounds[i] = key.children[i] != nullptr ? Eval(*key.children[i]) : Value(None{});
  }
  if (context_.failed()) return {};
  return GetSlice(context_, value, bounds[0], bounds[1], bounds[2]);
}

CallArguments Interpreter::EvalArguments(const Arguments& arguments) {
  CallArguments values;
  for (const ExprPtr& argument : arguments.positional) values.positional.push_back(Eval(*argument));
  if (arguments.more_positional != nullptr) {
    for (Value& item : Elements(context_, Eval(*arguments.more_positional))) {
      values.positional.push_back(std::move(item));
    }
  }
  for (const Keyword& keyword : arguments.named) {
    values.named.emplace_back(keyword.name, Eval(*keyword.value));
  }
  if (arguments.more_named != nullptr) {
    const Value more = Eval(*arguments.more_named);
    if (more.dict() == nullptr) {
      context_.Fail("the argument behind ** is no mapping");
      return values;
    }
    for (const auto& [key, value] : more.dict()->items) {
      if (!context_.Step()) break;
      if (!key.is_string()) {
        context_.Fail("keywords must be strings");
        break;
      }
      values.named.emplace_back(key.string()->text(), value);
    }
  }
  return values;
}

Value Interpreter::EvalCall(const Expr& expr, const Value* caller) {
  const Value callee = Eval(*expr.children[0]);
  CallArguments arguments = EvalArguments(expr.arguments());
  if (caller != nullptr) arguments.named.emplace_back("caller", *caller);
  if (context_.failed()) return {};
  context_.set_line(expr.line);
  return Call(context_, callee, arguments);
}

Value Interpreter::EvalFilter(const Expr& expr) {
  const Value input = expr.children[0] != nullptr ? Eval(*expr.children[0]) : block_input_;
  const CallArguments arguments = EvalArguments(expr.arguments());
  if (context_.failed()) return {};
  context_.set_line(expr.line);
  return ApplyFilter(context_, expr.name, input, arguments);
}

Value Interpreter::EvalCompare(const Expr& expr) {
  Value left = Eval(*expr.children[0]);
  for (size_t i = 0; i < expr.details->operators.size(); ++i) {
    Value right = Eval(*expr.children[i + 1]);
    if (context_.failed()) return {};
    if (!Compare(context_, expr.details->operators[i], left, right)) return Value(false);
    left = std::move(right);
  }
  return Value(true);
}

Value Interpreter::EvalConcat(const Expr& expr) {
  MarkedString text;
  for (const ExprPtr& child : expr.children) {
    const MarkedString part = ToText(context_, Eval(*child));
    if (context_.TooLong(text.size() + part.size()) || context_.failed()) return {};
    text.Append(part);
  }
  return context_.Make(std::move(text));
}

}  // namespace sluice::chat_template
