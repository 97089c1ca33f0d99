// The names in sluice's own form of a tokenizer. Private to its reader and writer.
#ifndef SLUICE_LOADERS_TOKENIZER_COMPACT_NAMES_H_
#define SLUICE_LOADERS_TOKENIZER_COMPACT_NAMES_H_

#include <array>
#include <string_view>
#include <utility>

#include "loaders/tokenizer/tokenizer_spec.h"

namespace sluice::compact {

inline constexpr int kVersion = 1;

// Readers refuse a kind that they do not know, so a new kind needs no new version.
inline constexpr auto kKinds = std::to_array<std::pair<std::string_view, TokenModel>>({
    {"byte_level_bpe", TokenModel::kByteLevelBpe},
    {"bpe", TokenModel::kBpe},
    {"scored_bpe", TokenModel::kScoredBpe},
    {"unigram", TokenModel::kUnigram},
});

inline constexpr auto kNormalizers =
    std::to_array<std::pair<std::string_view, NormalizerStep::Kind>>({
        {"nfc", NormalizerStep::Kind::kNfc},
        {"nfd", NormalizerStep::Kind::kNfd},
        {"nfkc", NormalizerStep::Kind::kNfkc},
        {"nfkd", NormalizerStep::Kind::kNfkd},
        {"lowercase", NormalizerStep::Kind::kLowercase},
        {"replace", NormalizerStep::Kind::kReplace},
        {"prepend", NormalizerStep::Kind::kPrepend},
        {"strip", NormalizerStep::Kind::kStrip},
        {"strip_accents", NormalizerStep::Kind::kStripAccents},
        {"nmt", NormalizerStep::Kind::kNmt},
        {"charsmap", NormalizerStep::Kind::kCharsmap},
        {"charsmap_graphemes", NormalizerStep::Kind::kCharsmapGraphemes},
    });

inline constexpr auto kPreTokenizers =
    std::to_array<std::pair<std::string_view, PreTokenizerStep::Kind>>({
        {"split", PreTokenizerStep::Kind::kSplit},
        {"digits", PreTokenizerStep::Kind::kDigits},
        {"punctuation", PreTokenizerStep::Kind::kPunctuation},
        {"byte_level", PreTokenizerStep::Kind::kByteLevel},
        {"metaspace", PreTokenizerStep::Kind::kMetaspace},
        {"whitespace_split", PreTokenizerStep::Kind::kWhitespaceSplit},
    });

inline constexpr auto kPrependSchemes = std::to_array<std::pair<std::string_view, PrependScheme>>({
    {"always", PrependScheme::kAlways},
    {"first", PrependScheme::kFirst},
    {"never", PrependScheme::kNever},
});

inline constexpr auto kDecoders = std::to_array<std::pair<std::string_view, DecoderStep::Kind>>({
    {"replace", DecoderStep::Kind::kReplace},
    {"metaspace", DecoderStep::Kind::kMetaspace},
    {"byte_fallback", DecoderStep::Kind::kByteFallback},
    {"fuse", DecoderStep::Kind::kFuse},
    {"strip", DecoderStep::Kind::kStrip},
});

inline constexpr auto kBehaviors = std::to_array<std::pair<std::string_view, SplitBehavior>>({
    {"removed", SplitBehavior::kRemoved},
    {"isolated", SplitBehavior::kIsolated},
    {"merged_with_previous", SplitBehavior::kMergedWithPrevious},
    {"merged_with_next", SplitBehavior::kMergedWithNext},
    {"contiguous", SplitBehavior::kContiguous},
});

}  // namespace sluice::compact

#endif  // SLUICE_LOADERS_TOKENIZER_COMPACT_NAMES_H_
