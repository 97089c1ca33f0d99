// Reads tokenizer.json (and the small files beside it) of a Hugging Face checkpoint.
#include <algorithm>
#include <string>
#include <unordered_map>
#include <utility>

#include "loaders/tokenizer/hugging_face_steps.h"
#include "loaders/tokenizer/json_fields.h"
#include "loaders/tokenizer/tokenizer_factory.h"

namespace sluice {
namespace {

Status Corrupt(std::string what) { return Status(ErrorCode::kCorrupt, std::move(what)); }
Status Unsupported(std::string what) { return Status(ErrorCode::kUnsupported, std::move(what)); }

class Reader {
 public:
  Result<TokenizerSpec> Read(const HuggingFaceTokenizerFiles& files) {
    Result<Json> json = ParseJsonObject(files.tokenizer_json, "tokenizer.json");
    if (!json.ok()) return json.status();
    for (const auto read : {&Reader::ReadModel, &Reader::ReadSteps, &Reader::ReadAddedTokens,
                            &Reader::ReadPostProcessor}) {
      if (Status s = (this->*read)(*json); !s.ok()) return s.WithContext("tokenizer.json");
    }
    if (Status s = ReadSideFiles(files); !s.ok()) return s;
    return std::move(spec_);
  }

 private:
  Status ReadModel(const Json& json) {
    const Json* model = FindMember(json, "model");
    if (model == nullptr || !model->is_object()) return Corrupt("no model");
    // Files older than the field "type" have BPE models with merges.
    const std::string type = TypeOf(*model);
    if (type != "BPE" && !(type.empty() && FindMember(*model, "merges") != nullptr)) {
      return Unsupported("model '" + type + "'");
    }
    if (Status s = CheckModelOptions(*model); !s.ok()) return s;
    if (Status s = ReadVocabulary(*model); !s.ok()) return s;
    if (Status s = ReadMerges(*model); !s.ok()) return s;
    std::string unknown;
    if (Status s = ReadString(*model, "unk_token", &unknown); !s.ok()) return s;
    if (!unknown.empty()) {
      const auto found = ids_.find(unknown);
      if (found == ids_.end()) return Corrupt("unk_token is not in the vocabulary");
      spec_.unknown_id = found->second;
    }
    if (Status s = ReadFlag(*model, "fuse_unk", false, &spec_.fuse_unknown); !s.ok()) return s;
    return ReadFlag(*model, "ignore_merges", false, &spec_.ignore_merges);
  }

  static Status CheckModelOptions(const Json& model) {
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      std::string affix;
      if (Status s = ReadString(model, key, &affix); !s.ok()) return s;
      if (!affix.empty()) return Unsupported("model with " + std::string(key));
    }
    const Json* dropout = FindMember(model, "dropout");
    if (dropout != nullptr && !(dropout->is_number() && dropout->get<double>() == 0)) {
      return Unsupported("model with dropout");
    }
    bool byte_fallback = false;
    if (Status s = ReadFlag(model, "byte_fallback", false, &byte_fallback); !s.ok()) return s;
    return byte_fallback ? Unsupported("model with byte_fallback") : Status();
  }

  Status ReadVocabulary(const Json& model) {
    const Json* vocabulary = FindMember(model, "vocab");
    if (vocabulary == nullptr || !vocabulary->is_object()) return Corrupt("no vocabulary");
    vocabulary_size_ = vocabulary->size();
    // Vocabularies may have gaps, but not so large that ids without tokens take the memory.
    const size_t limit = vocabulary_size_ * 4 + 65536;
    ids_.reserve(vocabulary_size_);
    for (const auto& [text, value] : vocabulary->items()) {
      const std::optional<int32_t> id = AsTokenId(value);
      if (!id || static_cast<size_t>(*id) >= limit) return Corrupt("id of token '" + text + "'");
      if (Status s = Place(text, *id); !s.ok()) return s;
    }
    return {};
  }

  Status Place(const std::string& text, int32_t id) {
    const auto index = static_cast<size_t>(id);
    if (spec_.tokens.size() <= index) spec_.tokens.resize(index + 1);
    if (!spec_.tokens[index].empty()) {
      return Corrupt("tokens '" + spec_.tokens[index] + "' and '" + text + "' have the id " +
                     std::to_string(id));
    }
    spec_.tokens[index] = text;
    ids_.emplace(text, id);
    return {};
  }

