#include "loaders/chat_template/parser.h"

#include <fmt/format.h>

#include <string>
#include <utility>
#include <vector>

#include "loaders/chat_template/expression_parser.h"

namespace sluice::chat_template {
namespace {

// The tree of a template may take so much: with the source itself and one string of it, in a few
// copies while they are cut, less than 16 times its size and 64 KiB.
constexpr size_t kTreeBytesPerByte = 12;
constexpr size_t kTreeBytes = 48 << 10;

class StatementParser {
 public:
  explicit StatementParser(std::string_view source)
      : stream_(source, kTreeBytesPerByte * source.size() + kTreeBytes),
        expressions_(&stream_, &nesting_) {}

  Result<Body> Run() {
    Body body = ParseUntil({});
    if (stream_.failed()) return stream_.status();
    return body;
  }

 private:
  using EndNames = std::initializer_list<std::string_view>;

  bool AtOneOf(EndNames names) const {
    for (const std::string_view name : names) {
      if (stream_.IsName(name)) return true;
    }
    return false;
  }

  // Statements up to a tag named in `end_names`; the stream then stands at that name.
  Body ParseUntil(EndNames end_names) {
    const NestingGuard guard(&stream_, &nesting_);
    Body body;
    while (!stream_.AtEnd()) {
      if (stream_.Is(TokenKind::kData)) {
        const int line = stream_.line();
        Output(&body, line)->push_back(expressions_.ParseData());
      } else if (stream_.Is(TokenKind::kVariableBegin)) {
        const int line = stream_.Take().line;
        Output(&body, line)->push_back(expressions_.ParseTuple());
        stream_.Expect(TokenKind::kVariableEnd, "'}}'");
      } else {
        stream_.Expect(TokenKind::kBlockBegin, "'{%'");
        if (AtOneOf(end_names)) break;
        body.push_back(ParseStatement());
        stream_.Expect(TokenKind::kBlockEnd, "'%}'");
      }
    }
    if (end_names.size() != 0 && !AtOneOf(end_names)) {
      stream_.FailExpected(std::string(*(end_names.end() - 1)));
    }
    for (Stmt& statement : body) stream_.Complete(&statement.outputs);
    stream_.Complete(&body);
    return body;
  }

  // The expressions of an output statement at the end of `body`; neighbours share one.
  std::vector<ExprPtr>* Output(Body* body, int line) {
    if (body->empty() || body->back().kind != StmtKind::kOutput) {
      body->push_back(Make(StmtKind::kOutput, line));
    }
    return &body->back().outputs;
  }

  // The rest of an opening tag, and the statements up to one of `end_names`.
  Body ParseBody(EndNames end_names) {
    stream_.SkipOperator(":");
    stream_.Expect(TokenKind::kBlockEnd, "'%}'");
    return ParseUntil(end_names);
  }

  // As above with one end, whose name is taken too.
  Body ParseWholeBody(std::string_view end_name) {
    Body body = ParseBody({end_name});
    stream_.Take();
    return body;
  }

  Stmt Make(StmtKind kind, int line) {
    stream_.Charge(kListFactor * sizeof(Stmt));
    Stmt statement;
    statement.kind = kind;
    statement.line = line;
    return statement;
  }

  Stmt ParseStatement() {
    const int line = stream_.line();
    const std::string tag = stream_.ExpectName();
    if (tag == "if") return ParseIf(line);
    if (tag == "for") return ParseFor(line);
    if (tag == "set") return ParseSet(line);
    if (tag == "macro") return ParseMacro(line);
    if (tag == "call") return ParseCall(line);
    if (tag == "filter") return ParseFilter(line);
    if (tag == "with") return ParseWith(line);
    if (tag == "print") return ParsePrint(line);
    if (tag == "generation") {
      Stmt statement = Make(StmtKind::kScope, line);
      statement.body = ParseWholeBody("endgeneration");
      return statement;
    }
    if (tag == "break" || tag == "continue") {
      if (loops_ == 0) {
        stream_.FailAt(line, ErrorCode::kInvalidArgument, fmt::format("{} outside of a loop", tag));
      }
      return Make(tag == "break" ? StmtKind::kBreak : StmtKind::kContinue, line);
    }
    FailUnknown(tag, line);
    return {};
  }

  void FailUnknown(const std::string& tag, int line) {
    for (const std::string_view known :
         {"block", "extends", "include", "import", "from", "autoescape", "do", "trans"}) {
      if (tag == known) {
        return stream_.FailAt(line, ErrorCode::kUnsupported,
                              fmt::format("the statement '{}'", tag));
      }
    }
    stream_.FailAt(line, ErrorCode::kInvalidArgument,
                   fmt::format("unknown or misplaced tag '{}'", tag));
  }

