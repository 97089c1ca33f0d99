// Reads tokenizer.json or tokenizer.model, and the small files beside it, of a Hugging Face
// checkpoint.
#include <algorithm>
#include <limits>
#include <string>
#include <unordered_map>
#include <utility>

#include "loaders/tokenizer/hugging_face_model.h"
#include "loaders/tokenizer/hugging_face_post_processor.h"
#include "loaders/tokenizer/hugging_face_steps.h"
#include "loaders/tokenizer/json_fields.h"
#include "loaders/tokenizer/memory_bound.h"
#include "loaders/tokenizer/tokenizer_factory.h"

namespace sluice {
namespace {

Status Corrupt(std::string what) { return Status(ErrorCode::kCorrupt, std::move(what)); }
Status Unsupported(std::string what) { return Status(ErrorCode::kUnsupported, std::move(what)); }

class Reader {
 public:
  Result<TokenizerSpec> Read(const HuggingFaceTokenizerFiles& files) {
    max_bytes_ = files.max_memory_bytes;
    input_bytes_ = files.tokenizer_json.size() + files.sentencepiece_model.size() +
                   files.tokenizer_config_json.size() + files.special_tokens_map_json.size() +
                   files.generation_config_json.size() + files.config_json.size() +
                   files.added_tokens_json.size();
    if (files.tokenizer_json.empty() && !files.sentencepiece_model.empty()) {
      if (Status s = ReadSentencePiece(files.sentencepiece_model); !s.ok()) {
        return s.WithContext("tokenizer.model");
      }
    } else if (Status s = ReadTokenizerJson(files.tokenizer_json); !s.ok()) {
      return s.WithContext("tokenizer.json");
    }
    if (Status s = ReadSideFiles(files); !s.ok()) return s;
    DropAddedTokensFrom(files.most_tokens);
    if (!spec_.scores.empty()) {
      spec_.scores.resize(spec_.tokens.size(), -std::numeric_limits<double>::infinity());
    }
    Status s = CheckMemory(BytesToBuild(CountsOf(spec_)), input_bytes_, max_bytes_);
    if (!s.ok()) return s;
    return std::move(spec_);
  }

 private:
  Status ReadTokenizerJson(std::string_view text) {
    uint64_t needed = JsonTreeBytes(text);
    if (Status s = CheckMemory(needed, input_bytes_, max_bytes_); !s.ok()) return s;
    Result<JsonDocument> json = ParseJsonObject(text, "the file");
    if (!json.ok()) return json.status();
    needed += BytesToRead(CountsIn(json->root()));
    if (Status s = CheckMemory(needed, input_bytes_, max_bytes_); !s.ok()) return s;
    for (const auto read : {&Reader::ReadModel, &Reader::ReadSteps, &Reader::ReadAddedTokens,
                            &Reader::ReadPostProcessing}) {
      if (Status s = (this->*read)(json->root()); !s.ok()) return s;
    }
    return {};
  }

  static TokenizerCounts CountsIn(const JsonValue& json) {
    const auto size = [](const JsonValue& object, const char* key) {
      const JsonValue* list = FindMember(object, key);
      return list == nullptr ? 0 : list->size();
    };
    TokenizerCounts counts;
    counts.added_tokens = size(json, "added_tokens");
    const JsonValue* model = FindMember(json, "model");
    if (model == nullptr) return counts;
    const JsonValue* vocabulary = FindMember(*model, "vocab");
    counts.has_scores = vocabulary != nullptr && vocabulary->is_array();
    counts.tokens = size(*model, "vocab") + counts.added_tokens;
    counts.merges = size(*model, "merges");
    return counts;
  }

