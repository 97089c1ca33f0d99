// The expression part of the parser.
#ifndef SLUICE_LOADERS_CHAT_TEMPLATE_EXPRESSION_PARSER_H_
#define SLUICE_LOADERS_CHAT_TEMPLATE_EXPRESSION_PARSER_H_

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "loaders/chat_template/ast.h"
#include "loaders/chat_template/token_stream.h"

namespace sluice::chat_template {

// Every function returns a node, never null; after an error a constant that nobody evaluates.
class ExpressionParser {
 public:
  // `nesting` is shared with the parser of statements.
  ExpressionParser(TokenStream* stream, int* nesting) : stream_(*stream), nesting_(*nesting) {}

  ExprPtr ParseExpression(bool with_conditional = true);
  // An expression, or several with commas as a tuple. `end_name` (may be empty) ends it as well.
  ExprPtr ParseTuple(bool with_conditional = true, std::string_view end_name = {});
  // The text that the stream stands at.
  ExprPtr ParseData();
  // Names, tuples of names, and with `with_namespace` also name.attribute.
  ExprPtr ParseTarget(std::string_view end_name, bool with_namespace);
  // |name(...)|name(...) behind `value`, which may be null. With `start_inline` the first has no |.
  ExprPtr ParseFilters(ExprPtr value, bool start_inline);

 private:
  ExprPtr ParseConditional();
  ExprPtr ParseOr();
  ExprPtr ParseAnd();
  ExprPtr ParseNot();
  ExprPtr ParseCompare();
  ExprPtr ParseSum();
  ExprPtr ParseConcat();
  ExprPtr ParseProduct();
  ExprPtr ParsePower();
  ExprPtr ParseUnary(bool with_filter);
  ExprPtr ParsePrimary();
  ExprPtr ParsePostfix(ExprPtr node);
  ExprPtr ParseFiltersAndTests(ExprPtr node);
  ExprPtr ParseAttribute(ExprPtr node);
  ExprPtr ParseSubscript(ExprPtr node);
  ExprPtr ParseSubscriptPart();
  ExprPtr ParseTest(ExprPtr node);
  ExprPtr ParseParenthesized();
  ExprPtr ParseList();
  ExprPtr ParseDict();
  ExprPtr ParseTargetItem(bool with_namespace);
  ExprPtr ParseBinary(ExprPtr (ExpressionParser::*operand)(),
                      std::initializer_list<std::pair<std::string_view, Operator>> operators);
  void ParseArguments(Arguments* arguments);
  std::string ParseDottedName();
  bool AtTupleEnd(std::string_view end_name) const;

  std::optional<Operator> TakeComparison();
  ExprPtr Make(ExprKind kind, int line);
  ExprPtr MakeText(int line, std::string text);
  ExprDetails* DetailsOf(Expr* node);
  // Sets the depth from the children, and fails when it is too large.
  ExprPtr Finish(ExprPtr node);

  TokenStream& stream_;
  int& nesting_;
};

// Counts a level of nesting for its lifetime, and fails the stream beyond the bound.
class NestingGuard {
 public:
  NestingGuard(TokenStream* stream, int* nesting);
  ~NestingGuard() { --nesting_; }
  NestingGuard(const NestingGuard&) = delete;
  NestingGuard& operator=(const NestingGuard&) = delete;

 private:
  int& nesting_;
};

}  // namespace sluice::chat_template

#endif  // SLUICE_LOADERS_CHAT_TEMPLATE_EXPRESSION_PARSER_H_
