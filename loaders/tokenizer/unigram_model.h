// The unigram language model of Kudo 2018, "Subword Regularization": of all ways to spell a piece
// with tokens the one with the greatest sum of scores, found by Viterbi's algorithm. Ties and
// unknown characters as in `tokenizers` and SentencePiece.
#ifndef SLUICE_LOADERS_TOKENIZER_UNIGRAM_MODEL_H_
#define SLUICE_LOADERS_TOKENIZER_UNIGRAM_MODEL_H_

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "formats/status.h"
#include "loaders/tokenizer/byte_trie.h"
#include "loaders/tokenizer/token_table.h"
#include "loaders/tokenizer/tokenizer_spec.h"

namespace sluice {

class UnigramModel {
 public:
  // Refers to `spec` and `table`. kCorrupt if scores are not one for each token.
  static Result<UnigramModel> Create(const TokenizerSpec& spec, const TokenTable& table);

  // Memory that Encode reuses from piece to piece; one for each thread.
  struct Node {
    double score = 0;
    size_t begin = 0;  // where the best token that ends here begins
    int32_t id = -1;   // -1: none ends here; or the unknown token
  };
  struct Scratch {
    std::vector<Node> nodes;
    std::vector<int32_t> reversed;
  };

  // Appends the tokens of one piece. Time is the length of the piece times that of the longest
  // token, 256 bytes at most. kUnsupported: an unknown character and no token for it.
  // kLimitExceeded: a piece of 2^30 bytes or more.
  Status Encode(std::string_view piece, Scratch* scratch, std::vector<int32_t>* ids) const;

 private:
  Status Extend(std::string_view piece, size_t begin, std::vector<Node>* nodes) const;
  void AppendUnknown(std::string_view text, std::vector<int32_t>* reversed) const;

  const TokenizerSpec* spec_ = nullptr;
  const TokenTable* table_ = nullptr;
  ByteTrie trie_;
  double unknown_score_ = 0;
  std::array<int32_t, 256> byte_ids_{};
};

}  // namespace sluice

#endif  // SLUICE_LOADERS_TOKENIZER_UNIGRAM_MODEL_H_
