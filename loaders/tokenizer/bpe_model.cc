#include "loaders/tokenizer/bpe_model.h"

#include <algorithm>
#include <bit>

#include "loaders/tokenizer/utf8.h"

namespace sluice {
namespace {

constexpr size_t kMaxPieceBytes = size_t{1} << 30;
constexpr uint64_t kFreePair = ~uint64_t{0};

uint64_t Mix(uint64_t h) {  // the finalizer of SplitMix64
  h = (h ^ (h >> 30)) * 0xBF58476D1CE4E5B9ULL;
  h = (h ^ (h >> 27)) * 0x94D049BB133111EBULL;
  return h ^ (h >> 31);
}

uint64_t HashText(std::string_view left, std::string_view right) {
  uint64_t h = 0xCBF29CE484222325ULL;
  for (const std::string_view part : {left, right}) {
    for (const char c : part) h = (h ^ static_cast<uint8_t>(c)) * 0x100000001B3ULL;
  }
  return Mix(h);
}

uint64_t PairOf(int32_t left, int32_t right) {
  return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
}

// At most half of the slots are taken.
size_t SlotCount(size_t entries) { return std::bit_ceil(entries * 2 + 2); }

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

Result<BpeModel> BpeModel::Create(const TokenizerSpec& spec, const TokenTable& table) {
  BpeModel model;
  model.table_ = &table;
  model.ignore_merges_ = spec.ignore_merges;
  model.fuse_unknown_ = spec.fuse_unknown;
  model.unknown_id_ = spec.unknown_id;
  model.merges_.resize(SlotCount(spec.merges.size()));
  const auto token = [&spec](int32_t id) -> std::string_view {
    if (id < 0 || static_cast<size_t>(id) >= spec.tokens.size()) return {};
    return spec.tokens[static_cast<size_t>(id)];
  };
  for (size_t rank = 0; rank < spec.merges.size(); ++rank) {
    const MergeRule& rule = spec.merges[rank];
    const std::string_view left = token(rule.left);
    const std::string_view right = token(rule.right);
    const std::optional<int32_t> merged =
        left.empty() || right.empty() ? std::nullopt : table.Find(left, right);
    if (!merged) {
      return Status(ErrorCode::kCorrupt,
                    "merge " + std::to_string(rank) + " names a token that is not there");
    }
    model.InsertMerge({PairOf(rule.left, rule.right), static_cast<uint32_t>(rank), *merged});
  }
  for (size_t code = 0; code < kDirectCharacters; ++code) {
    std::string text;
    AppendUtf8(static_cast<char32_t>(code), &text);
    model.character_ids_[code] = table.Find(text).value_or(-1);
  }
  return model;
}

void BpeModel::InsertMerge(MergeSlot merge) {
  const size_t mask = merges_.size() - 1;
  size_t slot = Mix(merge.pair) & mask;
  while (merges_[slot].pair != kFreePair && merges_[slot].pair != merge.pair) {
    slot = (slot + 1) & mask;
  }
  merges_[slot] = merge;  // of two rules for one pair the later counts
}

const BpeModel::MergeSlot* BpeModel::FindMerge(int32_t left, int32_t right) const {
  const uint64_t pair = PairOf(left, right);
  const size_t mask = merges_.size() - 1;
  for (size_t slot = Mix(pair) & mask; merges_[slot].pair != kFreePair; slot = (slot + 1) & mask) {
    if (merges_[slot].pair == pair) return &merges_[slot];
  }
  return nullptr;
}

void BpeModel::AddSymbols(std::string_view piece, std::vector<Symbol>* symbols) const {
  bool after_unknown = false;
  for (size_t at = 0; at < piece.size();) {
    size_t length = 0;
    const char32_t code = Utf8At(piece, at, &length);
    const int32_t known = code < kDirectCharacters
                              ? character_ids_[code]
                              : table_->Find(piece.substr(at, length)).value_or(-1);
    at += length;
    const int32_t id = known >= 0 ? known : unknown_id_.value_or(-1);
    const bool fused = known < 0 && after_unknown && fuse_unknown_;
    after_unknown = known < 0;
    if (id < 0 || fused) continue;
    const auto position = static_cast<int32_t>(symbols->size());
    symbols->push_back({id, position - 1, position + 1});
  }
  if (!symbols->empty()) symbols->back().next = -1;
}

void BpeModel::Consider(const std::vector<Symbol>& symbols, int32_t position,
                        std::vector<Candidate>* heap) const {
  const Symbol& left = symbols[static_cast<size_t>(position)];
  if (left.next < 0) return;
  const MergeSlot* merge = FindMerge(left.id, symbols[static_cast<size_t>(left.next)].id);
  if (merge != nullptr) heap->push_back({merge->rank, position, merge->new_id});
}

Status BpeModel::Encode(std::string_view piece, Scratch* scratch, std::vector<int32_t>* ids) const {
  if (piece.size() >= kMaxPieceBytes) {
    return Status(ErrorCode::kLimitExceeded, "one word of text of 1 GiB or more");
  }
  if (ignore_merges_) {
    if (const std::optional<int32_t> whole = table_->Find(piece)) {
      ids->push_back(*whole);
      return {};
    }
  }
  std::vector<Symbol>& symbols = scratch->symbols;
  std::vector<Candidate>& heap = scratch->heap;
  symbols.clear();
  heap.clear();
  AddSymbols(piece, &symbols);
  const auto later = [](const Candidate& a, const Candidate& b) {
    return a.rank != b.rank ? a.rank > b.rank : a.position > b.position;
  };
  for (size_t i = 0; i < symbols.size(); ++i) Consider(symbols, static_cast<int32_t>(i), &heap);
  std::make_heap(heap.begin(), heap.end(), later);
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), later);
    const Candidate best = heap.back();
    heap.pop_back();
    Symbol& left = symbols[static_cast<size_t>(best.position)];
    if (left.id < 0 || left.next < 0) continue;
    Symbol& right = symbols[static_cast<size_t>(left.next)];
    // The pair may have changed since; `tokenizers` compares the result only, and so it is here.
    const MergeSlot* merge = FindMerge(left.id, right.id);
    if (merge == nullptr || merge->new_id != best.new_id) continue;
    left.id = best.new_id;
    left.next = right.next;
    right.id = -1;
    if (left.next >= 0) symbols[static_cast<size_t>(left.next)].previous = best.position;
    for (const int32_t position : {left.previous, best.position}) {
      const size_t before = heap.size();
      if (position >= 0) Consider(symbols, position, &heap);
      if (heap.size() > before) std::push_heap(heap.begin(), heap.end(), later);
    }
  }
  for (const Symbol& symbol : symbols) {
    if (symbol.id >= 0) ids->push_back(symbol.id);
  }
  return {};
}

}  // namespace sluice