  Status ReadSentencePiece(std::string_view model) {
    Result<TokenizerSpec> spec = ReadSentencePieceTokenizer(model, max_bytes_);
    if (!spec.ok()) return spec.status();
    spec_ = *std::move(spec);
    vocabulary_size_ = spec_.tokens.size();
    for (size_t id = 0; id < vocabulary_size_; ++id) {
      ids_.emplace(spec_.tokens[id], static_cast<int32_t>(id));
    }
    for (size_t i = 0; i < spec_.added_tokens.size(); ++i) {
      added_.emplace(spec_.added_tokens[i].content, i);
    }
    next_added_id_ = vocabulary_size_;
    return {};
  }

  Status ReadModel(const JsonValue& json) {
    const JsonValue* model = FindMember(json, "model");
    if (model == nullptr || !model->is_object()) return Corrupt("no model");
    const JsonValue* added = FindMember(json, "added_tokens");
    return ReadHuggingFaceModel(*model, added == nullptr ? 0 : added->size(), &spec_, &ids_,
                                &vocabulary_size_);
  }

  Status ReadSteps(const JsonValue& json) {
    if (const JsonValue* normalizer = FindMember(json, "normalizer")) {
      if (Status s = ReadNormalizer(*normalizer, &spec_.normalizer); !s.ok()) return s;
    }
    if (const JsonValue* pre_tokenizer = FindMember(json, "pre_tokenizer")) {
      if (Status s = ReadPreTokenizer(*pre_tokenizer, &spec_.pre_tokenizer); !s.ok()) return s;
    }
    const auto is_byte_level = [](const PreTokenizerStep& step) {
      return step.kind == PreTokenizerStep::Kind::kByteLevel;
    };
    const auto& steps = spec_.pre_tokenizer;
    const bool byte_level = std::any_of(steps.begin(), steps.end(), is_byte_level);
    if (spec_.model != TokenModel::kUnigram) {
      spec_.model = byte_level ? TokenModel::kByteLevelBpe : TokenModel::kBpe;
    }
    const JsonValue* decoder = FindMember(json, "decoder");
    if (decoder == nullptr) return Unsupported("no decoder");
    return byte_level ? CheckByteLevelDecoder(*decoder) : ReadDecoder(*decoder, &spec_.decoder);
  }

  Status ReadAddedTokens(const JsonValue& json) {
    const JsonValue* added = FindMember(json, "added_tokens");
    if (added == nullptr) return {};
    if (!added->is_array()) return Corrupt("'added_tokens' is not a list");
    for (const JsonValue& entry : added->elements()) {
      AddedToken token;
      if (Status s = ReadAddedToken(entry, &token); !s.ok()) return s;
      // `tokenizers` reads no file whose added tokens lack these.
      if (FindMember(entry, "content") == nullptr) return Corrupt("added token without content");
      const JsonValue* id = FindMember(entry, "id");
      if (id == nullptr || !AsTokenId(*id)) {
        return Corrupt("id of the added token '" + token.content + "'");
      }
      if (Status s = AddToken(std::move(token)); !s.ok()) return s;
    }
    return {};
  }

  static Status ReadAddedToken(const JsonValue& entry, AddedToken* token) {
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
      if (Status s = PlaceToken(token.content, token.id, &spec_, &ids_); !s.ok()) return s;
    }
    next_added_id_ = std::max(next_added_id_, static_cast<size_t>(token.id) + 1);
    spec_.added_tokens.push_back(std::move(token));
    return {};
  }

  Status ReadPostProcessing(const JsonValue& json) {
    const JsonValue* processor = FindMember(json, "post_processor");
    return processor == nullptr ? Status() : ReadPostProcessor(*processor, &spec_);
  }

