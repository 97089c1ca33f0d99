#include <fmt/core.h>

#include <string>
#include <utility>
#include <vector>

#include "loaders/tokenizer/regex_elements.h"

namespace sluice {
namespace {

constexpr std::string_view kAnyCharacter = "(?s:.)";

class ClassReader {
 public:
  explicit ClassReader(RegexCursor* cursor) : cursor_(*cursor) {}

  // A class after its "[": an expression that matches one character.
  Result<std::string> Class(int depth) {
    if (depth > kMaxRegexNesting) return UnsupportedRegex("classes nested too deep");
    const bool negated = cursor_.Peek() == '^';
    if (negated) ++cursor_.at;
    std::vector<Operand> operands(1);
    for (bool first = true;; first = false) {
      if (cursor_.at >= cursor_.in.size()) return MalformedRegex("missing ]");
      if (cursor_.Peek() == ']' && !first) break;
      if (cursor_.Looking("&&")) {
        cursor_.at += 2;
        operands.emplace_back();
        continue;
      }
      if (Status s = ClassItem(depth, &operands.back()); !s.ok()) return s;
    }
    ++cursor_.at;
    return Combine(operands, negated);
  }

 private:
  // Operands of && hold items of a plain class, and classes that have to stand by themselves.
  struct Operand {
    std::string items;
    std::vector<std::string> nested;

    void Add(const RegexElement& element) {
      if (!element.is_set) {
        items += RegexLiteral(element.code);
      } else if (element.negated) {
        nested.push_back(fmt::format("[^{}]", element.set));
      } else {
        items += element.set;
      }
    }
    bool empty() const { return items.empty() && nested.empty(); }
    std::string Expression() const {
      if (nested.empty()) return fmt::format("[{}]", items);
      if (items.empty() && nested.size() == 1) return nested[0];
      std::string text = "(?:";
      if (!items.empty()) text += fmt::format("[{}]|", items);
      for (const std::string& part : nested) text += part + "|";
      text.back() = ')';
      return text;
    }
  };

  static Result<std::string> Combine(const std::vector<Operand>& operands, bool negated) {
    for (const Operand& operand : operands) {
      if (operand.empty()) return MalformedRegex("empty class");
    }
    if (operands.size() == 1 && operands[0].nested.empty()) {
      return (negated ? "[^" : "[") + operands[0].items + "]";
    }
    std::string text;
    for (size_t i = 0; i + 1 < operands.size(); ++i) {
      text += fmt::format("(?={})", operands[i].Expression());
    }
    text += operands.back().Expression();
    if (negated) return fmt::format("(?:(?!{}){})", text, kAnyCharacter);
    return fmt::format("(?:{})", text);
  }

  Status ClassItem(int depth, Operand* operand) {
    if (cursor_.Looking("[:")) {
      const size_t end = cursor_.in.find(":]", cursor_.at);
      if (end != std::string_view::npos) return PosixBracket(end, operand);
    }
    if (cursor_.Peek() == '[') {
      ++cursor_.at;
      Result<std::string> nested = Class(depth + 1);
      if (!nested.ok()) return nested.status();
      operand->nested.push_back(*std::move(nested));
      return {};
    }
    Result<RegexElement> first = ClassElement();
    if (!first.ok()) return first.status();
    const bool range = !first->is_set && cursor_.Peek() == '-' &&
                       cursor_.at + 1 < cursor_.in.size() && cursor_.in[cursor_.at + 1] != ']' &&
                       cursor_.in[cursor_.at + 1] != '[';
    if (!range) {
      operand->Add(*first);
      return {};
    }
    ++cursor_.at;
    Result<RegexElement> last = ClassElement();
    if (!last.ok()) return last.status();
    if (last->is_set) {  // "a-\d": three items
      operand->Add(*first);
      operand->items += RegexLiteral('-');
      operand->Add(*last);
      return {};
    }
    if (last->code < first->code) return MalformedRegex("range of characters out of order");
    operand->items += RegexLiteral(first->code) + "-" + RegexLiteral(last->code);
    return {};
  }

  Result<RegexElement> ClassElement() {
    const char32_t c = cursor_.Take();
    if (c != '\\') return RegexElement{false, c, "", false};
    if (cursor_.Peek() == 'b') {
      ++cursor_.at;
      return RegexElement{false, 0x08, "", false};
    }
    return ReadRegexEscape(&cursor_);
  }

  Status PosixBracket(size_t end, Operand* operand) {
    std::string_view name = cursor_.in.substr(cursor_.at + 2, end - cursor_.at - 2);
    const bool negated = name.starts_with('^');
    if (negated) name.remove_prefix(1);
    Result<std::string> set = RegexSetOfName(name, true);
    if (!set.ok()) return set.status();
    cursor_.at = end + 2;
    operand->Add(RegexElement{true, 0, *set, negated});
    return {};
  }

  RegexCursor& cursor_;
};

}  // namespace

Result<std::string> ReadRegexClass(RegexCursor* cursor) { return ClassReader(cursor).Class(1); }

}  // namespace sluice