  // "a b", or ["a", "b"] since tokenizers 0.20.
  Status ReadMerges(const Json& model) {
    const Json* merges = FindMember(model, "merges");
    if (merges == nullptr || !merges->is_array()) return Corrupt("no merges");
    spec_.merges.reserve(merges->size());
    for (const Json& merge : *merges) {
      std::string left, right;
      if (merge.is_string()) {
        const auto& text = merge.get_ref<const std::string&>();
        const size_t space = text.find(' ');
        if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) {
          return Corrupt("merge '" + text + "'");
        }
        left = text.substr(0, space);
        right = text.substr(space + 1);
      } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
                 merge[1].is_string()) {
        left = merge[0].get<std::string>();
        right = merge[1].get<std::string>();
      } else {
        return Corrupt("merge " + std::to_string(spec_.merges.size()) + " is not two strings");
      }
      const auto left_id = ids_.find(left);
      const auto right_id = ids_.find(right);
      if (left_id == ids_.end() || right_id == ids_.end()) {
        return Corrupt("merge of '" + left + "' and '" + right + "' names an absent token");
      }
      spec_.merges.push_back({left_id->second, right_id->second});
    }
    return {};
  }

  Status ReadSteps(const Json& json) {
    if (const Json* normalizer = FindMember(json, "normalizer")) {
      if (Status s = ReadNormalizer(*normalizer, &spec_.normalizer); !s.ok()) return s;
    }
    const Json* pre_tokenizer = FindMember(json, "pre_tokenizer");
    if (pre_tokenizer == nullptr) return Unsupported("no pre-tokenizer");
    if (Status s = ReadPreTokenizer(*pre_tokenizer, &spec_.pre_tokenizer); !s.ok()) return s;
    const Json* decoder = FindMember(json, "decoder");
    return decoder == nullptr ? Unsupported("no decoder") : CheckDecoder(*decoder);
  }

  Status ReadAddedTokens(const Json& json) {
    const Json* added = FindMember(json, "added_tokens");
    if (added == nullptr) return {};
    if (!added->is_array()) return Corrupt("'added_tokens' is not a list");
    for (const Json& entry : *added) {
      AddedToken token;
      if (Status s = ReadAddedToken(entry, &token); !s.ok()) return s;
      if (Status s = AddToken(std::move(token)); !s.ok()) return s;
    }
    return {};
  }

  static Status ReadAddedToken(const Json& entry, AddedToken* token) {
    if (!entry.is_object()) return Corrupt("added token is not an object");
    if (Status s = ReadString(entry, "content", &token->content); !s.ok()) return s;
    if (Status s = ReadFlag(entry, "special", false, &token->special); !s.ok()) return s;
    const bool normalized = !token->special;
    if (Status s = ReadFlag(entry, "single_word", false, &token->single_word); !s.ok()) return s;
    if (Status s = ReadFlag(entry, "lstrip", false, &token->lstrip); !s.ok()) return s;
    if (Status s = ReadFlag(entry, "rstrip", false, &token->rstrip); !s.ok()) return s;
    return ReadFlag(entry, "normalized", normalized, &token->normalized);
  }

  // `tokenizers` numbers an added token by itself: it has the id of the vocabulary if it is there,
  // else the next free one. The id in the file is information only.
  Status AddToken(AddedToken token) {
    if (token.content.empty()) return {};
    const auto [known, is_new] = added_.try_emplace(token.content, spec_.added_tokens.size());
    if (!is_new) {
      AddedToken& earlier = spec_.added_tokens[known->second];
      token.id = earlier.id;
      earlier = std::move(token);
      return {};
    }
    const auto found = ids_.find(token.content);
    if (found != ids_.end()) {
      token.id = found->second;
    } else {
      token.id = static_cast<int32_t>(std::max(vocabulary_size_, next_added_id_));
      if (Status s = Place(token.content, token.id); !s.ok()) return s;
    }
    next_added_id_ = std::max(next_added_id_, static_cast<size_t>(token.id) + 1);
    spec_.added_tokens.push_back(std::move(token));
    return {};
  }

  Status ReadPostProcessor(const Json& json) {
    const Json* processor = FindMember(json, "post_processor");
    if (processor == nullptr) return {};
    if (TypeOf(*processor) != "Sequence") return ReadProcessor(*processor);
    const Json* members = FindMember(*processor, "processors");
    if (members == nullptr || !members->is_array()) return Corrupt("post-processor Sequence");
    for (const Json& member : *members) {
      if (Status s = ReadProcessor(member); !s.ok()) return s;
    }
    return {};
  }

  Status ReadProcessor(const Json& processor) {
    const std::string type = TypeOf(processor);
    if (type == "ByteLevel") return {};  // it moves offsets, not ids
    if (type == "TemplateProcessing") return ReadTemplate(processor);
    if (type != "BertProcessing" && type != "RobertaProcessing") {
      return Unsupported("post-processor '" + type + "'");
    }
    for (const bool first : {true, false}) {  // ["</s>", 2]
      const Json* pair = FindMember(processor, first ? "cls" : "sep");
      const bool valid = pair != nullptr && pair->is_array() && pair->size() == 2;
      const std::optional<int32_t> id = valid ? AsTokenId((*pair)[1]) : std::nullopt;
      if (!id) return Corrupt("post-processor " + type);
      if (first) spec_.prefix_ids.insert(spec_.prefix_ids.begin(), *id);
      if (!first) spec_.suffix_ids.push_back(*id);
    }
    return {};
  }

  // "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}], with the ids of the
  // names in "special_tokens".
  Status ReadTemplate(const Json& processor) {
    const Json* single = FindMember(processor, "single");
    if (single == nullptr || !single->is_array()) return Corrupt("post-processor without 'single'");
    std::vector<int32_t> prefix, suffix;
    int sequences = 0;
    for (const Json& piece : *single) {
      if (FindMember(piece, "Sequence") != nullptr) {
        ++sequences;
        continue;
      }
      const Json* special = FindMember(piece, "SpecialToken");
      std::string name;
      if (special == nullptr) return Corrupt("piece of a template");
      if (Status s = ReadString(*special, "id", &name); !s.ok()) return s;
      Status s = AppendTemplateIds(processor, name, sequences == 0 ? &prefix : &suffix);
      if (!s.ok()) return s;
    }
    if (sequences != 1) return Unsupported("template with " + std::to_string(sequences) + " texts");
    spec_.prefix_ids.insert(spec_.prefix_ids.begin(), prefix.begin(), prefix.end());
    spec_.suffix_ids.insert(spec_.suffix_ids.end(), suffix.begin(), suffix.end());
    return {};
  }

  static Status AppendTemplateIds(const Json& processor, const std::string& name,
                                  std::vector<int32_t>* ids) {
    const Json* specials = FindMember(processor, "special_tokens");
    const Json* special = specials == nullptr ? nullptr : FindMember(*specials, name);
    const Json* list = special == nullptr ? nullptr : FindMember(*special, "ids");
    if (list == nullptr || !list->is_array()) return Corrupt("template token '" + name + "'");
    for (const Json& value : *list) {
      const std::optional<int32_t> id = AsTokenId(value);
      if (!id) return Corrupt("id of template token '" + name + "'");
      ids->push_back(*id);
    }
    return {};
  }

  Status ReadSideFiles(const HuggingFaceTokenizerFiles& files);
  Status ReadTokenizerConfig(const Json& config);
  Status AddNamedToken(const Json& file, std::string_view key, std::optional<int32_t>* id,
                       bool* named);
  bool IsToken(int32_t id) const {
    return static_cast<size_t>(id) < spec_.tokens.size() &&
           !spec_.tokens[static_cast<size_t>(id)].empty();
  }
  void AddEos(int32_t id) {
    std::vector<int32_t>& ids = spec_.eos_ids;
    if (std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(id);
  }
  void AddEosOf(const Json& file);

  TokenizerSpec spec_;
  std::unordered_map<std::string, int32_t> ids_;   // of all tokens, by text
  std::unordered_map<std::string, size_t> added_;  // where in spec_.added_tokens
  size_t vocabulary_size_ = 0;
  size_t next_added_id_ = 0;
};

