// The chat template of a checkpoint, wherever it lies. Private to loaders.
#ifndef SLUICE_LOADERS_CHECKPOINT_TEMPLATE_H_
#define SLUICE_LOADERS_CHECKPOINT_TEMPLATE_H_

#include <string>

#include "formats/gguf.h"
#include "formats/status.h"

namespace sluice {

// One template out of the two that some checkpoints have: renders as `tool_use` where tools are
// given and as `standard` otherwise, to the byte, as transformers chooses. A `tool_use` that is not
// understood is an error of the renderings that need it only.
std::string TemplateByTools(const std::string& standard, const std::string& tool_use);

// In transformers' order: chat_template.jinja with additional_chat_templates/tool_use.jinja;
// chat_template of tokenizer_config.json, a text or a list of named ones; chat_template.json, which
// belongs to the part for images. "": there is none. Errors: kIo, kCorrupt, naming the file.
Result<std::string> ChatTemplateOfHuggingFace(const std::string& directory);

// tokenizer.chat_template and tokenizer.chat_template.tool_use. Errors: kCorrupt.
Result<std::string> ChatTemplateOfGguf(const GgufFile& gguf);

}  // namespace sluice

#endif  // SLUICE_LOADERS_CHECKPOINT_TEMPLATE_H_
