// Text to token ids and back, equal to Hugging Face `tokenizers` (0.23) id for id.
//
// Supported: byte-level BPE (GPT-2, Llama 3, Qwen, SmolLM, DeepSeek, Tekken, gpt-oss ...), BPE of
// SentencePiece with byte fallback (Llama 2, Mistral, Gemma, Phi-3) and unigram models (T5), from
// tokenizer.json, from GGUF metadata, and the latter two from tokenizer.model. Any other kind of
// model, normalizer, pre-tokenizer, post-processor or decoder is kUnsupported and named.
//
// Known limits: characters assigned after Unicode 14 count as unassigned in expressions (PCRE2
// 10.42), after Unicode 15 elsewhere (utf8proc 2.8), so a word of them can be split otherwise than
// by a newer `tokenizers`; expressions with multi-character case folding ((?i:ss) finding U+00DF)
// find only single characters; Metaspace's "first" is not told of characters that a normalizer has
// removed at the beginning; a special token that is found in normalized text, and is spelled
// otherwise there, is left out with skip_special, which `tokenizers` forgets. Tokens of
// SentencePiece models from tokenizer.model equal those of `sentencepiece` 0.2.
// clean_up_tokenization_spaces is ignored, as transformers does for BPE.
#ifndef SLUICE_LOADERS_TOKENIZER_TOKENIZER_H_
#define SLUICE_LOADERS_TOKENIZER_TOKENIZER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/status.h"

namespace sluice {

// One run of a prompt. In a run without parse_special (what a user wrote) the text of a special
// token is ordinary text. Ill-formed UTF-8 reads as U+FFFD, one for each maximal subpart, as with
// Python's errors="replace"; each run is well-formed or not by itself.
struct TokenizerText {
  std::string_view text;
  bool parse_special = false;
};

// Contents of the files of a Hugging Face checkpoint; all may be empty but one of the first and the
// last. tokenizer.json is read where there are both.
struct HuggingFaceTokenizerFiles {
  std::string_view tokenizer_json;
  std::string_view tokenizer_config_json;    // add_bos_token, add_eos_token, bos_token, eos_token
  std::string_view special_tokens_map_json;  // bos_token, eos_token where the former has none
  std::string_view generation_config_json;   // eos_token_id: more tokens that end a generation
  std::string_view config_json;              // the same; bos_token_id where no file names the token
  std::string_view sentencepiece_model = {};  // tokenizer.model
  // {text: id} of what was added to tokenizer.model; read where tokenizer_config.json does not say.
  std::string_view added_tokens_json = {};
  // Rows of the embedding. Added tokens beyond it, which some checkpoints have for other models of
  // their family, are left out, unless one begins or ends a text.
  int64_t most_tokens = INT64_MAX;
  uint64_t max_memory_bytes = UINT64_MAX;  // beside the files themselves
};

// The fields tokenizer.ggml.* of a GGUF file. The views are read during FromGguf only.
struct GgufTokenizerFields {
  std::string model;  // "gpt2", "llama", "t5", "gemma4"
  std::string pre;    // "llama-bpe", "qwen2", ...; "" reads as "default"
  std::vector<std::string_view> tokens;
  std::vector<int32_t> token_types;      // empty, or one for each token
  std::vector<std::string_view> merges;  // "left right"
  std::vector<float> scores;             // one for each token, for "llama" and "t5"
  std::string precompiled_charsmap = {};
  std::optional<int64_t> bos_id, eos_id, eot_id, eom_id, unknown_id;
  std::optional<bool> add_bos, add_eos;  // absent: as the pre-tokenizer's models do
  std::optional<bool> add_space_prefix, remove_extra_whitespaces, treat_whitespace_as_suffix;
  uint64_t max_memory_bytes = UINT64_MAX;  // beside what the views are of
};

// Immutable; copies share their data, and any number of threads may use one.
class Tokenizer {
 public:
  // Errors of all three: kCorrupt (not JSON, missing or contradictory fields, ids out of range,
  // duplicate tokens, merges of absent tokens) and kUnsupported (a component of another kind, an
  // expression), kDoesNotFit (max_memory_bytes). The input is untrusted: memory is at most 16 times
  // its size and 256 KiB (an expression takes up to 200 KB to compile), and what would take more is
  // kLimitExceeded.
  static Result<Tokenizer> FromHuggingFace(const HuggingFaceTokenizerFiles& files);
  static Result<Tokenizer> FromGguf(const GgufTokenizerFields& fields);
  // What ToJson wrote: sluice's own compact form.
  static Result<Tokenizer> FromJson(std::string_view json);
  std::string ToJson() const;

  // The ids of the concatenated runs. Special tokens are found only within neighbouring runs with
  // parse_special; ordinary words may continue from one run into the next. If add_special, what the
  // checkpoint's post-processor adds (BOS, EOS) is added, but no second BOS before a first run that
  // begins with one. Memory is linear in the text; time is O(n log n) in its longest word.
  // kLimitExceeded: an expression needs too much backtracking, or one word has 1 GiB.
  Result<std::vector<int32_t>> Encode(std::span<const TokenizerText> runs, bool add_special) const;
  Result<std::vector<int32_t>> Encode(std::string_view text, bool parse_special,
                                      bool add_special) const;

  // The raw bytes of a token, for special tokens their text; empty for an id that no token has.
  std::string_view TokenBytes(int32_t id) const;

  // The bytes of the tokens, ill-formed UTF-8 as U+FFFD. Ids that no token has are passed over.
  std::string Decode(std::span<const int32_t> ids, bool skip_special) const;

  int32_t vocab_size() const;  // the highest id and one
  std::optional<int32_t> bos_id() const;
  const std::vector<int32_t>& eos_ids()
      const;                         // all that end a generation, the tokenizer's own first
  bool IsSpecial(int32_t id) const;  // a control token; skip_special leaves it out
  bool adds_bos() const;             // whether add_special puts the BOS first
  bool adds_eos() const;             // whether add_special puts something after the text
  // The token that the vocabulary spells so (a space is U+0120), or the added token of that text.
  std::optional<int32_t> Find(std::string_view spelling) const;

 private:
  struct Impl;
  friend class TokenizerFactory;
  friend class Detokenizer;
  explicit Tokenizer(std::shared_ptr<const Impl> impl);
  std::shared_ptr<const Impl> impl_;
};

// Text from tokens as they come. The concatenation of all results equals Tokenizer::Decode of all
// ids.
class Detokenizer {
 public:
  // at_start: the first token begins a text, and the space that a decoder leaves out there is left
  // out; otherwise the tokens continue a text, and it is kept.
  Detokenizer(Tokenizer tokenizer, bool skip_special, bool at_start = true);

  // The text that is certain now: no part of a character whose other bytes may still come. With
  // byte fallback, bytes are certain when a token that is no byte follows.
  std::string Append(int32_t id);
  // What was held back, ill-formed parts as U+FFFD; the next Append starts afresh.
  std::string Finish();

 private:
  void Restart();
  std::string AppendBytes(int32_t id);
  std::string AppendText(int32_t id);
  std::string TakeByteRun();
  std::string Strip(std::string text);

  Tokenizer tokenizer_;
  bool skip_special_;
  bool at_start_;
  bool first_ = true;       // no token has come yet
  int32_t strip_left_ = 0;  // characters that may still be left out at the beginning
  std::string pending_;     // at most 3 bytes, or a run of byte tokens
};

}  // namespace sluice

#endif  // SLUICE_LOADERS_TOKENIZER_TOKENIZER_H_
