// The methods of str.
#include <algorithm>
#include <limits>
#include <unordered_map>

#include "loaders/chat_template/operations.h"

namespace sluice::chat_template {
namespace {

using Method = Value (*)(Context&, const MarkedString&, const CallArguments&);

bool HasNoArguments(Context& context, std::string_view name, const CallArguments& arguments) {
  Parameters none(context, name, arguments, {});
  return !context.failed();
}

template <LetterCase letter_case>
Value Cased(Context& context, const MarkedString& self, const CallArguments& arguments) {
  if (!HasNoArguments(context, "upper", arguments)) return {};
  return context.Make(ChangeCase(self, letter_case));
}

template <bool left, bool right>
Value Stripped(Context& context, const MarkedString& self, const CallArguments& arguments) {
  Parameters parameters(context, "strip", arguments, {"chars"});
  const MarkedString* characters = parameters.Text(0);
  if (context.failed()) return {};
  if (characters != nullptr && !context.Step(characters->size())) return {};
  return context.Make(Strip(self, characters != nullptr ? &characters->text() : nullptr,
                            {.left = left, .right = right}));
}

// Pieces of `self` between white space, at most `limit` cuts.
std::vector<std::pair<size_t, size_t>> SplitSpace(const std::string& text, int64_t limit) {
  std::vector<std::pair<size_t, size_t>> pieces;
  size_t begin = std::string::npos;
  for (size_t i = 0; i < text.size(); i += CharacterBytes(text, i)) {
    const bool space = IsSpace(CharacterAt(text, i));
    if (space && begin != std::string::npos) {
      pieces.emplace_back(begin, i);
      begin = std::string::npos;
    } else if (!space && begin == std::string::npos) {
      begin = i;
      if (static_cast<int64_t>(pieces.size()) == limit) {
        pieces.emplace_back(i, text.size());
        return pieces;
      }
    }
  }
  if (begin != std::string::npos) pieces.emplace_back(begin, text.size());
  return pieces;
}

// The same from the right.
std::vector<std::pair<size_t, size_t>> SplitSpaceRight(const std::string& text, int64_t limit) {
  std::vector<std::pair<size_t, size_t>> pieces =
      SplitSpace(text, std::numeric_limits<int64_t>::max());
  const auto keep = static_cast<uint64_t>(limit);
  if (pieces.size() > keep) {
    const size_t merged = pieces.size() - keep;  // the first `merged` pieces stay together
    const std::pair<size_t, size_t> head(0, pieces[merged - 1].second);
    pieces.erase(pieces.begin(), pieces.begin() + static_cast<ptrdiff_t>(merged));
    pieces.insert(pieces.begin(), head);
  }
  return pieces;
}

std::vector<std::pair<size_t, size_t>> SplitAt(const std::string& text, const std::string& by,
                                               int64_t limit) {
  std::vector<std::pair<size_t, size_t>> pieces;
  size_t begin = 0;
  while (static_cast<int64_t>(pieces.size()) < limit) {
    const size_t found = Find(text, by, begin);
    if (found == std::string_view::npos) break;
    pieces.emplace_back(begin, found);
    begin = found + by.size();
  }
  pieces.emplace_back(begin, text.size());
  return pieces;
}

std::vector<std::pair<size_t, size_t>> SplitAtRight(const std::string& text, const std::string& by,
                                                    int64_t limit) {
  std::vector<std::pair<size_t, size_t>> pieces;
  size_t end = text.size();
  while (static_cast<int64_t>(pieces.size()) < limit && end >= by.size()) {
    const size_t found = text.rfind(by, end - by.size());
    if (found == std::string::npos) break;
    pieces.emplace_back(found + by.size(), end);
    end = found;
  }
  pieces.emplace_back(0, end);
  std::reverse(pieces.begin(), pieces.end());
  return pieces;
}

Value MakePieces(Context& context, const MarkedString& text,
                 const std::vector<std::pair<size_t, size_t>>& pieces, bool is_tuple = false) {
  List list;
  list.is_tuple = is_tuple;
  for (const auto& [begin, end] : pieces) {
    list.items.push_back(context.Make(text.Range(begin, end)));
  }
  return context.failed() ? Value() : context.Make(std::move(list));
}

template <bool from_right>
Value Split(Context& context, const MarkedString& self, const CallArguments& arguments) {
  Parameters parameters(context, "split", arguments, {"sep", "maxsplit"});
  const MarkedString* separator = parameters.Text(0);
  int64_t limit = parameters.Integer(1, -1);
  if (limit < 0) limit = std::numeric_limits<int64_t>::max();
  if (context.failed()) return {};
  if (separator == nullptr) {
    return MakePieces(context, self,
                      from_right && limit < std::numeric_limits<int64_t>::max()
                          ? SplitSpaceRight(self.text(), limit)
                          : SplitSpace(self.text(), limit));
  }
  if (separator->empty()) return context.Fail("empty separator");
  // Searching backwards can compare each byte with the whole separator.
  if (from_right && !context.Copy(self.size() * std::min<size_t>(separator->size(), 4096)))
    return {};
  return MakePieces(context, self,
                    from_right ? SplitAtRight(self.text(), separator->text(), limit)
                               : SplitAt(self.text(), separator->text(), limit));
}

template <bool from_right>
Value Partition(Context& context, const MarkedString& self, const CallArguments& arguments) {
  Parameters parameters(context, "partition", arguments, {"sep"});
  const MarkedString& separator = parameters.RequiredText(0);
  if (context.failed()) return {};
  if (separator.empty()) return context.Fail("empty separator");
  if (from_right && !context.Copy(self.size() * std::min<size_t>(separator.size(), 4096)))
    return {};
  const size_t found =
      from_right ? self.text().rfind(separator.text()) : Find(self.text(), separator.text());
  std::vector<std::pair<size_t, size_t>> pieces;
  if (found != std::string::npos) {
    const size_t behind = found + separator.size();
    pieces = {{0, found}, {found, behind}, {behind, self.size()}};
  } else if (from_right) {
    pieces = {{0, 0}, {0, 0}, {0, self.size()}};
  } else {
    pieces = {{0, self.size()}, {0, 0}, {0, 0}};
  }
  return MakePieces(context, self, pieces, true);
}

Value Lines(Context& context, const MarkedString& self, const CallArguments& arguments) {
  Parameters parameters(context, "splitlines", arguments, {"keepends"});
  if (context.failed()) return {};
  return MakePieces(context, self, SplitLines(self.text(), parameters.Truth(0, false)));
}

bool HasAffix(const MarkedString& self, const MarkedString& affix, bool at_end) {
  return at_end ? std::string_view(self.text()).ends_with(affix.text())
                : std::string_view(self.text()).starts_with(affix.text());
}

template <bool at_end>
Value Affix(Context& context, const MarkedString& self, const CallArguments& arguments) {
  Parameters parameters(context, at_end ? "endswith" : "startswith", arguments, {"prefix"});
  if (context.failed()) return {};
  const List* choices = parameters[0] != nullptr ? parameters[0]->list() : nullptr;
  if (choices == nullptr || !choices->is_tuple) {
    const MarkedString& affix = parameters.RequiredText(0);
    return context.failed() ? Value() : Value(HasAffix(self, affix, at_end));
  }
  for (const Value& choice : choices->items) {
    if (!context.Step()) return {};
    if (!choice.is_string()) return context.Fail("a tuple of affixes must hold text");
    if (HasAffix(self, *choice.string(), at_end)) return Value(true);
  }
  return Value(false);
}

template <bool at_end>
Value RemoveAffix(Context& context, const MarkedString& self, const CallArguments& arguments) {
  Parameters parameters(context, "removeprefix", arguments, {"prefix"});
  const MarkedString& affix = parameters.RequiredText(0);
  if (context.failed()) return {};
  if (!HasAffix(self, affix, at_end)) return context.Make(MarkedString(self));
  return context.Make(at_end ? self.Range(0, self.size() - affix.size())
                             : self.Range(affix.size(), self.size()));
}

Value Replace(Context& context, const MarkedString& self, const CallArguments& arguments) {
  Parameters parameters(context, "replace", arguments, {"old", "new", "count"});
  const MarkedString& from = parameters.RequiredText(0);
  const MarkedString& to = parameters.RequiredText(1);
  int64_t left = parameters.Integer(2, -1);
  if (context.failed()) return {};
  MarkedString out;
  size_t copied = 0;
  for (size_t at = 0; left != 0; --left) {
    const size_t found = Find(self.text(), from.text(), at);
    if (found == std::string_view::npos || context.TooLong(out.size() + to.size())) break;
    out.AppendRange(self, copied, found);
    out.Append(to);
    copied = found + from.size();
    at = copied;
    if (from.empty()) {  // between all characters
      if (found == self.size()) break;
      at = found + CharacterBytes(self.text(), found);
    }
  }
  out.AppendRange(self, copied, self.size());
  return context.failed() ? Value() : context.Make(std::move(out));
}

Value Join(Context& context, const MarkedString& self, const CallArguments& arguments) {
  Parameters parameters(context, "join", arguments, {"iterable"});
  if (context.failed()) return {};
  if (parameters[0] == nullptr) return context.Fail("join() needs a list");
  MarkedString out;
  bool first = true;
  for (const Value& item : Elements(context, *parameters[0])) {
    if (!item.is_string()) return context.Fail("sequence item: expected str instance");
    if (context.TooLong(out.size() + self.size() + item.string()->size())) return {};
    if (!first) out.Append(self);
    out.Append(*item.string());
    first = false;
  }
  return context.Make(std::move(out));
}

template <bool from_right, bool must_exist>
Value FindText(Context& context, const MarkedString& self, const CallArguments& arguments) {
  Parameters parameters(context, "find", arguments, {"sub", "start", "end"});
  const MarkedString& needle = parameters.RequiredText(0);
  const auto count = static_cast<int64_t>(CountCharacters(self.text()));
  const auto bound = [count](int64_t at) {
    return static_cast<size_t>(std::clamp(at < 0 ? at + count : at, int64_t{0}, count));
  };
  const size_t begin = CharacterOffset(self.text(), bound(parameters.Integer(1, 0)));
  const size_t end = CharacterOffset(self.text(), bound(parameters.Integer(2, count)));
  if (context.failed()) return {};
  if (from_right && !context.Copy(self.size() * std::min<size_t>(needle.size(), 4096))) return {};
  size_t found = std::string_view::npos;
  if (begin <= end) {
    const std::string_view part = std::string_view(self.text()).substr(begin, end - begin);
    found = from_right ? part.rfind(needle.text()) : Find(part, needle.text());
  }
  if (found != std::string_view::npos) {
    return Value(static_cast<int64_t>(
        CountCharacters(std::string_view(self.text()).substr(0, begin + found))));
  }
  return must_exist ? context.Fail("substring not found") : Value(-1);
}

Value Count(Context& context, const MarkedString& self, const CallArguments& arguments) {
  Parameters parameters(context, "count", arguments, {"sub"});
  const MarkedString& needle = parameters.RequiredText(0);
  if (context.failed()) return {};
  if (needle.empty()) return Value(static_cast<int64_t>(CountCharacters(self.text()) + 1));
  return Value(static_cast<int64_t>(
      SplitAt(self.text(), needle.text(), std::numeric_limits<int64_t>::max()).size() - 1));
}

template <bool (*predicate)(char32_t)>
Value AllCharacters(Context& context, const MarkedString& self, const CallArguments& arguments) {
  if (!HasNoArguments(context, "isalpha", arguments)) return {};
  for (size_t i = 0; i < self.size(); i += CharacterBytes(self.text(), i)) {
    if (!predicate(CharacterAt(self.text(), i))) return Value(false);
  }
  return Value(!self.empty());
}

bool IsAlphaOrDigit(char32_t character) { return IsAlpha(character) || IsDigit(character); }

// isupper() and islower(): letters of one case, at least one.
template <bool upper>
Value IsCase(Context& context, const MarkedString& self, const CallArguments& arguments) {
  if (!HasNoArguments(context, "isupper", arguments)) return {};
  bool found = false;
  for (size_t i = 0; i < self.size(); i += CharacterBytes(self.text(), i)) {
    const char32_t character = CharacterAt(self.text(), i);
    if (upper ? IsLower(character) : IsUpper(character)) return Value(false);
    found = found || (upper ? IsUpper(character) : IsLower(character));
  }
  return Value(found);
}

// ljust(), rjust() and center(): sides bit 1 pads the left, bit 2 the right.
template <int sides>
Value Pad(Context& context, const MarkedString& self, const CallArguments& arguments) {
  Parameters parameters(context, "ljust", arguments, {"width", "fillchar"});
  const int64_t width = parameters.Integer(0, 0);
  const MarkedString* fill = parameters.Text(1);
  if (context.failed()) return {};
  if (fill != nullptr && CountCharacters(fill->text()) != 1) {
    return context.Fail("the fill must be one character");
  }
  const auto count = static_cast<int64_t>(CountCharacters(self.text()));
  if (width <= count) return context.Make(MarkedString(self));
  if (context.TooLong(static_cast<uint64_t>(width))) return {};
  const int64_t total = width - count;
  int64_t left = sides == 1 ? total : 0;
  if (sides == 3) left = total / 2 + (total & width & 1);
  const MarkedString padding = fill != nullptr ? *fill : MarkedString(" ", Origin::kTemplate);
  MarkedString out;
  for (int64_t i = 0; i < left; ++i) out.Append(padding);
  out.Append(self);
  for (int64_t i = left; i < total; ++i) out.Append(padding);
  return context.Make(std::move(out));
}

Value ZeroFill(Context& context, const MarkedString& self, const CallArguments& arguments) {
  Parameters parameters(context, "zfill", arguments, {"width"});
  const int64_t width = parameters.Integer(0, 0);
  const auto count = static_cast<int64_t>(CountCharacters(self.text()));
  if (context.failed() || width <= count) return context.Make(MarkedString(self));
  if (context.TooLong(static_cast<uint64_t>(width))) return {};
  const bool has_sign = !self.empty() && (self.text()[0] == '-' || self.text()[0] == '+');
  MarkedString out = self.Range(0, has_sign);
  out.Append(std::string(static_cast<size_t>(width - count), '0'), Origin::kTemplate);
  out.AppendRange(self, has_sign, self.size());
  return context.Make(std::move(out));
}

const std::unordered_map<std::string_view, Method>& Methods() {
  static const auto* methods = new std::unordered_map<std::string_view, Method>{
      {"upper", Cased<LetterCase::kUpper>},
      {"lower", Cased<LetterCase::kLower>},
      {"casefold", Cased<LetterCase::kLower>},
      {"title", Cased<LetterCase::kTitle>},
      {"capitalize", Cased<LetterCase::kCapitalize>},
      {"swapcase", Cased<LetterCase::kSwap>},
      {"strip", Stripped<true, true>},
      {"lstrip", Stripped<true, false>},
      {"rstrip", Stripped<false, true>},
      {"split", Split<false>},
      {"rsplit", Split<true>},
      {"partition", Partition<false>},
      {"rpartition", Partition<true>},
      {"splitlines", Lines},
      {"startswith", Affix<false>},
      {"endswith", Affix<true>},
      {"removeprefix", RemoveAffix<false>},
      {"removesuffix", RemoveAffix<true>},
      {"replace", Replace},
      {"join", Join},
      {"find", FindText<false, false>},
      {"rfind", FindText<true, false>},
      {"index", FindText<false, true>},
      {"rindex", FindText<true, true>},
      {"count", Count},
      {"format", StringFormat},
      {"isalpha", AllCharacters<IsAlpha>},
      {"isdigit", AllCharacters<IsDigit>},
      {"isdecimal", AllCharacters<IsDigit>},
      {"isnumeric", AllCharacters<IsDigit>},
      {"isalnum", AllCharacters<IsAlphaOrDigit>},
      {"isspace", AllCharacters<IsSpace>},
      {"isprintable", AllCharacters<IsPrintable>},
      {"isupper", IsCase<true>},
      {"islower", IsCase<false>},
      {"rjust", Pad<1>},
      {"ljust", Pad<2>},
      {"center", Pad<3>},
      {"zfill", ZeroFill},
  };
  return *methods;
}

}  // namespace

bool IsStringMethod(std::string_view name) { return Methods().contains(name); }

Value CallStringMethod(Context& context, const MarkedString& self, const std::string& name,
                       const CallArguments& arguments) {
  return Methods().at(name)(context, self, arguments);
}

}  // namespace sluice::chat_template