// "bos_token": "<s>" or {"content": "<s>", ...}. A null says that there is none.
Status Reader::AddNamedToken(const Json& file, std::string_view key, std::optional<int32_t>* id,
                             bool* named) {
  if (*named || !file.contains(std::string(key))) return {};
  *named = true;
  const Json* value = FindMember(file, key);
  if (value == nullptr) return {};
  AddedToken token;
  if (value->is_string()) {
    token.content = value->get<std::string>();
  } else if (Status s = ReadAddedToken(*value, &token); !s.ok()) {
    return s.WithContext(std::string(key));
  }
  if (token.content.empty()) return {};
  if (!added_.contains(token.content)) {
    token.special = true;
    if (Status s = AddToken(token); !s.ok()) return s;
  }
  *id = ids_.at(token.content);
  return {};
}

void Reader::AddEosOf(const Json& file) {
  const Json* value = FindMember(file, "eos_token_id");
  if (value == nullptr) return;
  for (const Json& entry : value->is_array() ? *value : Json::array({*value})) {
    // Configurations name ids of the padded embedding at times; an id without a token ends nothing.
    const std::optional<int32_t> id = AsTokenId(entry);
    if (id && IsToken(*id)) AddEos(*id);
  }
}

Status Reader::ReadTokenizerConfig(const Json& config) {
  const Json* decoder = FindMember(config, "added_tokens_decoder");
  if (decoder == nullptr) return {};
  if (!decoder->is_object()) return Corrupt("'added_tokens_decoder' is not an object");
  std::vector<std::pair<int64_t, AddedToken>> tokens;
  for (const auto& [key, entry] : decoder->items()) {
    AddedToken token;
    if (Status s = ReadAddedToken(entry, &token); !s.ok()) return s;
    const bool number =
        !key.empty() && key.size() < 10 && key.find_first_not_of("0123456789") == std::string::npos;
    if (!number) return Corrupt("id '" + key + "' in 'added_tokens_decoder'");
    tokens.emplace_back(std::stoll(key), std::move(token));
  }
  const auto by_id = [](const auto& a, const auto& b) { return a.first < b.first; };
  std::sort(tokens.begin(), tokens.end(), by_id);
  for (auto& [id, token] : tokens) {
    if (added_.contains(token.content)) continue;
    if (Status s = AddToken(std::move(token)); !s.ok()) return s;
  }
  return {};
}

