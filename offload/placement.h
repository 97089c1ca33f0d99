// Which weight groups live in RAM and which stream from disk in every pass. A pure function of the
// catalogue and the budget.
#ifndef SLUICE_OFFLOAD_PLACEMENT_H_
#define SLUICE_OFFLOAD_PLACEMENT_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/sluice_file.h"
#include "formats/status.h"
#include "formats/weight_group.h"

namespace sluice {

enum class Tier : uint8_t { kRam, kDisk };
const char* TierName(Tier tier);  // "ram", "disk"

// A weight group as placement sees it.
struct PlacementGroup {
  GroupKind kind = GroupKind::kAttention;
  int64_t layer = -1;  // -1: no layer's
  // Bytes of its matrices, which have a home, and of its vectors (norms, biases), which always live
  // in RAM: they are small, and used while the matrices stream past.
  uint64_t matrix_bytes = 0;
  uint64_t vector_bytes = 0;
  uint64_t largest_piece_bytes = 0;
  bool operator==(const PlacementGroup&) const = default;
};

// The groups of a file, in the order of use.
std::vector<PlacementGroup> PlacementGroups(const SluiceFile& file);

// One rule of --place: "layers.0-19.ffn=disk", "head=ram", "attention=ram", "layers.7=disk".
struct PlaceRule {
  std::string text;
  int64_t first_layer = -1;  // -1: any layer, or none
  int64_t last_layer = -1;
  std::optional<GroupKind> kind;
  Tier tier = Tier::kRam;
};
// Comma-separated rules. Error: kInvalidArgument that shows the form.
Result<std::vector<PlaceRule>> ParsePlaceRules(std::string_view text);

struct PlacementOptions {
  uint64_t budget_bytes = 0;  // for weights and ring together
  uint64_t ring_bytes = uint64_t{128} << 20;
  std::span<const PlaceRule> rules;  // later ones win
};

struct Placement {
  std::vector<Tier> tiers;      // by group
  uint64_t resident_bytes = 0;  // matrices in RAM, and all vectors
  uint64_t streamed_bytes = 0;  // read in every pass that uses all groups
  uint64_t ring_bytes = 0;      // 0 if nothing streams
  // An embedding that is not the head: its rows are read when tokens need them, and lie in the page
  // cache.
  uint64_t gathered_bytes = 0;
};

// Everything in RAM if it fits. Else as much as the budget holds, chosen so that what streams is
// spread evenly over the pass: the drive then reads at a steady rate while resident groups are
// computed. Errors: kDoesNotFit with the smallest budget that would do; kInvalidArgument for
// a rule that matches no group.
Result<Placement> PlaceGroups(std::span<const PlacementGroup> groups,
                              const PlacementOptions& options);

// The smallest budget_bytes with which PlaceGroups succeeds without rules.
uint64_t SmallestBudget(std::span<const PlacementGroup> groups);

}  // namespace sluice

#endif  // SLUICE_OFFLOAD_PLACEMENT_H_
