#include "loaders/tokenizer/tokenizer_factory.h"

#include <algorithm>
#include <utility>

#include "loaders/tokenizer/byte_level.h"
#include "loaders/tokenizer/memory_bound.h"
#include "loaders/tokenizer/tokenizer_impl.h"
#include "loaders/tokenizer/utf8.h"

namespace sluice {

Status Tokenizer::Impl::CheckIds() const {
  std::vector<int32_t> ids = spec.prefix_ids;
  ids.insert(ids.end(), spec.suffix_ids.begin(), spec.suffix_ids.end());
  ids.insert(ids.end(), spec.eos_ids.begin(), spec.eos_ids.end());
  if (spec.bos_id) ids.push_back(*spec.bos_id);
  if (spec.unknown_id) ids.push_back(*spec.unknown_id);
  for (const AddedToken& token : spec.added_tokens) ids.push_back(token.id);
  for (const int32_t id : ids) {
    if (!IsToken(id)) {
      return Status(ErrorCode::kCorrupt, "no token has the id " + std::to_string(id));
    }
  }
  for (size_t id = 0; id < spec.tokens.size(); ++id) {
    if (!IsValidUtf8(spec.tokens[id])) {
      return Status(ErrorCode::kCorrupt, "token " + std::to_string(id) + " is not UTF-8");
    }
  }
  return {};
}

void Tokenizer::Impl::SetBytes(int32_t id, const std::string& spelling) {
  const auto index = static_cast<size_t>(id);
  std::string value;
  if (byte_level()) {
    // An added token with characters outside the byte alphabet stands for its own text.
    value = BytesOfByteLevel(spelling).value_or(spelling);
  } else {
    value = decoder.TextOf(spelling, /*first=*/false);
    const std::optional<uint8_t> byte =
        decoder.byte_fallback() ? ByteOfSpelling(value) : std::optional<uint8_t>();
    is_byte[index] = byte.has_value();
    if (byte) value.assign(1, static_cast<char>(*byte));
  }
  bytes[index] = {token_bytes.size(), value.size()};
  token_bytes += value;
}

Status Tokenizer::Impl::AddTokens() {
  special.assign(spec.tokens.size(), false);
  std::vector<bool> seen(spec.tokens.size(), false);
  for (const AddedToken& token : spec.added_tokens) {
    if (seen[static_cast<size_t>(token.id)]) {
      return Status(ErrorCode::kCorrupt, "added token " + std::to_string(token.id) + " twice");
    }
    seen[static_cast<size_t>(token.id)] = true;
  }
  // Special tokens first, as `tokenizers` numbers its patterns: of equal patterns the last counts.
  for (const bool specials : {true, false}) {
    for (const AddedToken& token : spec.added_tokens) {
      if (token.special != specials) continue;
      if (token.special) special[static_cast<size_t>(token.id)] = true;
      Status added;
      if (token.normalized) {
        if (!IsValidUtf8(token.content))
          return Status(ErrorCode::kCorrupt, "added token not UTF-8");
        Result<std::string> pattern = normalizer.Apply(token.content);
        if (!pattern.ok()) return pattern.status();
        added = normalized_tokens.Add(token, *pattern);
        // `tokenizers` gives such a token the text that it is found by.
        SetBytes(token.id, *pattern);
        found_by.emplace(token.id, *pattern);
        normalizes_special = normalizes_special || token.special;
      } else {
        added = raw_tokens.Add(token, token.content);
      }
      if (!added.ok()) return added;
    }
  }
  return {};
}

Status Tokenizer::Impl::BuildModel() {
  if (spec.model == TokenModel::kUnigram) {
    Result<UnigramModel> made = UnigramModel::Create(spec, table);
    if (made.ok()) unigram = *std::move(made);
    return made.status();
  }
  Result<BpeModel> made = BpeModel::Create(spec, table);
  if (made.ok()) bpe = *std::move(made);
  return made.status();
}

Status Tokenizer::Impl::BuildTables() {
  if (Status s = CheckIds(); !s.ok()) return s;
  Result<TokenTable> made_table = TokenTable::Create(spec.tokens);
  if (!made_table.ok()) return made_table.status();
  table = *std::move(made_table);
  if (Status s = BuildModel(); !s.ok()) return s;
  Result<Normalizer> made_normalizer = Normalizer::Create(spec.normalizer);
  if (!made_normalizer.ok()) return made_normalizer.status();
  normalizer = *std::move(made_normalizer);
  Result<PreTokenizer> made_pre = PreTokenizer::Create(spec.pre_tokenizer, byte_level());
  if (!made_pre.ok()) return made_pre.status();
  pre_tokenizer = *std::move(made_pre);
  Result<TokenDecoder> made_decoder = TokenDecoder::Create(spec.decoder);
  if (!made_decoder.ok()) return made_decoder.status();
  decoder = *std::move(made_decoder);
  bytes.resize(spec.tokens.size());
  size_t text_bytes = 0;
  for (const std::string& token : spec.tokens) text_bytes += token.size();
  token_bytes.reserve(text_bytes);
  is_byte.assign(spec.tokens.size(), false);
  for (size_t id = 0; id < spec.tokens.size(); ++id) {
    SetBytes(static_cast<int32_t>(id), spec.tokens[id]);
  }
  return AddTokens();
}

Result<Tokenizer> TokenizerFactory::Create(TokenizerSpec spec) {
  // A tokenizer that is read from anything can be read again from its compact JSON.
  const TokenizerCounts counts = CountsOf(spec);
  const uint64_t needed = std::max(BytesToBuild(counts), BytesToReadStored(counts));
  if (Status s = CheckMemory(needed, StoredBytes(spec), UINT64_MAX); !s.ok()) {
    return s.WithContext("tokenizer");
  }
  auto impl = std::make_shared<Tokenizer::Impl>();
  impl->spec = std::move(spec);
  if (Status s = impl->BuildTables(); !s.ok()) return s.WithContext("tokenizer");
  return Tokenizer(std::move(impl));
}

}  // namespace sluice
