#include "loaders/tokenizer/normalizer.h"

#include <utility>

#include "loaders/tokenizer/unicode.h"
#include "loaders/tokenizer/utf8.h"

namespace sluice {
namespace {

constexpr size_t kMaxGrowth = 16;
constexpr size_t kGrowthBase = 1 << 20;

std::string ReplaceLiteral(std::string_view text, const NormalizerStep& step) {
  std::string out;
  for (size_t at = 0;;) {
    const size_t found = text.find(step.pattern, at);
    if (found == std::string_view::npos) {
      out.append(text.substr(at));
      return out;
    }
    out.append(text.substr(at, found - at));
    out.append(step.content);
    at = found + step.pattern.size();
  }
}

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

}  // namespace

Result<Normalizer> Normalizer::Create(const std::vector<NormalizerStep>& steps) {
  Normalizer normalizer;
  for (const NormalizerStep& spec : steps) {
    Step step{spec, std::nullopt};
    if (spec.kind == NormalizerStep::Kind::kReplace) {
      if (spec.pattern.empty()) {
        return Status(ErrorCode::kUnsupported, "normalizer Replace of an empty pattern");
      }
      if (spec.pattern_is_regex) {
        Result<Regex> regex = Regex::Compile(spec.pattern);
        if (!regex.ok()) return regex.status().WithContext("normalizer Replace");
        step.regex = *std::move(regex);
      }
    }
    normalizer.steps_.push_back(std::move(step));
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
      return ReplaceLiteral(text, step.spec);
    case NormalizerStep::Kind::kPrepend:
      return text.empty() ? text : step.spec.content + text;
    case NormalizerStep::Kind::kStrip:
      return std::string(Strip(text, step.spec.strip_left, step.spec.strip_right));
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
