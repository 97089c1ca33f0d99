// The vocabulary of a tokenizer: ids by text.
#ifndef SLUICE_LOADERS_TOKENIZER_TOKEN_TABLE_H_
#define SLUICE_LOADERS_TOKENIZER_TOKEN_TABLE_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/status.h"

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

// The tokens "<0x00>" to "<0xFF>", -1 where there is none.
std::array<int32_t, 256> ByteTokens(const TokenTable& table);

// The byte that such a spelling means.
std::optional<uint8_t> ByteOfSpelling(std::string_view token);

}  // namespace sluice

#endif  // SLUICE_LOADERS_TOKENIZER_TOKEN_TABLE_H_
