// The language model of checkpoints that also read images: a configuration of its own, text_config.
#include <fmt/format.h>

#include <string>

#include "formats/quote.h"
#include "loaders/hf_architectures.h"
#include "loaders/hf_readers.h"

namespace sluice {
namespace {

using Json = nlohmann::json;

// Types that such checkpoints have, with the sizes that are left out where they are the class's.
struct TextType {
  const char* model_type;
  int64_t vocab_size, hidden_size, intermediate_size;
};
constexpr TextType kTextTypes[] = {
    {"llama", 32000, 4096, 11008}, {"mistral", 32000, 4096, 14336}, {"qwen2", 151936, 4096, 22016}};

Status ReadText(const Json& text, const std::string& type, ModelConfig* model) {
  std::string known;
  for (const TextType& entry : kTextTypes) {
    known += (known.empty() ? "" : ", ") + std::string(entry.model_type);
    if (type != entry.model_type) continue;
    Json full = {{"vocab_size", entry.vocab_size},
                 {"hidden_size", entry.hidden_size},
                 {"intermediate_size", entry.intermediate_size},
                 {"num_hidden_layers", 32},
                 {"num_attention_heads", 32}};
    full.update(text);
    for (const HuggingFaceArchitecture& architecture : HuggingFaceArchitectures()) {
      if (type != architecture.model_type) continue;
      model->architecture = architecture.architecture;
      return architecture.read(full, model);
    }
  }
  return {ErrorCode::kUnsupported,
          fmt::format("model_type {} is not supported here; supported: {}", Quoted(type), known)};
}

// `ties`: what the class assumes of tie_word_embeddings where neither part has it.
Status ReadTextPart(const Json& json, const char* usual_type, bool ties, ModelConfig* model) {
  const auto text = json.find("text_config");
  if (text == json.end() || !text->is_object()) {
    return {ErrorCode::kCorrupt, "text_config is missing or not an object"};
  }
  FieldReader outer(json, "");
  FieldReader inner(*text, "text_config.");
  const std::string type = inner.String("model_type", usual_type);
  ties = outer.Bool("tie_word_embeddings", inner.Find("tie_word_embeddings") == nullptr && ties);
  for (const FieldReader* fields : {&outer, &inner}) {
    if (!fields->status().ok()) return fields->status();
  }
  if (Status s = ReadText(*text, type, model); !s.ok()) return s.WithContext("text_config");
  model->tie_embeddings = model->tie_embeddings || ties;
  return {};
}

}  // namespace

Status ReadLlava(const Json& json, ModelConfig* model) {
  return ReadTextPart(json, "llama", /*ties=*/false, model);
}

Status ReadMistral3(const Json& json, ModelConfig* model) {
  return ReadTextPart(json, "mistral", /*ties=*/true, model);
}

}  // namespace sluice
