#include "loaders/tokenizer/hugging_face_post_processor.h"

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "loaders/tokenizer/hugging_face_steps.h"

namespace sluice {
namespace {

constexpr size_t kMaxTemplatePieces = 256;

Status Corrupt(std::string what) { return Status(ErrorCode::kCorrupt, std::move(what)); }
Status Unsupported(std::string what) { return Status(ErrorCode::kUnsupported, std::move(what)); }

Status AppendTemplateIds(const JsonValue& processor, const std::string& name,
                         std::vector<int32_t>* ids) {
  const JsonValue* specials = FindMember(processor, "special_tokens");
  const JsonValue* special = specials == nullptr ? nullptr : FindMember(*specials, name);
  const JsonValue* list = special == nullptr ? nullptr : FindMember(*special, "ids");
  if (list == nullptr || !list->is_array()) return Corrupt("template token '" + name + "'");
  for (const JsonValue& value : list->elements()) {
    const std::optional<int32_t> id = AsTokenId(value);
    if (!id) return Corrupt("id of template token '" + name + "'");
    ids->push_back(*id);
  }
  return {};
}

// "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}], with the ids of the
// names in "special_tokens".
Status ReadTemplate(const JsonValue& processor, TokenizerSpec* spec) {
  const JsonValue* single = FindMember(processor, "single");
  if (single == nullptr || !single->is_array()) return Corrupt("post-processor without 'single'");
  // Each piece is looked up among all special tokens.
  if (single->size() > kMaxTemplatePieces) return Unsupported("template of too many pieces");
  std::vector<int32_t> prefix, suffix;
  int sequences = 0;
  for (const JsonValue& piece : single->elements()) {
    if (FindMember(piece, "Sequence") != nullptr) {
      ++sequences;
      continue;
    }
    const JsonValue* special = FindMember(piece, "SpecialToken");
    std::string name;
    if (special == nullptr) return Corrupt("piece of a template");
    if (Status s = ReadString(*special, "id", &name); !s.ok()) return s;
    Status s = AppendTemplateIds(processor, name, sequences == 0 ? &prefix : &suffix);
    if (!s.ok()) return s;
  }
  if (sequences != 1) return Unsupported("template with " + std::to_string(sequences) + " texts");
  spec->prefix_ids.insert(spec->prefix_ids.begin(), prefix.begin(), prefix.end());
  spec->suffix_ids.insert(spec->suffix_ids.end(), suffix.begin(), suffix.end());
  return {};
}

Status ReadProcessor(const JsonValue& processor, TokenizerSpec* spec) {
  const std::string type = TypeOf(processor);
  if (type == "ByteLevel") return {};  // it moves offsets, not ids
  if (type == "TemplateProcessing") return ReadTemplate(processor, spec);
  if (type != "BertProcessing" && type != "RobertaProcessing") {
    return Unsupported("post-processor '" + type + "'");
  }
  for (const bool first : {true, false}) {  // ["</s>", 2]
    const JsonValue* pair = FindMember(processor, first ? "cls" : "sep");
    const bool valid = pair != nullptr && pair->is_array() && pair->size() == 2;
    const std::optional<int32_t> id = valid ? AsTokenId(*++pair->elements().begin()) : std::nullopt;
    if (!id) return Corrupt("post-processor " + type);
    if (first) spec->prefix_ids.insert(spec->prefix_ids.begin(), *id);
    if (!first) spec->suffix_ids.push_back(*id);
  }
  return {};
}

}  // namespace

Status ReadPostProcessor(const JsonValue& processor, TokenizerSpec* spec) {
  if (TypeOf(processor) != "Sequence") return ReadProcessor(processor, spec);
  const JsonValue* members = FindMember(processor, "processors");
  if (members == nullptr || !members->is_array()) return Corrupt("post-processor Sequence");
  for (const JsonValue& member : members->elements()) {
    if (Status s = ReadProcessor(member, spec); !s.ok()) return s;
  }
  return {};
}

}  // namespace sluice
