#include "loaders/tokenizer/added_tokens.h"

#include <algorithm>
#include <string>

#include "loaders/tokenizer/unicode.h"
#include "loaders/tokenizer/utf8.h"

namespace sluice {
namespace {

constexpr size_t kMaxPatternBytes = 1024;

bool StandsAlone(std::string_view text, size_t begin, size_t end) {
  size_t length = 0;
  if (begin > 0 && IsWordCharacter(Utf8Before(text, begin, &length))) return false;
  return end == text.size() || !IsWordCharacter(Utf8At(text, end, &length));
}

// `lowest` bounds the work: what lies before it has been given to an earlier token.
size_t SkipSpaceBackward(std::string_view text, size_t begin, size_t lowest) {
  size_t length = 0;
  while (begin > lowest && IsWhiteSpace(Utf8Before(text, begin, &length))) begin -= length;
  return begin;
}

size_t SkipSpaceForward(std::string_view text, size_t end) {
  size_t length = 0;
  while (end < text.size() && IsWhiteSpace(Utf8At(text, end, &length))) end += length;
  return end;
}

}  // namespace

Status AddedTokenFinder::Add(const AddedToken& token, std::string_view pattern) {
  if (pattern.empty()) return {};
  if (pattern.size() > kMaxPatternBytes) {
    return Status(ErrorCode::kUnsupported,
                  "added token " + std::to_string(token.id) + " is longer than 1024 bytes");
  }
  uint32_t node = 0;
  for (const char c : pattern) {
    const uint64_t key = uint64_t{node} * 256 + static_cast<uint8_t>(c);
    const auto [child, inserted] =
        children_.try_emplace(key, static_cast<uint32_t>(token_at_node_.size()));
    if (inserted) token_at_node_.push_back(kNone);
    node = child->second;
  }
  first_byte_[static_cast<uint8_t>(pattern[0])] = true;
  token_at_node_[node] = static_cast<uint32_t>(tokens_.size());
  tokens_.push_back({token.id, token.special, token.single_word, token.lstrip, token.rstrip});
  return {};
}

bool AddedTokenFinder::Find(std::string_view text, size_t from, Match* match) const {
  for (size_t begin = from; begin < text.size(); ++begin) {
    if (!first_byte_[static_cast<uint8_t>(text[begin])]) continue;
    uint32_t node = 0;
    uint32_t found = kNone;
    for (size_t at = begin; at < text.size(); ++at) {
      const auto child = children_.find(uint64_t{node} * 256 + static_cast<uint8_t>(text[at]));
      if (child == children_.end()) break;
      node = child->second;
      if (token_at_node_[node] != kNone) {
        found = token_at_node_[node];
        match->end = at + 1;
      }
    }
    if (found != kNone) {
      match->begin = begin;
      match->token = found;
      return true;
    }
  }
  return false;
}

void AddedTokenFinder::Split(std::string_view text, const std::vector<TextPart>& segments,
                             std::vector<TextPart>* parts) const {
  size_t done = 0;     // all before it is in *parts
  size_t current = 0;  // the segment of `done`
  const auto add_text_until = [&](size_t end) {
    while (done < end) {
      while (segments[current].begin > done) --current;
      while (segments[current].end <= done) ++current;
      const size_t stop = std::min(end, segments[current].end);
      parts->push_back({done, stop, segments[current].parse_special, -1});
      done = stop;
    }
  };
  for (const TextPart& segment : segments) {
    Match match;
    for (size_t from = segment.begin; Find(text.substr(0, segment.end), from, &match);
         from = match.end) {
      const Token& token = tokens_[match.token];
      if (token.special && !segment.parse_special) continue;
      if (token.single_word && !StandsAlone(text, match.begin, match.end)) continue;
      size_t begin = match.begin;
      if (token.lstrip && begin > done) begin = SkipSpaceBackward(text, begin, done);
      const size_t end = token.rstrip ? SkipSpaceForward(text, match.end) : match.end;
      add_text_until(begin);
      parts->push_back({begin, end, segment.parse_special, token.id});
      // A token inside the whitespace that rstrip took moves this back, as it does in `tokenizers`.
      done = end;
    }
  }
  add_text_until(text.size());
}

}  // namespace sluice
