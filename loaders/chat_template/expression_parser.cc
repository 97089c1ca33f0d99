#include "loaders/chat_template/expression_parser.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "loaders/chat_template/parser.h"

namespace sluice::chat_template {
namespace {

constexpr std::pair<std::string_view, Operator> kComparisons[] = {
    {"==", Operator::kEqual}, {"!=", Operator::kNotEqual},     {"<=", Operator::kLessEqual},
    {"<", Operator::kLess},   {">=", Operator::kGreaterEqual}, {">", Operator::kGreater},
};

}  // namespace

NestingGuard::NestingGuard(TokenStream* stream, int* nesting) : nesting_(*nesting) {
  if (++nesting_ > kMaxParseNesting) {
    stream->Fail(ErrorCode::kLimitExceeded, "nested more than 64 levels deep");
  }
}

ExprPtr ExpressionParser::Make(ExprKind kind, int line) {
  stream_.Charge(sizeof(Expr) + kListFactor * sizeof(ExprPtr));
  auto node = std::make_unique<Expr>();
  node->kind = kind;
  node->line = line;
  return node;
}

ExprPtr ExpressionParser::MakeText(int line, std::string text) {
  ExprPtr node = Make(ExprKind::kConstant, line);
  stream_.Charge(sizeof(MarkedString) + 32 + text.size());
  node->constant = Value::Text(std::move(text));
  return node;
}

ExprPtr ExpressionParser::ParseData() {
  Token data = stream_.Take();
  return MakeText(data.line, std::move(data.text));
}

ExprDetails* ExpressionParser::DetailsOf(Expr* node) {
  if (node->details == nullptr) {
    stream_.Charge(sizeof(ExprDetails));
    node->details = std::make_unique<ExprDetails>();
  }
  return node->details.get();
}

ExprPtr ExpressionParser::Finish(ExprPtr node) {
  const auto add = [&node](const ExprPtr& child) {
    if (child == nullptr) return;
    node->depth = std::max(node->depth, static_cast<int16_t>(child->depth + 1));
  };
  for (const ExprPtr& child : node->children) add(child);
  stream_.Complete(&node->children);
  for (const ExprPtr& argument : node->arguments().positional) add(argument);
  for (const Keyword& keyword : node->arguments().named) add(keyword.value);
  add(node->arguments().more_positional);
  add(node->arguments().more_named);
  if (node->depth > kMaxExprDepth) {
    stream_.FailAt(node->line, ErrorCode::kLimitExceeded, "an expression is too deep");
  }
  return node;
}

ExprPtr ExpressionParser::ParseExpression(bool with_conditional) {
  return with_conditional ? ParseConditional() : ParseOr();
}

ExprPtr ExpressionParser::ParseConditional() {
  const NestingGuard guard(&stream_, &nesting_);
  ExprPtr value = ParseOr();
  while (stream_.IsName("if")) {
    ExprPtr node = Make(ExprKind::kConditional, stream_.Take().line);
    ExprPtr condition = ParseOr();
    ExprPtr alternative = stream_.SkipName("else") ? ParseConditional() : nullptr;
    node->children.push_back(std::move(condition));
    node->children.push_back(std::move(value));
    node->children.push_back(std::move(alternative));
    value = Finish(std::move(node));
  }
  return value;
}

ExprPtr ExpressionParser::ParseOr() {
  ExprPtr left = ParseAnd();
  if (!stream_.IsName("or")) return left;
  ExprPtr node = Make(ExprKind::kOr, stream_.line());
  node->children.push_back(std::move(left));
  while (stream_.SkipName("or")) node->children.push_back(ParseAnd());
  return Finish(std::move(node));
}

ExprPtr ExpressionParser::ParseAnd() {
  ExprPtr left = ParseNot();
  if (!stream_.IsName("and")) return left;
  ExprPtr node = Make(ExprKind::kAnd, stream_.line());
  node->children.push_back(std::move(left));
  while (stream_.SkipName("and")) node->children.push_back(ParseNot());
  return Finish(std::move(node));
}

ExprPtr ExpressionParser::ParseNot() {
  if (!stream_.IsName("not")) return ParseCompare();
  const NestingGuard guard(&stream_, &nesting_);
  ExprPtr node = Make(ExprKind::kNot, stream_.Take().line);
  node->children.push_back(ParseNot());
  return Finish(std::move(node));
}

ExprPtr ExpressionParser::ParseCompare() {
  ExprPtr first = ParseSum();
  ExprPtr node;
  for (;;) {
    const std::optional<Operator> comparison = TakeComparison();
    if (!comparison) break;
    if (node == nullptr) {
      node = Make(ExprKind::kCompare, first->line);
      node->children.push_back(std::move(first));
    }
    stream_.Charge(kListFactor * sizeof(Operator));
    DetailsOf(node.get())->operators.push_back(*comparison);
    node->children.push_back(ParseSum());
  }
  return node == nullptr ? std::move(first) : Finish(std::move(node));
}

std::optional<Operator> ExpressionParser::TakeComparison() {
  if (stream_.SkipName("in")) return Operator::kIn;
  if (stream_.IsName("not") && stream_.next().kind == TokenKind::kName &&
      stream_.next().text == "in") {
    stream_.Take();
    stream_.Take();
    return Operator::kNotIn;
  }
  for (const auto& [text, comparison] : kComparisons) {
    if (stream_.SkipOperator(text)) return comparison;
  }
  return std::nullopt;
}

ExprPtr ExpressionParser::ParseBinary(
    ExprPtr (ExpressionParser::*operand)(),
    std::initializer_list<std::pair<std::string_view, Operator>> operators) {
  ExprPtr left = (this->*operand)();
  for (;;) {
    const auto* found =
        std::find_if(operators.begin(), operators.end(),
                     [this](const auto& candidate) { return stream_.IsOperator(candidate.first); });
    if (found == operators.end()) return left;
    ExprPtr node = Make(ExprKind::kArithmetic, stream_.Take().line);
    node->op = found->second;
    node->children.push_back(std::move(left));
    node->children.push_back((this->*operand)());
    left = Finish(std::move(node));
  }
}

ExprPtr ExpressionParser::ParseSum() {
  return ParseBinary(&ExpressionParser::ParseConcat,
                     {{"+", Operator::kAdd}, {"-", Operator::kSubtract}});
}

ExprPtr ExpressionParser::ParseConcat() {
  ExprPtr left = ParseProduct();
  if (!stream_.IsOperator("~")) return left;
  ExprPtr node = Make(ExprKind::kConcat, stream_.line());
  node->children.push_back(std::move(left));
  while (stream_.SkipOperator("~")) node->children.push_back(ParseProduct());
  return Finish(std::move(node));
}

ExprPtr ExpressionParser::ParseProduct() {
  return ParseBinary(&ExpressionParser::ParsePower, {{"*", Operator::kMultiply},
                                                     {"/", Operator::kDivide},
                                                     {"//", Operator::kFloorDivide},
                                                     {"%", Operator::kModulo}});
}

// Jinja's ** groups to the left, unlike Python's.
ExprPtr ExpressionParser::ParsePower() {
  ExprPtr left = ParseUnary(true);
  while (stream_.IsOperator("**")) {
    ExprPtr node = Make(ExprKind::kArithmetic, stream_.Take().line);
    node->op = Operator::kPower;
    node->children.push_back(std::move(left));
    node->children.push_back(ParseUnary(true));
    left = Finish(std::move(node));
  }
  return left;
}

ExprPtr ExpressionParser::ParseUnary(bool with_filter) {
  ExprPtr node;
  if (stream_.IsOperator("-") || stream_.IsOperator("+")) {
    const NestingGuard guard(&stream_, &nesting_);
    const Token sign = stream_.Take();
    node = Make(sign.text == "-" ? ExprKind::kNegate : ExprKind::kPlus, sign.line);
    node->children.push_back(ParseUnary(false));
    node = Finish(std::move(node));
  } else {
    node = ParsePrimary();
  }
  node = ParsePostfix(std::move(node));
  return with_filter ? ParseFiltersAndTests(std::move(node)) : std::move(node);
}

ExprPtr ExpressionParser::ParsePostfix(ExprPtr node) {
  for (;;) {
    if (stream_.IsOperator(".")) {
      node = ParseAttribute(std::move(node));
    } else if (stream_.IsOperator("[")) {
      node = ParseSubscript(std::move(node));
    } else if (stream_.IsOperator("(")) {
      ExprPtr call = Make(ExprKind::kCall, stream_.line());
      call->children.push_back(std::move(node));
      ParseArguments(&DetailsOf(call.get())->arguments);
      node = Finish(std::move(call));
    } else {
      return node;
    }
  }
}

ExprPtr ExpressionParser::ParseFiltersAndTests(ExprPtr node) {
  for (;;) {
    if (stream_.IsOperator("|")) {
      node = ParseFilters(std::move(node), false);
    } else if (stream_.IsName("is")) {
      node = ParseTest(std::move(node));
    } else if (stream_.IsOperator("(")) {
      ExprPtr call = Make(ExprKind::kCall, stream_.line());
      call->children.push_back(std::move(node));
      ParseArguments(&DetailsOf(call.get())->arguments);
      node = Finish(std::move(call));
    } else {
      return node;
    }
  }
}

ExprPtr ExpressionParser::ParseAttribute(ExprPtr node) {
  const int line = stream_.Take().line;
  if (stream_.Is(TokenKind::kInteger)) {  // value.0 is value[0]
    ExprPtr item = Make(ExprKind::kGetItem, line);
    ExprPtr index = Make(ExprKind::kConstant, line);
    index->constant = Value(stream_.Take().integer);
    item->children.push_back(std::move(node));
    item->children.push_back(std::move(index));
    return Finish(std::move(item));
  }
  ExprPtr attribute = Make(ExprKind::kGetAttribute, line);
  attribute->name = stream_.ExpectName();
  attribute->children.push_back(std::move(node));
  return Finish(std::move(attribute));
}

ExprPtr ExpressionParser::ParseSubscript(ExprPtr node) {
  const int line = stream_.Take().line;
  ExprPtr item = Make(ExprKind::kGetItem, line);
  item->children.push_back(std::move(node));
  ExprPtr first = ParseSubscriptPart();
  if (stream_.IsOperator(",")) {
    ExprPtr tuple = Make(ExprKind::kTuple, line);
    tuple->children.push_back(std::move(first));
    while (stream_.SkipOperator(",")) tuple->children.push_back(ParseSubscriptPart());
    first = Finish(std::move(tuple));
  }
  item->children.push_back(std::move(first));
  stream_.ExpectOperator("]");
  return Finish(std::move(item));
}

ExprPtr ExpressionParser::ParseSubscriptPart() {
  const int line = stream_.line();
  ExprPtr start = stream_.IsOperator(":") ? nullptr : ParseExpression();
  if (!stream_.IsOperator(":")) return start;
  ExprPtr slice = Make(ExprKind::kSlice, line);
  slice->children.push_back(std::move(start));
  const auto parse_rest = [this]() -> ExprPtr {
    if (!stream_.SkipOperator(":")) return nullptr;
    const bool left_out =
        stream_.IsOperator(":") || stream_.IsOperator("]") || stream_.IsOperator(",");
    return left_out ? nullptr : ParseExpression();
  };
  slice->children.push_back(parse_rest());
  slice->children.push_back(parse_rest());
  return Finish(std::move(slice));
}

std::string ExpressionParser::ParseDottedName() {
  std::string name = stream_.ExpectName();
  while (stream_.SkipOperator(".")) name += fmt::format(".{}", stream_.ExpectName());
  return name;
}

ExprPtr ExpressionParser::ParseFilters(ExprPtr value, bool start_inline) {
  while (start_inline || stream_.SkipOperator("|")) {
    start_inline = false;
    ExprPtr filter = Make(ExprKind::kFilter, stream_.line());
    filter->name = ParseDottedName();
    filter->children.push_back(std::move(value));
    if (stream_.IsOperator("(")) ParseArguments(&DetailsOf(filter.get())->arguments);
    value = Finish(std::move(filter));
  }
  return value;
}

ExprPtr ExpressionParser::ParseTest(ExprPtr node) {
  const int line = stream_.Take().line;
  const bool negated = stream_.SkipName("not");
  ExprPtr test = Make(ExprKind::kTest, line);
  test->name = ParseDottedName();
  test->children.push_back(std::move(node));
  const Token& token = stream_.current();
  const bool opens = stream_.IsOperator("[") || stream_.IsOperator("{");
  const bool value = token.kind == TokenKind::kString || token.kind == TokenKind::kInteger ||
                     token.kind == TokenKind::kFloat;
  const bool name = token.kind == TokenKind::kName && token.text != "else" && token.text != "or" &&
                    token.text != "and";
  if (stream_.IsOperator("(")) {
    ParseArguments(&DetailsOf(test.get())->arguments);
  } else if (stream_.IsName("is")) {
    stream_.Fail(ErrorCode::kInvalidArgument, "tests cannot be chained");
  } else if (opens || value || name) {
    DetailsOf(test.get())->arguments.positional.push_back(ParsePostfix(ParsePrimary()));
  }
  test = Finish(std::move(test));
  if (!negated) return test;
  ExprPtr inverse = Make(ExprKind::kNot, line);
  inverse->children.push_back(std::move(test));
  return Finish(std::move(inverse));
}

void ExpressionParser::ParseArguments(Arguments* arguments) {
  stream_.ExpectOperator("(");
  bool first = true;
  while (!stream_.IsOperator(")") && !stream_.failed()) {
    if (!first) {
      stream_.ExpectOperator(",");
      if (stream_.IsOperator(")")) break;
    }
    first = false;
    if (stream_.SkipOperator("*")) {
      if (arguments->more_positional != nullptr) stream_.FailExpected("one * argument");
      arguments->more_positional = ParseExpression();
    } else if (stream_.SkipOperator("**")) {
      if (arguments->more_named != nullptr) stream_.FailExpected("one ** argument");
      arguments->more_named = ParseExpression();
    } else if (stream_.Is(TokenKind::kName) && stream_.next().kind == TokenKind::kOperator &&
               stream_.next().text == "=") {
      Keyword keyword;
      stream_.Charge(kListFactor * sizeof(Keyword));
      keyword.name = stream_.Take().text;
      stream_.Take();
      keyword.value = ParseExpression();
      arguments->named.push_back(std::move(keyword));
    } else {
      if (!arguments->named.empty() || arguments->more_positional || arguments->more_named) {
        stream_.FailExpected("a named argument");
      }
      arguments->positional.push_back(ParseExpression());
    }
  }
  stream_.ExpectOperator(")");
}

}  // namespace sluice::chat_template
