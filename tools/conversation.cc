#include "tools/conversation.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace sluice {

using Json = nlohmann::ordered_json;

void Conversation::SetSystem(const std::string& text) { system_ = text; }

bool Conversation::Undo() {
  const auto last = std::find_if(messages_.rbegin(), messages_.rend(),
                                 [](const Message& m) { return m.role == "user"; });
  if (last == messages_.rend()) return false;
  messages_.erase(last.base() - 1, messages_.end());
  return true;
}

bool Conversation::ForgetAnswer() {
  if (user_messages() == 0) return false;
  while (messages_.back().role != "user") messages_.pop_back();
  return true;
}

void Conversation::Clear() { messages_.clear(); }

std::vector<Message> Conversation::messages() const {
  std::vector<Message> all;
  if (!system_.empty()) all.push_back({"system", system_});
  all.insert(all.end(), messages_.begin(), messages_.end());
  return all;
}

size_t Conversation::user_messages() const {
  return std::count_if(messages_.begin(), messages_.end(),
                       [](const Message& m) { return m.role == "user"; });
}

std::string Conversation::ToJson() const {
  Json list = Json::array();
  for (const Message& message : messages()) {
    list.push_back({{"role", message.role}, {"content", message.content}});
  }
  return Json{{"messages", list}}.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

Result<Conversation> Conversation::FromJson(std::string_view json) {
  const Json object = Json::parse(json, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object() || !object.contains("messages") || !object["messages"].is_array()) {
    return Status(ErrorCode::kCorrupt, "not a saved conversation: no list \"messages\"");
  }
  Conversation conversation;
  const Json& list = object["messages"];
  for (size_t i = 0; i < list.size(); ++i) {
    const Json& entry = list[i];
    if (!entry.is_object() || !entry.contains("role") || !entry["role"].is_string() ||
        !entry.contains("content") || !entry["content"].is_string()) {
      return Status(ErrorCode::kCorrupt,
                    fmt::format("message {} has no \"role\" and \"content\"", i));
    }
    const std::string role = entry["role"].get<std::string>();
    const std::string content = entry["content"].get<std::string>();
    if (role == "system" && i == 0) {
      conversation.system_ = content;
    } else if (role == "user" || role == "assistant") {
      conversation.messages_.push_back({role, content});
    } else {
      return Status(ErrorCode::kCorrupt, fmt::format("message {} has an unexpected role", i));
    }
  }
  return conversation;
}

}  // namespace sluice
