#include "loaders/tokenizer/tokenizer.h"

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "loaders/tokenizer/added_tokens.h"
#include "loaders/tokenizer/bpe_model.h"
#include "loaders/tokenizer/byte_level.h"
#include "loaders/tokenizer/normalizer.h"
#include "loaders/tokenizer/pre_tokenizer.h"
#include "loaders/tokenizer/tokenizer_factory.h"
#include "loaders/tokenizer/utf8.h"

namespace sluice {

struct Tokenizer::Impl {
  struct Bytes {
    size_t begin = 0;
    size_t size = 0;
  };

  TokenizerSpec spec;
  TokenTable table;  // of spec.tokens
  BpeModel model;
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  AddedTokenFinder raw_tokens;         // searched for in the text as it is
  AddedTokenFinder normalized_tokens;  // in the normalized text
  bool normalizes_special = false;     // a special token is among the latter
  std::vector<bool> special;           // by id
  std::string token_bytes;             // of all tokens
  std::vector<Bytes> bytes;            // by id

  Status BuildTables();
  void SetBytes(int32_t id, const std::string& spelling);
  Status AddTokens();
  Status CheckIds() const;

  bool IsToken(int32_t id) const {
    return id >= 0 && static_cast<size_t>(id) < spec.tokens.size() &&
           !spec.tokens[static_cast<size_t>(id)].empty();
  }
  // What one call of Encode has so far.
  struct Encoding {
    std::vector<int32_t> ids;
    bool begins_with_added_token = false;
    BpeModel::Scratch scratch;

    void AddToken(int32_t id) {
      if (ids.empty()) begins_with_added_token = true;
      ids.push_back(id);
    }
  };
  Status EncodeWords(std::string_view text, Encoding* out) const;
  Status EncodeText(std::string_view text, const TextPart* first, const TextPart* last,
                    Encoding* out) const;
  void AddPrefixAndSuffix(Encoding* out) const;
};

namespace {

// Text parts that touch become one; their flags no longer matter.
std::vector<TextPart> JoinTextParts(std::vector<TextPart> parts) {
  std::vector<TextPart> joined;
  for (const TextPart& part : parts) {
    if (!joined.empty() && part.token_id < 0 && joined.back().token_id < 0) {
      joined.back().end = part.end;
    } else {
      joined.push_back(part);
    }
  }
  return joined;
}

}  // namespace

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
  // An added token with characters outside the byte alphabet stands for its own text.
  const std::optional<std::string> spelled = BytesOfByteLevel(spelling);
  const std::string& value = spelled ? *spelled : spelling;
  bytes[static_cast<size_t>(id)] = {token_bytes.size(), value.size()};
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
        normalizes_special = normalizes_special || token.special;
      } else {
        added = raw_tokens.Add(token, token.content);
      }
      if (!added.ok()) return added;
    }
  }
  return {};
}

Status Tokenizer::Impl::BuildTables() {
  if (Status s = CheckIds(); !s.ok()) return s;
  Result<TokenTable> made_table = TokenTable::Create(spec.tokens);
  if (!made_table.ok()) return made_table.status();
  table = *std::move(made_table);
  Result<BpeModel> made_model = BpeModel::Create(spec, table);
  if (!made_model.ok()) return made_model.status();
  model = *std::move(made_model);
  Result<Normalizer> made_normalizer = Normalizer::Create(spec.normalizer);
  if (!made_normalizer.ok()) return made_normalizer.status();
  normalizer = *std::move(made_normalizer);
  Result<PreTokenizer> made_pre = PreTokenizer::Create(spec.pre_tokenizer);
  if (!made_pre.ok()) return made_pre.status();
  pre_tokenizer = *std::move(made_pre);
  bytes.resize(spec.tokens.size());
  for (size_t id = 0; id < spec.tokens.size(); ++id) {
    SetBytes(static_cast<int32_t>(id), spec.tokens[id]);
  }
  return AddTokens();
}

