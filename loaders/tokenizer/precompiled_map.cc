#include "loaders/tokenizer/precompiled_map.h"

#include <utf8proc.h>

#include "loaders/tokenizer/utf8.h"

namespace sluice {
namespace {

// Longer keys do not occur; a damaged trie may have cycles.
constexpr size_t kMaxKeyBytes = 64;

uint32_t ReadUint32(std::string_view bytes, size_t at) {
  uint32_t value = 0;
  for (size_t i = 0; i < 4; ++i) {
    value |= uint32_t{static_cast<uint8_t>(bytes[at + i])} << (8 * i);
  }
  return value;
}

// The fields of a unit of Darts-clone.
bool HasLeaf(uint32_t unit) { return (unit >> 8 & 1) != 0; }
uint32_t ValueOf(uint32_t unit) { return unit & 0x7FFFFFFF; }
uint32_t LabelOf(uint32_t unit) { return unit & 0x800000FF; }
uint32_t OffsetOf(uint32_t unit) { return (unit >> 10) << ((unit & 0x200) >> 6); }

}  // namespace

Result<PrecompiledMap> PrecompiledMap::Create(std::string_view bytes) {
  const auto corrupt = [](const char* what) {
    return Status(ErrorCode::kCorrupt, std::string("precompiled character map: ") + what);
  };
  if (bytes.size() < 4) return corrupt("truncated");
  const uint32_t trie_bytes = ReadUint32(bytes, 0);
  if (trie_bytes > bytes.size() - 4 || trie_bytes % 4 != 0 || trie_bytes == 0) {
    return corrupt("size of the trie");
  }
  PrecompiledMap map;
  map.units_.reserve(trie_bytes / 4);
  for (size_t at = 4; at < trie_bytes + 4; at += 4) map.units_.push_back(ReadUint32(bytes, at));
  map.replacements_ = bytes.substr(4 + trie_bytes);
  if (!IsValidUtf8(map.replacements_)) return corrupt("replacement is not UTF-8");
  return map;
}

std::optional<PrecompiledMap::Match> PrecompiledMap::Find(std::string_view text,
                                                          bool longest) const {
  std::optional<Match> found;
  uint32_t node = OffsetOf(units_[0]);
  for (size_t i = 0; i < text.size() && i < kMaxKeyBytes; ++i) {
    const auto byte = static_cast<uint8_t>(text[i]);
    if (byte == 0) break;
    node ^= byte;
    if (node >= units_.size() || LabelOf(units_[node]) != byte) break;
    const uint32_t unit = units_[node];
    node ^= OffsetOf(unit);
    if (node >= units_.size()) break;
    if (!HasLeaf(unit)) continue;
    const uint32_t value = ValueOf(units_[node]);
    // Between characters only, of the key and of the replacements.
    const bool whole = i + 1 == text.size() || (static_cast<uint8_t>(text[i + 1]) & 0xC0) != 0x80;
    if (!whole || value >= replacements_.size() ||
        (static_cast<uint8_t>(replacements_[value]) & 0xC0) == 0x80) {
      break;
    }
    const size_t end = replacements_.find('\0', value);
    const size_t size = (end == std::string::npos ? replacements_.size() : end) - value;
    found = Match{i + 1, std::string_view(replacements_).substr(value, size)};
    if (!longest) break;
  }
  return found;
}

std::string PrecompiledMap::ReplaceLongest(std::string_view text) const {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    if (const std::optional<Match> match = Find(text.substr(at), true)) {
      out.append(match->replacement);
      at += match->length;
    } else {
      size_t length = 0;
      Utf8At(text, at, &length);
      out.append(text.substr(at, length));
      at += length;
    }
  }
  return out;
}

void PrecompiledMap::AppendCharacters(std::string_view text, std::string* out) const {
  for (size_t at = 0; at < text.size();) {
    size_t length = 0;
    Utf8At(text, at, &length);
    const std::string_view character = text.substr(at, length);
    const std::optional<Match> match = Find(character, false);
    out->append(match ? match->replacement : character);
    at += length;
  }
}

std::string PrecompiledMap::ReplaceGraphemes(std::string_view text) const {
  std::string out;
  out.reserve(text.size());
  utf8proc_int32_t state = 0;
  size_t begin = 0;
  const auto finish = [&](size_t end) {
    const std::string_view cluster = text.substr(begin, end - begin);
    const std::optional<Match> match =
        cluster.size() < 6 ? Find(cluster, false) : std::optional<Match>();
    if (match) {
      out.append(match->replacement);
    } else {
      AppendCharacters(cluster, &out);
    }
    begin = end;
  };
  char32_t previous = 0;
  for (size_t at = 0; at < text.size();) {
    size_t length = 0;
    const char32_t code = Utf8At(text, at, &length);
    if (at > 0 && utf8proc_grapheme_break_stateful(static_cast<utf8proc_int32_t>(previous),
                                                   static_cast<utf8proc_int32_t>(code), &state)) {
      finish(at);
    }
    previous = code;
    at += length;
  }
  if (begin < text.size()) finish(text.size());
  return out;
}

}  // namespace sluice
