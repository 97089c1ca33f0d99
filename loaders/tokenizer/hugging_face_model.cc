#include "loaders/tokenizer/hugging_face_model.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "loaders/tokenizer/hugging_face_steps.h"

namespace sluice {
namespace {

Status Corrupt(std::string what) { return Status(ErrorCode::kCorrupt, std::move(what)); }
Status Unsupported(std::string what) { return Status(ErrorCode::kUnsupported, std::move(what)); }

Status ReadVocabulary(const JsonValue& model, size_t added_tokens, TokenizerSpec* spec,
                      TokenIdsByText* ids) {
  const JsonValue* vocabulary = FindMember(model, "vocab");
  if (vocabulary == nullptr || !vocabulary->is_object()) return Corrupt("no vocabulary");
  // Vocabularies may have gaps, but not so large that ids without tokens take the memory.
  const size_t limit = vocabulary->size() * 4 + 1024;
  ids->reserve(vocabulary->size());
  int32_t highest = -1;
  for (const auto& [text, value] : vocabulary->members()) {
    const std::optional<int32_t> id = AsTokenId(value);
    if (!id || static_cast<size_t>(*id) >= limit) {
      return Corrupt("id of token '" + std::string(text) + "'");
    }
    highest = std::max(highest, *id);
  }
  spec->tokens.reserve(static_cast<size_t>(highest) + 1 + added_tokens);
  for (const auto& [text, value] : vocabulary->members()) {
    Status s = PlaceToken(std::string(text), *AsTokenId(value), spec, ids);
    if (!s.ok()) return s;
  }
  return {};
}

// "a b", or ["a", "b"] since tokenizers 0.20.
Status SplitMerge(const JsonValue& merge, std::string* left, std::string* right) {
  if (merge.is_string()) {
    const std::string_view text = merge.AsString();
    const size_t space = text.find(' ');
    if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) {
      return Corrupt("merge '" + std::string(text) + "'");
    }
    *left = text.substr(0, space);
    *right = text.substr(space + 1);
    return {};
  }
  const auto is_string = [](const JsonValue& part) { return part.is_string(); };
  const auto parts = merge.elements();
  if (merge.size() != 2 || !is_string(*parts.begin()) || !is_string(*++parts.begin())) {
    return Corrupt("merge that is not two strings");
  }
  *left = parts.begin()->AsString();
  *right = (++parts.begin())->AsString();
  return {};
}

Status ReadMerges(const JsonValue& model, const TokenIdsByText& ids, TokenizerSpec* spec) {
  const JsonValue* merges = FindMember(model, "merges");
  if (merges == nullptr || !merges->is_array()) return Corrupt("no merges");
  spec->merges.reserve(merges->size());
  std::string left, right;
  for (const JsonValue& merge : merges->elements()) {
    if (Status s = SplitMerge(merge, &left, &right); !s.ok()) return s;
    const auto left_id = ids.find(left);
    const auto right_id = ids.find(right);
    if (left_id == ids.end() || right_id == ids.end()) {
      return Corrupt("merge of '" + left + "' and '" + right + "' names an absent token");
    }
    spec->merges.push_back({left_id->second, right_id->second});
  }
  return {};
}

Status CheckBpeOptions(const JsonValue& model) {
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    std::string affix;
    if (Status s = ReadString(model, key, &affix); !s.ok()) return s;
    if (!affix.empty()) return Unsupported("model with " + std::string(key));
  }
  const JsonValue* dropout = FindMember(model, "dropout");
  if (dropout != nullptr && !(dropout->is_number() && dropout->AsDouble() == 0)) {
    return Unsupported("model with dropout");
  }
  return {};
}

Status ReadBpe(const JsonValue& model, size_t added_tokens, TokenizerSpec* spec,
               TokenIdsByText* ids) {
  if (Status s = CheckBpeOptions(model); !s.ok()) return s;
  if (Status s = ReadVocabulary(model, added_tokens, spec, ids); !s.ok()) return s;
  if (Status s = ReadMerges(model, *ids, spec); !s.ok()) return s;
  std::string unknown;
  if (Status s = ReadString(model, "unk_token", &unknown); !s.ok()) return s;
  if (!unknown.empty()) {
    const auto found = ids->find(unknown);
    if (found == ids->end()) return Corrupt("unk_token is not in the vocabulary");
    spec->unknown_id = found->second;
  }
  if (Status s = ReadFlag(model, "fuse_unk", false, &spec->fuse_unknown); !s.ok()) return s;
  return ReadFlag(model, "ignore_merges", false, &spec->ignore_merges);
}

// "vocab": [["<unk>", 0.0], ["a", -3.5], ...]
Status ReadUnigram(const JsonValue& model, size_t added_tokens, TokenizerSpec* spec,
                   TokenIdsByText* ids) {
  spec->model = TokenModel::kUnigram;
  spec->fuse_unknown = true;
  const JsonValue* vocabulary = FindMember(model, "vocab");
  if (vocabulary == nullptr || !vocabulary->is_array()) return Corrupt("no vocabulary");
  if (vocabulary->size() > INT32_MAX) return Corrupt("too many tokens");
  ids->reserve(vocabulary->size());
  spec->tokens.reserve(vocabulary->size() + added_tokens);
  spec->scores.reserve(vocabulary->size());
  for (const JsonValue& entry : vocabulary->elements()) {
    const auto text = entry.elements().begin();
    if (!entry.is_array() || entry.size() != 2 || !text->is_string()) {
      return Corrupt("token " + std::to_string(spec->tokens.size()) + " is not [text, score]");
    }
    auto score = text;
    if (!(++score)->is_number()) {
      return Corrupt("token " + std::to_string(spec->tokens.size()) + " is not [text, score]");
    }
    spec->tokens.emplace_back(text->AsString());
    spec->scores.push_back(score->AsDouble());
    ids->emplace(spec->tokens.back(), static_cast<int32_t>(spec->tokens.size() - 1));
  }
  if (const JsonValue* unknown = FindMember(model, "unk_id")) {
    spec->unknown_id = AsTokenId(*unknown);
    if (!spec->unknown_id) return Corrupt("'unk_id'");
  }
  return {};
}

}  // namespace

Status PlaceToken(const std::string& text, int32_t id, TokenizerSpec* spec, TokenIdsByText* ids) {
  const auto index = static_cast<size_t>(id);
  if (spec->tokens.size() <= index) spec->tokens.resize(index + 1);
  if (!spec->tokens[index].empty()) {
    return Corrupt("tokens '" + spec->tokens[index] + "' and '" + text + "' have the id " +
                   std::to_string(id));
  }
  spec->tokens[index] = text;
  ids->emplace(text, id);
  return {};
}

Status ReadHuggingFaceModel(const JsonValue& model, size_t added_tokens, TokenizerSpec* spec,
                            TokenIdsByText* ids, size_t* vocabulary_size) {
  // Files older than the field "type" have BPE models with merges.
  const std::string type = TypeOf(model);
  Status s;
  if (type == "Unigram") {
    s = ReadUnigram(model, added_tokens, spec, ids);
  } else if (type == "BPE" || (type.empty() && FindMember(model, "merges") != nullptr)) {
    s = ReadBpe(model, added_tokens, spec, ids);
  } else {
    return Unsupported("model '" + type + "'");
  }
  if (!s.ok()) return s;
  *vocabulary_size = FindMember(model, "vocab")->size();
  return ReadFlag(model, "byte_fallback", false, &spec->byte_fallback);
}

}  // namespace sluice
