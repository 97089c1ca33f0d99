#include "loaders/chat_template/interpreter.h"

#include <fmt/format.h>

#include <optional>

#include "loaders/chat_template/operations.h"

namespace sluice::chat_template {
namespace {

class Macro final : public Object {
 public:
  Macro(Interpreter* interpreter, const Stmt* definition, Scope* scope)
      : interpreter_(interpreter), definition_(definition), scope_(scope) {}

  std::string TypeName() const override { return "Macro"; }
  std::string Repr() const override { return fmt::format("<Macro '{}'>", definition_->name); }
  bool IsCallable() const override { return true; }
  Value Attribute(Context& context, const std::string& name) override {
    if (name == "name") return Value::Text(definition_->name);
    return Object::Attribute(context, name);
  }
  Value Call(Context&, const CallArguments& arguments) override {
    return interpreter_->CallMacro(*definition_, scope_, arguments);
  }

 private:
  Interpreter* interpreter_;
  const Stmt* definition_;
  Scope* scope_;
};

// The variable `loop`, and the way through the items. An item is tested by the loop's filter only
// when it is asked for: the body may change what the filter sees.
class Loop final : public Object {
 public:
  Loop(Interpreter* interpreter, const Stmt* statement, Scope* scope, std::vector<Value> items)
      : interpreter_(interpreter), statement_(statement), scope_(scope), items_(std::move(items)) {}

  // Moves on; false at the end.
  bool Next() {
    if (!Peek()) return false;
    previous_ = std::move(current_);
    current_ = std::move(items_[next_++]);
    peeked_ = false;
    ++index_;
    return true;
  }
  const Value& current() const { return *current_; }
  // The scope around the loop is about to end: nothing is tested after this.
  void Finish() {
    items_.clear();
    next_ = 0;
    peeked_ = false;
  }

  std::string TypeName() const override { return "LoopContext"; }
  std::string Repr() const override {
    return fmt::format("<LoopContext {}/{}>", index_, items_.size());
  }

  Value Attribute(Context& context, const std::string& name) override {
    if (name == "index") return Value(index_);
    if (name == "index0") return Value(index_ - 1);
    if (name == "first") return Value(index_ == 1);
    if (name == "last") return Value(!Peek());
    if (name == "length") return Value(Length());
    if (name == "revindex") return Value(Length() - index_ + 1);
    if (name == "revindex0") return Value(Length() - index_);
    if (name == "depth") return Value(1);
    if (name == "depth0") return Value(0);
    if (name == "previtem") {
      return previous_ ? *previous_ : Value::UndefinedWith("there is no previous item");
    }
    if (name == "nextitem") {
      return Peek() ? items_[next_] : Value::UndefinedWith("there is no next item");
    }
    if (name == "cycle" || name == "changed")
      return context.Unsupported(fmt::format("loop.{}", name));
    return Object::Attribute(context, name);
  }

 private:
  // Whether there is an item at next_; passes over those that the filter refuses.
  bool Peek() {
    if (peeked_) return true;
    if (testing_) return false;  // the filter itself asks about the loop
    testing_ = true;
    while (!peeked_ && next_ < items_.size()) {
      peeked_ = statement_->filter == nullptr ||
                interpreter_->AcceptsItem(*statement_, scope_, items_[next_]);
      if (!peeked_) ++next_;
    }
    testing_ = false;
    return peeked_;
  }

  int64_t Length() {
    if (!length_ && statement_->filter == nullptr) length_ = static_cast<int64_t>(items_.size());
    if (!length_) {
      if (testing_) return index_;
      std::vector<Value> rest;
      for (; Peek(); ++next_, peeked_ = false) rest.push_back(items_[next_]);
      length_ = index_ + static_cast<int64_t>(rest.size());
      KeepAccepted(std::move(rest));
    }
    return *length_;
  }

  // All that is left has passed the filter: it must not be asked again.
  void KeepAccepted(std::vector<Value> rest) {
    items_ = std::move(rest);
    next_ = 0;
    accepted_.kind = StmtKind::kFor;
    statement_ = &accepted_;
  }

