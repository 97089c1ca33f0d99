// A weight group is what gets a home: one contiguous extent of the file that is used as a whole.
#ifndef SLUICE_FORMATS_WEIGHT_GROUP_H_
#define SLUICE_FORMATS_WEIGHT_GROUP_H_

#include <cstdint>

namespace sluice {

enum class GroupKind : uint32_t {
  kEmbedding = 0,  // rows are gathered as tokens need them; no part of the cycle of a pass
  kAttention = 1,  // norm and projections of one layer's attention
  kFfn = 2,        // norm and projections of one layer's feed-forward network
  kExpert = 3,     // one expert of one layer
  kHead = 4,       // last norm and output matrix; a tied embedding lies here
};
inline constexpr uint32_t kGroupKindCount = 5;

const char* GroupKindName(GroupKind kind);

}  // namespace sluice

#endif  // SLUICE_FORMATS_WEIGHT_GROUP_H_
