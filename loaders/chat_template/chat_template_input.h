// What a chat template is rendered with. Apart from chat_template.h, as JSON is slow to compile.
#ifndef SLUICE_LOADERS_CHAT_TEMPLATE_CHAT_TEMPLATE_INPUT_H_
#define SLUICE_LOADERS_CHAT_TEMPLATE_CHAT_TEMPLATE_INPUT_H_

#include <ctime>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace sluice {

// One message as a template sees it: a mapping with `role`, `content`, then the fields of `extra`.
struct ChatMessage {
  std::string role;
  std::string content;
  // An object of further fields (tool_calls, name, reasoning_content ...), or null. A field
  // `content` here (null, or a list of parts) takes the place of the string above.
  nlohmann::ordered_json extra = nullptr;
};

struct ChatTemplateInput {
  std::vector<ChatMessage> messages;
  bool add_generation_prompt = true;
  nlohmann::ordered_json tools = nullptr;  // a list of tool schemas; null: none
  // Text of special tokens, trusted as the template itself. An empty one is the empty string there.
  std::string bos_token;
  std::string eos_token;
  // An object of further variables (enable_thinking, documents ...), or null.
  nlohmann::ordered_json variables = nullptr;
  // What strftime_now shows: seconds since 1970, shown as UTC. For local time add its offset.
  std::time_t now = 0;
};

}  // namespace sluice

#endif  // SLUICE_LOADERS_CHAT_TEMPLATE_CHAT_TEMPLATE_INPUT_H_