  Interpreter* interpreter_;
  const Stmt* statement_;
  Scope* scope_;
  Stmt accepted_;  // a loop without a filter
  std::vector<Value> items_;
  size_t next_ = 0;
  bool peeked_ = false;
  bool testing_ = false;
  int64_t index_ = 0;
  std::optional<int64_t> length_;
  std::optional<Value> previous_;
  std::optional<Value> current_;
};

}  // namespace

Interpreter::Interpreter(Context& context) : context_(context) {
  globals_ = PushScope(nullptr);
  globals_->is_captured = true;
  for (auto& [name, value] : MakeGlobals(context)) globals_->names[name] = std::move(value);
  scope_ = PushScope(globals_);
}

void Interpreter::Define(const std::string& name, Value value) {
  globals_->names[name] = std::move(value);
}

MarkedString Interpreter::Run(const Body& body) {
  MarkedString text;
  sink_ = &text;
  Exec(body);
  return text;
}

Scope* Interpreter::PushScope(Scope* parent) {
  Scope* scope;
  if (free_scopes_.empty()) {
    scopes_.push_back(std::make_unique<Scope>());
    scope = scopes_.back().get();
  } else {
    scope = free_scopes_.back();
    free_scopes_.pop_back();
  }
  scope->parent = parent;
  scope_ = scope;
  return scope;
}

void Interpreter::PopScope(Scope* scope, Scope* previous) {
  if (!scope->is_captured) {
    scope->names.clear();
    free_scopes_.push_back(scope);
  }
  scope_ = previous;
}

// Keeps the scopes that a macro defined here can see.
void Interpreter::CaptureScopes() {
  for (Scope* scope = scope_; scope != nullptr && !scope->is_captured; scope = scope->parent) {
    scope->is_captured = true;
  }
}

bool Interpreter::Enter() {
  if (nesting_ < kMaxRunNesting) return context_.Step();
  context_.Fail(ErrorCode::kLimitExceeded, "macros, blocks and expressions nest too deeply");
  return false;
}

Interpreter::Signal Interpreter::Exec(const Body& body) {
  if (!Enter()) return Signal::kNone;
  ++nesting_;
  Signal signal = Signal::kNone;
  for (const Stmt& statement : body) {
    context_.set_line(statement.line);
    signal = ExecStatement(statement);
    if (signal != Signal::kNone || !context_.Step()) break;
  }
  --nesting_;
  return signal;
}

Interpreter::Signal Interpreter::ExecStatement(const Stmt& statement) {
  switch (statement.kind) {
    case StmtKind::kOutput:
      ExecOutput(statement);
      break;
    case StmtKind::kIf:
      return ExecIf(statement);
    case StmtKind::kFor:
      return ExecFor(statement);
    case StmtKind::kSet:
      Assign(*statement.target, Eval(*statement.expression));
      break;
    case StmtKind::kSetBlock:
      ExecSetBlock(statement);
      break;
    case StmtKind::kMacro:
      CaptureScopes();
      scope_->names[statement.name] =
          Value(context_.Own(std::make_unique<Macro>(this, &statement, scope_)));
      break;
    case StmtKind::kCallBlock:
      ExecCallBlock(statement);
      break;
    case StmtKind::kFilterBlock:
      ExecFilterBlock(statement);
      break;
    case StmtKind::kWith:
      return ExecWith(statement);
    case StmtKind::kScope:
      return ExecScope(statement);
    case StmtKind::kBreak:
      return Signal::kBreak;
    case StmtKind::kContinue:
      return Signal::kContinue;
  }
  return Signal::kNone;
}

void Interpreter::Emit(const Value& value) {
  const MarkedString* text = value.string();
  if (text != nullptr) {
    if (context_.TooLong(sink_->size() + text->size()) || !context_.Copy(text->size())) return;
    sink_->Append(*text);
    return;
  }
  const MarkedString converted = ToText(context_, value);
  if (!context_.TooLong(sink_->size() + converted.size())) sink_->Append(converted);
}

void Interpreter::ExecOutput(const Stmt& statement) {
  for (const ExprPtr& expression : statement.outputs) {
    const Value value = Eval(*expression);
    if (context_.failed()) return;
    Emit(value);
  }
}

Interpreter::Signal Interpreter::ExecIf(const Stmt& statement) {
  for (const Branch& branch : statement.branches) {
    const bool taken = Eval(*branch.condition).Truth();
    if (context_.failed()) return Signal::kNone;
    if (taken) return Exec(branch.body);
  }
  return Exec(statement.else_body);
}

Interpreter::Signal Interpreter::ExecFor(const Stmt& statement) {
  Scope* const outer = scope_;
  std::vector<Value> items = Elements(context_, Eval(*statement.expression));
  if (context_.failed()) return Signal::kNone;
  Loop* loop = context_.Own(std::make_unique<Loop>(this, &statement, outer, std::move(items)));
  bool ran =
      false;  // a body came to its end: jinja2 does not count one that break or continue left
  while (!context_.failed() && loop->Next()) {
    Scope* scope = PushScope(outer);
    scope->names["loop"] = Value(loop);
    Assign(*statement.target, loop->current());
    const Signal signal = Exec(statement.body);
    PopScope(scope, outer);
    if (signal == Signal::kBreak) break;
    ran = ran || signal == Signal::kNone;
  }
  loop->Finish();
  if (ran || context_.failed() || statement.else_body.empty()) return Signal::kNone;
  Scope* scope = PushScope(outer);
  const Signal signal = Exec(statement.else_body);
  PopScope(scope, outer);
  return signal;
}

bool Interpreter::AcceptsItem(const Stmt& loop, Scope* scope, const Value& item) {
  if (!context_.Step()) return false;
  Scope* const previous = scope_;
  Scope* inner = PushScope(scope);
  Assign(*loop.target, item);
  const bool accepted = Eval(*loop.filter).Truth() && !context_.failed();
  PopScope(inner, previous);
  return accepted;
}

Interpreter::Signal Interpreter::ExecScope(const Stmt& statement) {
  Scope* const previous = scope_;
  Scope* scope = PushScope(previous);
  const Signal signal = Exec(statement.body);
  PopScope(scope, previous);
  return signal;
}

MarkedString Interpreter::Capture(const Body& body) {
  MarkedString text;
  MarkedString* const outer_sink = std::exchange(sink_, &text);
  Scope* const previous = scope_;
  Scope* scope = PushScope(previous);
  Exec(body);
  PopScope(scope, previous);
  sink_ = outer_sink;
  return text;
}

void Interpreter::ExecSetBlock(const Stmt& statement) {
  Value text = context_.Make(Capture(statement.body));
  if (statement.expression != nullptr) {
    std::swap(block_input_, text);
    Value filtered = Eval(*statement.expression);
    block_input_ = std::move(text);
    text = std::move(filtered);
  }
  Assign(*statement.target, std::move(text));
}

void Interpreter::ExecFilterBlock(const Stmt& statement) {
  Value text = context_.Make(Capture(statement.body));
  std::swap(block_input_, text);
  const Value filtered = Eval(*statement.expression);
  block_input_ = std::move(text);
  if (!context_.failed()) Emit(filtered);
}

void Interpreter::ExecCallBlock(const Stmt& statement) {
  CaptureScopes();
  const Value caller(context_.Own(std::make_unique<Macro>(this, &statement, scope_)));
  const Value result = EvalCall(*statement.expression, &caller);
  if (!context_.failed()) Emit(result);
}

Interpreter::Signal Interpreter::ExecWith(const Stmt& statement) {
  Scope* const previous = scope_;
  std::vector<Value> values;
  for (const Parameter& parameter : statement.parameters) values.push_back(Eval(*parameter.value));
  Scope* scope = PushScope(previous);
  for (size_t i = 0; i < values.size(); ++i) {
    Assign(*statement.parameters[i].target, std::move(values[i]));
  }
  const Signal signal = Exec(statement.body);
  PopScope(scope, previous);
  return signal;
}

void Interpreter::Assign(const Expr& target, Value value) {
  if (context_.failed()) return;
  if (target.kind == ExprKind::kName) {
    scope_->names[target.name] = std::move(value);
    return;
  }
  if (target.kind == ExprKind::kNamespaceRef) {
    Expr name;
    name.name = target.name;
    auto* space = dynamic_cast<Namespace*>(EvalName(name).object());
    if (space == nullptr) {
      context_.Fail("cannot assign attribute on non-namespace object");
      return;
    }
    space->Set(context_, target.details->attribute, std::move(value));
    return;
  }
  std::vector<Value> items = Elements(context_, value);
  if (context_.failed()) return;
  if (items.size() != target.children.size()) {
    context_.Fail(
        fmt::format("expected {} values to unpack, got {}", target.children.size(), items.size()));
    return;
  }
  for (size_t i = 0; i < items.size(); ++i) Assign(*target.children[i], std::move(items[i]));
}

Value Interpreter::CallMacro(const Stmt& definition, Scope* scope, const CallArguments& arguments) {
  Scope* const previous = scope_;
  Scope* inner = PushScope(scope);
  BindArguments(definition, arguments);
  MarkedString text;
  MarkedString* const outer_sink = std::exchange(sink_, &text);
  if (!context_.failed()) Exec(definition.body);
  sink_ = outer_sink;
  PopScope(inner, previous);
  return context_.Make(std::move(text));
}

void Interpreter::BindArguments(const Stmt& definition, const CallArguments& arguments) {
  const std::vector<Parameter>& parameters = definition.parameters;
  if (arguments.positional.size() > parameters.size()) {
    context_.Fail(fmt::format("macro '{}' takes not more than {} argument(s)", definition.name,
                              parameters.size()));
    return;
  }
  Scope* const scope = scope_;
  for (const auto& [name, value] : arguments.named) {
    bool known = name == "caller";
    for (size_t i = arguments.positional.size(); i < parameters.size(); ++i) {
      known = known || parameters[i].name == name;
    }
    if (!known) {
      context_.Fail(
          fmt::format("macro '{}' takes no keyword argument '{}'", definition.name, name));
      return;
    }
    scope->names[name] = value;
  }
  for (size_t i = 0; i < parameters.size(); ++i) {
    const std::string& name = parameters[i].name;
    if (i < arguments.positional.size()) {
      scope->names[name] = arguments.positional[i];
    } else if (!scope->names.contains(name)) {
      scope->names[name] =
          parameters[i].value != nullptr
              ? Eval(*parameters[i].value)
              : Value::UndefinedWith(fmt::format("parameter '{}' was not provided", name));
    }
  }
}

}  // namespace sluice::chat_template
