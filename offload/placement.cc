#include "offload/placement.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <numeric>

namespace sluice {
namespace {

// A ring needs room for the piece that is used, the one that arrives next and one on its way.
constexpr uint64_t kPiecesInRing = 3;

uint64_t LargestPiece(std::span<const PlacementGroup> groups) {
  uint64_t largest = 0;
  for (const PlacementGroup& group : groups) {
    if (group.kind != GroupKind::kEmbedding) largest = std::max(largest, group.largest_piece_bytes);
  }
  return largest;
}

bool Matches(const PlaceRule& rule, const PlacementGroup& group) {
  if (group.kind == GroupKind::kEmbedding) return false;
  if (rule.kind && *rule.kind != group.kind) return false;
  return rule.first_layer < 0 ||
         (group.layer >= rule.first_layer && group.layer <= rule.last_layer);
}

struct Word {
  const char* text;
  GroupKind kind;
};
constexpr Word kKinds[] = {{"attention", GroupKind::kAttention},
                           {"ffn", GroupKind::kFfn},
                           {"expert", GroupKind::kExpert},
                           {"experts", GroupKind::kExpert},
                           {"head", GroupKind::kHead}};

bool ParseLayer(std::string_view text, int64_t* layer) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *layer);
  return error == std::errc() && end == text.data() + text.size() && *layer >= 0;
}

bool ParseLayers(std::string_view text, PlaceRule* rule) {
  const size_t dash = text.find('-');
  if (!ParseLayer(text.substr(0, dash), &rule->first_layer)) return false;
  rule->last_layer = rule->first_layer;
  if (dash == std::string_view::npos) return true;
  return ParseLayer(text.substr(dash + 1), &rule->last_layer) &&
         rule->last_layer >= rule->first_layer;
}

bool ParseKind(std::string_view text, PlaceRule* rule) {
  for (const Word& word : kKinds) {
    if (text == word.text) {
      rule->kind = word.kind;
      return true;
    }
  }
  return false;
}

bool ParseRule(std::string_view text, PlaceRule* rule) {
  rule->text = std::string(text);
  const size_t sign = text.find('=');
  if (sign == std::string_view::npos) return false;
  const std::string_view tier = text.substr(sign + 1);
  std::string_view what = text.substr(0, sign);
  if (tier != "ram" && tier != "disk") return false;
  rule->tier = tier == "ram" ? Tier::kRam : Tier::kDisk;
  if (what == "all") return true;
  constexpr std::string_view kLayers = "layers.";
  if (!what.starts_with(kLayers)) return ParseKind(what, rule);
  what.remove_prefix(kLayers.size());
  const size_t dot = what.find('.');
  return ParseLayers(what.substr(0, dot), rule) &&
         (dot == std::string_view::npos || ParseKind(what.substr(dot + 1), rule));
}

// Chooses among the groups that no rule placed. The head comes first: it is by far the largest, and
// while it streams at the end of a pass the layers before it would have so little left to stream
// that the ring is full there and the drive waits. Going through the pass, a group becomes resident
// whenever the share of bytes that may be resident has run ahead of what is: what streams is then
// never far from its even share. What that leaves of the budget goes to groups that still fit,
// largest first.
void ChooseResident(std::span<const PlacementGroup> groups, const std::vector<bool>& open,
                    uint64_t budget_bytes, Placement* placement) {
  uint64_t left = budget_bytes;
  const auto keep = [&](size_t i) {
    placement->tiers[i] = Tier::kRam;
    left -= groups[i].matrix_bytes;
  };
  const auto undecided = [&](size_t i) {
    return open[i] && placement->tiers[i] == Tier::kDisk && groups[i].kind != GroupKind::kHead;
  };
  uint64_t even_bytes = 0;
  for (size_t i = 0; i < groups.size(); ++i) {
    if (open[i] && groups[i].kind == GroupKind::kHead && groups[i].matrix_bytes <= left) keep(i);
    if (undecided(i)) even_bytes += groups[i].matrix_bytes;
  }
  const double share = std::min(
      1.0, static_cast<double>(left) / static_cast<double>(std::max<uint64_t>(even_bytes, 1)));
  double due = 0;
  for (size_t i = 0; i < groups.size(); ++i) {
    if (!undecided(i)) continue;
    const auto bytes = static_cast<double>(groups[i].matrix_bytes);
    due += share * bytes;
    if (due >= bytes / 2 && groups[i].matrix_bytes <= left) {
      due -= bytes;
      keep(i);
    }
  }
  std::vector<size_t> order(groups.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return groups[a].matrix_bytes > groups[b].matrix_bytes;
  });
  for (size_t i : order) {
    if (open[i] && placement->tiers[i] == Tier::kDisk && groups[i].matrix_bytes <= left) keep(i);
  }
}

}  // namespace

const char* TierName(Tier tier) { return tier == Tier::kRam ? "ram" : "disk"; }

