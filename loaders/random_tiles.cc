#include "loaders/random_tiles.h"

#include <fmt/format.h>

#include <bit>
#include <cmath>
#include <cstring>

#include "formats/half.h"

namespace sluice {
namespace {

// A number for each counter: the two halves of a 128-bit product, folded (the idea of Wang Yi's
// wyrand, 2019). One multiplication for 8 bytes, and nothing is carried from one to the next.
inline uint64_t RandomWord(uint64_t key, uint64_t counter) {
  const uint64_t a = key + counter * 0x9e3779b97f4a7c15u;
  const auto product = static_cast<unsigned __int128>(a) * (a ^ 0xd6e8feb86659fd93u);
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

// Returns the next counter. `size_bytes` is a multiple of 8.
inline uint64_t FillRandom(uint64_t key, uint64_t counter, uint64_t size_bytes, std::byte* out) {
  for (uint64_t i = 0; i < size_bytes; i += 8) {
    const uint64_t word = RandomWord(key, counter++);
    std::memcpy(out + i, &word, 8);
  }
  return counter;
}

}  // namespace

Result<RandomTiles> RandomTiles::Make(const TileLayout& layout, uint64_t seed) {
  const WeightKind kind = layout.type.kind;
  const bool known =
      !layout.type.quantized() || kind == WeightKind::kInt4 || kind == WeightKind::kInt8;
  if (!known || layout.cols % 32 != 0 || layout.rows % layout.tile_rows != 0) {
    return Status(ErrorCode::kUnsupported,
                  fmt::format("random weights of type {}, {} x {}", WeightTypeName(layout.type),
                              layout.rows, layout.cols));
  }
  return RandomTiles(layout, seed);
}

RandomTiles::RandomTiles(const TileLayout& layout, uint64_t seed)
    : layout_(layout), key_(RandomWord(seed, 1)) {
  const double deviation = 1 / std::sqrt(static_cast<double>(layout.cols));
  // Of uniform integers 0 .. 2^bits - 1, around a middle that is half a step aside (FillHeader),
  // with scales that are uniform in a half around 1.
  const double levels = std::exp2(IntegerBits(layout.type.kind));
  const double aside = layout.type.offset == WeightOffset::kMinimum ? 0 : 0.5;
  const double variance = ((levels * levels - 1) / 12 + aside * aside) * (1 + 0.25 / 12);
  const double scale = deviation / std::sqrt(variance);
  for (uint64_t i = 0; i < kScales; ++i) {
    const double varied =
        scale * (0.75 + 0.5 * (static_cast<double>(i) + 0.5) / static_cast<double>(kScales));
    scales_[i] = FloatToF16(static_cast<float>(varied));
    minima_[i] = FloatToF16(static_cast<float>(-varied * (levels - 1) / 2));
  }
  for (uint64_t i = 0; i < kFloats; ++i) {
    const double place = (2 * static_cast<double>(i) + 1) / static_cast<double>(kFloats) - 1;
    const auto value = static_cast<float>(place * deviation * std::sqrt(3.0));
    floats_[i] = layout.type.kind == WeightKind::kF16    ? FloatToF16(value)
                 : layout.type.kind == WeightKind::kBF16 ? FloatToBf16(value)
                                                         : std::bit_cast<uint32_t>(value);
  }
}

void RandomTiles::Fill(uint64_t tile, std::byte* out) const {
  uint64_t counter = tile * (layout_.tile_bytes / 2 + 1);  // more than a tile uses
  if (!layout_.type.quantized()) return FillFloats(counter, out);
  if (layout_.tile_header_bytes > 0) {
    counter = FillHeader(counter, 1, layout_.tile_header_bytes, out);
    out += layout_.tile_header_bytes;
  }
  for (uint64_t block = 0; block < layout_.num_blocks(); ++block) {
    const uint32_t groups = layout_.block_groups(block);
    const uint64_t header_bytes = layout_.block_header_bytes(groups);
    if (header_bytes > 0) counter = FillHeader(counter, groups, header_bytes, out);
    out += header_bytes;
    const uint64_t bytes = layout_.integer_bytes(layout_.block_channels(block));
    counter = FillRandom(key_, counter, bytes, out);
    out += bytes;
  }
}

// Scales and what the integers are counted from. Uniform integers have their mean half a step
// beside the middle: a zero point on either side of it, or a scale of either sign, makes it 0.
uint64_t RandomTiles::FillHeader(uint64_t counter, uint32_t groups, uint64_t size_bytes,
                                 std::byte* out) const {
  const uint64_t count = uint64_t{groups} * layout_.tile_rows;
  const int middle = 1 << (IntegerBits(layout_.type.kind) - 1);
  std::byte* offsets = out + 2 * count;
  std::memset(out, 0, size_bytes);
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t word = RandomWord(key_, counter++);
    uint16_t scale = scales_[word % kScales];
    const auto side = static_cast<uint16_t>(word >> 63);
    if (layout_.type.offset == WeightOffset::kNone) {
      scale = static_cast<uint16_t>(scale | side << 15);
    } else if (layout_.type.offset == WeightOffset::kZeroPoint) {
      offsets[i] = static_cast<std::byte>(middle - side);
    } else {
      std::memcpy(offsets + 2 * i, &minima_[word % kScales], 2);
    }
    std::memcpy(out + 2 * i, &scale, 2);
  }
  return counter;
}

void RandomTiles::FillFloats(uint64_t counter, std::byte* out) const {
  const uint64_t size = layout_.type.kind == WeightKind::kF32 ? 4 : 2;
  for (uint64_t i = 0; i < layout_.tile_bytes; i += 4 * size) {
    uint64_t word = RandomWord(key_, counter++);
    for (uint64_t j = 0; j < 4; ++j, word >>= 16) {
      std::memcpy(out + i + j * size, &floats_[word % kFloats], size);
    }
  }
}

}  // namespace sluice
