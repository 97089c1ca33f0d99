#include "loaders/tokenizer/regex_syntax.h"

#include <fmt/core.h>

#include <utility>
#include <vector>

#include "loaders/tokenizer/regex_elements.h"
#include "loaders/tokenizer/utf8.h"

namespace sluice {
namespace {

class Translator {
 public:
  explicit Translator(std::string_view pattern) : cursor_{pattern} {}

  Result<std::string> Run() {
    if (!IsValidUtf8(cursor_.in)) return MalformedRegex("not UTF-8");
    while (cursor_.at < cursor_.in.size()) {
      if (Status s = One(); !s.ok()) return s;
    }
    if (!groups_.empty()) return MalformedRegex("missing )");
    return std::move(out_);
  }

 private:
  void Atom(std::string_view text) {
    atom_ = out_.size();
    out_.append(text);
  }
  void NotAnAtom(std::string_view text) {
    out_.append(text);
    atom_ = std::string::npos;
  }

  Status One() {
    switch (const char32_t c = cursor_.Take()) {
      case '\\':
        return EscapeOutsideClass();
      case '[': {
        Result<std::string> set = ReadRegexClass(&cursor_);
        if (!set.ok()) return set.status();
        Atom(*set);
        return {};
      }
      case '(':
        return OpenGroup();
      case ')':
        if (groups_.empty()) return MalformedRegex("unmatched )");
        out_.push_back(')');
        atom_ = groups_.back();
        groups_.pop_back();
        return {};
      case '*':
      case '+':
      case '?':
        return Quantifier(static_cast<char>(c));
      case '{':
        return Interval();
      case '.':
        Atom(".");
        return {};
      case '^':
      case '$':
      case '|':
        NotAnAtom(std::string(1, static_cast<char>(c)));
        return {};
      default:
        Atom(RegexLiteral(c));
        return {};
    }
  }

  // A quantifier applies to all that was written since atom_; PCRE2 knows no quantifier of a
  // quantifier.
  void Wrap() {
    out_.insert(atom_, "(?:");
    out_.push_back(')');
  }
  bool QuantifierFollows() const {
    return cursor_.Peek() == '*' || cursor_.Peek() == '+' || cursor_.Peek() == '?' ||
           cursor_.Peek() == '{';
  }

  Status Quantifier(char c) {
    if (atom_ == std::string::npos) return MalformedRegex("nothing to repeat");
    out_.push_back(c);
    if (cursor_.Peek() == '+' || cursor_.Peek() == '?')
      out_.push_back(static_cast<char>(cursor_.Take()));
    if (QuantifierFollows()) Wrap();
    return {};
  }

  // "{2}", "{2,}", "{2,3}", "{,3}" after its brace; any other brace is a character.
  Status Interval() {
    size_t end = cursor_.at;
    const auto digits = [&] {
      const size_t begin = end;
      while (end < cursor_.in.size() && cursor_.in[end] >= '0' && cursor_.in[end] <= '9') ++end;
      return cursor_.in.substr(begin, end - begin);
    };
    const std::string_view low = digits();
    const bool comma = end < cursor_.in.size() && cursor_.in[end] == ',';
    if (comma) ++end;
    const std::string_view high = comma ? digits() : std::string_view();
    const bool closed = end < cursor_.in.size() && cursor_.in[end] == '}';
    if (!closed || (low.empty() && high.empty()) || atom_ == std::string::npos) {
      Atom(RegexLiteral('{'));
      return {};
    }
    cursor_.at = end + 1;
    out_ += fmt::format("{{{}{}{}}}", low.empty() ? "0" : low, comma ? "," : "", high);
    if (cursor_.Peek() == '?' && comma) {
      out_.push_back(static_cast<char>(cursor_.Take()));
      if (QuantifierFollows()) Wrap();
    } else if (QuantifierFollows()) {
      Wrap();
    }
    return {};
  }

  Status OpenGroup() {
    if (groups_.size() >= kMaxRegexNesting) return UnsupportedRegex("groups nested too deep");
    const size_t begin = out_.size();
    if (cursor_.Peek() != '?') {
      out_.push_back('(');
    } else if (cursor_.Looking("?#")) {
      while (cursor_.at < cursor_.in.size() && cursor_.in[cursor_.at] != ')') ++cursor_.at;
      if (cursor_.at == cursor_.in.size()) return MalformedRegex("comment without end");
      ++cursor_.at;
      return {};
    } else if (Status s = SpecialGroup(); !s.ok()) {
      return s;
    }
    if (atom_ != kOptionsOnly) {
      groups_.push_back(begin);
    }
    atom_ = std::string::npos;
    return {};
  }

