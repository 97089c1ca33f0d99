#include "loaders/tokenizer/bpe_model.h"

#include <algorithm>
#include <cmath>

#include "loaders/tokenizer/hash_slots.h"
#include "loaders/tokenizer/utf8.h"

namespace sluice {
namespace {

constexpr size_t kMaxPieceBytes = size_t{1} << 30;
constexpr uint64_t kFreePair = ~uint64_t{0};
constexpr uint32_t kNotInWords = ~uint32_t{0};

uint64_t PairOf(int32_t left, int32_t right) {
  return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
}

void Append(int32_t id, std::vector<BpeModel::Symbol>* symbols) {
  const auto position = static_cast<int32_t>(symbols->size());
  symbols->push_back({id, position - 1, position + 1});
}

}  // namespace

Result<BpeModel> BpeModel::Create(const TokenizerSpec& spec, const TokenTable& table) {
  BpeModel model;
  model.spec_ = &spec;
  model.table_ = &table;
  Status s = spec.model == TokenModel::kScoredBpe ? model.RankScores() : model.AddMerges();
  if (!s.ok()) return s;
  for (size_t code = 0; code < kDirectCharacters; ++code) {
    std::string text;
    AppendUtf8(static_cast<char32_t>(code), &text);
    model.character_ids_[code] = table.Find(text).value_or(-1);
  }
  model.byte_ids_ = ByteTokens(table);
  return model;
}

Status BpeModel::AddMerges() {
  merges_.resize(SlotCount(spec_->merges.size()));
  const auto token = [this](int32_t id) -> std::string_view {
    if (id < 0 || static_cast<size_t>(id) >= spec_->tokens.size()) return {};
    return spec_->tokens[static_cast<size_t>(id)];
  };
  for (size_t rank = 0; rank < spec_->merges.size(); ++rank) {
    const MergeRule& rule = spec_->merges[rank];
    const std::string_view left = token(rule.left);
    const std::string_view right = token(rule.right);
    const std::optional<int32_t> merged =
        left.empty() || right.empty() ? std::nullopt : table_->Find(left, right);
    if (!merged) {
      return Status(ErrorCode::kCorrupt,
                    "merge " + std::to_string(rank) + " names a token that is not there");
    }
    InsertMerge({PairOf(rule.left, rule.right), {static_cast<uint32_t>(rank), *merged}});
  }
  return {};
}

Status BpeModel::RankScores() {
  const std::vector<double>& scores = spec_->scores;
  if (scores.size() != spec_->tokens.size()) {
    return Status(ErrorCode::kCorrupt, std::to_string(spec_->tokens.size()) + " tokens, but " +
                                           std::to_string(scores.size()) + " scores");
  }
  std::vector<double> distinct;
  for (const double score : scores) {
    if (std::isnan(score)) return Status(ErrorCode::kCorrupt, "a score is not a number");
    if (std::isfinite(score)) distinct.push_back(score);
  }
  std::sort(distinct.begin(), distinct.end(), std::greater<>());
  distinct.erase(std::unique(distinct.begin(), distinct.end()), distinct.end());
  ranks_.reserve(scores.size());
  for (const double score : scores) {
    const auto at = std::lower_bound(distinct.begin(), distinct.end(), score, std::greater<>());
    ranks_.push_back(std::isfinite(score) ? static_cast<uint32_t>(at - distinct.begin())
                                          : kNotInWords);
  }
  return {};
}

void BpeModel::InsertMerge(MergeSlot merge) {
  const size_t mask = merges_.size() - 1;
  size_t slot = MixHash(merge.pair) & mask;
  while (merges_[slot].pair != kFreePair && merges_[slot].pair != merge.pair) {
    slot = (slot + 1) & mask;
  }
  merges_[slot] = merge;  // of two rules for one pair the later counts
}

std::optional<BpeModel::Merge> BpeModel::FindMerge(int32_t left, int32_t right) const {
  if (!ranks_.empty()) {
    const auto l = static_cast<size_t>(left);
    const auto r = static_cast<size_t>(right);
    if (ranks_[l] == kNotInWords || ranks_[r] == kNotInWords) return std::nullopt;
    const std::optional<int32_t> id = table_->Find(spec_->tokens[l], spec_->tokens[r]);
    if (!id || ranks_[static_cast<size_t>(*id)] == kNotInWords) return std::nullopt;
    return Merge{ranks_[static_cast<size_t>(*id)], *id};
  }
  const uint64_t pair = PairOf(left, right);
  const size_t mask = merges_.size() - 1;
  for (size_t slot = MixHash(pair) & mask; merges_[slot].pair != kFreePair;
       slot = (slot + 1) & mask) {
    if (merges_[slot].pair == pair) return merges_[slot].merge;
  }
  return std::nullopt;
}

// -1 where no token spells the character.
int32_t BpeModel::CharacterId(std::string_view piece, size_t at, size_t* length) const {
  const char32_t code = Utf8At(piece, at, length);
  const int32_t id = code < kDirectCharacters
                         ? character_ids_[code]
                         : table_->Find(piece.substr(at, *length)).value_or(-1);
  const bool in_words =
      id >= 0 && (ranks_.empty() || ranks_[static_cast<size_t>(id)] != kNotInWords);
  return in_words ? id : -1;
}

bool BpeModel::AddBytes(std::string_view character, std::vector<Symbol>* symbols) const {
  if (!spec_->byte_fallback) return false;
  for (const char c : character) {
    if (byte_ids_[static_cast<uint8_t>(c)] < 0) return false;
  }
  for (const char c : character) Append(byte_ids_[static_cast<uint8_t>(c)], symbols);
  return true;
}

void BpeModel::AddSymbols(std::string_view piece, std::vector<Symbol>* symbols) const {
  // `tokenizers` writes an unknown token when the next known one comes, which puts bytes before it.
  bool unknown = false;
  for (size_t at = 0; at < piece.size();) {
    size_t length = 0;
    const int32_t id = CharacterId(piece, at, &length);
    const std::string_view character = piece.substr(at, length);
    at += length;
    if (id >= 0) {
      if (unknown) Append(*spec_->unknown_id, symbols);
      unknown = false;
      Append(id, symbols);
    } else if (!AddBytes(character, symbols) && spec_->unknown_id) {
      if (unknown && !spec_->fuse_unknown) Append(*spec_->unknown_id, symbols);
      unknown = true;
    }
  }
  if (unknown) Append(*spec_->unknown_id, symbols);
  if (!symbols->empty()) symbols->back().next = -1;
}

void BpeModel::Consider(const std::vector<Symbol>& symbols, int32_t position,
                        std::vector<Candidate>* heap) const {
  const Symbol& left = symbols[static_cast<size_t>(position)];
  if (left.next < 0) return;
  const std::optional<Merge> merge = FindMerge(left.id, symbols[static_cast<size_t>(left.next)].id);
  if (merge) heap->push_back({merge->rank, position, merge->new_id});
}

Status BpeModel::Encode(std::string_view piece, Scratch* scratch, std::vector<int32_t>* ids) const {
  if (piece.size() >= kMaxPieceBytes) {
    return Status(ErrorCode::kLimitExceeded, "one word of text of 1 GiB or more");
  }
  if (spec_->ignore_merges) {
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
    const std::optional<Merge> merge = FindMerge(left.id, right.id);
    if (!merge || merge->new_id != best.new_id) continue;
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
