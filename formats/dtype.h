// Element types of plain (not quantized) arrays, as safetensors and npy name them.
#ifndef SLUICE_FORMATS_DTYPE_H_
#define SLUICE_FORMATS_DTYPE_H_

#include <cstdint>
#include <optional>
#include <string_view>

namespace sluice {

enum class DType : uint8_t {
  kBool,
  kU8,
  kI8,
  kF8E4M3,
  kF8E5M2,
  kU16,
  kI16,
  kF16,
  kBF16,
  kU32,
  kI32,
  kF32,
  kU64,
  kI64,
  kF64,
};

// Bytes of one element.
uint32_t SizeOf(DType type);

// The name in a safetensors header, for example "BF16".
const char* DTypeName(DType type);
std::optional<DType> DTypeFromName(std::string_view name);

}  // namespace sluice

#endif  // SLUICE_FORMATS_DTYPE_H_
