// Random weights, made directly in the layout of tiles: no float weights, no quantizer.
#ifndef SLUICE_LOADERS_RANDOM_TILES_H_
#define SLUICE_LOADERS_RANDOM_TILES_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "formats/status.h"
#include "formats/tile_layout.h"

namespace sluice {

// Makes the tiles of one matrix. Weights have mean 0 and variance 1 / cols, which keeps the size of
// activations from layer to layer: integers are uniform, and scales vary by a quarter. A tile
// depends on the seed and its number alone, so any thread can make any of them. A value.
class RandomTiles {
 public:
  // Errors: kUnsupported for int5 and the K types, and for rows or columns that need padding.
  static Result<RandomTiles> Make(const TileLayout& layout, uint64_t seed);

  // Writes all bytes of tile `tile` to out[layout.tile_bytes], which is aligned to 8 bytes.
  void Fill(uint64_t tile, std::byte* out) const;

 private:
  RandomTiles(const TileLayout& layout, uint64_t seed);
  void FillFloats(uint64_t counter, std::byte* out) const;
  uint64_t FillHeader(uint64_t counter, uint32_t groups, uint64_t size_bytes, std::byte* out) const;

  static constexpr uint64_t kScales = 64;
  static constexpr uint64_t kFloats = 1024;

  TileLayout layout_;
  uint64_t key_;
  std::array<uint16_t, kScales> scales_ = {};  // f16
  std::array<uint16_t, kScales> minima_ = {};  // f16, of the scale beside it
  std::array<uint32_t, kFloats> floats_ = {};  // in the bits of the kind
};

}  // namespace sluice

#endif  // SLUICE_LOADERS_RANDOM_TILES_H_
