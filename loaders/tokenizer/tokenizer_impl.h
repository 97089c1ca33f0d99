// What a Tokenizer holds. Private to this folder.
#ifndef SLUICE_LOADERS_TOKENIZER_TOKENIZER_IMPL_H_
#define SLUICE_LOADERS_TOKENIZER_TOKENIZER_IMPL_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "loaders/tokenizer/added_tokens.h"
#include "loaders/tokenizer/bpe_model.h"
#include "loaders/tokenizer/normalizer.h"
#include "loaders/tokenizer/pre_tokenizer.h"
#include "loaders/tokenizer/token_decoder.h"
#include "loaders/tokenizer/token_table.h"
#include "loaders/tokenizer/tokenizer.h"
#include "loaders/tokenizer/tokenizer_spec.h"
#include "loaders/tokenizer/unigram_model.h"

namespace sluice {

struct Tokenizer::Impl {
  struct Bytes {
    size_t begin = 0;
    size_t size = 0;
  };

  TokenizerSpec spec;
  TokenTable table;  // of spec.tokens
  BpeModel bpe;      // by spec.model one of the two
  UnigramModel unigram;
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  TokenDecoder decoder;
  AddedTokenFinder raw_tokens;         // searched for in the text as it is
  AddedTokenFinder normalized_tokens;  // in the normalized text
  bool normalizes_special = false;     // a special token is among the latter
  std::vector<bool> special;           // by id
  std::vector<bool> is_byte;           // by id: "<0x0A>" of a decoder with byte fallback
  std::string token_bytes;             // of all tokens
  std::vector<Bytes> bytes;            // by id
  // The spelling of added tokens that are found by another text than their own.
  std::unordered_map<int32_t, std::string> found_by;

  Status BuildTables();
  Status BuildModel();
  void SetBytes(int32_t id, const std::string& spelling);
  Status AddTokens();
  Status CheckIds() const;

  bool IsToken(int32_t id) const {
    return id >= 0 && static_cast<size_t>(id) < spec.tokens.size() &&
           !spec.tokens[static_cast<size_t>(id)].empty();
  }
  bool byte_level() const { return spec.model == TokenModel::kByteLevelBpe; }
  std::string_view BytesOf(int32_t id) const {
    if (!IsToken(id)) return {};
    const Bytes& range = bytes[static_cast<size_t>(id)];
    return std::string_view(token_bytes).substr(range.begin, range.size);
  }
  const std::string& SpellingOf(int32_t id) const {
    const auto found = found_by.find(id);
    return found == found_by.end() ? spec.tokens[static_cast<size_t>(id)] : found->second;
  }

  // What one call of Encode has so far.
  struct Encoding {
    std::vector<int32_t> ids;
    bool begins_with_added_token = false;
    BpeModel::Scratch bpe;
    UnigramModel::Scratch unigram;

    void AddToken(int32_t id) {
      if (ids.empty()) begins_with_added_token = true;
      ids.push_back(id);
    }
  };
  Status EncodeWords(std::string_view text, bool at_start, Encoding* out) const;
  Status EncodeText(std::string_view text, const TextPart* first, const TextPart* last,
                    Encoding* out) const;
  void AddPrefixAndSuffix(Encoding* out) const;
};

}  // namespace sluice

#endif  // SLUICE_LOADERS_TOKENIZER_TOKENIZER_IMPL_H_
