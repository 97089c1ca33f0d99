#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include "loaders/tokenizer/base64.h"
#include "loaders/tokenizer/memory_bound.h"
#include "loaders/tokenizer/sentencepiece_fields.h"
#include "loaders/tokenizer/tokenizer_factory.h"

namespace sluice {
namespace {

constexpr std::string_view kSpace = "\u2581";  // what SentencePiece writes for a space

Status Corrupt(std::string what) { return Status(ErrorCode::kCorrupt, std::move(what)); }

NormalizerStep Replace(std::string_view pattern, bool is_regex, std::string_view content) {
  NormalizerStep step;
  step.kind = NormalizerStep::Kind::kReplace;
  step.pattern = pattern;
  step.pattern_is_regex = is_regex;
  step.content = content;
  return step;
}

void AddNormalizer(const SentencePieceFields& fields, TokenizerSpec* spec) {
  std::vector<NormalizerStep>& steps = spec->normalizer;
  NormalizerStep step;
  if (!fields.precompiled_charsmap.empty()) {
    step.kind = NormalizerStep::Kind::kCharsmap;
    step.content = EncodeBase64(fields.precompiled_charsmap);
    steps.push_back(step);
  }
  if (fields.remove_extra_whitespaces) {
    steps.push_back(Replace(" {2,}", true, " "));
    steps.push_back(Replace(R"(\A | \z)", true, ""));
  }
  if (fields.add_dummy_prefix) {
    step.kind = NormalizerStep::Kind::kPrepend;
    step.content = " ";
    steps.push_back(step);
  }
  if (fields.escape_whitespaces) steps.push_back(Replace(" ", false, kSpace));
}

void AddDecoder(const SentencePieceFields& fields, TokenizerSpec* spec) {
  using Kind = DecoderStep::Kind;
  DecoderStep step;
  step.kind = Kind::kReplace;
  step.pattern = kSpace;
  step.content = " ";
  spec->decoder.push_back(step);
  for (const Kind kind : {Kind::kByteFallback, Kind::kFuse}) {
    step = {};
    step.kind = kind;
    spec->decoder.push_back(step);
  }
  if (!fields.add_dummy_prefix && !fields.remove_extra_whitespaces) return;
  step.kind = Kind::kStrip;
  step.pattern = " ";
  step.start = fields.remove_extra_whitespaces ? INT32_MAX : 1;
  spec->decoder.push_back(step);
}

// Tokens that stand for themselves wherever their text is. Those with the character for a space are
// found by merging, since that character is not in the text.
bool IsAdded(const SentencePieceFields::Piece& piece) {
  if (piece.type == SentencePieceFields::kUserDefined) {
    return piece.text.find(kSpace) == std::string_view::npos;
  }
  return piece.type == SentencePieceFields::kControl || piece.type == SentencePieceFields::kUnknown;
}

// Which pieces the model may choose.
bool IsInWords(const SentencePieceFields& fields, const SentencePieceFields::Piece& piece) {
  if (piece.type == SentencePieceFields::kUnused) return !fields.unigram;
  return piece.type == SentencePieceFields::kNormal ||
         piece.type == SentencePieceFields::kUserDefined;
}

}  // namespace

Result<TokenizerSpec> SpecOfSentencePiece(const SentencePieceFields& fields) {
  const size_t count = fields.pieces.size();
  if (count == 0) return Corrupt("no pieces");
  if (count > INT32_MAX) return Corrupt("too many pieces");
  TokenizerSpec spec;
  spec.model = fields.unigram ? TokenModel::kUnigram : TokenModel::kScoredBpe;
  spec.single_precision = fields.unigram;
  spec.byte_fallback = fields.byte_fallback;
  spec.fuse_unknown = true;
  spec.tokens.reserve(count);
  spec.scores.reserve(count);
  for (size_t id = 0; id < count; ++id) {
    const SentencePieceFields::Piece& piece = fields.pieces[id];
    if (!std::isfinite(piece.score)) return Corrupt("score of piece " + std::to_string(id));
    spec.tokens.emplace_back(piece.text);
    spec.scores.push_back(IsInWords(fields, piece) ? double{piece.score}
                                                   : -std::numeric_limits<double>::infinity());
    if (!IsAdded(piece) || piece.text.empty()) continue;
    AddedToken token;
    token.id = static_cast<int32_t>(id);
    token.content = piece.text;
    token.special = piece.type != SentencePieceFields::kUserDefined;
    spec.added_tokens.push_back(std::move(token));
  }
  const auto is_piece = [&](int64_t id) {
    return id >= 0 && static_cast<uint64_t>(id) < count &&
           !fields.pieces[static_cast<size_t>(id)].text.empty();
  };
  if (is_piece(fields.unknown_id)) spec.unknown_id = static_cast<int32_t>(fields.unknown_id);
  if (is_piece(fields.bos_id)) spec.bos_id = static_cast<int32_t>(fields.bos_id);
  if (is_piece(fields.eos_id)) spec.eos_ids.push_back(static_cast<int32_t>(fields.eos_id));
  AddNormalizer(fields, &spec);
  AddDecoder(fields, &spec);
  return spec;
}

Result<TokenizerSpec> ReadSentencePieceTokenizer(std::string_view model, uint64_t max_bytes) {
  Result<SentencePieceFields> fields = ParseSentencePieceModel(model);
  if (!fields.ok()) return fields.status();
  TokenizerCounts counts;
  counts.tokens = fields->pieces.size();
  counts.has_scores = true;
  for (const SentencePieceFields::Piece& piece : fields->pieces) {
    counts.text_bytes += piece.text.size();
    if (IsAdded(piece)) ++counts.added_tokens;
  }
  const uint64_t piece_bytes = fields->pieces.capacity() * sizeof(SentencePieceFields::Piece);
  Status s = CheckMemory(piece_bytes + BytesToRead(counts), model.size(), max_bytes);
  if (!s.ok()) return s;
  Result<TokenizerSpec> spec = SpecOfSentencePiece(*fields);
  if (!spec.ok()) return spec.status();
  // As transformers' Llama and T5 do where tokenizer_config.json does not say.
  if (!fields->unigram && spec->bos_id) spec->prefix_ids.push_back(*spec->bos_id);
  if (fields->unigram) spec->suffix_ids = spec->eos_ids;
  return spec;
}

}  // namespace sluice
