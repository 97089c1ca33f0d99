#include "loaders/tokenizer/unigram_model.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include "loaders/tokenizer/utf8.h"

namespace sluice {
namespace {

constexpr double kUnknownPenalty = 10.0;
constexpr size_t kMaxTokenBytes = 256;
constexpr size_t kMaxPieceBytes = size_t{1} << 30;

}  // namespace

Result<UnigramModel> UnigramModel::Create(const TokenizerSpec& spec, const TokenTable& table) {
  if (spec.scores.size() != spec.tokens.size()) {
    return Status(ErrorCode::kCorrupt, std::to_string(spec.tokens.size()) + " tokens, but " +
                                           std::to_string(spec.scores.size()) + " scores");
  }
  UnigramModel model;
  model.spec_ = &spec;
  model.table_ = &table;
  std::vector<uint32_t> ids;
  ids.reserve(spec.tokens.size());
  double lowest = std::numeric_limits<double>::infinity();
  for (size_t id = 0; id < spec.tokens.size(); ++id) {
    const double score = spec.scores[id];
    if (std::isnan(score) || score == std::numeric_limits<double>::infinity()) {
      return Status(ErrorCode::kCorrupt, "score of token " + std::to_string(id));
    }
    if (std::isinf(score) || spec.tokens[id].empty()) continue;
    lowest = std::min(lowest, score);
    if (spec.tokens[id].size() > kMaxTokenBytes) {
      return Status(ErrorCode::kUnsupported,
                    "token " + std::to_string(id) + " is longer than 256 bytes");
    }
    ids.push_back(static_cast<uint32_t>(id));
  }
  model.trie_ = ByteTrie(spec.tokens, std::move(ids));
  model.unknown_score_ = (std::isinf(lowest) ? 0 : lowest) - kUnknownPenalty;
  model.byte_ids_ = ByteTokens(table);
  return model;
}

// Enters the tokens that begin at `begin` where they end.
Status UnigramModel::Extend(std::string_view piece, size_t begin, std::vector<Node>* nodes) const {
  const double score_here = (*nodes)[begin].score;
  size_t character = 0;
  Utf8At(piece, begin, &character);
  const auto offer = [&](size_t end, int32_t id, double score) {
    Node& target = (*nodes)[end];
    // Which of two equal sums wins depends on how they were rounded.
    const double sum = spec_->single_precision
                           ? double{static_cast<float>(score) + static_cast<float>(score_here)}
                           : score + score_here;
    if (target.id < 0 || sum > target.score) target = {sum, begin, id};
  };
  bool has_character = false;
  uint32_t node = ByteTrie::kRoot;
  for (size_t at = begin; at < piece.size(); ++at) {
    node = trie_.Child(node, piece[at]);
    if (node == 0) break;
    const int32_t id = trie_.IdAt(node);
    if (id < 0) continue;
    has_character = has_character || at + 1 - begin == character;
    offer(at + 1, id, spec_->scores[static_cast<size_t>(id)]);
  }
  if (has_character) return {};
  if (!spec_->unknown_id) {
    return Status(ErrorCode::kUnsupported, "a character without a token, and no unknown token");
  }
  offer(begin + character, *spec_->unknown_id, unknown_score_);
  return {};
}

// The tokens of `text`, characters that have none, last first.
void UnigramModel::AppendUnknown(std::string_view text, std::vector<int32_t>* reversed) const {
  const std::optional<int32_t> whole = table_->Find(text);
  if (whole && std::isfinite(spec_->scores[static_cast<size_t>(*whole)])) {
    reversed->push_back(*whole);
    return;
  }
  const auto has_token = [this](char c) { return byte_ids_[static_cast<uint8_t>(c)] >= 0; };
  if (!spec_->byte_fallback || !std::all_of(text.begin(), text.end(), has_token)) {
    reversed->push_back(*spec_->unknown_id);
    return;
  }
  for (auto c = text.rbegin(); c != text.rend(); ++c) {
    reversed->push_back(byte_ids_[static_cast<uint8_t>(*c)]);
  }
}

Status UnigramModel::Encode(std::string_view piece, Scratch* scratch,
                            std::vector<int32_t>* ids) const {
  if (piece.size() >= kMaxPieceBytes) {
    return Status(ErrorCode::kLimitExceeded, "one word of text of 1 GiB or more");
  }
  std::vector<Node>& nodes = scratch->nodes;
  nodes.assign(piece.size() + 1, {});
  for (size_t at = 0; at < piece.size();) {
    if (Status s = Extend(piece, at, &nodes); !s.ok()) return s;
    size_t length = 0;
    Utf8At(piece, at, &length);
    at += length;
  }
  std::vector<int32_t>& reversed = scratch->reversed;
  reversed.clear();
  const auto unknown = [&](size_t end) {
    return spec_->unknown_id && nodes[end].id == *spec_->unknown_id;
  };
  for (size_t end = piece.size(); end > 0;) {
    size_t begin = nodes[end].begin;
    if (!unknown(end)) {
      reversed.push_back(nodes[end].id);
    } else {
      while (spec_->fuse_unknown && begin > 0 && unknown(begin)) begin = nodes[begin].begin;
      AppendUnknown(piece.substr(begin, end - begin), &reversed);
    }
    end = begin;
  }
  ids->insert(ids->end(), reversed.rbegin(), reversed.rend());
  return {};
}

}  // namespace sluice
