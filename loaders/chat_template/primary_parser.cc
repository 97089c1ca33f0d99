// Literals, names, and what stands on the left of an assignment.
#include <fmt/format.h>

#include <string>
#include <utility>

#include "loaders/chat_template/expression_parser.h"

namespace sluice::chat_template {
namespace {

bool IsLiteralName(const std::string& name) {
  return name == "true" || name == "True" || name == "false" || name == "False" || name == "none" ||
         name == "None";
}

}  // namespace

ExprPtr ExpressionParser::ParsePrimary() {
  const int line = stream_.line();
  if (stream_.IsOperator("(")) return ParseParenthesized();
  if (stream_.IsOperator("[")) return ParseList();
  if (stream_.IsOperator("{")) return ParseDict();
  if (stream_.Is(TokenKind::kString)) {
    std::string text;
    while (stream_.Is(TokenKind::kString)) text += stream_.Take().text;
    return MakeText(line, std::move(text));
  }
  ExprPtr constant = Make(ExprKind::kConstant, line);
  if (stream_.Is(TokenKind::kName)) {
    const std::string name = stream_.ExpectName();
    if (name == "none" || name == "None") {
      constant->constant = Value(None{});
    } else if (IsLiteralName(name)) {
      constant->constant = Value(name == "true" || name == "True");
    } else {
      constant->kind = ExprKind::kName;
      constant->name = name;
    }
  } else if (stream_.Is(TokenKind::kInteger)) {
    constant->constant = Value(stream_.Take().integer);
  } else if (stream_.Is(TokenKind::kFloat)) {
    constant->constant = Value(stream_.Take().number);
  } else {
    stream_.FailExpected("an expression");
  }
  return constant;
}

ExprPtr ExpressionParser::ParseParenthesized() {
  const int line = stream_.Take().line;
  ExprPtr node;
  if (stream_.IsOperator(")")) {
    node = Make(ExprKind::kTuple, line);
  } else {
    node = ParseTuple();
  }
  stream_.ExpectOperator(")");
  return node;
}

ExprPtr ExpressionParser::ParseList() {
  ExprPtr node = Make(ExprKind::kList, stream_.Take().line);
  while (!stream_.IsOperator("]") && !stream_.failed()) {
    if (!node->children.empty()) {
      stream_.ExpectOperator(",");
      if (stream_.IsOperator("]")) break;
    }
    node->children.push_back(ParseExpression());
  }
  stream_.ExpectOperator("]");
  return Finish(std::move(node));
}

ExprPtr ExpressionParser::ParseDict() {
  ExprPtr node = Make(ExprKind::kDict, stream_.Take().line);
  while (!stream_.IsOperator("}") && !stream_.failed()) {
    if (!node->children.empty()) {
      stream_.ExpectOperator(",");
      if (stream_.IsOperator("}")) break;
    }
    node->children.push_back(ParseExpression());
    stream_.ExpectOperator(":");
    node->children.push_back(ParseExpression());
  }
  stream_.ExpectOperator("}");
  return Finish(std::move(node));
}

bool ExpressionParser::AtTupleEnd(std::string_view end_name) const {
  return stream_.Is(TokenKind::kVariableEnd) || stream_.Is(TokenKind::kBlockEnd) ||
         stream_.IsOperator(")") || (!end_name.empty() && stream_.IsName(end_name));
}

ExprPtr ExpressionParser::ParseTuple(bool with_conditional, std::string_view end_name) {
  const int line = stream_.line();
  ExprPtr first = ParseExpression(with_conditional);
  if (!stream_.IsOperator(",")) return first;
  ExprPtr tuple = Make(ExprKind::kTuple, line);
  tuple->children.push_back(std::move(first));
  while (stream_.SkipOperator(",") && !AtTupleEnd(end_name)) {
    tuple->children.push_back(ParseExpression(with_conditional));
  }
  return Finish(std::move(tuple));
}

ExprPtr ExpressionParser::ParseTargetItem(bool with_namespace) {
  if (stream_.IsOperator("(")) {
    const NestingGuard guard(&stream_, &nesting_);
    stream_.Take();
    ExprPtr inner = ParseTarget({}, with_namespace);
    stream_.ExpectOperator(")");
    return inner;
  }
  ExprPtr node = Make(ExprKind::kName, stream_.line());
  node->name = stream_.ExpectName();
  if (IsLiteralName(node->name)) {
    stream_.FailAt(node->line, ErrorCode::kInvalidArgument,
                   fmt::format("cannot assign to {}", node->name));
  }
  if (with_namespace && stream_.SkipOperator(".")) {
    node->kind = ExprKind::kNamespaceRef;
    DetailsOf(node.get())->attribute = stream_.ExpectName();
  }
  return node;
}

ExprPtr ExpressionParser::ParseTarget(std::string_view end_name, bool with_namespace) {
  const int line = stream_.line();
  ExprPtr first = ParseTargetItem(with_namespace);
  if (!stream_.IsOperator(",")) return first;
  ExprPtr tuple = Make(ExprKind::kTuple, line);
  tuple->children.push_back(std::move(first));
  while (stream_.SkipOperator(",") && !AtTupleEnd(end_name) && !stream_.IsOperator("=")) {
    tuple->children.push_back(ParseTargetItem(with_namespace));
  }
  return Finish(std::move(tuple));
}

}  // namespace sluice::chat_template
