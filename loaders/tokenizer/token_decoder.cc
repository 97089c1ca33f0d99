#include "loaders/tokenizer/token_decoder.h"

#include "loaders/tokenizer/replace_literal.h"

namespace sluice {

Result<TokenDecoder> TokenDecoder::Create(const std::vector<DecoderStep>& steps) {
  using Kind = DecoderStep::Kind;
  const auto unsupported = [](const char* what) {
    return Status(ErrorCode::kUnsupported, std::string("decoder ") + what);
  };
  TokenDecoder decoder;
  bool fused = false;
  for (const DecoderStep& step : steps) {
    switch (step.kind) {
      case Kind::kReplace:
      case Kind::kMetaspace:
        if (step.pattern.empty()) return unsupported("with an empty pattern");
        if (fused || decoder.byte_fallback_)
          return unsupported("Replace or Metaspace after others");
        decoder.first_differs_ = decoder.first_differs_ || step.drop_first;
        decoder.token_steps_.push_back(step);
        break;
      case Kind::kByteFallback:
        if (fused || decoder.byte_fallback_) return unsupported("ByteFallback after Fuse");
        decoder.byte_fallback_ = true;
        break;
      case Kind::kFuse:
        fused = true;
        break;
      case Kind::kStrip:
        if (!fused || decoder.strip_count_ > 0) return unsupported("Strip that is not after Fuse");
        if (step.stop != 0) return unsupported("Strip with 'stop'");
        if (step.start < 0 || step.pattern.empty()) return unsupported("Strip");
        decoder.strip_character_ = step.pattern;
        decoder.strip_count_ = step.start;
        break;
    }
  }
  return decoder;
}

std::string TokenDecoder::TextOf(std::string_view spelling, bool first) const {
  std::string text(spelling);
  for (const DecoderStep& step : token_steps_) {
    const bool metaspace = step.kind == DecoderStep::Kind::kMetaspace;
    const std::string_view space = first && step.drop_first ? "" : " ";
    text = ReplaceLiteral(text, step.pattern, metaspace ? space : std::string_view(step.content));
  }
  return text;
}

}  // namespace sluice
