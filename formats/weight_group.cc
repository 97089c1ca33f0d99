#include "formats/weight_group.h"

namespace sluice {

const char* GroupKindName(GroupKind kind) {
  switch (kind) {
    case GroupKind::kEmbedding:
      return "embedding";
    case GroupKind::kAttention:
      return "attention";
    case GroupKind::kFfn:
      return "ffn";
    case GroupKind::kExpert:
      return "expert";
    case GroupKind::kHead:
      return "head";
  }
  return "unknown";
}

}  // namespace sluice
