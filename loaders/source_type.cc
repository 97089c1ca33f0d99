// How rows of a checkpoint decode. Block layouts: ggml-common.h of llama.cpp.
#include <bit>
#include <cstring>

#include "formats/half.h"
#include "loaders/checkpoint.h"
#include "loaders/quantizer.h"
#include "loaders/source_blocks.h"

namespace sluice {
namespace {

static_assert(std::endian::native == std::endian::little);

struct SourceTypeInfo {
  const char* name;
  uint64_t block_values;
  uint64_t block_bytes;
};

SourceTypeInfo InfoOf(SourceType type) {
  switch (type) {
    case SourceType::kF32:
      return {"F32", 1, 4};
    case SourceType::kF16:
      return {"F16", 1, 2};
    case SourceType::kBF16:
      return {"BF16", 1, 2};
    case SourceType::kQ8_0:
      return {"Q8_0", 32, 34};
    case SourceType::kQ4_0:
      return {"Q4_0", 32, 18};
    case SourceType::kQ4_1:
      return {"Q4_1", 32, 20};
    case SourceType::kQ5_0:
      return {"Q5_0", 32, 22};
    case SourceType::kQ5_1:
      return {"Q5_1", 32, 24};
    case SourceType::kQ4K:
      return {"Q4_K", 256, 144};
    case SourceType::kQ5K:
      return {"Q5_K", 256, 176};
    case SourceType::kQ6K:
      return {"Q6_K", 256, 210};
  }
  return {"unknown", 1, 0};
}

uint16_t U16At(const std::byte* bytes) {
  uint16_t value;
  std::memcpy(&value, bytes, sizeof(value));
  return value;
}

uint32_t ByteAt(const std::byte* bytes, uint64_t i) { return std::to_integer<uint32_t>(bytes[i]); }

// Integer `i` of 32: the first 16 are the low halves of 16 bytes, the others the high ones.
uint32_t NibbleAt(const std::byte* bytes, uint64_t i) {
  return (ByteAt(bytes, i % 16) >> (i < 16 ? 0 : 4)) & 15;
}

// d, dmin, 12 bytes of scales and minima, and for Q5_K 32 bytes of upper bits come before 128 bytes
// of nibbles, of which each 32 hold 64 values: the low halves first.
void UnpackQ45K(const std::byte* block, bool five_bits, SourceBlock* out) {
  const std::byte* packed = block + 4;
  out->super_scale = U16At(block);
  out->super_offset = U16At(block + 2);
  for (uint64_t g = 0; g < 4; ++g) {
    out->scales[g] = static_cast<uint16_t>(ByteAt(packed, g) & 63);
    out->offsets[g] = static_cast<uint16_t>(ByteAt(packed, g + 4) & 63);
    const uint32_t low = ByteAt(packed, g + 8);
    const uint32_t scale_top = ByteAt(packed, g) >> 6 << 4;
    const uint32_t offset_top = ByteAt(packed, g + 4) >> 6 << 4;
    out->scales[g + 4] = static_cast<uint16_t>((low & 15) | scale_top);
    out->offsets[g + 4] = static_cast<uint16_t>(low >> 4 | offset_top);
  }
  const std::byte* upper = block + 16;
  const std::byte* nibbles = upper + (five_bits ? 32 : 0);
  for (uint64_t g = 0; g < 8; ++g) {
    for (uint64_t i = 0; i < 32; ++i) {
      uint32_t q = (ByteAt(nibbles, g / 2 * 32 + i) >> (g % 2 * 4)) & 15;
      if (five_bits) q |= ((ByteAt(upper, i) >> g) & 1) << 4;
      out->values[g * 32 + i] = q;
    }
  }
}

// 128 bytes of nibbles, 64 of pairs of bits, 16 scales, d. Each half of the block has 64 bytes of
// nibbles and 32 of pairs for four times 32 values.
void UnpackQ6K(const std::byte* block, SourceBlock* out) {
  for (uint64_t k = 0; k < 256; ++k) {
    const uint64_t half = k / 128;
    const uint64_t quarter = k % 128 / 32;
    const uint64_t i = k % 32;
    const uint32_t low = ByteAt(block, half * 64 + quarter % 2 * 32 + i) >> (quarter / 2 * 4);
    const uint32_t top = ByteAt(block, 128 + half * 32 + i) >> (quarter * 2);
    out->values[k] = (low & 15) | (top & 3) << 4;
  }
  for (uint64_t g = 0; g < 16; ++g) {
    out->scales[g] = static_cast<uint16_t>(ByteAt(block, 192 + g));
  }
  out->super_scale = U16At(block + 208);
}

// The types with one group of 32.
void UnpackSmall(SourceType type, const std::byte* block, SourceBlock* out) {
  out->scales[0] = U16At(block);
  const std::byte* p = block + 2;
  if (type == SourceType::kQ4_1 || type == SourceType::kQ5_1) {
    out->offsets[0] = U16At(p);
    p += 2;
  }
  uint32_t upper = 0;
  if (type == SourceType::kQ5_0 || type == SourceType::kQ5_1) {
    std::memcpy(&upper, p, sizeof(upper));
    p += sizeof(upper);
  }
  for (uint64_t i = 0; i < 32; ++i) {
    out->values[i] = type == SourceType::kQ8_0 ? ByteAt(p, i) ^ 0x80u  // q + 128
                                               : NibbleAt(p, i) | ((upper >> i) & 1) << 4;
  }
}

void DecodeBlock(const WeightType& type, const SourceBlock& block, uint64_t count, float* out) {
  const int32_t middle = MiddleOf(type.kind);
  const bool minimum = type.offset == WeightOffset::kMinimum;
  for (uint64_t g = 0; g * type.group_size < count; ++g) {
    float scale = F16ToFloat(block.scales[g]);
    float offset = minimum ? F16ToFloat(block.offsets[g]) : 0;
    if (type.kind == WeightKind::kQ6K) {
      scale = F16ToFloat(block.super_scale) *
              static_cast<float>(std::bit_cast<int8_t>(static_cast<uint8_t>(block.scales[g])));
    } else if (type.has_super_blocks()) {
      scale = F16ToFloat(block.super_scale) * static_cast<float>(block.scales[g]);
      offset = -(F16ToFloat(block.super_offset) * static_cast<float>(block.offsets[g]));
    }
    for (uint64_t k = g * type.group_size; k < (g + 1) * type.group_size; ++k) {
      const auto q = static_cast<int32_t>(block.values[k]);
      out[k] =
          minimum ? scale * static_cast<float>(q) + offset : scale * static_cast<float>(q - middle);
    }
  }
}

}  // namespace

const char* SourceTypeName(SourceType type) { return InfoOf(type).name; }

uint64_t SourceBlockValues(SourceType type) { return InfoOf(type).block_values; }

uint64_t SourceRowBytes(SourceType type, uint64_t cols) {
  const SourceTypeInfo info = InfoOf(type);
  return cols / info.block_values * info.block_bytes;
}

WeightType TypeThatKeeps(SourceType type) {
  switch (type) {
    case SourceType::kF32:
      return {WeightKind::kF32, WeightOffset::kNone, 0};
    case SourceType::kF16:
      return {WeightKind::kF16, WeightOffset::kNone, 0};
    case SourceType::kBF16:
      return {WeightKind::kBF16, WeightOffset::kNone, 0};
    case SourceType::kQ8_0:
      return {WeightKind::kInt8, WeightOffset::kNone, 32};
    case SourceType::kQ4_0:
      return {WeightKind::kInt4, WeightOffset::kNone, 32};
    case SourceType::kQ4_1:
      return {WeightKind::kInt4, WeightOffset::kMinimum, 32};
    case SourceType::kQ5_0:
      return {WeightKind::kInt5, WeightOffset::kNone, 32};
    case SourceType::kQ5_1:
      return {WeightKind::kInt5, WeightOffset::kMinimum, 32};
    case SourceType::kQ4K:
      return {WeightKind::kQ4K, WeightOffset::kMinimum, 32};
    case SourceType::kQ5K:
      return {WeightKind::kQ5K, WeightOffset::kMinimum, 32};
    case SourceType::kQ6K:
      return {WeightKind::kQ6K, WeightOffset::kNone, 16};
  }
  return {};
}

WeightType TypeThatKeeps(const SourceTensor& tensor) {
  return tensor.added == 0 ? TypeThatKeeps(tensor.type)
                           : WeightType{WeightKind::kF32, WeightOffset::kNone, 0};
}

void UnpackSourceBlock(SourceType type, const std::byte* block, SourceBlock* out) {
  switch (type) {
    case SourceType::kQ4K:
    case SourceType::kQ5K:
      return UnpackQ45K(block, type == SourceType::kQ5K, out);
    case SourceType::kQ6K:
      return UnpackQ6K(block, out);
    default:
      return UnpackSmall(type, block, out);
  }
}

void DecodeSourceRow(SourceType type, const std::byte* row, uint64_t cols, float* out) {
  switch (type) {
    case SourceType::kF32:
      std::memcpy(out, row, cols * sizeof(float));
      return;
    case SourceType::kF16:
      for (uint64_t i = 0; i < cols; ++i) out[i] = F16ToFloat(U16At(row + 2 * i));
      return;
    case SourceType::kBF16:
      for (uint64_t i = 0; i < cols; ++i) out[i] = Bf16ToFloat(U16At(row + 2 * i));
      return;
    default:
      break;
  }
  const SourceTypeInfo info = InfoOf(type);
  const WeightType kept = TypeThatKeeps(type);
  SourceBlock block = {};
  for (uint64_t b = 0; b < cols / info.block_values; ++b) {
    UnpackSourceBlock(type, row + b * info.block_bytes, &block);
    DecodeBlock(kept, block, info.block_values, out + b * info.block_values);
  }
}

}  // namespace sluice
