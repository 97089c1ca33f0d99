// The functions that every template can call.
#include <fmt/format.h>

#include <array>
#include <cstdio>
#include <ctime>

#include "loaders/chat_template/operations.h"

namespace sluice::chat_template {
namespace {

constexpr int64_t kMaxRange = 100'000;  // as jinja2's sandbox

class Function final : public Object {
 public:
  using Body = Value (*)(Context&, const CallArguments&);
  Function(std::string name, Body body) : name_(std::move(name)), body_(body) {}

  std::string TypeName() const override { return "function"; }
  std::string Repr() const override { return fmt::format("<function {}>", name_); }
  bool IsCallable() const override { return true; }
  Value Call(Context& context, const CallArguments& arguments) override {
    return context.Step() ? body_(context, arguments) : Value();
  }

 private:
  std::string name_;
  Body body_;
};

Value Range(Context& context, const CallArguments& arguments) {
  Parameters parameters(context, "range", arguments, {"start", "stop", "step"});
  int64_t start = parameters.Integer(0, 0);
  int64_t stop = parameters.Integer(1, 0);
  const int64_t step = parameters.Integer(2, 1);
  if (context.failed()) return {};
  if (parameters[0] == nullptr) return context.Fail("range() needs a bound");
  if (parameters[1] == nullptr) {
    stop = start;
    start = 0;
  }
  if (step == 0) return context.Fail("range() step must not be 0");
  List list;
  for (int64_t i = start; step > 0 ? i < stop : i > stop;) {
    if (list.items.size() == kMaxRange) {
      return context.Fail(ErrorCode::kLimitExceeded, "a range of more than 100,000 elements");
    }
    list.items.emplace_back(i);
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return context.Make(std::move(list));
}

// The mapping that dict(...) makes: from a mapping or pairs, then keywords.
Dict BuildDict(Context& context, const CallArguments& arguments) {
  Dict dict;
  if (arguments.positional.size() > 1) {
    context.Fail("expected at most 1 argument");
    return dict;
  }
  if (!arguments.positional.empty()) {
    const Value& source = arguments.positional[0];
    if (source.dict() != nullptr) {
      for (const auto& [key, value] : source.dict()->items) {
        if (!context.Step()) return dict;
        context.Set(&dict, key, value);
      }
    } else {
      for (const Value& item : Elements(context, source)) {
        std::vector<Value> pair = Elements(context, item);
        if (context.failed() || !context.Step()) return dict;
        if (pair.size() != 2) {
          context.Fail("a mapping is made of pairs");
          return dict;
        }
        context.Set(&dict, std::move(pair[0]), std::move(pair[1]));
      }
    }
  }
  for (const auto& [key, value] : arguments.named) context.Set(&dict, Value::Text(key), value);
  return dict;
}

Value MakeDict(Context& context, const CallArguments& arguments) {
  Dict dict = BuildDict(context, arguments);
  return context.failed() ? Value() : context.Make(std::move(dict));
}

Value MakeNamespace(Context& context, const CallArguments& arguments) {
  Dict dict = BuildDict(context, arguments);
  auto* space = context.Own(std::make_unique<Namespace>());
  for (auto& [key, value] : dict.items) {
    if (!key.is_string()) return context.Fail("a namespace has text for names");
    space->Set(context, key.string()->text(), std::move(value));
  }
  return Value(space);
}

Value RaiseException(Context& context, const CallArguments& arguments) {
  Parameters parameters(context, "raise_exception", arguments, {"message"});
  if (context.failed()) return {};
  const Value message = parameters[0] != nullptr ? *parameters[0] : Value(None{});
  return context.Fail(ToText(context, message).text());
}

Value StrftimeNow(Context& context, const CallArguments& arguments) {
  Parameters parameters(context, "strftime_now", arguments, {"format"});
  const MarkedString& format = parameters.RequiredText(0);
  if (context.failed()) return {};
  std::string text = FormatTime(context, format.text(), context.now());
  return context.failed() ? Value()
                          : context.Make(MarkedString(std::move(text), format.OriginAt(0)));
}

constexpr std::array<const char*, 7> kDays = {"Sunday",   "Monday", "Tuesday", "Wednesday",
                                              "Thursday", "Friday", "Saturday"};
constexpr std::array<const char*, 12> kMonths = {"January",   "February", "March",    "April",
                                                 "May",       "June",     "July",     "August",
                                                 "September", "October",  "November", "December"};

std::string Padded(int value, int width, bool pads) {
  char buffer[16];
  std::snprintf(buffer, sizeof(buffer), "%0*d", pads ? width : 1, value);
  return buffer;
}

// One directive of strftime; false when it is not known.
bool AppendDirective(char directive, bool pads, const std::tm& time, std::string* out) {
  const int hour12 = time.tm_hour % 12 == 0 ? 12 : time.tm_hour % 12;
  const std::string day = kDays[static_cast<size_t>(time.tm_wday)];
  const std::string month = kMonths[static_cast<size_t>(time.tm_mon)];
  const auto number = [&](int value, int width) { *out += Padded(value, width, pads); };
  switch (directive) {
    case 'a':
      *out += day.substr(0, 3);
      break;
    case 'A':
      *out += day;
      break;
    case 'b':
    case 'h':
      *out += month.substr(0, 3);
      break;
    case 'B':
      *out += month;
      break;
    case 'd':
      number(time.tm_mday, 2);
      break;
    case 'e':
      if (time.tm_mday < 10 && pads) *out += ' ';
      *out += std::to_string(time.tm_mday);
      break;
    case 'H':
      number(time.tm_hour, 2);
      break;
    case 'I':
      number(hour12, 2);
      break;
    case 'j':
      number(time.tm_yday + 1, 3);
      break;
    case 'm':
      number(time.tm_mon + 1, 2);
      break;
    case 'M':
      number(time.tm_min, 2);
      break;
    case 'S':
      number(time.tm_sec, 2);
      break;
    case 'f':
      *out += "000000";
      break;
    case 'p':
      *out += time.tm_hour < 12 ? "AM" : "PM";
      break;
    case 'u':
      *out += std::to_string(time.tm_wday == 0 ? 7 : time.tm_wday);
      break;
    case 'w':
      *out += std::to_string(time.tm_wday);
      break;
    case 'y':
      number((time.tm_year % 100 + 100) % 100, 2);
      break;
    case 'Y':
      *out += std::to_string(time.tm_year + 1900);
      break;
    case 'z':
    case 'Z':
      break;  // a time without a zone shows nothing here
    case '%':
      *out += '%';
      break;
    default:
      return false;
  }
  return true;
}

}  // namespace

std::string FormatTime(Context& context, const std::string& format, std::time_t time) {
  std::tm parts{};
  if (gmtime_r(&time, &parts) == nullptr) {
    context.Fail("the time is out of range");
    return {};
  }
  std::string out;
  for (size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%') {
      out += format[i];
      continue;
    }
    const bool pads = i + 1 >= format.size() || format[i + 1] != '-';
    i += pads ? 1 : 2;
    const char directive = i < format.size() ? format[i] : 0;
    if (directive == 'F' || directive == 'T' || directive == 'D' || directive == 'R' ||
        directive == 'x' || directive == 'X') {
      const char* whole = directive == 'F'                       ? "%Y-%m-%d"
                          : directive == 'R'                     ? "%H:%M"
                          : directive == 'T' || directive == 'X' ? "%H:%M:%S"
                                                                 : "%m/%d/%y";
      out += FormatTime(context, whole, time);
    } else if (!AppendDirective(directive, pads, parts, &out)) {
      context.Unsupported(fmt::format("strftime_now with %{}", std::string(1, directive)));
      return {};
    }
  }
  return out;
}

Value Namespace::Attribute(Context& context, const std::string& name) {
  const Value* found = attributes_.Find(name);
  return found != nullptr ? *found : Object::Attribute(context, name);
}

void Namespace::Set(Context& context, const std::string& name, Value value) {
  if (name.starts_with("_")) {
    context.Fail(fmt::format("names in a namespace do not start with an underscore: '{}'", name));
    return;
  }
  attributes_.Set(Value::Text(name), std::move(value));
}

std::vector<std::pair<std::string, Value>> MakeGlobals(Context& context) {
  const std::pair<const char*, Function::Body> functions[] = {
      {"range", Range},
      {"dict", MakeDict},
      {"namespace", MakeNamespace},
      {"raise_exception", RaiseException},
      {"strftime_now", StrftimeNow},
  };
  std::vector<std::pair<std::string, Value>> globals;
  for (const auto& [name, body] : functions) {
    globals.emplace_back(name, Value(context.Own(std::make_unique<Function>(name, body))));
  }
  return globals;
}

}  // namespace sluice::chat_template
