// Reads sluice's own form of a tokenizer, which compact_writer.cc writes.
#include <fmt/core.h>

#include <limits>
#include <optional>
#include <string>
#include <utility>

#include "loaders/tokenizer/compact_names.h"
#include "loaders/tokenizer/json_fields.h"
#include "loaders/tokenizer/memory_bound.h"
#include "loaders/tokenizer/tokenizer_factory.h"

namespace sluice {
namespace {

using namespace compact;

Status Corrupt(const std::string& what) {
  return Status(ErrorCode::kCorrupt, "stored tokenizer: " + what);
}

template <typename Table, typename Value>
Status ReadName(const JsonValue& object, const char* key, const Table& table, Value* value) {
  std::string text;
  if (Status s = ReadString(object, key, &text); !s.ok()) return s;
  for (const auto& [name, known] : table) {
    if (name == text) {
      *value = known;
      return {};
    }
  }
  return Status(ErrorCode::kUnsupported, fmt::format("stored tokenizer: {} '{}'", key, text));
}

Status ReadIds(const JsonValue& object, const char* key, std::vector<int32_t>* ids) {
  const JsonValue* list = FindMember(object, key);
  if (list == nullptr) return {};
  if (!list->is_array()) return Corrupt(fmt::format("'{}' is not a list", key));
  ids->reserve(list->size());
  for (const JsonValue& value : list->elements()) {
    const std::optional<int32_t> id = AsTokenId(value);
    if (!id) return Corrupt(fmt::format("id in '{}'", key));
    ids->push_back(*id);
  }
  return {};
}

Status ReadOptionalId(const JsonValue& object, const char* key, std::optional<int32_t>* id) {
  const JsonValue* value = FindMember(object, key);
  if (value == nullptr) return {};
  *id = AsTokenId(*value);
  return *id ? Status() : Corrupt(fmt::format("'{}'", key));
}

// Calls read(element) for the objects of a list.
template <typename Read>
Status ForEachObject(const JsonValue& object, const char* key, Read read) {
  const JsonValue* list = FindMember(object, key);
  if (list == nullptr) return {};
  if (!list->is_array()) return Corrupt(fmt::format("'{}' is not a list", key));
  for (const JsonValue& element : list->elements()) {
    if (!element.is_object()) return Corrupt(fmt::format("element of '{}'", key));
    if (Status s = read(element); !s.ok()) return s.WithContext(key);
  }
  return {};
}

// Each may have an expression to compile.
constexpr size_t kMaxSteps = 64;

Status TooManySteps() {
  return Status(ErrorCode::kLimitExceeded, "stored tokenizer: too many steps");
}

Status ReadNormalizerStep(const JsonValue& json, TokenizerSpec* spec) {
  NormalizerStep step;
  if (Status s = ReadName(json, "kind", kNormalizers, &step.kind); !s.ok()) return s;
  if (Status s = ReadString(json, "pattern", &step.pattern); !s.ok()) return s;
  if (Status s = ReadString(json, "content", &step.content); !s.ok()) return s;
  if (Status s = ReadFlag(json, "regex", false, &step.pattern_is_regex); !s.ok()) return s;
  if (Status s = ReadFlag(json, "left", false, &step.strip_left); !s.ok()) return s;
  if (Status s = ReadFlag(json, "right", false, &step.strip_right); !s.ok()) return s;
  if (spec->normalizer.size() >= kMaxSteps) return TooManySteps();
  spec->normalizer.push_back(std::move(step));
  return {};
}

Status ReadPreTokenizerStep(const JsonValue& json, TokenizerSpec* spec) {
  PreTokenizerStep step;
  if (Status s = ReadName(json, "kind", kPreTokenizers, &step.kind); !s.ok()) return s;
  if (Status s = ReadName(json, "behavior", kBehaviors, &step.behavior); !s.ok()) return s;
  if (Status s = ReadString(json, "pattern", &step.pattern); !s.ok()) return s;
  if (Status s = ReadFlag(json, "regex", false, &step.pattern_is_regex); !s.ok()) return s;
  if (Status s = ReadFlag(json, "invert", false, &step.invert); !s.ok()) return s;
  if (Status s = ReadFlag(json, "prefix_space", false, &step.add_prefix_space); !s.ok()) return s;
  if (Status s = ReadFlag(json, "words", false, &step.use_regex); !s.ok()) return s;
  if (step.kind == PreTokenizerStep::Kind::kMetaspace) {
    if (Status s = ReadName(json, "prepend", kPrependSchemes, &step.prepend); !s.ok()) return s;
  }
  if (Status s = ReadFlag(json, "split", false, &step.split_words); !s.ok()) return s;
  if (spec->pre_tokenizer.size() >= kMaxSteps) return TooManySteps();
  spec->pre_tokenizer.push_back(std::move(step));
  return {};
}

Status ReadDecoderStep(const JsonValue& json, TokenizerSpec* spec) {
  DecoderStep step;
  if (Status s = ReadName(json, "kind", kDecoders, &step.kind); !s.ok()) return s;
  if (Status s = ReadString(json, "pattern", &step.pattern); !s.ok()) return s;
  if (Status s = ReadString(json, "content", &step.content); !s.ok()) return s;
  if (Status s = ReadFlag(json, "drop_first", false, &step.drop_first); !s.ok()) return s;
  std::optional<int32_t> start;
  if (Status s = ReadOptionalId(json, "start", &start); !s.ok()) return s;
  step.start = start.value_or(0);
  if (spec->decoder.size() >= kMaxSteps) return TooManySteps();
  spec->decoder.push_back(std::move(step));
  return {};
}

// null: the token is not found in words.
Status ReadScores(const JsonValue& json, TokenizerSpec* spec) {
  const JsonValue* scores = FindMember(json, "scores");
  if (scores == nullptr) return {};
  if (!scores->is_array()) return Corrupt("'scores' is not a list");
  spec->scores.reserve(scores->size());
  for (const JsonValue& score : scores->elements()) {
    if (!score.is_number() && !score.is_null()) return Corrupt("score that is not a number");
    spec->scores.push_back(score.is_null() ? -std::numeric_limits<double>::infinity()
                                           : score.AsDouble());
  }
  return {};
}

Status ReadAddedToken(const JsonValue& json, TokenizerSpec* spec) {
  AddedToken token;
  const JsonValue* id = FindMember(json, "id");
  const std::optional<int32_t> value = id == nullptr ? std::nullopt : AsTokenId(*id);
  if (!value) return Corrupt("added token without an id");
  token.id = *value;
  if (Status s = ReadFlag(json, "special", false, &token.special); !s.ok()) return s;
  if (Status s = ReadFlag(json, "word", false, &token.single_word); !s.ok()) return s;
  if (Status s = ReadFlag(json, "lstrip", false, &token.lstrip); !s.ok()) return s;
  if (Status s = ReadFlag(json, "rstrip", false, &token.rstrip); !s.ok()) return s;
  if (Status s = ReadFlag(json, "normalized", false, &token.normalized); !s.ok()) return s;
  if (static_cast<size_t>(token.id) >= spec->tokens.size()) return Corrupt("id of an added token");
  token.content = spec->tokens[static_cast<size_t>(token.id)];
  spec->added_tokens.push_back(std::move(token));
  return {};
}

Status ReadTokensAndMerges(const JsonValue& json, TokenizerSpec* spec) {
  const JsonValue* tokens = FindMember(json, "tokens");
  if (tokens == nullptr || !tokens->is_array()) return Corrupt("no tokens");
  spec->tokens.reserve(tokens->size());
  for (const JsonValue& token : tokens->elements()) {
    if (!token.is_string()) return Corrupt("token that is not a string");
    spec->tokens.emplace_back(token.AsString());
  }
  const JsonValue* merges = FindMember(json, "merges");
  if (merges == nullptr) return {};
  if (!merges->is_array()) return Corrupt("'merges' is not a list");
  if (merges->size() % 2 != 0) return Corrupt("merges that are not pairs");
  spec->merges.reserve(merges->size() / 2);
  std::optional<int32_t> left;
  for (const JsonValue& value : merges->elements()) {
    const std::optional<int32_t> id = AsTokenId(value);
    if (!id) return Corrupt("id in 'merges'");
    if (left) spec->merges.push_back({*left, *id});
    left = left ? std::nullopt : id;
  }
  return {};
}

// Before anything is made of what is there.
Status CheckCounts(const JsonValue& json, std::string_view text) {
  TokenizerCounts counts;
  const auto size = [&json](const char* key) {
    const JsonValue* list = FindMember(json, key);
    return list == nullptr ? 0 : list->size();
  };
  counts.tokens = size("tokens");
  counts.merges = size("merges") / 2;
  counts.added_tokens = size("added_tokens");
  counts.has_scores = size("scores") != 0;
  return CheckMemory(BytesToReadStored(counts), text.size(), UINT64_MAX);
}

}  // namespace

Result<TokenizerSpec> ReadCompactTokenizer(std::string_view text) {
  Result<JsonDocument> parsed = ParseJsonObject(text, "stored tokenizer");
  if (!parsed.ok()) return parsed.status();
  const JsonValue& json = parsed->root();
  const JsonValue* version = FindMember(json, "version");
  if (version == nullptr || AsTokenId(*version) != kVersion) {
    return Status(ErrorCode::kUnsupported, "stored tokenizer: version");
  }
  if (Status s = CheckCounts(json, text); !s.ok()) return s;
  TokenizerSpec spec;
  if (Status s = ReadName(json, "kind", kKinds, &spec.model); !s.ok()) return s;
  if (Status s = ReadTokensAndMerges(json, &spec); !s.ok()) return s;
  const auto list = [&](const char* key, Status (*read)(const JsonValue&, TokenizerSpec*)) {
    return ForEachObject(json, key, [&](const JsonValue& element) { return read(element, &spec); });
  };
  if (Status s = list("normalizer", ReadNormalizerStep); !s.ok()) return s;
  if (Status s = list("pre_tokenizer", ReadPreTokenizerStep); !s.ok()) return s;
  if (Status s = list("added_tokens", ReadAddedToken); !s.ok()) return s;
  if (Status s = list("decoder", ReadDecoderStep); !s.ok()) return s;
  if (Status s = ReadScores(json, &spec); !s.ok()) return s;
  if (Status s = ReadFlag(json, "byte_fallback", false, &spec.byte_fallback); !s.ok()) return s;
  if (Status s = ReadFlag(json, "single_precision", false, &spec.single_precision); !s.ok()) {
    return s;
  }
  if (Status s = ReadIds(json, "prefix", &spec.prefix_ids); !s.ok()) return s;
  if (Status s = ReadIds(json, "suffix", &spec.suffix_ids); !s.ok()) return s;
  if (Status s = ReadIds(json, "eos", &spec.eos_ids); !s.ok()) return s;
  if (Status s = ReadOptionalId(json, "bos", &spec.bos_id); !s.ok()) return s;
  if (Status s = ReadOptionalId(json, "unknown", &spec.unknown_id); !s.ok()) return s;
  if (Status s = ReadFlag(json, "ignore_merges", false, &spec.ignore_merges); !s.ok()) return s;
  if (Status s = ReadFlag(json, "fuse_unknown", false, &spec.fuse_unknown); !s.ok()) return s;
  return spec;
}

}  // namespace sluice