  Status ReadSideFiles(const HuggingFaceTokenizerFiles& files);
  Status ReadTokenizerConfig(const JsonValue& config);
  Status ReadAddedTokensJson(const JsonValue& added);
  void DropAddedTokensFrom(int64_t first);
  Status AddNamedToken(const JsonValue& file, std::string_view key, std::optional<int32_t>* id,
                       bool* named);
  bool IsToken(int32_t id) const {
    return static_cast<size_t>(id) < spec_.tokens.size() &&
           !spec_.tokens[static_cast<size_t>(id)].empty();
  }
  void AddEos(int32_t id) {
    std::vector<int32_t>& ids = spec_.eos_ids;
    if (std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(id);
  }
  void AddEosOf(const JsonValue& file);

  TokenizerSpec spec_;
  TokenIdsByText ids_;                             // of all tokens
  std::unordered_map<std::string, size_t> added_;  // where in spec_.added_tokens
  size_t vocabulary_size_ = 0;
  size_t next_added_id_ = 0;
  uint64_t input_bytes_ = 0;
  uint64_t max_bytes_ = 0;
};

// "bos_token": "<s>" or {"content": "<s>", ...}. A null says that there is none.
Status Reader::AddNamedToken(const JsonValue& file, std::string_view key,
                             std::optional<int32_t>* id, bool* named) {
  if (*named || file.Find(key) == nullptr) return {};
  *named = true;
  const JsonValue* value = FindMember(file, key);
  if (value == nullptr) return {};
  AddedToken token;
  if (value->is_string()) {
    token.content = value->AsString();
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

void Reader::AddEosOf(const JsonValue& file) {
  const JsonValue* value = FindMember(file, "eos_token_id");
  if (value == nullptr) return;
  // Configurations name ids of the padded embedding at times; an id without a token ends nothing.
  const auto add = [this](const JsonValue& entry) {
    const std::optional<int32_t> id = AsTokenId(entry);
    if (id && IsToken(*id)) AddEos(*id);
  };
  if (!value->is_array()) add(*value);
  for (const JsonValue& entry : value->elements()) add(entry);
}

Status Reader::ReadTokenizerConfig(const JsonValue& config) {
  const JsonValue* decoder = FindMember(config, "added_tokens_decoder");
  if (decoder == nullptr) return {};
  if (!decoder->is_object()) return Corrupt("'added_tokens_decoder' is not an object");
  TokenizerCounts counts;
  counts.added_tokens = counts.tokens = 2 * decoder->size();
  if (Status s = CheckMemory(BytesToRead(counts), input_bytes_, max_bytes_); !s.ok()) return s;
  std::vector<std::pair<int64_t, AddedToken>> tokens;
  tokens.reserve(decoder->size());
  for (const auto& [key, entry] : decoder->members()) {
    AddedToken token;
    if (Status s = ReadAddedToken(entry, &token); !s.ok()) return s;
    const bool number = !key.empty() && key.size() < 10 &&
                        key.find_first_not_of("0123456789") == std::string_view::npos;
    if (!number) return Corrupt("id '" + std::string(key) + "' in 'added_tokens_decoder'");
    tokens.emplace_back(std::stoll(std::string(key)), std::move(token));
  }
  const auto by_id = [](const auto& a, const auto& b) { return a.first < b.first; };
  std::sort(tokens.begin(), tokens.end(), by_id);
  for (auto& [id, token] : tokens) {
    if (added_.contains(token.content)) continue;
    if (Status s = AddToken(std::move(token)); !s.ok()) return s;
  }
  return {};
}

// In the order of their ids, as transformers adds them.
Status Reader::ReadAddedTokensJson(const JsonValue& added) {
  TokenizerCounts counts;
  counts.added_tokens = counts.tokens = 2 * added.size();
  if (Status s = CheckMemory(BytesToRead(counts), input_bytes_, max_bytes_); !s.ok()) return s;
  std::vector<std::pair<int32_t, std::string>> tokens;
  tokens.reserve(added.size());
  for (const auto& [text, value] : added.members()) {
    const std::optional<int32_t> id = AsTokenId(value);
    if (!id) return Corrupt("id of the added token '" + std::string(text) + "'");
    tokens.emplace_back(*id, std::string(text));
  }
  std::sort(tokens.begin(), tokens.end());
  for (auto& [id, text] : tokens) {
    if (added_.contains(text)) continue;
    AddedToken token;
    token.content = std::move(text);
    token.normalized = false;  // these tokenizers look for it in the text as it is
    if (Status s = AddToken(std::move(token)); !s.ok()) return s;
  }
  return {};
}

void Reader::DropAddedTokensFrom(int64_t first) {
  const auto beyond = [first](int32_t id) { return id >= first; };
  const bool needed = (spec_.bos_id && beyond(*spec_.bos_id)) ||
                      std::any_of(spec_.eos_ids.begin(), spec_.eos_ids.end(), beyond) ||
                      std::any_of(spec_.prefix_ids.begin(), spec_.prefix_ids.end(), beyond) ||
                      std::any_of(spec_.suffix_ids.begin(), spec_.suffix_ids.end(), beyond);
  if (needed || first < static_cast<int64_t>(vocabulary_size_)) return;
  std::erase_if(spec_.added_tokens, [&](const AddedToken& token) { return beyond(token.id); });
  if (static_cast<int64_t>(spec_.tokens.size()) > first) {
    spec_.tokens.resize(static_cast<size_t>(first));
  }
}

Status Reader::ReadSideFiles(const HuggingFaceTokenizerFiles& files) {
  const auto parse = [](std::string_view text, std::string_view name) {
    return ParseJsonObject(text.empty() ? "{}" : text, name);
  };
  Result<JsonDocument> config = parse(files.tokenizer_config_json, "tokenizer_config.json");
  if (!config.ok()) return config.status();
  Result<JsonDocument> specials = parse(files.special_tokens_map_json, "special_tokens_map.json");
  if (!specials.ok()) return specials.status();
  Result<JsonDocument> generation = parse(files.generation_config_json, "generation_config.json");
  if (!generation.ok()) return generation.status();
  Result<JsonDocument> model = parse(files.config_json, "config.json");
  if (!model.ok()) return model.status();

  if (Status s = ReadTokenizerConfig(config->root()); !s.ok()) {
    return s.WithContext("tokenizer_config.json");
  }
  if (!files.added_tokens_json.empty() && files.tokenizer_json.empty() &&
      FindMember(config->root(), "added_tokens_decoder") == nullptr) {
    constexpr char kName[] = "added_tokens.json";
    Result<JsonDocument> added = parse(files.added_tokens_json, kName);
    if (!added.ok()) return added.status();
    if (Status s = ReadAddedTokensJson(added->root()); !s.ok()) return s.WithContext(kName);
  }
  std::optional<int32_t> eos;
  bool bos_named = false;
  bool eos_named = false;
  for (const JsonValue* file : {&config->root(), &specials->root()}) {
    if (Status s = AddNamedToken(*file, "bos_token", &spec_.bos_id, &bos_named); !s.ok()) return s;
    if (Status s = AddNamedToken(*file, "eos_token", &eos, &eos_named); !s.ok()) return s;
  }
  if (eos) AddEos(*eos);
  AddEosOf(generation->root());
  AddEosOf(model->root());
  // Checkpoints with a part for images.
  const JsonValue* text = FindMember(model->root(), "text_config");
  if (text != nullptr && text->is_object()) AddEosOf(*text);
  if (!bos_named) {
    const JsonValue* id = FindMember(model->root(), "bos_token_id");
    if (id == nullptr) id = FindMember(generation->root(), "bos_token_id");
    const std::optional<int32_t> value = id == nullptr ? std::nullopt : AsTokenId(*id);
    if (value && IsToken(*value)) spec_.bos_id = value;
  }
  // As transformers 5 does: where tokenizer_config.json says whether there is a BOS or EOS, it
  // overrules the post-processor.
  if (config->root().Find("add_bos_token") != nullptr ||
      config->root().Find("add_eos_token") != nullptr) {
    bool add_bos = false;
    bool add_eos = false;
    if (Status s = ReadFlag(config->root(), "add_bos_token", false, &add_bos); !s.ok()) return s;
    if (Status s = ReadFlag(config->root(), "add_eos_token", false, &add_eos); !s.ok()) return s;
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
