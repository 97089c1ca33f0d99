#include "loaders/tokenizer/memory_bound.h"

#include <fmt/format.h>

#include <string>

#include "loaders/tokenizer/hash_slots.h"

namespace sluice {
namespace {

// Of the promised factor and base a part is for what is not counted: expressions, small vectors,
// strings on their way.
constexpr uint64_t kFactor = 14;
constexpr uint64_t kBaseBytes = 80 << 10;

constexpr uint64_t kStringBytes = 32;
constexpr uint64_t kMapNodeBytes = 72;         // a string and an id, with the table's share
constexpr uint64_t kAddedTokenBytes = 3 * 48;  // in a vector that grows
constexpr uint64_t kAddedByteBytes = 56;       // a node in the table of AddedTokenFinder

}  // namespace

TokenizerCounts CountsOf(const TokenizerSpec& spec) {
  TokenizerCounts counts;
  counts.tokens = spec.tokens.size();
  for (const std::string& token : spec.tokens) counts.text_bytes += token.size();
  counts.merges = spec.merges.size();
  counts.added_tokens = spec.added_tokens.size();
  for (const AddedToken& token : spec.added_tokens) counts.added_bytes += token.content.size();
  counts.has_scores = !spec.scores.empty();
  counts.is_unigram = spec.model == TokenModel::kUnigram;
  return counts;
}

uint64_t BytesToRead(const TokenizerCounts& counts) {
  const uint64_t score_bytes = counts.has_scores ? sizeof(double) : 0;
  return counts.tokens * (kStringBytes + kMapNodeBytes + score_bytes) + 2 * counts.text_bytes +
         counts.merges * sizeof(MergeRule) +
         counts.added_tokens * (kAddedTokenBytes + kMapNodeBytes) + 2 * counts.added_bytes;
}

uint64_t BytesToReadStored(const TokenizerCounts& counts) {
  constexpr uint64_t kValueBytes = 16;
  const uint64_t scores = counts.has_scores ? counts.tokens : 0;
  return counts.tokens * (kValueBytes + kStringBytes) + 2 * counts.text_bytes +
         scores * (kValueBytes + sizeof(double)) +
         counts.merges * (2 * kValueBytes + sizeof(MergeRule)) +
         counts.added_tokens * (3 * kValueBytes + kAddedTokenBytes) + counts.added_bytes;
}

uint64_t StoredBytes(const TokenizerSpec& spec) {
  const auto digits = [](int32_t id) {
    uint64_t count = 1;
    for (; id >= 10; id /= 10) ++count;
    return count;
  };
  uint64_t bytes = 4 * spec.scores.size();  // "0.0,"
  for (const std::string& token : spec.tokens) bytes += token.size() + 3;
  for (const MergeRule& rule : spec.merges) bytes += digits(rule.left) + digits(rule.right) + 2;
  for (const AddedToken& token : spec.added_tokens) bytes += digits(token.id) + 8;
  return bytes;
}

uint64_t BytesToBuild(const TokenizerCounts& counts) {
  constexpr uint64_t kIdBytes = 16 + 1;  // where its bytes are; flags
  uint64_t bytes = counts.tokens * (kStringBytes + kIdBytes) + 2 * counts.text_bytes +
                   SlotCount(counts.tokens) * sizeof(int32_t);
  if (counts.has_scores) {  // and ranks, or a trie
    constexpr uint64_t kNodeBytes = 9;
    bytes += counts.tokens * (sizeof(double) + 28);
    if (counts.is_unigram) bytes += kNodeBytes * counts.text_bytes;
  } else {
    bytes += counts.merges * sizeof(MergeRule) + SlotCount(counts.merges) * 16;
  }
  return bytes + counts.added_tokens * (kAddedTokenBytes + kMapNodeBytes) +
         counts.added_bytes * kAddedByteBytes;
}

Status CheckMemory(uint64_t needed_bytes, uint64_t input_bytes, uint64_t max_bytes) {
  if (needed_bytes > kFactor * input_bytes + kBaseBytes) {
    return Status(ErrorCode::kLimitExceeded,
                  fmt::format("more tokens than belong into {} bytes", input_bytes));
  }
  if (needed_bytes > max_bytes) {
    return Status(ErrorCode::kDoesNotFit,
                  fmt::format("a tokenizer that takes {} bytes of memory to read, {} are allowed",
                              needed_bytes, max_bytes));
  }
  return {};
}

}  // namespace sluice
