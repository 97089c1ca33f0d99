#include "loaders/tokenizer/regex_syntax.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <utility>
#include <vector>

#include "loaders/tokenizer/utf8.h"

namespace sluice {
namespace {

constexpr int kMaxNesting = 64;
constexpr std::string_view kAnyCharacter = "(?s:.)";

// What may stand inside [...]: Oniguruma's sets where PCRE2's of the same name differ.
constexpr std::string_view kSpace =
    R"(\x{09}-\x{0d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr std::string_view kNotSpace =
    R"(\x{00}-\x{08}\x{0e}-\x{1f}\x{21}-\x{84}\x{86}-\x{9f}\x{a1}-\x{167f}\x{1681}-\x{1fff})"
    R"(\x{200b}-\x{2027}\x{202a}-\x{202e}\x{2030}-\x{205e}\x{2060}-\x{2fff}\x{3001}-\x{10ffff})";
constexpr std::string_view kPosixWord = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc})";
// Oniguruma's \w has the superscripts and fractions of Latin-1 besides.
constexpr std::string_view kWord =
    R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{b2}\x{b3}\x{b9}\x{bc}-\x{be})";
constexpr std::string_view kHex = "0-9A-Fa-f";

struct NamedSet {
  std::string_view name;  // lower case, without spaces, '_' and '-'
  std::string_view set;
};

// Names of [[:name:]] and \p{name} that are neither one- or two-letter categories nor scripts.
constexpr auto kNamedSets = std::to_array<NamedSet>({
    {"alpha", R"(\p{Alphabetic})"},
    {"alphabetic", R"(\p{Alphabetic})"},
    {"alnum", R"(\p{Alphabetic}\p{Nd})"},
    {"ascii", R"(\x{00}-\x{7f})"},
    {"blank", R"(\p{Zs}\x{09})"},
    {"cntrl", R"(\p{Cc})"},
    {"digit", R"(\p{Nd})"},
    {"lower", R"(\p{Lowercase})"},
    {"lowercase", R"(\p{Lowercase})"},
    {"upper", R"(\p{Uppercase})"},
    {"uppercase", R"(\p{Uppercase})"},
    {"space", kSpace},
    {"whitespace", kSpace},
    {"word", kPosixWord},
    {"xdigit", kHex},
    {"any", R"(\x{00}-\x{10ffff})"},
    {"letter", R"(\p{L})"},
    {"uppercaseletter", R"(\p{Lu})"},
    {"lowercaseletter", R"(\p{Ll})"},
    {"titlecaseletter", R"(\p{Lt})"},
    {"modifierletter", R"(\p{Lm})"},
    {"otherletter", R"(\p{Lo})"},
    {"mark", R"(\p{M})"},
    {"nonspacingmark", R"(\p{Mn})"},
    {"spacingmark", R"(\p{Mc})"},
    {"enclosingmark", R"(\p{Me})"},
    {"number", R"(\p{N})"},
    {"decimalnumber", R"(\p{Nd})"},
    {"letternumber", R"(\p{Nl})"},
    {"othernumber", R"(\p{No})"},
    {"punctuation", R"(\p{P})"},
    {"symbol", R"(\p{S})"},
    {"mathsymbol", R"(\p{Sm})"},
    {"currencysymbol", R"(\p{Sc})"},
    {"modifiersymbol", R"(\p{Sk})"},
    {"othersymbol", R"(\p{So})"},
    {"separator", R"(\p{Z})"},
    {"spaceseparator", R"(\p{Zs})"},
    {"control", R"(\p{Cc})"},
    {"format", R"(\p{Cf})"},
    {"other", R"(\p{C})"},
    {"emoji", R"(\p{Emoji})"},
    {"emojipresentation", R"(\p{Emoji_Presentation})"},
    {"extendedpictographic", R"(\p{Extended_Pictographic})"},
});

constexpr std::string_view kCategories =
    " c cc cf cn co cs l ll lm lo lt lu m mc me mn n nd nl no p pc pd pe pf pi po ps s sc sk sm so "
    "z zl zp zs ";

Status Unsupported(std::string what) {
  return Status(ErrorCode::kUnsupported, "regular expression: " + std::move(what));
}
Status Malformed(std::string what) {
  return Status(ErrorCode::kCorrupt, "regular expression: " + std::move(what));
}

std::string Hex(char32_t code) {
  char buffer[24];
  std::snprintf(buffer, sizeof(buffer), "\\x{%x}", static_cast<unsigned>(code));
  return buffer;
}