  Stmt ParseIf(int line) {
    Stmt statement = Make(StmtKind::kIf, line);
    do {
      Branch branch;
      stream_.Charge(kListFactor * sizeof(Branch));
      branch.condition = expressions_.ParseTuple(false);
      branch.body = ParseBody({"elif", "else", "endif"});
      statement.branches.push_back(std::move(branch));
    } while (stream_.SkipName("elif"));
    stream_.Complete(&statement.branches);
    if (stream_.SkipName("else")) {
      statement.else_body = ParseWholeBody("endif");
    } else {
      stream_.Take();
    }
    return statement;
  }

  Stmt ParseFor(int line) {
    Stmt statement = Make(StmtKind::kFor, line);
    statement.target = expressions_.ParseTarget("in", false);
    if (!stream_.SkipName("in")) stream_.FailExpected("'in'");
    statement.expression = expressions_.ParseTuple(false, "recursive");
    if (stream_.SkipName("if")) statement.filter = expressions_.ParseExpression();
    if (stream_.IsName("recursive")) stream_.Fail(ErrorCode::kUnsupported, "a recursive loop");
    ++loops_;
    statement.body = ParseBody({"else", "endfor"});
    --loops_;
    if (stream_.SkipName("else")) {
      statement.else_body = ParseWholeBody("endfor");
    } else {
      stream_.Take();
    }
    return statement;
  }

  Stmt ParseSet(int line) {
    Stmt statement = Make(StmtKind::kSet, line);
    statement.target = expressions_.ParseTarget({}, true);
    if (stream_.SkipOperator("=")) {
      statement.expression = expressions_.ParseTuple();
      return statement;
    }
    statement.kind = StmtKind::kSetBlock;
    statement.expression = expressions_.ParseFilters(nullptr, false);
    statement.body = ParseDetachedBody("endset");
    return statement;
  }

  // A body that runs apart from the loop around it: break cannot leave it.
  Body ParseDetachedBody(std::string_view end_name) {
    const int loops = std::exchange(loops_, 0);
    Body body = ParseWholeBody(end_name);
    loops_ = loops;
    return body;
  }

  void ParseSignature(std::vector<Parameter>* parameters) {
    stream_.ExpectOperator("(");
    while (!stream_.IsOperator(")") && !stream_.failed()) {
      if (!parameters->empty()) stream_.ExpectOperator(",");
      Parameter parameter;
      stream_.Charge(kListFactor * sizeof(Parameter));
      parameter.name = stream_.ExpectName();
      if (stream_.SkipOperator("=")) {
        parameter.value = expressions_.ParseExpression();
      } else if (!parameters->empty() && parameters->back().value != nullptr) {
        stream_.FailExpected("a default behind a parameter with a default");
      }
      parameters->push_back(std::move(parameter));
    }
    stream_.ExpectOperator(")");
  }

  Stmt ParseMacro(int line) {
    Stmt statement = Make(StmtKind::kMacro, line);
    statement.name = stream_.ExpectName();
    ParseSignature(&statement.parameters);
    statement.body = ParseDetachedBody("endmacro");
    return statement;
  }

  Stmt ParseCall(int line) {
    Stmt statement = Make(StmtKind::kCallBlock, line);
    if (stream_.IsOperator("(")) ParseSignature(&statement.parameters);
    statement.expression = expressions_.ParseExpression();
    if (statement.expression->kind != ExprKind::kCall) stream_.FailExpected("a call");
    statement.body = ParseDetachedBody("endcall");
    return statement;
  }

  Stmt ParseFilter(int line) {
    Stmt statement = Make(StmtKind::kFilterBlock, line);
    statement.expression = expressions_.ParseFilters(nullptr, true);
    statement.body = ParseDetachedBody("endfilter");
    return statement;
  }

  Stmt ParseWith(int line) {
    Stmt statement = Make(StmtKind::kWith, line);
    while (!stream_.Is(TokenKind::kBlockEnd) && !stream_.failed()) {
      if (!statement.parameters.empty()) stream_.ExpectOperator(",");
      Parameter parameter;
      stream_.Charge(kListFactor * sizeof(Parameter));
      parameter.target = expressions_.ParseTarget({}, false);
      stream_.ExpectOperator("=");
      parameter.value = expressions_.ParseExpression();
      statement.parameters.push_back(std::move(parameter));
    }
    statement.body = ParseWholeBody("endwith");
    return statement;
  }

  Stmt ParsePrint(int line) {
    Stmt statement = Make(StmtKind::kOutput, line);
    while (!stream_.Is(TokenKind::kBlockEnd) && !stream_.failed()) {
      if (!statement.outputs.empty()) stream_.ExpectOperator(",");
      statement.outputs.push_back(expressions_.ParseExpression());
    }
    return statement;
  }

  TokenStream stream_;
  int nesting_ = 0;
  int loops_ = 0;
  ExpressionParser expressions_;
};

}  // namespace

Result<Body> ParseTemplate(std::string_view source) { return StatementParser(source).Run(); }

}  // namespace sluice::chat_template
