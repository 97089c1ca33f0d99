// Chat templates, rendered with one conversation that has a bit of everything. What is rendered
// must keep to its limits and be cut into runs as promised.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "loaders/chat_template/chat_template.h"
#include "loaders/chat_template/chat_template_input.h"
#include "tests/fuzz/measured_input.h"

namespace {

using namespace sluice;

void Require(bool promise) {
  if (!promise) std::abort();
}

ChatTemplateInput Conversation() {
  ChatTemplateInput input;
  input.messages.push_back({"system", "You are terse.", nullptr});
  input.messages.push_back({"user", " What's up\n\"here\"? \xc3\xbc\xff ", nullptr});
  input.messages.push_back(
      {"assistant",
       "",
       {{"tool_calls", {{{"function", {{"name", "f"}, {"arguments", {{"x", 1.5}}}}}}}}}});
  input.messages.push_back({"tool", "{\"y\": [1, null]}", {{"name", "f"}}});
  input.tools = {{{"type", "function"}, {"function", {{"name", "f"}, {"parameters", {{"a", 1}}}}}}};
  input.bos_token = "<s>";
  input.eos_token = "</s>";
  return input;
}

Result<ChatTemplate> Parse(std::string source) {
  const MeasuredInput measured(source.size());
  return ChatTemplate::Parse(std::move(source));
}

constexpr size_t kRenderingBytes = 32 << 20;

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const ChatTemplateInput input = Conversation();
  Result<ChatTemplate> parsed = Parse({reinterpret_cast<const char*>(data), size});
  if (!parsed.ok()) return 0;
  ChatTemplateLimits limits;
  limits.max_steps = 20'000;
  limits.max_output_bytes = 1 << 16;
  limits.max_copied_bytes = 1 << 22;
  // What a template makes is bounded by its limits, not by its size.
  const MeasuredInput measured(size, 0, kRenderingBytes);
  const Result<std::vector<TemplateRun>> runs = parsed->Render(input, limits);
  if (!runs.ok()) {
    Require(runs.status().code() != ErrorCode::kInternal);
    return 0;
  }
  size_t bytes = 0;
  for (size_t i = 0; i < runs->size(); ++i) {
    Require(!(*runs)[i].text.empty());
    Require(i == 0 || (*runs)[i].from_user != (*runs)[i - 1].from_user);
    bytes += (*runs)[i].text.size();
  }
  Require(bytes <= limits.max_output_bytes);
  return 0;
}
