#include "loaders/tokenizer/tokenizer.h"

#include <utility>

#include "loaders/tokenizer/tokenizer_factory.h"
#include "loaders/tokenizer/tokenizer_impl.h"
#include "loaders/tokenizer/utf8.h"

namespace sluice {

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

Status Tokenizer::Impl::EncodeWords(std::string_view text, bool at_start, Encoding* out) const {
  Result<PreTokenizedText> words = pre_tokenizer.Split(text, at_start);
  if (!words.ok()) return words.status();
  for (const PreTokenizedText::Piece& piece : words->pieces) {
    const std::string_view word = words->View(piece);
    Status s = spec.model == TokenModel::kUnigram ? unigram.Encode(word, &out->unigram, &out->ids)
                                                  : bpe.Encode(word, &out->bpe, &out->ids);
    if (!s.ok()) return s;
  }
  return {};
}

// The text parts [first, last), which touch: normalization, the tokens of the normalized text, and
// the words between them.
Status Tokenizer::Impl::EncodeText(std::string_view text, const TextPart* first,
                                   const TextPart* last, Encoding* out) const {
  const std::string_view all = text.substr(first->begin, (last - 1)->end - first->begin);
  const bool at_start = first->begin == 0;
  if (normalizer.empty() && normalized_tokens.empty()) {
    return EncodeWords(all, at_start, out);
  }
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
    if (Status s = EncodeWords(view, at_start && part.begin == 0, out); !s.ok()) return s;
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

std::string_view Tokenizer::TokenBytes(int32_t id) const { return impl_->BytesOf(id); }

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

}  // namespace sluice
