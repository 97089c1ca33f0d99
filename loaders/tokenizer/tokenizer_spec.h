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

struct NormalizerStep {
  enum class Kind { kNfc, kNfd, kNfkc, kNfkd, kLowercase, kReplace, kPrepend, kStrip };
  Kind kind = Kind::kNfc;
  std::string pattern;            // kReplace
  bool pattern_is_regex = false;  // kReplace
  std::string content;            // kReplace, kPrepend
  bool strip_left = false;        // kStrip
  bool strip_right = false;       // kStrip
};

// What becomes of the matches of a pattern that splits text.
enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

struct PreTokenizerStep {
  enum class Kind { kSplit, kDigits, kPunctuation, kByteLevel };
  Kind kind = Kind::kByteLevel;
  std::string pattern;            // kSplit; Oniguruma's Ruby syntax if it is an expression
  bool pattern_is_regex = false;  // kSplit
  SplitBehavior behavior = SplitBehavior::kIsolated;  // kSplit, kDigits, kPunctuation
  bool invert = false;                                // kSplit
  bool add_prefix_space = false;                      // kByteLevel
  bool use_regex = false;                             // kByteLevel: split with GPT-2's expression
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
  std::vector<std::string> tokens;  // by id, spelled in the byte alphabet; "" where there is none
  std::vector<MergeRule> merges;    // by rank
  bool ignore_merges = false;       // a piece that is a token is that token
  bool fuse_unknown = false;
  std::optional<int32_t> unknown_id;
  std::vector<NormalizerStep> normalizer;
  std::vector<PreTokenizerStep> pre_tokenizer;
  std::vector<AddedToken> added_tokens;
  std::vector<int32_t> prefix_ids;  // what the post-processor puts before and after the text
  std::vector<int32_t> suffix_ids;
  std::optional<int32_t> bos_id;
  std::vector<int32_t> eos_ids;
};

}  // namespace sluice

#endif  // SLUICE_LOADERS_TOKENIZER_TOKENIZER_SPEC_H_