Result<Tokenizer> TokenizerFactory::Create(TokenizerSpec spec) {
  auto impl = std::make_shared<Tokenizer::Impl>();
  impl->spec = std::move(spec);
  if (Status s = impl->BuildTables(); !s.ok()) return s.WithContext("tokenizer");
  return Tokenizer(std::move(impl));
}

Tokenizer::Tokenizer(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}

Result<Tokenizer> Tokenizer::FromHuggingFace(const HuggingFaceTokenizerFiles& files) {
  Result<TokenizerSpec> spec = ReadHuggingFaceTokenizer(files);
  if (!spec.ok()) return spec.status();
  return TokenizerFactory::Create(*std::move(spec));
}

Result<Tokenizer> Tokenizer::FromGguf(const GgufTokenizerFields& fields) {
  Result<TokenizerSpec> spec = ReadGgufTokenizer(fields);
  if (!spec.ok()) return spec.status();
  return TokenizerFactory::Create(*std::move(spec));
}

Result<Tokenizer> Tokenizer::FromJson(std::string_view json) {
  Result<TokenizerSpec> spec = ReadCompactTokenizer(json);
  if (!spec.ok()) return spec.status();
  return TokenizerFactory::Create(*std::move(spec));
}

std::string Tokenizer::ToJson() const { return WriteCompactTokenizer(impl_->spec); }

Status Tokenizer::Impl::EncodeWords(std::string_view text, Encoding* out) const {
  Result<PreTokenizedText> words = pre_tokenizer.Split(text);
  if (!words.ok()) return words.status();
  for (const PreTokenizedText::Piece& piece : words->pieces) {
    if (Status s = model.Encode(words->View(piece), &out->scratch, &out->ids); !s.ok()) return s;
  }
  return {};
}

// The text parts [first, last), which touch: normalization, the tokens of the normalized text, and
// the words between them.
Status Tokenizer::Impl::EncodeText(std::string_view text, const TextPart* first,
                                   const TextPart* last, Encoding* out) const {
  const std::string_view all = text.substr(first->begin, (last - 1)->end - first->begin);
  if (normalizer.empty() && normalized_tokens.empty()) return EncodeWords(all, out);
  std::vector<TextPart> segments;
  std::string normalized;
  const auto normalize = [&](std::string_view part, bool parse_special) -> Status {
    Result<std::string> result = normalizer.Apply(part);
    if (!result.ok()) return result.status();
    const size_t begin = normalized.size();
    normalized += *result;
    segments.push_back({begin, normalized.size(), parse_special, -1});
    return {};
  };
  // Only where a special token has to be looked for in normalized text do the runs stay apart.
  if (!normalizes_special) {
    if (Status s = normalize(all, true); !s.ok()) return s;
  } else {
    for (const TextPart* part = first; part != last; ++part) {
      const std::string_view view = text.substr(part->begin, part->end - part->begin);
      if (Status s = normalize(view, part->parse_special); !s.ok()) return s;
    }
  }
  std::vector<TextPart> parts;
  normalized_tokens.Split(normalized, segments, &parts);
  for (const TextPart& part : JoinTextParts(std::move(parts))) {
    if (part.token_id >= 0) {
      out->AddToken(part.token_id);
      continue;
    }
    const std::string_view view =
        std::string_view(normalized).substr(part.begin, part.end - part.begin);
    if (Status s = EncodeWords(view, out); !s.ok()) return s;
  }
  return {};
}

Result<std::vector<int32_t>> Tokenizer::Encode(std::span<const TokenizerText> runs,
                                               bool add_special) const {
  std::string text;
  std::vector<TextPart> segments;
  for (const TokenizerText& run : runs) {
    const size_t begin = text.size();
    AppendRepairedUtf8(run.text, &text);
    if (text.size() == begin) continue;
    if (!segments.empty() && segments.back().parse_special == run.parse_special) {
      segments.back().end = text.size();
    } else {
      segments.push_back({begin, text.size(), run.parse_special, -1});
    }
  }
  std::vector<TextPart> parts;
  impl_->raw_tokens.Split(text, segments, &parts);
  Impl::Encoding out;
  for (size_t i = 0; i < parts.size();) {
    if (parts[i].token_id >= 0) {
      out.AddToken(parts[i++].token_id);
      continue;
    }
    size_t end = i;
    while (end < parts.size() && parts[end].token_id < 0) ++end;
    Status s = impl_->EncodeText(text, parts.data() + i, parts.data() + end, &out);
    if (!s.ok()) return s;
    i = end;
  }
  if (add_special) impl_->AddPrefixAndSuffix(&out);
  return std::move(out.ids);
}

