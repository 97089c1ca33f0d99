// What a tokenizer takes, reckoned from counts before it is taken. Private to this folder.
#ifndef SLUICE_LOADERS_TOKENIZER_MEMORY_BOUND_H_
#define SLUICE_LOADERS_TOKENIZER_MEMORY_BOUND_H_

#include <cstdint>

#include "formats/status.h"
#include "loaders/tokenizer/tokenizer_spec.h"

namespace sluice {

struct TokenizerCounts {
  uint64_t tokens = 0;
  uint64_t text_bytes = 0;  // of the tokens
  uint64_t merges = 0;
  uint64_t added_tokens = 0;
  uint64_t added_bytes = 0;  // of their texts
  bool has_scores = false;
  bool is_unigram = false;
};
TokenizerCounts CountsOf(const TokenizerSpec& spec);

// While a description is read: its tokens, and a table to look them up by.
uint64_t BytesToRead(const TokenizerCounts& counts);
// A description that is read from compact JSON: the JSON's tree beside it.
uint64_t BytesToReadStored(const TokenizerCounts& counts);
// What the compact JSON of a description has at least.
uint64_t StoredBytes(const TokenizerSpec& spec);
// The description, the tables of a tokenizer made from it, and the description in compact JSON.
uint64_t BytesToBuild(const TokenizerCounts& counts);

// kLimitExceeded if so much memory is out of proportion to `input_bytes` (16 times that and a base
// of 256 KiB), kDoesNotFit if it is more than `max_bytes`.
Status CheckMemory(uint64_t needed_bytes, uint64_t input_bytes, uint64_t max_bytes);

}  // namespace sluice

#endif  // SLUICE_LOADERS_TOKENIZER_MEMORY_BOUND_H_
