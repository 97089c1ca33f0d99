// Byte pair encoding: Sennrich et al. 2016, "Neural Machine Translation of Rare Words with Subword
// Units", on the characters of the spelled piece. The order of the merges is that of `tokenizers`,
// or with scores that of SentencePiece.
#ifndef SLUICE_LOADERS_TOKENIZER_BPE_MODEL_H_
#define SLUICE_LOADERS_TOKENIZER_BPE_MODEL_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/status.h"
#include "loaders/tokenizer/token_table.h"
#include "loaders/tokenizer/tokenizer_spec.h"

namespace sluice {

class BpeModel {
 public:
  // Refers to `spec` and `table`. kCorrupt if a merge names an absent token, or scores are not one
  // for each token.
  static Result<BpeModel> Create(const TokenizerSpec& spec, const TokenTable& table);

  // Memory that Encode reuses from piece to piece; one for each thread.
  struct Symbol {
    int32_t id;
    int32_t previous;
    int32_t next;
  };
  struct Candidate {
    uint32_t rank;
    int32_t position;
    int32_t new_id;
  };
  struct Scratch {
    std::vector<Symbol> symbols;
    std::vector<Candidate> heap;
  };

  // Appends the tokens of one piece in O(n log n). Characters that no token spells become bytes or
  // the unknown token, or nothing if there is none. kLimitExceeded: a piece of 2^30 bytes or more.
  Status Encode(std::string_view piece, Scratch* scratch, std::vector<int32_t>* ids) const;

 private:
  struct Merge {
    uint32_t rank = 0;
    int32_t new_id = 0;
  };
  struct MergeSlot {
    uint64_t pair = ~uint64_t{0};  // left << 32 | right
    Merge merge;
  };
  static constexpr size_t kDirectCharacters = 0x180;

  Status AddMerges();
  Status RankScores();
  void InsertMerge(MergeSlot merge);
  std::optional<Merge> FindMerge(int32_t left, int32_t right) const;
  int32_t CharacterId(std::string_view piece, size_t at, size_t* length) const;
  bool AddBytes(std::string_view character, std::vector<Symbol>* symbols) const;
  void AddSymbols(std::string_view piece, std::vector<Symbol>* symbols) const;
  void Consider(const std::vector<Symbol>& symbols, int32_t position,
                std::vector<Candidate>* heap) const;

  const TokenizerSpec* spec_ = nullptr;
  const TokenTable* table_ = nullptr;
  std::vector<MergeSlot> merges_;  // open addressing; a power of two
  std::vector<uint32_t> ranks_;    // with scores: by id, equal for equal scores
  std::array<int32_t, kDirectCharacters> character_ids_{};
  std::array<int32_t, 256> byte_ids_{};
};

}  // namespace sluice

#endif  // SLUICE_LOADERS_TOKENIZER_BPE_MODEL_H_
