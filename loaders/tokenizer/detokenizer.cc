#include <algorithm>
#include <utility>

#include "loaders/tokenizer/tokenizer.h"
#include "loaders/tokenizer/tokenizer_impl.h"
#include "loaders/tokenizer/utf8.h"

namespace sluice {

std::string Tokenizer::Decode(std::span<const int32_t> ids, bool skip_special) const {
  Detokenizer detokenizer(*this, skip_special);
  std::string text;
  for (const int32_t id : ids) text += detokenizer.Append(id);
  return text + detokenizer.Finish();
}

Detokenizer::Detokenizer(Tokenizer tokenizer, bool skip_special, bool at_start)
    : tokenizer_(std::move(tokenizer)), skip_special_(skip_special), at_start_(at_start) {
  Restart();
}

void Detokenizer::Restart() {
  pending_.clear();
  first_ = at_start_;
  strip_left_ = at_start_ ? tokenizer_.impl_->decoder.strip_count() : 0;
}

std::string Detokenizer::Append(int32_t id) {
  if (skip_special_ && tokenizer_.IsSpecial(id)) return {};
  return tokenizer_.impl_->byte_level() ? AppendBytes(id) : AppendText(id);
}

std::string Detokenizer::AppendBytes(int32_t id) {
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

std::string Detokenizer::AppendText(int32_t id) {
  const Tokenizer::Impl& impl = *tokenizer_.impl_;
  if (!impl.IsToken(id)) return {};
  const bool first = std::exchange(first_, false);
  if (impl.is_byte[static_cast<size_t>(id)]) {
    pending_ += impl.BytesOf(id);
    return {};
  }
  std::string text = TakeByteRun();
  if (first && impl.decoder.first_differs()) {
    text += impl.decoder.TextOf(impl.SpellingOf(id), /*first=*/true);
  } else {
    text += impl.BytesOf(id);
  }
  return Strip(std::move(text));
}

// A run of byte tokens is text if all of it is; otherwise each token is U+FFFD.
std::string Detokenizer::TakeByteRun() {
  const std::string run = std::exchange(pending_, {});
  if (IsValidUtf8(run)) return run;
  std::string text;
  for (size_t i = 0; i < run.size(); ++i) text += kReplacementCharacter;
  return text;
}

std::string Detokenizer::Strip(std::string text) {
  const std::string_view character = tokenizer_.impl_->decoder.strip_character();
  size_t begin = 0;
  while (strip_left_ > 0 && begin < text.size()) {
    if (!std::string_view(text).substr(begin).starts_with(character)) {
      strip_left_ = 0;
    } else {
      begin += character.size();
      --strip_left_;
    }
  }
  return text.substr(begin);
}

std::string Detokenizer::Finish() {
  std::string text;
  if (tokenizer_.impl_->byte_level()) {
    AppendRepairedUtf8(pending_, &text);
  } else {
    text = Strip(TakeByteRun());
  }
  Restart();
  return text;
}

}  // namespace sluice
