#include "loaders/tokenizer/token_table.h"

#include <fmt/core.h>

#include <charconv>

#include "loaders/tokenizer/hash_slots.h"

namespace sluice {
namespace {

uint64_t HashText(std::string_view left, std::string_view right) {
  uint64_t h = 0xCBF29CE484222325ULL;
  for (const std::string_view part : {left, right}) {
    for (const char c : part) h = (h ^ static_cast<uint8_t>(c)) * 0x100000001B3ULL;
  }
  return MixHash(h);
}

bool Equals(const std::string& text, std::string_view left, std::string_view right) {
  return text.size() == left.size() + right.size() && text.starts_with(left) &&
         text.ends_with(right);
}

}  // namespace

Result<TokenTable> TokenTable::Create(const std::vector<std::string>& tokens) {
  TokenTable table;
  table.tokens_ = &tokens;
  table.slots_.assign(SlotCount(tokens.size()), -1);
  const size_t mask = table.slots_.size() - 1;
  for (size_t id = 0; id < tokens.size(); ++id) {
    if (tokens[id].empty()) continue;
    size_t slot = HashText(tokens[id], {}) & mask;
    for (; table.slots_[slot] >= 0; slot = (slot + 1) & mask) {
      const auto other = static_cast<size_t>(table.slots_[slot]);
      if (tokens[other] == tokens[id]) {
        return Status(ErrorCode::kCorrupt, "tokens " + std::to_string(other) + " and " +
                                               std::to_string(id) + " are the same");
      }
    }
    table.slots_[slot] = static_cast<int32_t>(id);
  }
  return table;
}

std::optional<int32_t> TokenTable::Find(std::string_view left, std::string_view right) const {
  const size_t mask = slots_.size() - 1;
  for (size_t slot = HashText(left, right) & mask; slots_[slot] >= 0; slot = (slot + 1) & mask) {
    if (Equals((*tokens_)[static_cast<size_t>(slots_[slot])], left, right)) return slots_[slot];
  }
  return std::nullopt;
}

std::array<int32_t, 256> ByteTokens(const TokenTable& table) {
  std::array<int32_t, 256> ids{};
  for (size_t byte = 0; byte < ids.size(); ++byte) {
    ids[byte] = table.Find(fmt::format("<0x{:02X}>", byte)).value_or(-1);
  }
  return ids;
}

std::optional<uint8_t> ByteOfSpelling(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return std::nullopt;
  uint8_t value = 0;
  const auto [end, error] = std::from_chars(token.data() + 3, token.data() + 5, value, 16);
  if (error != std::errc() || end != token.data() + 5) return std::nullopt;
  return value;
}

}  // namespace sluice
