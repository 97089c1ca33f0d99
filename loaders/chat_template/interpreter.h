// Runs the syntax tree.
#ifndef SLUICE_LOADERS_CHAT_TEMPLATE_INTERPRETER_H_
#define SLUICE_LOADERS_CHAT_TEMPLATE_INTERPRETER_H_

#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "loaders/chat_template/ast.h"
#include "loaders/chat_template/context.h"

namespace sluice::chat_template {

// Expressions, bodies and macro calls that are under way in one another.
inline constexpr int kMaxRunNesting = 400;

// Names and values of a block; a name that is not here is looked for in the parent.
struct Scope {
  Scope* parent = nullptr;
  std::unordered_map<std::string, Value> names;
  bool is_captured = false;  // a macro was defined in here and may look names up later
};

class Interpreter {
 public:
  explicit Interpreter(Context& context);

  void Define(const std::string& name, Value value);
  // Runs a template and returns its text. Failures are in the context.
  MarkedString Run(const Body& body);

  Value Eval(const Expr& expr);
  // Calls the macro (or the body of a call block) that `definition` is.
  Value CallMacro(const Stmt& definition, Scope* scope, const CallArguments& arguments);
  // Whether the filter of a loop accepts `item`; evaluated in a scope below `scope`.
  bool AcceptsItem(const Stmt& loop, Scope* scope, const Value& item);

 private:
  enum class Signal { kNone, kBreak, kContinue };

  Signal Exec(const Body& body);
  Signal ExecStatement(const Stmt& statement);
  Signal ExecIf(const Stmt& statement);
  Signal ExecFor(const Stmt& statement);
  Signal ExecScope(const Stmt& statement);
  void ExecOutput(const Stmt& statement);
  void ExecSetBlock(const Stmt& statement);
  void ExecCallBlock(const Stmt& statement);
  void ExecFilterBlock(const Stmt& statement);
  Signal ExecWith(const Stmt& statement);

  Value EvalNode(const Expr& expr);
  Value EvalName(const Expr& expr);
  Value EvalSequence(const Expr& expr);
  Value EvalDict(const Expr& expr);
  Value EvalGetItem(const Expr& expr);
  Value EvalCall(const Expr& expr, const Value* caller);
  Value EvalFilter(const Expr& expr);
  Value EvalCompare(const Expr& expr);
  Value EvalConcat(const Expr& expr);
  CallArguments EvalArguments(const Arguments& arguments);

  void Assign(const Expr& target, Value value);
  void Emit(const Value& value);
  // Runs a body in its own scope and returns what it prints.
  MarkedString Capture(const Body& body);
  void BindArguments(const Stmt& definition, const CallArguments& arguments);

  Scope* PushScope(Scope* parent);
  void PopScope(Scope* scope, Scope* previous);
  void CaptureScopes();
  bool Enter();

  Context& context_;
  std::vector<std::unique_ptr<Scope>> scopes_;
  std::vector<Scope*> free_scopes_;
  Scope* globals_;
  Scope* scope_;
  MarkedString* sink_ = nullptr;
  Value block_input_;  // what the filters of a block work on
  int nesting_ = 0;
};

}  // namespace sluice::chat_template

#endif  // SLUICE_LOADERS_CHAT_TEMPLATE_INTERPRETER_H_