std::vector<PlacementGroup> PlacementGroups(const SluiceFile& file) {
  std::vector<PlacementGroup> groups;
  for (const GroupEntry& entry : file.groups()) {
    PlacementGroup group;
    group.kind = entry.kind;
    if (entry.layer != kNoIndex) group.layer = entry.layer;
    for (TensorId tensor = entry.first_tensor; tensor < entry.first_tensor + entry.tensor_count;
         ++tensor) {
      const bool vector =
          file.tensors()[tensor].layout.tile_rows == 1 && entry.kind != GroupKind::kEmbedding;
      for (const PieceEntry& piece : file.PiecesOf(tensor)) {
        (vector ? group.vector_bytes : group.matrix_bytes) += piece.size_bytes;
        if (!vector)
          group.largest_piece_bytes =
              std::max<uint64_t>(group.largest_piece_bytes, piece.size_bytes);
      }
    }
    groups.push_back(group);
  }
  return groups;
}

Result<std::vector<PlaceRule>> ParsePlaceRules(std::string_view text) {
  std::vector<PlaceRule> rules;
  while (!text.empty()) {
    const size_t comma = text.find(',');
    PlaceRule rule;
    if (!ParseRule(text.substr(0, comma), &rule)) {
      return Status(
          ErrorCode::kInvalidArgument,
          fmt::format(
              "placement rule '{}' is not of the form WHAT=ram or WHAT=disk, where WHAT is all, "
              "attention, ffn, experts, head, layers.N, layers.N-M, or layers.N-M.KIND",
              text.substr(0, comma)));
    }
    rules.push_back(std::move(rule));
    text = comma == std::string_view::npos ? std::string_view() : text.substr(comma + 1);
  }
  return rules;
}

Result<Placement> PlaceGroups(std::span<const PlacementGroup> groups,
                              const PlacementOptions& options) {
  Placement placement;
  placement.tiers.assign(groups.size(), Tier::kDisk);
  std::vector<bool> open(groups.size(), false);
  uint64_t cycle_bytes = 0;
  uint64_t vector_bytes = 0;
  for (size_t i = 0; i < groups.size(); ++i) {
    vector_bytes += groups[i].vector_bytes;
    if (groups[i].kind == GroupKind::kEmbedding) {
      placement.gathered_bytes += groups[i].matrix_bytes;
    } else {
      open[i] = true;
      cycle_bytes += groups[i].matrix_bytes;
    }
  }
  for (const PlaceRule& rule : options.rules) {
    bool matched = false;
    for (size_t i = 0; i < groups.size(); ++i) {
      if (!Matches(rule, groups[i])) continue;
      matched = true;
      open[i] = false;
      placement.tiers[i] = rule.tier;
    }
    if (!matched) {
      return Status(ErrorCode::kInvalidArgument,
                    fmt::format("placement rule '{}' matches no weights of this model", rule.text));
    }
  }
  uint64_t fixed_ram = vector_bytes;
  uint64_t fixed_disk = 0;
  for (size_t i = 0; i < groups.size(); ++i) {
    if (groups[i].kind == GroupKind::kEmbedding || open[i]) continue;
    (placement.tiers[i] == Tier::kRam ? fixed_ram : fixed_disk) += groups[i].matrix_bytes;
  }
  const uint64_t all_bytes = cycle_bytes + vector_bytes;
  if (fixed_disk == 0 && all_bytes <= options.budget_bytes) {
    std::fill(placement.tiers.begin(), placement.tiers.end(), Tier::kRam);
  } else {
    placement.ring_bytes = std::max(kPiecesInRing * LargestPiece(groups),
                                    std::min(options.ring_bytes, options.budget_bytes / 4));
    if (fixed_ram + placement.ring_bytes > options.budget_bytes) {
      return Status(
          ErrorCode::kDoesNotFit,
          fmt::format(
              "weights need {} bytes at least ({} that have to be in memory, {} for the ring that "
              "the rest streams through) and {} are left for them",
              fixed_ram + kPiecesInRing * LargestPiece(groups), fixed_ram,
              kPiecesInRing * LargestPiece(groups), options.budget_bytes));
    }
    ChooseResident(groups, open, options.budget_bytes - fixed_ram - placement.ring_bytes,
                   &placement);
  }
  placement.resident_bytes = vector_bytes;
  for (size_t i = 0; i < groups.size(); ++i) {
    if (groups[i].kind == GroupKind::kEmbedding) continue;
    (placement.tiers[i] == Tier::kRam ? placement.resident_bytes : placement.streamed_bytes) +=
        groups[i].matrix_bytes;
  }
  placement.ring_bytes =
      std::min(placement.ring_bytes,
               std::max(placement.streamed_bytes, kPiecesInRing * LargestPiece(groups)));
  if (placement.streamed_bytes == 0) placement.ring_bytes = 0;
  return placement;
}

uint64_t SmallestBudget(std::span<const PlacementGroup> groups) {
  uint64_t cycle_bytes = 0;
  uint64_t vector_bytes = 0;
  for (const PlacementGroup& group : groups) {
    vector_bytes += group.vector_bytes;
    if (group.kind != GroupKind::kEmbedding) cycle_bytes += group.matrix_bytes;
  }
  return vector_bytes + std::min(cycle_bytes, kPiecesInRing * LargestPiece(groups));
}

}  // namespace sluice
