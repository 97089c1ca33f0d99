#include "tests/support/chat_template_case.h"

#include <cstdint>

namespace sluice {

ChatTemplateInput ChatTemplateInputFromJson(const nlohmann::ordered_json& json) {
  ChatTemplateInput input;
  for (const auto& fields : json.value("messages", nlohmann::ordered_json::array())) {
    ChatMessage message;
    message.extra = nlohmann::ordered_json::object();
    for (const auto& [key, value] : fields.items()) {
      if (key == "role") {
        message.role = value.get<std::string>();
      } else if (key == "content" && value.is_string()) {
        message.content = value.get<std::string>();
      } else {
        message.extra[key] = value;
      }
    }
    input.messages.push_back(std::move(message));
  }
  input.tools = json.value("tools", nlohmann::ordered_json());
  input.add_generation_prompt = json.value("add_generation_prompt", false);
  input.bos_token = json.value("bos_token", "");
  input.eos_token = json.value("eos_token", "");
  input.variables = json.value("variables", nlohmann::ordered_json());
  input.now = static_cast<std::time_t>(json.value("now", int64_t{0}));
  return input;
}

std::string JoinRuns(const std::vector<TemplateRun>& runs) {
  std::string text;
  for (const TemplateRun& run : runs) text += run.text;
  return text;
}

}  // namespace sluice
