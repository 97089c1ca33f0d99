// Byte pair encoding: Sennrich et al. 2016, "Neural Machine Translation of Rare Words with Subword
// Units", on the characters of the spelled piece. The order of the merges is that of `tokenizers`.
#ifndef SLUICE_LOADERS_TOKENIZER_BPE_MODEL_H_
#define SLUICE_LOADERS_TOKENIZER_BPE_MODEL_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/status.h"
#include "loaders/tokenizer/tokenizer_spec.h"

namespace sluice {

// Token texts by id and ids by text. Refers to the strings it was made from, which must outlive it.
class TokenTable {
 public:
  // kCorrupt if two ids have the same text. Empty texts are skipped.
  static Result<TokenTable> Create(const std::vector<std::string>& tokens);

  std::optional<int32_t> Find(std::string_view text) const { return Find(text, {}); }
  // The token spelled left + right.
  std::optional<int32_t> Find(std::string_view left, std::string_view right) const;

 private:
  const std::vector<std::string>* tokens_ = nullptr;
  std::vector<int32_t> slots_;  // open addressing, -1: free; a power of two
};

class BpeModel {
 public:
  // Refers to `tokens` and `table`. kCorrupt if a merge names an absent token.
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

  // Appends the tokens of one piece in O(n log n). Characters that no token spells become the
  // unknown token, or nothing if there is none. kLimitExceeded: a piece of 2^30 bytes or more.
  Status Encode(std::string_view piece, Scratch* scratch, std::vector<int32_t>* ids) const;

 private:
  struct MergeSlot {
    uint64_t pair = ~uint64_t{0};  // left << 32 | right
    uint32_t rank = 0;
    int32_t new_id = 0;
  };
  static constexpr size_t kDirectCharacters = 0x180;

  void InsertMerge(MergeSlot merge);
  const MergeSlot* FindMerge(int32_t left, int32_t right) const;
  void AddSymbols(std::string_view piece, std::vector<Symbol>* symbols) const;
  void Consider(const std::vector<Symbol>& symbols, int32_t position,
                std::vector<Candidate>* heap) const;

  const TokenTable* table_ = nullptr;
  std::vector<MergeSlot> merges_;  // open addressing; a power of two
  std::array<int32_t, kDirectCharacters> character_ids_{};
  bool ignore_merges_ = false;
  bool fuse_unknown_ = false;
  std::optional<int32_t> unknown_id_;
};

}  // namespace sluice

#endif  // SLUICE_LOADERS_TOKENIZER_BPE_MODEL_H_
