#include "loaders/chat_template/chat_template.h"

#include <algorithm>
#include <utility>

#include "loaders/chat_template/chat_template_input.h"
#include "loaders/chat_template/context.h"
#include "loaders/chat_template/interpreter.h"
#include "loaders/chat_template/operations.h"
#include "loaders/chat_template/parser.h"

namespace sluice {

struct ChatTemplate::Parsed {
  chat_template::Body body;
};

namespace {

using chat_template::Context;
using chat_template::Dict;
using chat_template::List;
using chat_template::MarkedString;
using chat_template::None;
using chat_template::Origin;
using chat_template::Value;

constexpr size_t kMaxRoleBytes = 64;

Value UserText(Context& context, const std::string& text) {
  return context.Make(MarkedString(text, Origin::kUser));
}

Value FromJson(Context& context, const nlohmann::ordered_json& json, int depth) {
  if (depth > chat_template::kMaxValueDepth) {
    return context.Fail(ErrorCode::kLimitExceeded, "input nested more than 64 levels deep");
  }
  if (json.is_boolean()) return Value(json.get<bool>());
  if (json.is_string()) return UserText(context, json.get_ref<const std::string&>());
  if (json.is_number_unsigned() && json.get<uint64_t>() > uint64_t{INT64_MAX}) {
    return Value(static_cast<double>(json.get<uint64_t>()));
  }
  if (json.is_number_integer()) return Value(json.get<int64_t>());
  if (json.is_number_float()) return Value(json.get<double>());
  if (json.is_array()) {
    List list;
    for (const auto& item : json) list.items.push_back(FromJson(context, item, depth + 1));
    return context.failed() ? Value() : context.Make(std::move(list));
  }
  if (json.is_object()) {
    Dict dict;
    for (const auto& [key, item] : json.items()) {
      context.Set(&dict, UserText(context, key), FromJson(context, item, depth + 1));
    }
    return context.failed() ? Value() : context.Make(std::move(dict));
  }
  return Value(None{});
}

bool IsPlainWord(const std::string& text) {
  return text.size() <= kMaxRoleBytes && std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  c == '_' || c == '-';
         });
}

Value FromMessage(Context& context, const ChatMessage& message) {
  const Origin role_origin = IsPlainWord(message.role) ? Origin::kTemplate : Origin::kUser;
  Dict dict;
  context.Set(&dict, Value::Text("role"), context.Make(MarkedString(message.role, role_origin)));
  if (!message.extra.is_object() || !message.extra.contains("content")) {
    context.Set(&dict, Value::Text("content"), UserText(context, message.content));
  }
  if (message.extra.is_object()) {
    for (const auto& [key, value] : message.extra.items()) {
      if (key != "role") context.Set(&dict, UserText(context, key), FromJson(context, value, 1));
    }
  } else if (!message.extra.is_null()) {
    return context.Fail("the further fields of a message are no object");
  }
  return context.failed() ? Value() : context.Make(std::move(dict));
}

void DefineInput(Context& context, const ChatTemplateInput& input,
                 chat_template::Interpreter* interpreter) {
  List messages;
  for (const ChatMessage& message : input.messages) {
    messages.items.push_back(FromMessage(context, message));
  }
  interpreter->Define("messages", context.Make(std::move(messages)));
  interpreter->Define("tools", FromJson(context, input.tools, 0));
  interpreter->Define("documents", Value(None{}));
  interpreter->Define("add_generation_prompt", Value(input.add_generation_prompt));
  interpreter->Define("bos_token", Value::Text(input.bos_token));
  interpreter->Define("eos_token", Value::Text(input.eos_token));
  if (input.variables.is_object()) {
    for (const auto& [name, value] : input.variables.items()) {
      interpreter->Define(name, FromJson(context, value, 0));
    }
  } else if (!input.variables.is_null()) {
    context.Fail("the variables are no object");
  }
}

std::vector<TemplateRun> ToRuns(const MarkedString& text) {
  std::vector<TemplateRun> runs;
  size_t begin = 0;
  for (const MarkedString::Run& run : text.runs()) {
    runs.push_back({text.text().substr(begin, run.end - begin), run.origin == Origin::kUser});
    begin = run.end;
  }
  return runs;
}

}  // namespace

ChatTemplate::ChatTemplate(std::shared_ptr<const Parsed> parsed) : parsed_(std::move(parsed)) {}

Result<ChatTemplate> ChatTemplate::Parse(std::string source) {
  if (source.size() > kMaxSourceBytes) {
    return Status(ErrorCode::kLimitExceeded, "chat template: longer than 256 KiB");
  }
  Result<chat_template::Body> body = chat_template::ParseTemplate(source);
  if (!body.ok()) return body.status().WithContext("chat template");
  auto parsed = std::make_shared<Parsed>();
  parsed->body = *std::move(body);
  return ChatTemplate(std::move(parsed));
}

Result<std::vector<TemplateRun>> ChatTemplate::Render(const ChatTemplateInput& input,
                                                      const ChatTemplateLimits& limits) const {
  Context context(limits, input.now);
  chat_template::Interpreter interpreter(context);
  DefineInput(context, input, &interpreter);
  const MarkedString text = context.failed() ? MarkedString() : interpreter.Run(parsed_->body);
  if (context.failed()) return context.status().WithContext("chat template");
  return ToRuns(text);
}

}  // namespace sluice
