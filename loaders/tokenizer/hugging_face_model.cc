#include "loaders/tokenizer/hugging_face_model.h"

#include <optional>
#include <utility>

#include "loaders/tokenizer/hugging_face_steps.h"

namespace sluice {
namespace {

Status Corrupt(std::string what) { return Status(ErrorCode::kCorrupt, std::move(what)); }
Status Unsupported(std::string what) { return Status(ErrorCode::kUnsupported, std::move(what)); }

Status ReadVocabulary(const Json& model, TokenizerSpec* spec, TokenIdsByText* ids) {
  const Json* vocabulary = FindMember(model, "vocab");
  if (vocabulary == nullptr || !vocabulary->is_object()) return Corrupt("no vocabulary");
  // Vocabularies may have gaps, but not so large that ids without tokens take the memory.
  const size_t limit = vocabulary->size() * 4 + 65536;
  ids->reserve(vocabulary->size());
  for (const auto& [text, value] : vocabulary->items()) {
    const std::optional<int32_t> id = AsTokenId(value);
    if (!id || static_cast<size_t>(*id) >= limit) return Corrupt("id of token '" + text + "'");
    if (Status s = PlaceToken(text, *id, spec, ids); !s.ok()) return s;
  }
  return {};
}

// "a b", or ["a", "b"] since tokenizers 0.20.
Status SplitMerge(const Json& merge, std::string* left, std::string* right) {
  if (merge.is_string()) {
    const auto& text = merge.get_ref<const std::string&>();
    const size_t space = text.find(' ');
    if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) {
      return Corrupt("merge '" + text + "'");
    }
    *left = text.substr(0, space);
    *right = text.substr(space + 1);
    return {};
  }
  if (!merge.is_array() || merge.size() != 2 || !merge[0].is_string() || !merge[1].is_string()) {
    return Corrupt("merge that is not two strings");
  }
  *left = merge[0].get<std::string>();
  *right = merge[1].get<std::string>();
  return {};
}

Status ReadMerges(const Json& model, const TokenIdsByText& ids, TokenizerSpec* spec) {
  const Json* merges = FindMember(model, "merges");
  if (merges == nullptr || !merges->is_array()) return Corrupt("no merges");
  spec->merges.reserve(merges->size());
  std::string left, right;
  for (const Json& merge : *merges) {
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

Status CheckBpeOptions(const Json& model) {
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    std::string affix;
    if (Status s = ReadString(model, key, &affix); !s.ok()) return s;
    if (!affix.empty()) return Unsupported("model with " + std::string(key));
  }
  const Json* dropout = FindMember(model, "dropout");
  if (dropout != nullptr && !(dropout->is_number() && dropout->get<double>() == 0)) {
    return Unsupported("model with dropout");
  }
  return {};
}

Status ReadBpe(const Json& model, TokenizerSpec* spec, TokenIdsByText* ids) {
  if (Status s = CheckBpeOptions(model); !s.ok()) return s;
  if (Status s = ReadVocabulary(model, spec, ids); !s.ok()) return s;
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
Status ReadUnigram(const Json& model, TokenizerSpec* spec, TokenIdsByText* ids) {
  spec->model = TokenModel::kUnigram;
  spec->fuse_unknown = true;
  const Json* vocabulary = FindMember(model, "vocab");
  if (vocabulary == nullptr || !vocabulary->is_array()) return Corrupt("no vocabulary");
  if (vocabulary->size() > INT32_MAX) return Corrupt("too many tokens");
  for (const Json& entry : *vocabulary) {
    if (!entry.is_array() || entry.size() != 2 || !entry[0].is_string() || !entry[1].is_number()) {
      return Corrupt("token " + std::to_string(spec->tokens.size()) + " is not [text, score]");
    }
    spec->tokens.push_back(entry[0].get<std::string>());
    spec->scores.push_back(entry[1].get<double>());
    ids->emplace(spec->tokens.back(), static_cast<int32_t>(spec->tokens.size() - 1));
  }
  if (const Json* unknown = FindMember(model, "unk_id")) {
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

Status ReadHuggingFaceModel(const Json& model, TokenizerSpec* spec, TokenIdsByText* ids,
                            size_t* vocabulary_size) {
  // Files older than the field "type" have BPE models with merges.
  const std::string type = TypeOf(model);
  Status s;
  if (type == "Unigram") {
    s = ReadUnigram(model, spec, ids);
  } else if (type == "BPE" || (type.empty() && FindMember(model, "merges") != nullptr)) {
    s = ReadBpe(model, spec, ids);
  } else {
    return Unsupported("model '" + type + "'");
  }
  if (!s.ok()) return s;
  *vocabulary_size = FindMember(model, "vocab")->size();
  return ReadFlag(model, "byte_fallback", false, &spec->byte_fallback);
}

}  // namespace sluice