bool IsAsciiAlnum(char32_t c) {
  return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

// A character as itself, inside or outside a class.
std::string Literal(char32_t code) {
  if (code < 0x80 && !IsAsciiAlnum(code)) return Hex(code);
  std::string text;
  AppendUtf8(code, &text);
  return text;
}

// One element of the syntax that may stand in a class: a character, or a set of characters.
struct Element {
  bool is_set = false;
  char32_t code = 0;
  std::string set;       // items of a class, if is_set
  bool negated = false;  // the set is everything but `set`
};

Element SetElement(std::string_view set, bool negated) {
  return Element{true, 0, std::string(set), negated};
}

class Translator {
 public:
  explicit Translator(std::string_view pattern) : in_(pattern) {}

  Result<std::string> Run() {
    if (!IsValidUtf8(in_)) return Malformed("not UTF-8");
    while (at_ < in_.size()) {
      if (Status s = One(); !s.ok()) return s;
    }
    if (!groups_.empty()) return Malformed("missing )");
    return std::move(out_);
  }

 private:
  bool Looking(std::string_view text) const { return in_.substr(at_).starts_with(text); }
  char Peek() const { return at_ < in_.size() ? in_[at_] : '\0'; }
  char32_t Take() {
    size_t length = 0;
    const char32_t code = Utf8At(in_, at_, &length);
    at_ += length;
    return code;
  }
  void Atom(std::string_view text) {
    atom_ = out_.size();
    out_.append(text);
  }
  void NotAnAtom(std::string_view text) {
    out_.append(text);
    atom_ = std::string::npos;
  }

  Status One() {
    switch (const char32_t c = Take()) {
      case '\\':
        return EscapeOutsideClass();
      case '[': {
        Result<std::string> set = Class(1);
        if (!set.ok()) return set.status();
        Atom(*set);
        return {};
      }
      case '(':
        return OpenGroup();
      case ')':
        if (groups_.empty()) return Malformed("unmatched )");
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
        Atom(Literal(c));
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
    return Peek() == '*' || Peek() == '+' || Peek() == '?' || Peek() == '{';
  }

  Status Quantifier(char c) {
    if (atom_ == std::string::npos) return Malformed("nothing to repeat");
    out_.push_back(c);
    if (Peek() == '+' || Peek() == '?') out_.push_back(static_cast<char>(Take()));
    if (QuantifierFollows()) Wrap();
    return {};
  }

  // "{2}", "{2,}", "{2,3}", "{,3}" after its brace; any other brace is a character.
  Status Interval() {
    size_t end = at_;
    const auto digits = [&] {
      const size_t begin = end;
      while (end < in_.size() && in_[end] >= '0' && in_[end] <= '9') ++end;
      return in_.substr(begin, end - begin);
    };
    const std::string_view low = digits();
    const bool comma = end < in_.size() && in_[end] == ',';
    if (comma) ++end;
    const std::string_view high = comma ? digits() : std::string_view();
    const bool closed = end < in_.size() && in_[end] == '}';
    if (!closed || (low.empty() && high.empty()) || atom_ == std::string::npos) {
      Atom(Literal('{'));
      return {};
    }
    at_ = end + 1;
    out_ += fmt::format("{{{}{}{}}}", low.empty() ? "0" : low, comma ? "," : "", high);
    if (Peek() == '?' && comma) {
      out_.push_back(static_cast<char>(Take()));
      if (QuantifierFollows()) Wrap();
    } else if (QuantifierFollows()) {
      Wrap();
    }
    return {};
  }

  Status OpenGroup() {
    if (groups_.size() >= kMaxNesting) return Unsupported("groups nested too deep");
    const size_t begin = out_.size();
    if (Peek() != '?') {
      out_.push_back('(');
    } else if (Looking("?#")) {
      while (at_ < in_.size() && in_[at_] != ')') ++at_;
      if (at_ == in_.size()) return Malformed("comment without end");
      ++at_;
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
      if (Looking(kind)) {
        at_ += kind.size();
        out_ += fmt::format("({}", kind);
        return {};
      }
    }
    if (Looking("?<") || Looking("?'")) {
      const char close = Looking("?<") ? '>' : '\'';
      const size_t end = in_.find(close, at_ + 2);
      if (end == std::string_view::npos) return Malformed("group name without end");
      out_ += fmt::format("({}", in_.substr(at_, end + 1 - at_));
      at_ = end + 1;
      return {};
    }
    return Options();
  }

  // "(?i:", "(?m-i:", and "(?i)" at the very beginning, where it means the same in both.
  Status Options() {
    const bool at_start = at_ == 1;
    ++at_;
    std::string options = "(?";
    while (at_ < in_.size() && (Peek() == 'i' || Peek() == 'm' || Peek() == 'x' || Peek() == '-')) {
      const char option = static_cast<char>(Take());
      if (option == 'x') return Unsupported("(?x)");
      options.push_back(option == 'm' ? 's' : option);
    }
    if (Peek() == ':') {
      out_ += options + ":";
    } else if (Peek() == ')' && at_start) {
      out_ += options + ")";
      atom_ = kOptionsOnly;
    } else {
      return Unsupported(fmt::format("group '(?{}'", in_.substr(at_, 1)));
    }
    ++at_;
    return {};
  }

  Status EscapeOutsideClass() {
    switch (Peek()) {
      case 'A':
      case 'Z':
      case 'z':
      case 'G':
        NotAnAtom(std::string("\\") + static_cast<char>(Take()));
        return {};
      case 'b':
      case 'B': {
        const std::string word = fmt::format("[{}]", kWord);
        const bool boundary = Take() == 'b';
        NotAnAtom(boundary
                      ? "(?:(?<=" + word + ")(?!" + word + ")|(?<!" + word + ")(?=" + word + "))"
                      : "(?:(?<=" + word + ")(?=" + word + ")|(?<!" + word + ")(?!" + word + "))");
        return {};
      }
      case 'R':
      case 'X':
        Atom(std::string("\\") + static_cast<char>(Take()));
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
    Result<Element> element = Escape();
    if (!element.ok()) return element.status();
    Atom(element->is_set ? (element->negated ? "[^" : "[") + element->set + "]"
                         : Literal(element->code));
    return {};
  }

  Status BackReference() {
    std::string number;
    while (Peek() >= '0' && Peek() <= '9') number.push_back(static_cast<char>(Take()));
    Atom(fmt::format("\\g{{{}}}", number));
    return {};
  }

  // What follows a backslash and means the same inside and outside a class.
  Result<Element> Escape() {
    if (at_ >= in_.size()) return Malformed("\\ at the end");
    const char32_t c = Take();
    constexpr std::string_view kControls = "nrtfvae";
    constexpr std::string_view kControlCodes = "\n\r\t\f\v\a\x1b";
    if (c < 0x80 && kControls.find(static_cast<char>(c)) != std::string_view::npos) {
      return Element{false,
                     static_cast<char32_t>(kControlCodes[kControls.find(static_cast<char>(c))]), "",
                     false};
    }
    switch (c) {
      case 's':
        return SetElement(kSpace, false);
      case 'S':
        return SetElement(kNotSpace, false);
      case 'd':
        return SetElement(R"(\p{Nd})", false);
      case 'D':
        return SetElement(R"(\P{Nd})", false);
      case 'w':
      case 'W':
        return SetElement(kWord, c == 'W');
      case 'h':
      case 'H':
        return SetElement(kHex, c == 'H');
      case 'p':
      case 'P':
        return Property(c == 'P');
      case 'x':
      case 'u':
        return HexEscape(c == 'u');
      case '0':
        return Element{false, Digits(8, 2), "", false};
      default:
        break;
    }
    if (IsAsciiAlnum(c)) return Unsupported(fmt::format("escape \\{}", static_cast<char>(c)));
    return Element{false, c, "", false};
  }

  // Up to `most` digits of a number.
  char32_t Digits(int base, int most) {
    char32_t value = 0;
    for (int i = 0; i < most && at_ < in_.size(); ++i) {
      const char c = Peek();
      int digit = 99;
      if (c >= '0' && c <= '9') digit = c - '0';
      if (c >= 'a' && c <= 'f') digit = c - 'a' + 10;
      if (c >= 'A' && c <= 'F') digit = c - 'A' + 10;
      if (digit >= base) break;
      value = value * static_cast<char32_t>(base) + static_cast<char32_t>(digit);
      ++at_;
    }
    return value;
  }

  Result<Element> HexEscape(bool four) {
    const bool braces = !four && Peek() == '{';
    if (braces) ++at_;
    const size_t begin = at_;
    const char32_t code = Digits(16, four ? 4 : braces ? 8 : 2);
    const size_t count = at_ - begin;
    if (braces && Peek() != '}') return Malformed("\\x{ without }");
    if (braces) ++at_;
    if (count == 0 || (four && count != 4)) return Malformed("hexadecimal escape without digits");
    if (code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) return Malformed("no such character");
    if (!four && !braces && code > 0x7F) return Unsupported("\\x of a byte above 7f");
    return Element{false, code, "", false};
  }

  Result<Element> Property(bool negated) {
    if (Peek() != '{') return Unsupported("\\p without braces");
    const size_t end = in_.find('}', at_);
    if (end == std::string_view::npos) return Malformed("\\p{ without }");
    std::string_view name = in_.substr(at_ + 1, end - at_ - 1);
    at_ = end + 1;
    if (name.starts_with('^')) {
      negated = !negated;
      name.remove_prefix(1);
    }
    Result<std::string> set = SetOfName(name, false);
    if (!set.ok()) return set.status();
    return SetElement(*set, negated);
  }

  static Result<std::string> SetOfName(std::string_view name, bool posix) {
    std::string key;
    for (const char c : name) {
      if (c == ' ' || c == '_' || c == '-') continue;
      if (!IsAsciiAlnum(static_cast<unsigned char>(c))) return Malformed("name of a property");
      key.push_back(c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c);
    }
    // The bracket has the symbols too, the property does not.
    if (key == "punct") return std::string(posix ? R"(\p{P}\p{S})" : R"(\p{P})");
    for (const NamedSet& entry : kNamedSets) {
      if (entry.name == key) return std::string(entry.set);
    }
    if (posix || key.empty()) return Unsupported(fmt::format("[[:{}:]]", name));
    if (kCategories.find(fmt::format(" {} ", key)) != std::string_view::npos) {
      key[0] = static_cast<char>(key[0] - 'a' + 'A');
      return fmt::format("\\p{{{}}}", key);
    }
    // Oniguruma means the property Script; a bare name in PCRE2 would mean Script_Extensions.
    return fmt::format("\\p{{sc:{}}}", name);
  }

  // Operands of && hold items of a plain class, and classes that have to stand by themselves.
  struct Operand {
    std::string items;
    std::vector<std::string> nested;

    void Add(const Element& element) {
      if (!element.is_set) {
        items += Literal(element.code);
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

  // A class after its "[": an expression that matches one character.
  Result<std::string> Class(int depth) {
    if (depth > kMaxNesting) return Unsupported("classes nested too deep");
    const bool negated = Peek() == '^';
    if (negated) ++at_;
    std::vector<Operand> operands(1);
    for (bool first = true;; first = false) {
      if (at_ >= in_.size()) return Malformed("missing ]");
      if (Peek() == ']' && !first) break;
      if (Looking("&&")) {
        at_ += 2;
        operands.emplace_back();
        continue;
      }
      if (Status s = ClassItem(depth, &operands.back()); !s.ok()) return s;
    }
    ++at_;
    return Combine(operands, negated);
  }

  static Result<std::string> Combine(const std::vector<Operand>& operands, bool negated) {
    for (const Operand& operand : operands) {
      if (operand.empty()) return Malformed("empty class");
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
    if (Looking("[:")) {
      const size_t end = in_.find(":]", at_);
      if (end != std::string_view::npos) return PosixBracket(end, operand);
    }
    if (Peek() == '[') {
      ++at_;
      Result<std::string> nested = Class(depth + 1);
      if (!nested.ok()) return nested.status();
      operand->nested.push_back(*std::move(nested));
      return {};
    }
    Result<Element> first = ClassElement();
    if (!first.ok()) return first.status();
    const bool range = !first->is_set && Peek() == '-' && at_ + 1 < in_.size() &&
                       in_[at_ + 1] != ']' && in_[at_ + 1] != '[';
    if (!range) {
      operand->Add(*first);
      return {};
    }
    ++at_;
    Result<Element> last = ClassElement();
    if (!last.ok()) return last.status();
    if (last->is_set) {  // "a-\d": three items
      operand->Add(*first);
      operand->items += Literal('-');
      operand->Add(*last);
      return {};
    }
    if (last->code < first->code) return Malformed("range of characters out of order");
    operand->items += Literal(first->code) + "-" + Literal(last->code);
    return {};
  }

  Result<Element> ClassElement() {
    const char32_t c = Take();
    if (c != '\\') return Element{false, c, "", false};
    if (Peek() == 'b') {
      ++at_;
      return Element{false, 0x08, "", false};
    }
    return Escape();
  }

  Status PosixBracket(size_t end, Operand* operand) {
    std::string_view name = in_.substr(at_ + 2, end - at_ - 2);
    const bool negated = name.starts_with('^');
    if (negated) name.remove_prefix(1);
    Result<std::string> set = SetOfName(name, true);
    if (!set.ok()) return set.status();
    at_ = end + 2;
    operand->Add(SetElement(*set, negated));
    return {};
  }

  static constexpr size_t kOptionsOnly = std::string::npos - 1;

  std::string_view in_;
  size_t at_ = 0;
  std::string out_;
  size_t atom_ = std::string::npos;  // where the last atom begins in out_, for a quantifier
  std::vector<size_t> groups_;       // where the open groups begin in out_
};

}  // namespace

Result<std::string> TranslateOniguruma(std::string_view pattern) {
  return Translator(pattern).Run();
}

}  // namespace sluice
