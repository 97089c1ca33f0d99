// The syntax tree of a template.
#ifndef SLUICE_LOADERS_CHAT_TEMPLATE_AST_H_
#define SLUICE_LOADERS_CHAT_TEMPLATE_AST_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "loaders/chat_template/value.h"

namespace sluice::chat_template {

enum class ExprKind : uint8_t {
  kConstant,
  kName,          // name
  kNamespaceRef,  // name.attribute as the target of an assignment
  kList,
  kTuple,
  kDict,          // children: key, value, key, value ...
  kGetAttribute,  // children[0].name
  kGetItem,       // children[0][children[1]]
  kSlice,         // children: start, stop, step; null where left out
  kCall,          // children[0](arguments)
  kFilter,        // children[0]|name(arguments); children[0] is null in a filter block
  kTest,          // children[0] is name(arguments)
  kNot,
  kNegate,
  kPlus,
  kAnd,
  kOr,
  kArithmetic,   // children[0] op children[1]
  kCompare,      // children[0] operators[0] children[1] operators[1] children[2] ...
  kConcat,       // children joined by ~
  kConditional,  // children: condition, value, alternative (null where left out)
};

enum class Operator : uint8_t {
  kAdd,
  kSubtract,
  kMultiply,
  kDivide,
  kFloorDivide,
  kModulo,
  kPower,
  kEqual,
  kNotEqual,
  kLess,
  kLessEqual,
  kGreater,
  kGreaterEqual,
  kIn,
  kNotIn,
};

struct Expr;
using ExprPtr = std::unique_ptr<Expr>;

struct Keyword {
  std::string name;
  ExprPtr value;
};

// What stands between the parentheses of a call, a filter or a test.
struct Arguments {
  std::vector<ExprPtr> positional;
  std::vector<Keyword> named;
  ExprPtr more_positional;  // *expression, or null
  ExprPtr more_named;       // **expression, or null
};

// What few expressions have.
struct ExprDetails {
  std::string attribute;
  std::vector<Operator> operators;
  Arguments arguments;
};

struct Expr {
  ExprKind kind = ExprKind::kConstant;
  Operator op = Operator::kAdd;
  int16_t depth = 1;  // levels of expressions from here down
  int line = 1;
  std::string name;
  Value constant;
  std::vector<ExprPtr> children;
  std::unique_ptr<ExprDetails> details;  // null: all of it empty

  const Arguments& arguments() const {
    static const Arguments kNoArguments;
    return details == nullptr ? kNoArguments : details->arguments;
  }
};

enum class StmtKind : uint8_t {
  kOutput,       // prints expressions
  kIf,           // branches, else_body
  kFor,          // for target in expression (if filter): body, else_body
  kSet,          // target = expression
  kSetBlock,     // target = body, through the filters of expression (may be null)
  kMacro,        // name, parameters, body
  kCallBlock,    // expression is the call; parameters and body are `caller`
  kFilterBlock,  // body through the filters of expression
  kWith,         // targets and values in parameters, body
  kScope,        // body in a scope of its own ({% generation %})
  kBreak,
  kContinue,
};

struct Stmt;
using Body = std::vector<Stmt>;

struct Branch {
  ExprPtr condition;
  Body body;
};

// A parameter of a macro with its default (may be null), or a target of `with` and its value.
struct Parameter {
  std::string name;
  ExprPtr target;
  ExprPtr value;
};

struct Stmt {
  StmtKind kind = StmtKind::kOutput;
  int line = 1;
  std::string name;
  ExprPtr target;
  ExprPtr expression;
  ExprPtr filter;
  std::vector<ExprPtr> outputs;
  std::vector<Branch> branches;
  std::vector<Parameter> parameters;
  Body body;
  Body else_body;
};

}  // namespace sluice::chat_template

#endif  // SLUICE_LOADERS_CHAT_TEMPLATE_AST_H_