Status Reader::ReadSideFiles(const HuggingFaceTokenizerFiles& files) {
  const auto parse = [](std::string_view text, std::string_view name) -> Result<Json> {
    return text.empty() ? Result<Json>(Json::object()) : ParseJsonObject(text, name);
  };
  Result<Json> config = parse(files.tokenizer_config_json, "tokenizer_config.json");
  if (!config.ok()) return config.status();
  Result<Json> specials = parse(files.special_tokens_map_json, "special_tokens_map.json");
  if (!specials.ok()) return specials.status();
  Result<Json> generation = parse(files.generation_config_json, "generation_config.json");
  if (!generation.ok()) return generation.status();
  Result<Json> model = parse(files.config_json, "config.json");
  if (!model.ok()) return model.status();

  if (Status s = ReadTokenizerConfig(*config); !s.ok()) {
    return s.WithContext("tokenizer_config.json");
  }
  std::optional<int32_t> eos;
  bool bos_named = false;
  bool eos_named = false;
  for (const Json* file : {&*config, &*specials}) {
    if (Status s = AddNamedToken(*file, "bos_token", &spec_.bos_id, &bos_named); !s.ok()) return s;
    if (Status s = AddNamedToken(*file, "eos_token", &eos, &eos_named); !s.ok()) return s;
  }
  if (eos) AddEos(*eos);
  AddEosOf(*generation);
  AddEosOf(*model);
  if (!bos_named) {
    const Json* id = FindMember(*model, "bos_token_id");
    if (id == nullptr) id = FindMember(*generation, "bos_token_id");
    const std::optional<int32_t> value = id == nullptr ? std::nullopt : AsTokenId(*id);
    if (value && IsToken(*value)) spec_.bos_id = value;
  }
  // As transformers 5 does: where tokenizer_config.json says whether there is a BOS or EOS, it
  // overrules the post-processor.
  if (config->contains("add_bos_token") || config->contains("add_eos_token")) {
    bool add_bos = false;
    bool add_eos = false;
    if (Status s = ReadFlag(*config, "add_bos_token", false, &add_bos); !s.ok()) return s;
    if (Status s = ReadFlag(*config, "add_eos_token", false, &add_eos); !s.ok()) return s;
    spec_.prefix_ids.clear();
    spec_.suffix_ids.clear();
    if (add_bos && spec_.bos_id) spec_.prefix_ids.push_back(*spec_.bos_id);
    if (add_eos && eos) spec_.suffix_ids.push_back(*eos);
  }
  return {};
}

}  // namespace

Result<TokenizerSpec> ReadHuggingFaceTokenizer(const HuggingFaceTokenizerFiles& files) {
  return Reader().Read(files);
}

}  // namespace sluice
