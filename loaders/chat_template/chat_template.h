// Chat templates: the Jinja subset that checkpoints carry in `chat_template`, rendered as
// transformers renders it (jinja2 ImmutableSandboxedEnvironment, trim_blocks, lstrip_blocks, loop
// controls, and the names raise_exception, strftime_now and tojson).
//
// A template comes from a stranger and runs within budgets: it cannot loop for ever, exhaust memory
// or reach anything but its input. Text keeps its origin through every string operation, so that a
// tokenizer can refuse to read special tokens in what a user wrote.
#ifndef SLUICE_LOADERS_CHAT_TEMPLATE_CHAT_TEMPLATE_H_
#define SLUICE_LOADERS_CHAT_TEMPLATE_CHAT_TEMPLATE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "formats/status.h"

namespace sluice {

// A piece of the rendered text.
struct TemplateRun {
  std::string text;
  // The text came out of a message, a tool or a variable: special tokens must not be parsed in it.
  bool from_user = false;

  bool operator==(const TemplateRun&) const = default;
};

struct ChatTemplateInput;  // chat_template_input.h

// Bounds on one rendering. The defaults leave a thousand messages ample room.
struct ChatTemplateLimits {
  uint64_t max_steps = 500'000;                   // expressions, statements and visited elements
  uint64_t max_output_bytes = uint64_t{1} << 20;  // also of any one string on the way
  uint64_t max_copied_bytes = uint64_t{1} << 28;  // of all strings and lists made, together
};

// A parsed template: immutable, may be rendered by many threads at a time.
class ChatTemplate {
 public:
  // Templates longer than this are refused.
  static constexpr size_t kMaxSourceBytes = size_t{1} << 18;

  // Errors name the line. kInvalidArgument: not Jinja. kUnsupported: Jinja that no chat template
  // needs (include, block ...). kLimitExceeded: too long, too deeply nested, or so many expressions
  // that their tree would take more than 16 times the size of the source and 64 KiB.
  static Result<ChatTemplate> Parse(std::string source);

  // Returns the text as runs; neighbours differ in origin, and none is empty. A message's role
  // counts as the template's own when it is a plain word ([A-Za-z0-9_-], 64 bytes at most), because
  // templates build special tokens from it; all other strings of the input count as the user's.
  // Errors name the line. kInvalidArgument: raise_exception, with its text, or an operation that
  // fails in Jinja too. kUnsupported: a filter, test or function that is missing here.
  // kLimitExceeded: a budget is spent.
  Result<std::vector<TemplateRun>> Render(const ChatTemplateInput& input,
                                          const ChatTemplateLimits& limits = {}) const;

 private:
  struct Parsed;
  explicit ChatTemplate(std::shared_ptr<const Parsed> parsed);

  std::shared_ptr<const Parsed> parsed_;
};

}  // namespace sluice

#endif  // SLUICE_LOADERS_CHAT_TEMPLATE_CHAT_TEMPLATE_H_
