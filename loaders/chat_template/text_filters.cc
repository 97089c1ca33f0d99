// Filters on text and numbers.
#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <cstdlib>

#include "loaders/chat_template/filters.h"
#include "loaders/chat_template/operations.h"

namespace sluice::chat_template {
namespace {

Value Method(Context& context, const Value& input, const char* name,
             const CallArguments& arguments) {
  const MarkedString text = ToText(context, input);
  return context.failed() ? Value() : CallStringMethod(context, text, name, arguments);
}

Value Upper(Context& context, const Value& input, const CallArguments& arguments) {
  return Method(context, input, "upper", arguments);
}
Value Lower(Context& context, const Value& input, const CallArguments& arguments) {
  return Method(context, input, "lower", arguments);
}
Value Capitalize(Context& context, const Value& input, const CallArguments& arguments) {
  return Method(context, input, "capitalize", arguments);
}
Value Trim(Context& context, const Value& input, const CallArguments& arguments) {
  return Method(context, input, "strip", arguments);
}
Value Replace(Context& context, const Value& input, const CallArguments& arguments) {
  CallArguments texts = arguments;
  for (size_t i = 0; i < 2 && i < texts.positional.size(); ++i) {
    texts.positional[i] = context.Make(ToText(context, texts.positional[i]));
  }
  return context.failed() ? Value() : Method(context, input, "replace", texts);
}

Value String(Context& context, const Value& input, const CallArguments& arguments) {
  Parameters parameters(context, "string", arguments, {});
  return input.is_string() ? input : context.Make(ToText(context, input));
}

// Upper case at the start of each word, where a word starts behind white space or - ( { [ <.
Value Title(Context& context, const Value& input, const CallArguments& arguments) {
  Parameters parameters(context, "title", arguments, {});
  const MarkedString text = ToText(context, input);
  MarkedString out;
  bool starts = true;
  for (size_t i = 0; i < text.size() && !context.failed();) {
    const size_t next = i + CharacterBytes(text.text(), i);
    const char32_t c = CharacterAt(text.text(), i);
    out.Append(ChangeCase(text.Range(i, next), starts ? LetterCase::kUpper : LetterCase::kLower));
    starts = IsSpace(c) || c == U'-' || c == U'(' || c == U'{' || c == U'[' || c == U'<';
    i = next;
  }
  return context.Make(std::move(out));
}

Value Indent(Context& context, const Value& input, const CallArguments& arguments) {
  Parameters parameters(context, "indent", arguments, {"width", "first", "blank"});
  MarkedString indent;
  if (parameters[0] != nullptr && parameters[0]->is_string()) {
    indent = *parameters[0]->string();
  } else {
    const int64_t width = parameters.Integer(0, 4);
    if (width > 0 && context.TooLong(static_cast<uint64_t>(width))) return {};
    indent = MarkedString(std::string(static_cast<size_t>(width < 0 ? 0 : width), ' '),
                          Origin::kTemplate);
  }
  MarkedString text = ToText(context, input);
  text.Append("\n", Origin::kTemplate);  // so that a last, empty line counts
  MarkedString out;
  bool first = true;
  for (const auto& [begin, end] : SplitLines(text.text(), false)) {
    if (context.TooLong(out.size() + indent.size()) || context.failed()) return {};
    if (!first) out.Append("\n", Origin::kTemplate);
    const bool indents =
        first ? parameters.Truth(1, false) : begin < end || parameters.Truth(2, false);
    if (indents) out.Append(indent);
    out.AppendRange(text, begin, end);
    first = false;
  }
  return context.Make(std::move(out));
}

Value Escape(Context& context, const Value& input, const CallArguments& arguments) {
  Parameters parameters(context, "escape", arguments, {});
  const MarkedString text = ToText(context, input);
  if (context.TooLong(5 * text.size())) return {};  // what a character becomes at most
  return context.Make(EscapeHtml(text));
}

Value Safe(Context& context, const Value& input, const CallArguments& arguments) {
  Parameters parameters(context, "safe", arguments, {});
  MarkedString text = ToText(context, input);
  text.set_html();
  return context.Make(std::move(text));
}

Value ToJson(Context& context, const Value& input, const CallArguments& arguments) {
  Parameters parameters(context, "tojson", arguments,
                        {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonStyle style;
  style.ensure_ascii = parameters.Truth(0, false);
  if (parameters[1] != nullptr && parameters[1]->is_string()) {
    return context.Unsupported("tojson with text as indent");
  }
  style.indent = parameters.Integer(1, -1);
  if (style.indent > 0 && context.TooLong(static_cast<uint64_t>(style.indent))) return {};
  // A negative indent breaks lines and adds no space.
  if (parameters[1] != nullptr && !parameters[1]->is_none() && style.indent < 0) style.indent = 0;
  style.sort_keys = parameters.Truth(3, false);
  style.item_separator = MarkedString(style.indent < 0 ? ", " : ",", Origin::kTemplate);
  style.key_separator = MarkedString(": ", Origin::kTemplate);
  if (parameters[2] != nullptr && !parameters[2]->is_none()) {
    const std::vector<Value> separators = Elements(context, *parameters[2]);
    if (separators.size() != 2 || !separators[0].is_string() || !separators[1].is_string()) {
      return context.Fail("separators are two pieces of text");
    }
    style.item_separator = *separators[0].string();
    style.key_separator = *separators[1].string();
  }
  if (context.failed()) return {};
  MarkedString out;
  AppendJson(context, input, style, &out);
  return context.failed() ? Value() : context.Make(std::move(out));
}

// Python's int(text, base), or nothing.
bool ParseInteger(std::string_view text, int base, int64_t* value) {
  const bool negative = text.starts_with('-');
  if (negative || text.starts_with('+')) text.remove_prefix(1);
  const std::string prefix = base == 16 ? "0x" : base == 8 ? "0o" : base == 2 ? "0b" : "";
  if (!prefix.empty() && text.starts_with(prefix)) text.remove_prefix(2);
  if (text.empty() || text[0] == '-') return false;
  const auto read = std::from_chars(text.data(), text.data() + text.size(), *value, base);
  if (read.ec != std::errc() || read.ptr != text.data() + text.size()) return false;
  if (negative) *value = -*value;
  return true;
}

bool ParseFloat(std::string_view text, double* value) {
  if (text.starts_with('+')) text.remove_prefix(1);
  const auto read = std::from_chars(text.data(), text.data() + text.size(), *value);
  return read.ec == std::errc() && read.ptr == text.data() + text.size();
}

std::string Stripped(const Value& input) { return Strip(*input.string(), nullptr, {}).text(); }

Value Int(Context& context, const Value& input, const CallArguments& arguments) {
  Parameters parameters(context, "int", arguments, {"default", "base"});
  const Value missing = parameters[0] != nullptr ? *parameters[0] : Value(0);
  const int64_t base = parameters.Integer(1, 10);
  if (base < 2 || base > 36) return context.Unsupported("int with such a base");
  if (input.is_undefined()) return Arithmetic(context, Operator::kAdd, input, Value(0));
  if (input.is_integral()) return Value(input.integer());
  double number = 0;
  if (input.is_float()) {
    number = input.number();
  } else if (input.is_string()) {
    const std::string text = Stripped(input);
    int64_t integer;
    if (ParseInteger(text, static_cast<int>(base), &integer)) return Value(integer);
    if (!ParseFloat(text, &number)) return missing;
  } else {
    return missing;
  }
  if (std::isnan(number) || std::isinf(number)) return missing;
  if (!(std::fabs(number) < 9.2e18)) {
    return context.Fail(ErrorCode::kLimitExceeded, "an integer beyond 64 bits");
  }
  return Value(static_cast<int64_t>(number));
}

Value Float(Context& context, const Value& input, const CallArguments& arguments) {
  Parameters parameters(context, "float", arguments, {"default"});
  if (input.is_undefined()) return Arithmetic(context, Operator::kAdd, input, Value(0));
  if (input.is_number()) return Value(input.number());
  double number;
  if (input.is_string() && ParseFloat(Stripped(input), &number)) return Value(number);
  return parameters[0] != nullptr ? *parameters[0] : Value(0.0);
}

Value Abs(Context& context, const Value& input, const CallArguments& arguments) {
  Parameters parameters(context, "abs", arguments, {});
  if (input.is_number() && (input.number() < 0)) return Negate(context, input);
  if (!input.is_number())
    return context.Fail(fmt::format("bad operand type for abs(): {}", input.TypeName()));
  return input.is_float() ? Value(std::fabs(input.number())) : Value(input.integer());
}

// To an even last digit where two are equally near, and correctly for the decimal value.
double RoundHalfEven(double value, int precision) {
  char buffer[512];
  std::snprintf(buffer, sizeof(buffer), "%.*f", precision, value);
  return std::strtod(buffer, nullptr);
}

Value Round(Context& context, const Value& input, const CallArguments& arguments) {
  Parameters parameters(context, "round", arguments, {"precision", "method"});
  const int64_t precision = parameters.Integer(0, 0);
  const MarkedString* given = parameters.Text(1);
  const std::string method = given != nullptr ? given->text() : "common";
  if (!input.is_number())
    return context.Fail(fmt::format("round needs a number, not {}", input.TypeName()));
  if (precision < 0 || precision > 100) return context.Unsupported("round with such a precision");
  if (method == "common") {
    if (input.is_integral()) return Value(input.integer());
    if (!std::isfinite(input.number())) return input;
    return Value(RoundHalfEven(input.number(), static_cast<int>(precision)));
  }
  const double scale = std::pow(10.0, static_cast<double>(precision));
  if (method == "ceil") return Value(std::ceil(input.number() * scale) / scale);
  if (method == "floor") return Value(std::floor(input.number() * scale) / scale);
  return context.Fail("method must be common, ceil or floor");
}

Value Format(Context& context, const Value& input, const CallArguments& arguments) {
  const MarkedString text = ToText(context, input);
  if (!arguments.named.empty()) return context.Unsupported("format with named arguments");
  List values;
  values.is_tuple = true;
  values.items = arguments.positional;
  return PercentFormat(context, text, context.Make(std::move(values)));
}

Value WordCount(Context& context, const Value& input, const CallArguments&) {
  const MarkedString text = ToText(context, input);
  int64_t words = 0;
  bool inside = false;
  for (size_t i = 0; i < text.size(); i += CharacterBytes(text.text(), i)) {
    const char32_t c = CharacterAt(text.text(), i);
    const bool word = IsAlpha(c) || IsDigit(c) || c == U'_';
    words += word && !inside;
    inside = word;
  }
  return Value(words);
}

Value Center(Context& context, const Value& input, const CallArguments& arguments) {
  Parameters parameters(context, "center", arguments, {"width"});
  CallArguments width;
  width.positional.emplace_back(parameters.Integer(0, 80));
  return Method(context, input, "center", width);
}

}  // namespace

FilterList TextFilters() {
  return {
      {"upper", Upper},   {"lower", Lower},   {"capitalize", Capitalize},
      {"title", Title},   {"trim", Trim},     {"replace", Replace},
      {"string", String}, {"safe", Safe},     {"indent", Indent},
      {"escape", Escape}, {"e", Escape},      {"tojson", ToJson},
      {"int", Int},       {"float", Float},   {"abs", Abs},
      {"round", Round},   {"format", Format}, {"wordcount", WordCount},
      {"center", Center},
  };
}

}  // namespace sluice::chat_template
