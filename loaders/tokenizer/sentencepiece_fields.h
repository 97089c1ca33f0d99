// What a SentencePiece model says, wherever it is stored: tokenizer.model or GGUF metadata.
#ifndef SLUICE_LOADERS_TOKENIZER_SENTENCEPIECE_FIELDS_H_
#define SLUICE_LOADERS_TOKENIZER_SENTENCEPIECE_FIELDS_H_

#include <cstdint>
#include <string_view>
#include <vector>

#include "formats/status.h"
#include "loaders/tokenizer/tokenizer_spec.h"

namespace sluice {

// The views are of the file.
struct SentencePieceFields {
  // sentencepiece_model.proto, ModelProto.SentencePiece.Type; GGUF has the same numbers.
  enum Type { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };
  struct Piece {
    std::string_view text;
    float score = 0;
    int32_t type = kNormal;
  };
  std::vector<Piece> pieces;
  bool unigram = true;  // else BPE
  bool byte_fallback = false;
  int64_t unknown_id = 0;
  int64_t bos_id = 1;  // -1: none
  int64_t eos_id = 2;
  std::string_view precompiled_charsmap;
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;
};

// Parses the protocol buffer of tokenizer.model (github.com/google/sentencepiece,
// src/sentencepiece_model.proto). kCorrupt: truncated, lengths beyond the file. kUnsupported:
// models of words or characters, whitespace as a suffix, a denormalizer.
Result<SentencePieceFields> ParseSentencePieceModel(std::string_view bytes);

// Model, tokens, scores, normalizer, decoder and added tokens; neither BOS nor EOS.
Result<TokenizerSpec> SpecOfSentencePiece(const SentencePieceFields& fields);

}  // namespace sluice

#endif  // SLUICE_LOADERS_TOKENIZER_SENTENCEPIECE_FIELDS_H_
