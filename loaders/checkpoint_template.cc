#include "loaders/checkpoint_template.h"

#include <unistd.h>

#include <utility>

#include "formats/mapped_file.h"
#include "formats/strict_json.h"
#include "loaders/chat_template/chat_template.h"

namespace sluice {
namespace {

using Json = nlohmann::json;

constexpr uint64_t kMaxFileBytes = uint64_t{16} << 20;

struct NamedTemplates {
  std::string standard;
  std::string tool_use;
};

bool Exists(const std::string& path) { return access(path.c_str(), F_OK) == 0; }

// As Jinja reads a source: one line end at its end does not count.
std::string WithoutLastNewline(std::string source) {
  if (source.ends_with('\n')) source.pop_back();
  if (source.ends_with('\r')) source.pop_back();
  return source;
}

std::string Raise(const std::string& message) {
  std::string text;
  for (const char c : message) text += c == '"' || c == '\\' || c == '\n' ? ' ' : c;
  return "{{ raise_exception(\"" + text + "\") }}";
}

// The member chat_template of a JSON file: a text, or a list of {name, template}.
Result<NamedTemplates> TemplatesOfJson(const std::string& path) {
  Result<std::string> text = ReadWholeFile(path, kMaxFileBytes);
  if (!text.ok()) return text.status();
  Result<Json> config = ParseStrictJson(*text);
  if (!config.ok()) return config.status().WithContext(path);
  NamedTemplates templates;
  const auto found = config->is_object() ? config->find("chat_template") : config->end();
  if (found == config->end() || found->is_null()) return templates;
  if (found->is_string()) {
    templates.standard = found->get<std::string>();
    return templates;
  }
  const Status malformed(ErrorCode::kCorrupt,
                         path + ": chat_template is neither a string nor a list of named ones");
  if (!found->is_array()) return malformed;
  for (const Json& entry : *found) {
    const auto name = entry.is_object() ? entry.find("name") : entry.end();
    const auto source = entry.is_object() ? entry.find("template") : entry.end();
    if (name == entry.end() || source == entry.end() || !source->is_string()) return malformed;
    if (*name == "default") templates.standard = source->get<std::string>();
    if (*name == "tool_use") templates.tool_use = source->get<std::string>();
  }
  return templates;
}

Status ReadIfThere(const std::string& path, std::string* text) {
  if (!Exists(path)) return {};
  Result<std::string> read = ReadWholeFile(path, kMaxFileBytes);
  if (!read.ok()) return read.status();
  *text = *std::move(read);
  return {};
}

}  // namespace

std::string TemplateByTools(const std::string& standard, const std::string& tool_use) {
  // What does not parse by itself must not be able to spoil the other.
  if (standard.empty() || tool_use.empty() || !ChatTemplate::Parse(standard).ok()) return standard;
  const Status parsed = ChatTemplate::Parse(tool_use).status();
  const std::string with_tools = parsed.ok()
                                     ? WithoutLastNewline(tool_use)
                                     : Raise("the chat template for tools: " + parsed.message());
  // The line ends after the tags belong to them, so that each source begins at a line's beginning;
  // the signs keep the white space before the others.
  std::string both = "{% if tools is defined and tools is not none %}\n" + with_tools +
                     "{%+ else %}\n" + WithoutLastNewline(standard) + "{%+ endif %}";
  return ChatTemplate::Parse(both).ok() ? both : standard;
}

Result<std::string> ChatTemplateOfHuggingFace(const std::string& directory) {
  NamedTemplates templates;
  for (const auto& [name, text] :
       {std::pair("/chat_template.jinja", &templates.standard),
        std::pair("/additional_chat_templates/tool_use.jinja", &templates.tool_use)}) {
    if (Status s = ReadIfThere(directory + name, text); !s.ok()) return s;
  }
  for (const char* name : {"/tokenizer_config.json", "/chat_template.json"}) {
    if (!templates.standard.empty() || !Exists(directory + name)) continue;
    Result<NamedTemplates> read = TemplatesOfJson(directory + name);
    if (!read.ok()) return read.status();
    templates.standard = std::move(read->standard);
    if (templates.tool_use.empty()) templates.tool_use = std::move(read->tool_use);
  }
  return TemplateByTools(templates.standard, templates.tool_use);
}

Result<std::string> ChatTemplateOfGguf(const GgufFile& gguf) {
  NamedTemplates templates;
  for (const auto& [key, text] :
       {std::pair("tokenizer.chat_template", &templates.standard),
        std::pair("tokenizer.chat_template.tool_use", &templates.tool_use)}) {
    if (!gguf.Has(key)) continue;
    Result<std::string> read = gguf.GetString(key);
    if (!read.ok()) return read.status();
    *text = *std::move(read);
  }
  return TemplateByTools(templates.standard, templates.tool_use);
}

}  // namespace sluice