void Tokenizer::Impl::AddPrefixAndSuffix(Encoding* out) const {
  std::vector<int32_t>& ids = out->ids;
  const bool has_prefix =
      out->begins_with_added_token && !spec.prefix_ids.empty() && ids[0] == spec.prefix_ids[0];
  if (!has_prefix) ids.insert(ids.begin(), spec.prefix_ids.begin(), spec.prefix_ids.end());
  ids.insert(ids.end(), spec.suffix_ids.begin(), spec.suffix_ids.end());
}

Result<std::vector<int32_t>> Tokenizer::Encode(std::string_view text, bool parse_special,
                                               bool add_special) const {
  const TokenizerText run{text, parse_special};
  return Encode(std::span(&run, 1), add_special);
}

std::string_view Tokenizer::TokenBytes(int32_t id) const {
  if (!impl_->IsToken(id)) return {};
  const Impl::Bytes& range = impl_->bytes[static_cast<size_t>(id)];
  return std::string_view(impl_->token_bytes).substr(range.begin, range.size);
}

std::string Tokenizer::Decode(std::span<const int32_t> ids, bool skip_special) const {
  std::string bytes;
  for (const int32_t id : ids) {
    if (!skip_special || !IsSpecial(id)) bytes += TokenBytes(id);
  }
  std::string text;
  text.reserve(bytes.size());
  AppendRepairedUtf8(bytes, &text);
  return text;
}

int32_t Tokenizer::vocab_size() const { return static_cast<int32_t>(impl_->spec.tokens.size()); }

std::optional<int32_t> Tokenizer::bos_id() const { return impl_->spec.bos_id; }

const std::vector<int32_t>& Tokenizer::eos_ids() const { return impl_->spec.eos_ids; }

bool Tokenizer::IsSpecial(int32_t id) const {
  return impl_->IsToken(id) && impl_->special[static_cast<size_t>(id)];
}

bool Tokenizer::adds_bos() const {
  const TokenizerSpec& spec = impl_->spec;
  return spec.bos_id && !spec.prefix_ids.empty() && spec.prefix_ids[0] == *spec.bos_id;
}

bool Tokenizer::adds_eos() const { return !impl_->spec.suffix_ids.empty(); }

std::optional<int32_t> Tokenizer::Find(std::string_view spelling) const {
  return impl_->table.Find(spelling);
}

Detokenizer::Detokenizer(Tokenizer tokenizer, bool skip_special)
    : tokenizer_(std::move(tokenizer)), skip_special_(skip_special) {}

std::string Detokenizer::Append(int32_t id) {
  if (skip_special_ && tokenizer_.IsSpecial(id)) return {};
  pending_ += tokenizer_.TokenBytes(id);
  // Only the last character can be incomplete, and it began at most 3 bytes before the end.
  size_t certain = pending_.size();
  for (size_t back = 1; back <= std::min<size_t>(3, pending_.size()); ++back) {
    const size_t at = pending_.size() - back;
    if ((static_cast<uint8_t>(pending_[at]) & 0xC0) == 0x80) continue;
    const Utf8Step step = DecodeUtf8(pending_, at);
    if (step.truncated) certain = at;
    break;
  }
  std::string text;
  AppendRepairedUtf8(std::string_view(pending_).substr(0, certain), &text);
  pending_.erase(0, certain);
  return text;
}

std::string Detokenizer::Finish() {
  std::string text;
  AppendRepairedUtf8(pending_, &text);
  pending_.clear();
  return text;
}

}  // namespace sluice
