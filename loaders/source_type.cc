// How rows of a checkpoint decode. Block layouts: ggml-common.h of llama.cpp.
#include <bit>
#include <cstring>

#include "formats/half.h"
#include "loaders/checkpoint.h"

namespace sluice {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr uint64_t kBlock = 32;

uint16_t U16At(const std::byte* bytes) {
  uint16_t value;
  std::memcpy(&value, bytes, sizeof(value));
  return value;
}

// Nibble `i` of a block's 32: the first 16 are the low halves of the bytes, then the high halves.
uint32_t NibbleAt(const std::byte* bytes, uint64_t i) {
  return (std::to_integer<uint32_t>(bytes[i % 16]) >> (i < 16 ? 0 : 4)) & 15;
}

void DecodeQ8_0(const std::byte* block, float* out) {
  const float scale = F16ToFloat(U16At(block));
  for (uint64_t i = 0; i < kBlock; ++i) {
    out[i] = static_cast<float>(std::to_integer<int8_t>(block[2 + i])) * scale;
  }
}

void DecodeQ4_0(const std::byte* block, float* out) {
  const float scale = F16ToFloat(U16At(block));
  for (uint64_t i = 0; i < kBlock; ++i) {
    out[i] = scale * (static_cast<float>(NibbleAt(block + 2, i)) - 8.0f);
  }
}

void DecodeQ4_1(const std::byte* block, float* out) {
  const float scale = F16ToFloat(U16At(block));
  const float minimum = F16ToFloat(U16At(block + 2));
  for (uint64_t i = 0; i < kBlock; ++i) {
    out[i] = scale * static_cast<float>(NibbleAt(block + 4, i)) + minimum;
  }
}

}  // namespace

const char* SourceTypeName(SourceType type) {
  switch (type) {
    case SourceType::kF32:
      return "F32";
    case SourceType::kF16:
      return "F16";
    case SourceType::kBF16:
      return "BF16";
    case SourceType::kQ8_0:
      return "Q8_0";
    case SourceType::kQ4_0:
      return "Q4_0";
    case SourceType::kQ4_1:
      return "Q4_1";
  }
  return "unknown";
}

uint64_t SourceRowBytes(SourceType type, uint64_t cols) {
  switch (type) {
    case SourceType::kF32:
      return cols * 4;
    case SourceType::kF16:
    case SourceType::kBF16:
      return cols * 2;
    case SourceType::kQ8_0:
      return cols / kBlock * 34;
    case SourceType::kQ4_0:
      return cols / kBlock * 18;
    case SourceType::kQ4_1:
      return cols / kBlock * 20;
  }
  return 0;
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
    case SourceType::kQ8_0:
      for (uint64_t b = 0; b < cols / kBlock; ++b) DecodeQ8_0(row + 34 * b, out + kBlock * b);
      return;
    case SourceType::kQ4_0:
      for (uint64_t b = 0; b < cols / kBlock; ++b) DecodeQ4_0(row + 18 * b, out + kBlock * b);
      return;
    case SourceType::kQ4_1:
      for (uint64_t b = 0; b < cols / kBlock; ++b) DecodeQ4_1(row + 20 * b, out + kBlock * b);
      return;
  }
}

}  // namespace sluice
