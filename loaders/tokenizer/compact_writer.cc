// Writes sluice's own form of a tokenizer: one JSON object, compact and quick to read.
#include <cmath>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "loaders/tokenizer/compact_names.h"
#include "loaders/tokenizer/tokenizer_factory.h"

namespace sluice {
namespace {

using namespace compact;
using Json = nlohmann::json;

template <typename Table, typename Value>
std::string NameOf(const Table& table, Value value) {
  for (const auto& [name, known] : table) {
    if (known == value) return std::string(name);
  }
  return {};
}

void Set(Json* json, const char* key, bool value) {
  if (value) (*json)[key] = true;
}

Json JsonOf(const NormalizerStep& step) {
  Json json = {{"kind", NameOf(kNormalizers, step.kind)}};
  if (!step.pattern.empty()) json["pattern"] = step.pattern;
  if (!step.content.empty()) json["content"] = step.content;
  Set(&json, "regex", step.pattern_is_regex);
  Set(&json, "left", step.strip_left);
  Set(&json, "right", step.strip_right);
  return json;
}

Json JsonOf(const PreTokenizerStep& step) {
  Json json = {{"kind", NameOf(kPreTokenizers, step.kind)},
               {"behavior", NameOf(kBehaviors, step.behavior)}};
  if (!step.pattern.empty()) json["pattern"] = step.pattern;
  Set(&json, "regex", step.pattern_is_regex);
  Set(&json, "invert", step.invert);
  Set(&json, "prefix_space", step.add_prefix_space);
  Set(&json, "words", step.use_regex);
  Set(&json, "split", step.split_words);
  if (step.kind == PreTokenizerStep::Kind::kMetaspace) {
    json["prepend"] = NameOf(kPrependSchemes, step.prepend);
  }
  return json;
}

Json JsonOf(const DecoderStep& step) {
  Json json = {{"kind", NameOf(kDecoders, step.kind)}};
  if (!step.pattern.empty()) json["pattern"] = step.pattern;
  if (!step.content.empty()) json["content"] = step.content;
  if (step.start != 0) json["start"] = step.start;
  Set(&json, "drop_first", step.drop_first);
  return json;
}

Json ScoresOf(const TokenizerSpec& spec) {
  Json list = Json::array();
  for (const double score : spec.scores) {
    list.push_back(std::isfinite(score) ? Json(score) : Json());
  }
  return list;
}

Json JsonOf(const AddedToken& token) {
  Json json = {{"id", token.id}};
  Set(&json, "special", token.special);
  Set(&json, "word", token.single_word);
  Set(&json, "lstrip", token.lstrip);
  Set(&json, "rstrip", token.rstrip);
  Set(&json, "normalized", token.normalized);
  return json;
}

template <typename Steps>
Json ListOf(const Steps& steps) {
  Json list = Json::array();
  for (const auto& step : steps) list.push_back(JsonOf(step));
  return list;
}

}  // namespace

std::string WriteCompactTokenizer(const TokenizerSpec& spec) {
  Json merges = Json::array();
  for (const MergeRule& rule : spec.merges) {
    merges.push_back(rule.left);
    merges.push_back(rule.right);
  }
  Json json = {{"version", kVersion},
               {"kind", NameOf(kKinds, spec.model)},
               {"tokens", spec.tokens},
               {"merges", std::move(merges)},
               {"normalizer", ListOf(spec.normalizer)},
               {"pre_tokenizer", ListOf(spec.pre_tokenizer)},
               {"added_tokens", ListOf(spec.added_tokens)},
               {"prefix", spec.prefix_ids},
               {"suffix", spec.suffix_ids},
               {"eos", spec.eos_ids}};
  if (spec.bos_id) json["bos"] = *spec.bos_id;
  if (spec.unknown_id) json["unknown"] = *spec.unknown_id;
  if (!spec.decoder.empty()) json["decoder"] = ListOf(spec.decoder);
  if (!spec.scores.empty()) json["scores"] = ScoresOf(spec);
  Set(&json, "byte_fallback", spec.byte_fallback);
  Set(&json, "single_precision", spec.single_precision);
  Set(&json, "ignore_merges", spec.ignore_merges);
  Set(&json, "fuse_unknown", spec.fuse_unknown);
  return json.dump();
}

}  // namespace sluice