  // "(?" and what tells the kind of the group.
  Status SpecialGroup() {
    atom_ = std::string::npos;
    for (const std::string_view kind : {"?:", "?=", "?!", "?>", "?<=", "?<!"}) {
      if (cursor_.Looking(kind)) {
        cursor_.at += kind.size();
        out_ += fmt::format("({}", kind);
        return {};
      }
    }
    if (cursor_.Looking("?<") || cursor_.Looking("?'")) {
      const char close = cursor_.Looking("?<") ? '>' : '\'';
      const size_t end = cursor_.in.find(close, cursor_.at + 2);
      if (end == std::string_view::npos) return MalformedRegex("group name without end");
      out_ += fmt::format("({}", cursor_.in.substr(cursor_.at, end + 1 - cursor_.at));
      cursor_.at = end + 1;
      return {};
    }
    return Options();
  }

  // "(?i:", "(?m-i:", and "(?i)" at the very beginning, where it means the same in both.
  Status Options() {
    const bool at_start = cursor_.at == 1;
    ++cursor_.at;
    std::string options = "(?";
    while (cursor_.at < cursor_.in.size() && (cursor_.Peek() == 'i' || cursor_.Peek() == 'm' ||
                                              cursor_.Peek() == 'x' || cursor_.Peek() == '-')) {
      const char option = static_cast<char>(cursor_.Take());
      if (option == 'x') return UnsupportedRegex("(?x)");
      options.push_back(option == 'm' ? 's' : option);
    }
    if (cursor_.Peek() == ':') {
      out_ += options + ":";
    } else if (cursor_.Peek() == ')' && at_start) {
      out_ += options + ")";
      atom_ = kOptionsOnly;
    } else {
      return UnsupportedRegex(fmt::format("group '(?{}'", cursor_.in.substr(cursor_.at, 1)));
    }
    ++cursor_.at;
    return {};
  }

  Status EscapeOutsideClass() {
    switch (cursor_.Peek()) {
      case 'A':
      case 'Z':
      case 'z':
      case 'G':
        NotAnAtom(std::string("\\") + static_cast<char>(cursor_.Take()));
        return {};
      case 'b':
      case 'B': {
        const std::string word = fmt::format("[{}]", RegexWordSet());
        const bool boundary = cursor_.Take() == 'b';
        NotAnAtom(boundary
                      ? "(?:(?<=" + word + ")(?!" + word + ")|(?<!" + word + ")(?=" + word + "))"
                      : "(?:(?<=" + word + ")(?=" + word + ")|(?<!" + word + ")(?!" + word + "))");
        return {};
      }
      case 'R':
      case 'X':
        Atom(std::string("\\") + static_cast<char>(cursor_.Take()));
        return {};
      case '1':
      case '2':
      case '3':
      case '4':
      case '5':
      case '6':
      case '7':
      case '8':
      case '9':
        return BackReference();
      default:
        break;
    }
    Result<RegexElement> element = ReadRegexEscape(&cursor_);
    if (!element.ok()) return element.status();
    Atom(element->is_set ? (element->negated ? "[^" : "[") + element->set + "]"
                         : RegexLiteral(element->code));
    return {};
  }

  Status BackReference() {
    std::string number;
    while (cursor_.Peek() >= '0' && cursor_.Peek() <= '9')
      number.push_back(static_cast<char>(cursor_.Take()));
    Atom(fmt::format("\\g{{{}}}", number));
    return {};
  }

  static constexpr size_t kOptionsOnly = std::string::npos - 1;

  RegexCursor cursor_;
  std::string out_;
  size_t atom_ = std::string::npos;  // where the last atom begins in out_, for a quantifier
  std::vector<size_t> groups_;       // where the open groups begin in out_
};

}  // namespace

Result<std::string> TranslateOniguruma(std::string_view pattern) {
  return Translator(pattern).Run();
}

}  // namespace sluice
