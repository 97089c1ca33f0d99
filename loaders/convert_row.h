// One row of a checkpoint into its place in a tile. Private to loaders.
#ifndef SLUICE_LOADERS_CONVERT_ROW_H_
#define SLUICE_LOADERS_CONVERT_ROW_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "formats/status.h"
#include "formats/tile_layout.h"
#include "loaders/checkpoint.h"
#include "loaders/group_kernels.h"

namespace sluice {

// For one tensor and one thread; holds a row of scratch.
class RowConverter {
 public:
  RowConverter(const SourceTensor& source, const TileLayout& layout);

  // Writes row `row_in_tile` of a tile that was zero there: kept if the types agree, else rounded
  // as QuantizeRow says. Errors: those of QuantizeRow.
  Status Convert(const std::byte* row, uint32_t row_in_tile, std::byte* tile);

 private:
  bool QuantizeFloats(const std::byte* row, uint32_t row_in_tile, std::byte* tile) const;
  bool QuantizeInto(const std::byte* row, uint64_t begin, uint64_t count, uint16_t* scale,
                    uint16_t* offset, uint8_t* codes) const;

  Status ConvertPlainly(const std::byte* row, uint32_t row_in_tile, std::byte* tile);

  SourceType source_;
  float added_;
  const TileLayout& layout_;
  bool keep_;
  bool fast_;
  const GroupKernels& kernels_;
  std::vector<float> row_;
  std::vector<uint32_t> values_;
  std::vector<uint16_t> scales_, offsets_, super_scales_, super_offsets_;
};

}  // namespace sluice

#endif  // SLUICE_LOADERS_CONVERT_ROW_H_
