// Blocks of GGUF's quantized types as numbers. Local to loaders: decoding and keeping share it.
#ifndef SLUICE_LOADERS_SOURCE_BLOCKS_H_
#define SLUICE_LOADERS_SOURCE_BLOCKS_H_

#include <cstddef>
#include <cstdint>

#include "loaders/checkpoint.h"

namespace sluice {

// The numbers of one block as RowCodes has them: 32 values and one group, or 256 and 8 or 16.
struct SourceBlock {
  uint32_t values[256];
  uint16_t scales[16];
  uint16_t offsets[16];
  uint16_t super_scale;
  uint16_t super_offset;
};

// What the type does not have stays as it was. REQUIRES: a type with blocks.
void UnpackSourceBlock(SourceType type, const std::byte* block, SourceBlock* out);

}  // namespace sluice

#endif  // SLUICE_LOADERS_SOURCE_BLOCKS_H_
