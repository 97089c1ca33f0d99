// The layout of a weight matrix in a GPU's memory: made once from the file's tiles (FORMAT.md) when
// the weights arrive, and read as it lies by one token as by thousands. A tile still holds 16
// output rows, as many bytes for each tile, so a range of tiles is a range of rows here too. The
// integers lie in the order of the tensor cores' fragments: a load of 16 bytes by each lane of a
// warp is the left operand of the next products.
//
//   tile   = header, then chunks of 128 input channels, the last one shorter
//   header = only where a scale is a whole row's: 16 scales (f16), then 16 offsets (u8 z, or f16 m)
//   chunk  = units; then for each group of the chunk 16 scales (f16), then for each group 16
//   offsets
//            (u8 z, or f16 m, if the type has them). Float kinds: units alone. K types: units; 16 d
//            (f16) of the super-block, 16 dmin (f16, Q4_K and Q5_K); then for each group 16 bytes
//            that d is multiplied with, then for each group 16 that dmin is.
//
// A unit is 512 bytes. With g = lane / 4 and t = lane % 4, the 16 bytes of a lane in it are
//   4 bits, 64 channels: word j = rows g + 8 (j % 2), low nibbles channels 8 t + 4 (j / 2) + 0..3,
//         high nibbles those 32 further on
//   5 bits: the low four bits so, then 128 bytes: a lane's word has in byte i, bit j (bit 4 + j)
//   the
//         high bit of what is byte i of word j, low (high) nibble
//   6 bits: the low four bits so, then 256 bytes: a lane's first (second) word has in byte i, bits
//         2 j and 2 j + 1, the two high bits of what is byte i of word j, low (high) nibble
//   int8, 32 channels: word j = row g + 8 (j % 2), channels 8 t + 4 (j / 2) + 0..3
//   f16, bf16, 16 channels: word j = row g + 8 (j % 2), channels 4 t + 2 (j / 2) + 0..1
//   f32, 8 channels: word j = row g + 8 (j % 2), channel 2 t + j / 2
// What is beyond the matrix is zero bytes.
#ifndef SLUICE_KERNELS_CUDA_GPU_LAYOUT_H_
#define SLUICE_KERNELS_CUDA_GPU_LAYOUT_H_

#include <cstddef>
#include <cstdint>

#include "formats/status.h"
#include "formats/tile_layout.h"

namespace sluice {

inline constexpr int64_t kGpuUnitBytes = 512;  // without high bits
inline constexpr int64_t kGpuChunkChannels = kBlockChannels;

// Sizes of a matrix's tiles; a plain value that kernels take as an argument.
struct GpuLayout {
  WeightKind kind;
  WeightOffset offset;
  int64_t group_size;  // channels that share a scale inside a chunk; 128 where the scale is a row's
  bool whole_rows;     // scales and offsets are in the tile's header
  bool super_scales;   // K types
  int bits;            // of an integer: 4, 5, 6 or 8; 0 for float kinds
  int64_t unit_channels;  // 64, 32, 16 or 8
  int64_t unit_bytes;
  int64_t cols;
  int64_t padded_cols;  // to whole units
  int64_t num_chunks;
  int64_t header_bytes;
  int64_t chunk_bytes;  // of a full chunk
  int64_t tile_bytes;   // multiple of 16
};

// Error: kUnsupported for tiles of one row, which the CUDA operations do not know.
Result<GpuLayout> MakeGpuLayout(const TileLayout& layout);

// `num_tiles` tiles of the file's layout, one after another, as tiles of the GPU's. `out` holds
// num_tiles * tile_bytes and is wholly written.
void RepackForGpu(const TileLayout& layout, const std::byte* tiles, int64_t num_tiles,
                  const GpuLayout& gpu, std::byte* out);

}  // namespace sluice

#endif  // SLUICE_KERNELS_CUDA_GPU_LAYOUT_H_
