// "...".format() and the operator % on text.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <optional>

#include "loaders/chat_template/operations.h"

namespace sluice::chat_template {
namespace {

constexpr int64_t kMaxWidth = 4096;

// [[fill]align][sign][0][width][,][.precision][type]
struct FormatSpec {
  char32_t fill = U' ';
  char align = 0;
  char sign = '-';
  bool comma = false;
  int64_t width = 0;
  int64_t precision = -1;
  char type = 0;
};

bool IsAlign(char c) { return c == '<' || c == '>' || c == '^' || c == '='; }

// Reads digits at *at; false when the number is out of bounds.
bool ReadNumber(std::string_view text, size_t* at, int64_t* number) {
  int64_t value = 0;
  while (*at < text.size() && text[*at] >= '0' && text[*at] <= '9') {
    value = value * 10 + (text[(*at)++] - '0');
    if (value > kMaxWidth) return false;
  }
  *number = value;
  return true;
}

std::optional<FormatSpec> ParseSpec(std::string_view text) {
  FormatSpec spec;
  size_t at = 0;
  const size_t first = text.empty() ? 0 : CharacterBytes(text, 0);
  if (!text.empty() && first < text.size() && IsAlign(text[first])) {
    spec.fill = CharacterAt(text, 0);
    spec.align = text[first];
    at = first + 1;
  } else if (!text.empty() && IsAlign(text[0])) {
    spec.align = text[0];
    at = 1;
  }
  if (at < text.size() && (text[at] == '+' || text[at] == '-' || text[at] == ' ')) {
    spec.sign = text[at++];
  }
  if (at < text.size() && text[at] == '0') {
    if (spec.align == 0) {
      spec.fill = U'0';
      spec.align = '=';
    }
    ++at;
  }
  if (!ReadNumber(text, &at, &spec.width)) return std::nullopt;
  if (at < text.size() && text[at] == ',') {
    spec.comma = true;
    ++at;
  }
  if (at < text.size() && text[at] == '.') {
    ++at;
    if (!ReadNumber(text, &at, &spec.precision)) return std::nullopt;
  }
  if (at < text.size()) spec.type = text[at++];
  if (at != text.size()) return std::nullopt;
  return spec;
}

std::string WithCommas(std::string digits) {
  const size_t point = std::min(digits.find('.'), digits.size());
  for (size_t i = point; i > 3; i -= 3) digits.insert(i - 3, 1, ',');
  return digits;
}

// Sign and digits of a number, or nothing when the type does not fit it.
std::optional<std::string> FormatNumber(const Value& value, const FormatSpec& spec) {
  std::string digits;
  bool negative = false;
  if (value.is_integral() && (spec.type == 0 || spec.type == 'd' || spec.type == 'i')) {
    negative = value.integer() < 0;
    digits = std::to_string(value.integer()).substr(negative);
  } else if (value.is_integral() && (spec.type == 'x' || spec.type == 'X')) {
    negative = value.integer() < 0;
    const uint64_t bits = static_cast<uint64_t>(value.integer());
    char buffer[24];
    std::snprintf(buffer, sizeof(buffer), spec.type == 'x' ? "%llx" : "%llX",
                  static_cast<unsigned long long>(negative ? 0 - bits : bits));
    digits = buffer;
  } else {
    double number = value.number();
    const std::string types = "fFeEgG%";
    if (spec.type != 0 && types.find(spec.type) == std::string::npos) return std::nullopt;
    if (spec.type == '%') number *= 100;
    negative = std::signbit(number);
    number = std::fabs(number);
    if (spec.type == 0 && spec.precision < 0) {
      digits = FloatRepr(number);
    } else {
      const char pattern[] = {'%', '.', '*', spec.type == '%' || spec.type == 0 ? 'f' : spec.type,
                              0};
      if (spec.type == 0 || spec.precision > 100) return std::nullopt;
      char buffer[512];
      const int precision = spec.precision < 0 ? 6 : static_cast<int>(spec.precision);
      std::snprintf(buffer, sizeof(buffer), pattern, precision, number);
      digits = buffer;
      if (spec.type == '%') digits += "%";
    }
  }
  if (spec.comma) digits = WithCommas(digits);
  if (negative) return fmt::format("-{}", digits);
  return spec.sign == '-' ? digits : fmt::format("{}{}", spec.sign, digits);
}

MarkedString Padded(const MarkedString& text, const FormatSpec& spec, char default_align) {
  const auto count = static_cast<int64_t>(CountCharacters(text.text()));
  const int64_t missing = std::max<int64_t>(0, spec.width - count);
  const char align = spec.align != 0 ? spec.align : default_align;
  const int64_t left = align == '<' ? 0 : align == '^' ? missing / 2 : missing;
  std::string fill;
  AppendUtf8(spec.fill, &fill);
  MarkedString out;
  const bool sign_first =
      align == '=' && !text.empty() && (text.text()[0] == '-' || text.text()[0] == '+');
  out.AppendRange(text, 0, sign_first);
  for (int64_t i = 0; i < left; ++i) out.Append(fill, Origin::kTemplate);
  out.AppendRange(text, sign_first, text.size());
  for (int64_t i = left; i < missing; ++i) out.Append(fill, Origin::kTemplate);
  return out;
}

MarkedString FormatValue(Context& context, const Value& value, std::string_view text) {
  if (text.empty()) return ToText(context, value);
  const std::optional<FormatSpec> spec = ParseSpec(text);
  if (!spec) {
    context.Unsupported(fmt::format("the format '{}'", std::string(text.substr(0, 40))));
    return {};
  }
  if (value.is_number() && !(value.is_bool() && spec->type == 0)) {
    const std::optional<std::string> number = FormatNumber(value, *spec);
    if (!number) {
      context.Unsupported(fmt::format("the format '{}'", std::string(text.substr(0, 40))));
      return {};
    }
    return Padded(MarkedString(*number, Origin::kTemplate), *spec, '>');
  }
  if (!value.is_string() || (spec->type != 0 && spec->type != 's') || spec->align == '=') {
    context.Fail(fmt::format("the format '{}' does not fit a {}", std::string(text.substr(0, 40)),
                             value.TypeName()));
    return {};
  }
  MarkedString shown = *value.string();
  if (spec->precision >= 0) {
    shown = shown.Range(0, CharacterOffset(shown.text(), static_cast<size_t>(spec->precision)));
  }
  return Padded(shown, *spec, '<');
}

// The argument that a replacement field names.
const Value* FieldValue(Context& context, std::string_view name, const CallArguments& arguments,
                        size_t* automatic) {
  size_t index = *automatic;
  if (name.empty()) {
    ++*automatic;
  } else if (name.find_first_of(".[") != std::string_view::npos) {
    context.Unsupported("attributes in a format field");
    return nullptr;
  } else if (name[0] >= '0' && name[0] <= '9') {
    size_t at = 0;
    int64_t number = 0;
    if (!ReadNumber(name, &at, &number) || at != name.size()) number = kMaxWidth;
    index = static_cast<size_t>(number);
  } else {
    for (const auto& [key, value] : arguments.named) {
      if (key == name) return &value;
    }
    context.Fail(fmt::format("format() has no argument '{}'", std::string(name.substr(0, 40))));
    return nullptr;
  }
  if (index < arguments.positional.size()) return &arguments.positional[index];
  context.Fail("format() has too few arguments");
  return nullptr;
}

// One field: name[!conversion][:spec].
void AppendField(Context& context, std::string_view field, const CallArguments& arguments,
                 size_t* automatic, MarkedString* out) {
  const size_t colon = field.find(':');
  const std::string_view spec =
      colon == std::string_view::npos ? std::string_view() : field.substr(colon + 1);
  std::string_view name = field.substr(0, colon);
  const size_t mark = name.find('!');
  const std::string_view conversion =
      mark == std::string_view::npos ? std::string_view() : name.substr(mark + 1);
  name = name.substr(0, mark);
  const Value* value = FieldValue(context, name, arguments, automatic);
  if (value == nullptr) return;
  if (conversion.empty()) {
    out->Append(FormatValue(context, *value, spec));
    return;
  }
  MarkedString shown;
  if (conversion == "r") {
    AppendRepr(context, *value, &shown);
  } else if (conversion == "s") {
    shown = ToText(context, *value);
  } else {
    context.Unsupported("a conversion in a format field");
  }
  out->Append(FormatValue(context, Value(std::move(shown)), spec));
}

}  // namespace

Value StringFormat(Context& context, const MarkedString& format, const CallArguments& arguments) {
  const std::string& text = format.text();
  MarkedString out;
  size_t automatic = 0;
  for (size_t i = 0; i < text.size() && !context.failed();) {
    const size_t brace = text.find_first_of("{}", i);
    if (brace == std::string::npos) {
      out.AppendRange(format, i, text.size());
      break;
    }
    out.AppendRange(format, i, brace);
    if (brace + 1 < text.size() && text[brace + 1] == text[brace]) {  // {{ or }}
      out.AppendRange(format, brace, brace + 1);
      i = brace + 2;
      continue;
    }
    const size_t end = text.find_first_of("{}", brace + 1);
    if (text[brace] == '}' || end == std::string::npos)
      return context.Fail("a single brace in format()");
    if (text[end] == '{') return context.Unsupported("a nested format field");
    AppendField(context, std::string_view(text).substr(brace + 1, end - brace - 1), arguments,
                &automatic, &out);
    if (context.TooLong(out.size())) return {};
    i = end + 1;
  }
  return context.failed() ? Value() : context.Make(std::move(out));
}

Value PercentFormat(Context& context, const MarkedString& format, const Value& arguments) {
  const std::string& text = format.text();
  const List* tuple =
      arguments.list() != nullptr && arguments.list()->is_tuple ? arguments.list() : nullptr;
  const size_t count = tuple != nullptr ? tuple->items.size() : 1;
  size_t used = 0;
  MarkedString out;
  for (size_t i = 0; i < text.size() && !context.failed();) {
    const size_t percent = std::min(text.find('%', i), text.size());
    out.AppendRange(format, i, percent);
    if (percent == text.size()) break;
    if (percent + 1 < text.size() && text[percent + 1] == '%') {
      out.AppendRange(format, percent, percent + 1);
      i = percent + 2;
      continue;
    }
    const size_t type = text.find_first_not_of("0123456789.+- ", percent + 1);
    if (type == std::string::npos) return context.Fail("incomplete format");
    if (used == count) return context.Fail("not enough arguments for format string");
    const Value& value = tuple != nullptr ? tuple->items[used] : arguments;
    ++used;
    std::string spec = text.substr(percent + 1, type - percent - 1);
    if (spec.starts_with("-")) {
      spec[0] = '<';
    } else if (!spec.starts_with("0")) {
      spec = fmt::format(">{}", spec);
    }
    const char kind = text[type];
    if (kind == 's' || kind == 'r') {
      MarkedString shown;
      if (kind == 's') {
        shown = ToText(context, value);
      } else {
        AppendRepr(context, value, &shown);
      }
      out.Append(FormatValue(context, Value(std::move(shown)), spec));
    } else if (std::string_view("dixXfFeEgG").find(kind) == std::string_view::npos) {
      return context.Unsupported(fmt::format("the format %{}", std::string(1, kind)));
    } else if (!value.is_number()) {
      return context.Fail(fmt::format("a number is required, not {}", value.TypeName()));
    } else {
      const bool truncates = value.is_float() && (kind == 'd' || kind == 'i');
      if (truncates && !(std::fabs(value.number()) < 9e18)) return context.Fail("not an integer");
      out.Append(FormatValue(
          context, truncates ? Value(static_cast<int64_t>(value.number())) : value, spec + kind));
    }
    if (context.TooLong(out.size())) return {};
    i = type + 1;
  }
  if (context.failed()) return {};
  if (used < count && (tuple != nullptr || arguments.dict() == nullptr)) {
    return context.Fail("not all arguments converted during string formatting");
  }
  return context.Make(std::move(out));
}

}  // namespace sluice::chat_template
