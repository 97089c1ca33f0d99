#include "loaders/tokenizer/normalizer.h"

#include <utility>

#include "loaders/tokenizer/base64.h"
#include "loaders/tokenizer/replace_literal.h"
#include "loaders/tokenizer/unicode.h"
#include "loaders/tokenizer/utf8.h"

namespace sluice {
namespace {

constexpr size_t kMaxGrowth = 16;
constexpr size_t kGrowthBase = 1 << 20;

Result<std::string> ReplaceRegex(std::string_view text, const Regex& regex,
                                 const NormalizerStep& step) {
  std::string out;
  RegexScanner scanner(regex, text);
  RegexMatch match;
  size_t at = 0;
  while (true) {
    Result<bool> found = scanner.Next(&match);
    if (!found.ok()) return found.status();
    if (!*found) break;
    out.append(text.substr(at, match.begin - at));
    out.append(step.content);
    at = match.end;
  }
  out.append(text.substr(at));
  return out;
}

std::string_view Strip(std::string_view text, bool left, bool right) {
  size_t length = 0;
  while (left && !text.empty() && IsWhiteSpace(Utf8At(text, 0, &length))) {
    text.remove_prefix(length);
  }
  while (right && !text.empty() && IsWhiteSpace(Utf8Before(text, text.size(), &length))) {
    text.remove_suffix(length);
  }
  return text;
}

constexpr char32_t kDropped = 0xFFFFFFFF;

template <typename Map>
std::string MapCharacters(std::string_view text, Map map) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    size_t length = 0;
    const char32_t mapped = map(Utf8At(text, at, &length));
    if (mapped != kDropped) AppendUtf8(mapped, &out);
    at += length;
  }
  return out;
}

// What `tokenizers` calls Nmt: controls go, and separators become spaces.
char32_t MapNmt(char32_t c) {
  const auto in = [c](char32_t low, char32_t high) { return c >= low && c <= high; };
  if (in(0x01, 0x08) || c == 0x0B || in(0x0E, 0x1F) || c == 0x7F || c == 0x8F || c == 0x9F) {
    return kDropped;
  }
  const bool space = c == 0x09 || c == 0x0A || c == 0x0C || c == 0x0D || c == 0x1680 ||
                     in(0x200B, 0x200F) || c == 0x2028 || c == 0x2029 || c == 0x2581 ||
                     c == 0xFEFF || c == 0xFFFD;
  return space ? U' ' : c;
}

}  // namespace

Result<Normalizer::Step> Normalizer::Prepare(const NormalizerStep& spec) {
  using Kind = NormalizerStep::Kind;
  Step step{spec, std::nullopt, std::nullopt};
  if (spec.kind == Kind::kReplace) {
    if (spec.pattern.empty()) {
      return Status(ErrorCode::kUnsupported, "normalizer Replace of an empty pattern");
    }
    if (spec.pattern_is_regex) {
      Result<Regex> regex = Regex::Compile(spec.pattern);
      if (!regex.ok()) return regex.status().WithContext("normalizer Replace");
      step.regex = *std::move(regex);
    }
  } else if (spec.kind == Kind::kCharsmap || spec.kind == Kind::kCharsmapGraphemes) {
    const std::optional<std::string> bytes = DecodeBase64(spec.content);
    if (!bytes) return Status(ErrorCode::kCorrupt, "precompiled character map is not base 64");
    Result<PrecompiledMap> map = PrecompiledMap::Create(*bytes);
    if (!map.ok()) return map.status();
    step.map = *std::move(map);
    step.spec.content.clear();
  }
  return step;
}

Result<Normalizer> Normalizer::Create(const std::vector<NormalizerStep>& steps) {
  Normalizer normalizer;
  size_t regex_bytes = 0;
  for (const NormalizerStep& spec : steps) {
    Result<Step> step = Prepare(spec);
    if (!step.ok()) return step.status();
    if (step->regex) regex_bytes += step->regex->size_bytes();
    if (regex_bytes > kMaxRegexBytes) {
      return Status(ErrorCode::kLimitExceeded, "normalizer with too many expressions");
    }
    normalizer.steps_.push_back(*std::move(step));
  }
  return normalizer;
}

Result<std::string> Normalizer::ApplyStep(const Step& step, std::string text) {
  switch (step.spec.kind) {
    case NormalizerStep::Kind::kNfc:
      return NormalizeUnicode(text, NormalizationForm::kNfc);
    case NormalizerStep::Kind::kNfd:
      return NormalizeUnicode(text, NormalizationForm::kNfd);
    case NormalizerStep::Kind::kNfkc:
      return NormalizeUnicode(text, NormalizationForm::kNfkc);
    case NormalizerStep::Kind::kNfkd:
      return NormalizeUnicode(text, NormalizationForm::kNfkd);
    case NormalizerStep::Kind::kLowercase:
      return LowercaseUnicode(text);
    case NormalizerStep::Kind::kReplace:
      if (step.regex) return ReplaceRegex(text, *step.regex, step.spec);
      return ReplaceLiteral(text, step.spec.pattern, step.spec.content);
    case NormalizerStep::Kind::kPrepend:
      return text.empty() ? text : step.spec.content + text;
    case NormalizerStep::Kind::kStrip:
      return std::string(Strip(text, step.spec.strip_left, step.spec.strip_right));
    case NormalizerStep::Kind::kStripAccents:
      return MapCharacters(text, [](char32_t c) { return IsAccent(c) ? kDropped : c; });
    case NormalizerStep::Kind::kNmt:
      return MapCharacters(text, MapNmt);
    case NormalizerStep::Kind::kCharsmap:
      return step.map->ReplaceLongest(text);
    case NormalizerStep::Kind::kCharsmapGraphemes:
      return step.map->ReplaceGraphemes(text);
  }
  return Status(ErrorCode::kInternal, "kind of normalizer");
}

Result<std::string> Normalizer::Apply(std::string_view text) const {
  std::string result(text);
  for (const Step& step : steps_) {
    Result<std::string> next = ApplyStep(step, std::move(result));
    if (!next.ok()) return next.status();
    result = *std::move(next);
    if (result.size() / kMaxGrowth > text.size() + kGrowthBase / kMaxGrowth) {
      return Status(ErrorCode::kLimitExceeded,
                    "normalizer makes the text more than 16 times longer");
    }
  }
  return result;
}

}  // namespace sluice
