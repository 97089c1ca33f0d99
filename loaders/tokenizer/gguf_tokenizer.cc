// Reads the metadata tokenizer.ggml.* of a GGUF file.
#include <algorithm>
#include <array>
#include <string>
#include <unordered_map>

#include "loaders/tokenizer/gguf_pre_tokenizers.h"
#include "loaders/tokenizer/memory_bound.h"
#include "loaders/tokenizer/sentencepiece_fields.h"
#include "loaders/tokenizer/tokenizer_factory.h"
#include "loaders/tokenizer/utf8.h"

namespace sluice {
namespace {

// Values of tokenizer.ggml.token_type.
constexpr int32_t kTypeControl = 3;
constexpr int32_t kTypeUserDefined = 4;

// GGUF has no generation_config.json; control tokens with these names end a turn or a text.
constexpr auto kEndNames = std::to_array<std::string_view>({
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|eom_id|>",
    "<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<｜end▁of▁sentence｜>",
});

Status Corrupt(std::string what) {
  return Status(ErrorCode::kCorrupt, "GGUF tokenizer: " + std::move(what));
}

using TokenIds = std::unordered_map<std::string_view, int32_t>;

Result<TokenIds> ReadTokens(const GgufTokenizerFields& fields, TokenizerSpec* spec) {
  if (fields.tokens.empty()) return Corrupt("no tokens");
  if (fields.tokens.size() > INT32_MAX) return Corrupt("too many tokens");
  if (!fields.token_types.empty() && fields.token_types.size() != fields.tokens.size()) {
    return Corrupt(std::to_string(fields.tokens.size()) + " tokens, but " +
                   std::to_string(fields.token_types.size()) + " token types");
  }
  TokenIds ids;
  ids.reserve(fields.tokens.size());
  spec->tokens.reserve(fields.tokens.size());
  for (size_t i = 0; i < fields.tokens.size(); ++i) {
    const auto id = static_cast<int32_t>(i);
    const std::string_view text = fields.tokens[i];
    spec->tokens.emplace_back(text);
    if (!ids.emplace(text, id).second) return Corrupt("token " + std::to_string(i) + " twice");
    const int32_t type = fields.token_types.empty() ? 0 : fields.token_types[i];
    if (type != kTypeControl && type != kTypeUserDefined) continue;
    AddedToken token;
    token.id = id;
    token.content = text;
    token.special = type == kTypeControl;
    spec->added_tokens.push_back(std::move(token));
  }
  return ids;
}

Status ReadMerges(const GgufTokenizerFields& fields, const TokenIds& ids, TokenizerSpec* spec) {
  spec->merges.reserve(fields.merges.size());
  for (const std::string_view merge : fields.merges) {
    // A merge of a space with something begins with it in vocabularies that do not spell bytes.
    const size_t space = merge.find(' ', spec->model == TokenModel::kBpe ? 1 : 0);
    if (space == std::string_view::npos) return Corrupt("merge without a space");
    const auto left = ids.find(merge.substr(0, space));
    const auto right = ids.find(merge.substr(space + 1));
    if (left == ids.end() || right == ids.end()) {
      return Corrupt("merge " + std::to_string(spec->merges.size()) + " names an absent token");
    }
    spec->merges.push_back({left->second, right->second});
  }
  return {};
}

Status CheckId(const std::optional<int64_t>& id, const char* name, size_t token_count) {
  if (!id || (*id >= 0 && static_cast<uint64_t>(*id) < token_count)) return {};
  return Corrupt(std::string(name) + " id " + std::to_string(*id) + " of " +
                 std::to_string(token_count) + " tokens");
}

Status ReadSpecialIds(const GgufTokenizerFields& fields, const TokenIds& ids, bool default_add_bos,
                      TokenizerSpec* spec) {
  const size_t count = fields.tokens.size();
  if (Status s = CheckId(fields.bos_id, "BOS", count); !s.ok()) return s;
  if (Status s = CheckId(fields.eos_id, "EOS", count); !s.ok()) return s;
  if (Status s = CheckId(fields.eot_id, "EOT", count); !s.ok()) return s;
  if (Status s = CheckId(fields.eom_id, "EOM", count); !s.ok()) return s;
  if (fields.bos_id) spec->bos_id = static_cast<int32_t>(*fields.bos_id);
  const auto add_end = [spec](int32_t id) {
    std::vector<int32_t>& ends = spec->eos_ids;
    if (std::find(ends.begin(), ends.end(), id) == ends.end()) ends.push_back(id);
  };
  for (const auto& id : {fields.eos_id, fields.eot_id, fields.eom_id}) {
    if (id) add_end(static_cast<int32_t>(*id));
  }
  for (const std::string_view name : kEndNames) {
    const auto found = ids.find(name);
    if (found == ids.end() || fields.token_types.empty()) continue;
    if (fields.token_types[static_cast<size_t>(found->second)] == kTypeControl) {
      add_end(found->second);
    }
  }
  if (fields.add_bos.value_or(default_add_bos) && spec->bos_id) {
    spec->prefix_ids.push_back(*spec->bos_id);
  }
  if (fields.add_eos.value_or(false) && fields.eos_id) {
    spec->suffix_ids.push_back(static_cast<int32_t>(*fields.eos_id));
  }
  return {};
}

// "gemma4": BPE over text whose spaces are escaped, with bytes for characters without a token.
GgufPreTokenizer EscapedText() {
  GgufPreTokenizer result;
  NormalizerStep escape;
  escape.kind = NormalizerStep::Kind::kReplace;
  escape.pattern = " ";
  escape.content = "\u2581";
  result.normalizer.push_back(escape);
  PreTokenizerStep lines;
  lines.kind = PreTokenizerStep::Kind::kSplit;
  lines.pattern = R"([^\n]+|[\n]+)";
  lines.pattern_is_regex = true;
  result.steps.push_back(lines);
  result.add_bos = true;
  return result;
}

std::vector<DecoderStep> EscapedTextDecoder() {
  DecoderStep replace, bytes;
  replace.kind = DecoderStep::Kind::kReplace;
  replace.pattern = "\u2581";
  replace.content = " ";
  bytes.kind = DecoderStep::Kind::kByteFallback;
  return {replace, bytes};
}

Result<TokenizerSpec> ReadBpe(const GgufTokenizerFields& fields) {
  const bool escaped = fields.model == "gemma4" || fields.pre == "gemma4" ||
                       fields.pre == "sarvam-moe" || fields.pre == "granite-embed-multi-311m";
  Result<GgufPreTokenizer> pre =
      escaped ? Result<GgufPreTokenizer>(EscapedText()) : FindGgufPreTokenizer(fields.pre);
  if (!pre.ok()) return pre.status();
  TokenizerSpec spec;
  spec.model = escaped ? TokenModel::kBpe : TokenModel::kByteLevelBpe;
  spec.byte_fallback = escaped;
  if (escaped) spec.decoder = EscapedTextDecoder();
  spec.normalizer = pre->normalizer;
  spec.pre_tokenizer = pre->steps;
  spec.ignore_merges = pre->ignore_merges;
  Result<TokenIds> ids = ReadTokens(fields, &spec);
  if (!ids.ok()) return ids.status();
  if (Status s = ReadMerges(fields, *ids, &spec); !s.ok()) return s;
  if (Status s = ReadSpecialIds(fields, *ids, pre->add_bos, &spec); !s.ok()) return s;
  return spec;
}

// "llama" is BPE with scores, "t5" a unigram model.
Result<TokenizerSpec> ReadSentencePiece(const GgufTokenizerFields& fields) {
  const bool unigram = fields.model == "t5";
  const size_t count = fields.tokens.size();
  if (fields.scores.size() != count || fields.token_types.size() != count) {
    return Corrupt(std::to_string(count) + " tokens, but " + std::to_string(fields.scores.size()) +
                   " scores and " + std::to_string(fields.token_types.size()) + " token types");
  }
  if (fields.treat_whitespace_as_suffix.value_or(false)) {
    return Status(ErrorCode::kUnsupported, "GGUF tokenizer: treat_whitespace_as_suffix");
  }
  SentencePieceFields pieces;
  for (size_t i = 0; i < count; ++i) {
    pieces.pieces.push_back({fields.tokens[i], fields.scores[i], fields.token_types[i]});
    if (fields.token_types[i] == SentencePieceFields::kByte) pieces.byte_fallback = true;
  }
  pieces.unigram = unigram;
  pieces.unknown_id = fields.unknown_id.value_or(unigram ? 2 : 0);
  pieces.precompiled_charsmap = fields.precompiled_charsmap;
  pieces.add_dummy_prefix = fields.add_space_prefix.value_or(true);
  pieces.remove_extra_whitespaces = fields.remove_extra_whitespaces.value_or(false);
  Result<TokenizerSpec> spec = SpecOfSentencePiece(pieces);
  if (!spec.ok()) return spec.status();
  spec->bos_id.reset();
  spec->eos_ids.clear();
  GgufTokenizerFields with_defaults = fields;
  if (!unigram && !with_defaults.bos_id && count > 1) with_defaults.bos_id = 1;
  if (!with_defaults.eos_id && count > 2) with_defaults.eos_id = unigram ? 1 : 2;
  if (!with_defaults.add_eos) with_defaults.add_eos = unigram;
  TokenIds ids;
  for (size_t i = 0; i < count; ++i) ids.emplace(fields.tokens[i], static_cast<int32_t>(i));
  if (Status s = ReadSpecialIds(with_defaults, ids, !unigram, &*spec); !s.ok()) return s;
  return spec;
}

}  // namespace

Result<TokenizerSpec> ReadGgufTokenizer(const GgufTokenizerFields& fields) {
  TokenizerCounts counts;
  counts.tokens = fields.tokens.size();
  for (const std::string_view token : fields.tokens) counts.text_bytes += token.size();
  counts.merges = fields.merges.size();
  counts.has_scores = !fields.scores.empty();
  const uint64_t needed = std::max(BytesToRead(counts), BytesToBuild(counts));
  // What is in proportion to a GGUF file its own reader has decided.
  if (Status s = CheckMemory(needed, needed, fields.max_memory_bytes); !s.ok()) return s;
  if (fields.model == "llama" || fields.model == "t5") return ReadSentencePiece(fields);
  if (fields.model == "gpt2" || fields.model == "gemma4") return ReadBpe(fields);
  return Status(ErrorCode::kUnsupported, "GGUF tokenizer model '" + fields.model + "'");
}

}  // namespace sluice
