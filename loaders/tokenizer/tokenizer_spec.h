// A tokenizer as plain data: what tokenizer.json, GGUF metadata and sluice's compact form are all
// read into. Nothing here is validated; Tokenizer::Create does that. The steps have the meaning of
// the components of the same names in Hugging Face `tokenizers`.
#ifndef SLUICE_LOADERS_TOKENIZER_TOKENIZER_SPEC_H_
#define SLUICE_LOADERS_TOKENIZER_TOKENIZER_SPEC_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace sluice {

// How words become tokens.
enum class TokenModel {
  kByteLevelBpe,  // merges; tokens are spelled in the byte alphabet
  kBpe,           // merges; tokens are text, and "<0x0A>" is a byte
  kScoredBpe,     // SentencePiece: of two neighbours that make a token, the best score goes first
  kUnigram,       // Kudo 2018: the tokens whose scores have the greatest sum
};

struct NormalizerStep {
  enum class Kind {
    kNfc,
    kNfd,
    kNfkc,
    kNfkd,
    kLowercase,
    kReplace,
    kPrepend,
    kStrip,
    kStripAccents,
    kNmt,
    kCharsmap,           // precompiled_map.h, by the longest match as SentencePiece does
    kCharsmapGraphemes,  // the same by grapheme clusters, as `tokenizers` does
  };
  Kind kind = Kind::kNfc;
  std::string pattern;            // kReplace
  bool pattern_is_regex = false;  // kReplace
  std::string content;            // kReplace, kPrepend; kCharsmap*: the map in base 64
  bool strip_left = false;        // kStrip
  bool strip_right = false;       // kStrip
};

// What becomes of the matches of a pattern that splits text.
enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

// Where Metaspace puts its character before a text that does not begin with it.
enum class PrependScheme { kAlways, kFirst, kNever };

struct PreTokenizerStep {
  enum class Kind { kSplit, kDigits, kPunctuation, kByteLevel, kMetaspace, kWhitespaceSplit };
  Kind kind = Kind::kByteLevel;
  std::string pattern;            // kSplit; Oniguruma's Ruby syntax if it is an expression.
                                  // kMetaspace: the character that stands for a space
  bool pattern_is_regex = false;  // kSplit
  SplitBehavior behavior = SplitBehavior::kIsolated;  // kSplit, kDigits, kPunctuation
  bool invert = false;                                // kSplit
  bool add_prefix_space = false;                      // kByteLevel
  bool use_regex = false;                             // kByteLevel: split with GPT-2's expression
  PrependScheme prepend = PrependScheme::kNever;      // kMetaspace
  bool split_words = false;                           // kMetaspace: split before each space
};

// From tokens to text. Byte-level BPE has none of these: its tokens are bytes.
struct DecoderStep {
  enum class Kind { kReplace, kMetaspace, kByteFallback, kFuse, kStrip };
  Kind kind = Kind::kFuse;
  std::string pattern;      // kReplace: a literal. kMetaspace, kStrip: a character
  std::string content;      // kReplace
  bool drop_first = false;  // kMetaspace: spaces of the first token are left out
  int32_t start = 0;        // kStrip: at most so many characters, at the beginning of a token or,
  int32_t stop = 0;         // after kFuse, of the text; and at the end
};

struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool special = false;
  bool single_word = false;
  bool lstrip = false;
  bool rstrip = false;
  bool normalized = false;  // it is searched for in the normalized text
};

struct MergeRule {
  int32_t left = 0;
  int32_t right = 0;
};

struct TokenizerSpec {
  TokenModel model = TokenModel::kByteLevelBpe;
  std::vector<std::string> tokens;  // by id; "" where there is none
  std::vector<MergeRule> merges;    // by rank
  // One for each token where the model has scores. A token with -infinity is not found in words.
  std::vector<double> scores;
  bool byte_fallback = false;  // characters without a token are spelled "<0xE4>" "<0xB8>" ...
  bool ignore_merges = false;  // a piece that is a token is that token
  bool fuse_unknown = false;
  std::optional<int32_t> unknown_id;
  std::vector<NormalizerStep> normalizer;
  std::vector<PreTokenizerStep> pre_tokenizer;
  std::vector<DecoderStep> decoder;
  std::vector<AddedToken> added_tokens;
  std::vector<int32_t> prefix_ids;  // what the post-processor puts before and after the text
  std::vector<int32_t> suffix_ids;
  std::optional<int32_t> bos_id;
  std::vector<int32_t> eos_ids;
};

}  // namespace sluice

#endif  // SLUICE_LOADERS_TOKENIZER_TOKENIZER_SPEC_H_
