// Typed access to the metadata of a GGUF file.
#include <fmt/format.h>

#include <bit>
#include <cstring>
#include <utility>

#include "formats/gguf.h"
#include "formats/quote.h"

namespace sluice {
namespace {

Status WrongType(std::string_view key, const char* wanted) {
  return {ErrorCode::kCorrupt, fmt::format("metadata key {} is not {}", Quoted(key), wanted)};
}

// Element `index` of an array of T that lies unaligned in `bytes`.
template <typename T>
T ElementAt(const std::vector<std::byte>& bytes, uint64_t index) {
  static_assert(std::endian::native == std::endian::little);
  T value;
  std::memcpy(&value, bytes.data() + index * sizeof(T), sizeof(T));
  return value;
}

int64_t IntAt(const GgufArray& array, uint64_t index) {
  switch (array.element_type) {
    case GgufValueType::kBool:
      return ElementAt<uint8_t>(array.bytes, index) != 0 ? 1 : 0;
    case GgufValueType::kU8:
      return ElementAt<uint8_t>(array.bytes, index);
    case GgufValueType::kI8:
      return ElementAt<int8_t>(array.bytes, index);
    case GgufValueType::kU16:
      return ElementAt<uint16_t>(array.bytes, index);
    case GgufValueType::kI16:
      return ElementAt<int16_t>(array.bytes, index);
    case GgufValueType::kU32:
      return ElementAt<uint32_t>(array.bytes, index);
    case GgufValueType::kI32:
      return ElementAt<int32_t>(array.bytes, index);
    default:
      return ElementAt<int64_t>(array.bytes, index);
  }
}

bool IsInteger(GgufValueType type) {
  switch (type) {
    case GgufValueType::kU8:
    case GgufValueType::kI8:
    case GgufValueType::kU16:
    case GgufValueType::kI16:
    case GgufValueType::kU32:
    case GgufValueType::kI32:
    case GgufValueType::kU64:
    case GgufValueType::kI64:
      return true;
    default:
      return false;
  }
}

}  // namespace

const GgufTensor* GgufFile::FindTensor(std::string_view name) const {
  const auto found = tensor_index_.find(name);
  return found == tensor_index_.end() ? nullptr : &tensors_[found->second];
}

template <typename T>
Result<const T*> GgufFile::Get(std::string_view key, const char* wanted) const {
  const auto found = metadata_.find(key);
  if (found == metadata_.end()) {
    return Status(ErrorCode::kNotFound, fmt::format("metadata key {} is missing", Quoted(key)));
  }
  const T* value = std::get_if<T>(&found->second.value);
  if (value == nullptr) return WrongType(key, wanted);
  return value;
}

Result<uint64_t> GgufFile::GetUint(std::string_view key) const {
  constexpr char kWanted[] = "an integer of 0 or more";
  if (Result<const int64_t*> value = Get<int64_t>(key, kWanted); value.ok()) {
    if (**value < 0) return WrongType(key, kWanted);
    return static_cast<uint64_t>(**value);
  }
  Result<const uint64_t*> value = Get<uint64_t>(key, kWanted);
  if (!value.ok()) return value.status();
  return **value;
}

Result<double> GgufFile::GetFloat(std::string_view key) const {
  Result<const double*> value = Get<double>(key, "a float");
  if (!value.ok()) return value.status();
  return **value;
}

Result<bool> GgufFile::GetBool(std::string_view key) const {
  Result<const bool*> value = Get<bool>(key, "a bool");
  if (!value.ok()) return value.status();
  return **value;
}

Result<std::string> GgufFile::GetString(std::string_view key) const {
  Result<const std::string*> value = Get<std::string>(key, "a string");
  if (!value.ok()) return value.status();
  return **value;
}

Result<const std::vector<std::string>*> GgufFile::GetStrings(std::string_view key) const {
  constexpr char kWanted[] = "an array of strings";
  Result<const GgufArray*> array = Get<GgufArray>(key, kWanted);
  if (!array.ok()) return array.status();
  if ((*array)->element_type != GgufValueType::kString) return WrongType(key, kWanted);
  return &(*array)->strings;
}

Status GgufFile::AddShard(const GgufFile& shard, uint32_t file_index) {
  for (const GgufTensor& tensor : shard.tensors_) {
    if (!tensor_index_.try_emplace(tensor.name, tensors_.size()).second) {
      return {ErrorCode::kCorrupt,
              "tensor " + Quoted(tensor.name) + " is in another shard of the set too"};
    }
    tensors_.push_back(tensor);
    tensors_.back().file_index = file_index;
  }
  memory_bytes_ += shard.memory_bytes_;
  return {};
}

Result<std::vector<int64_t>> GgufFile::GetInts(std::string_view key) const {
  constexpr char kWanted[] = "an array of integers below 2^63, or of booleans";
  Result<const GgufArray*> array = Get<GgufArray>(key, kWanted);
  if (!array.ok()) return array.status();
  const bool is_u64 = (*array)->element_type == GgufValueType::kU64;
  const GgufValueType type = (*array)->element_type;
  if (!IsInteger(type) && type != GgufValueType::kBool) return WrongType(key, kWanted);
  std::vector<int64_t> values((*array)->count);
  for (uint64_t i = 0; i < values.size(); ++i) {
    values[i] = IntAt(**array, i);
    if (is_u64 && values[i] < 0) return WrongType(key, kWanted);
  }
  return values;
}

Result<std::vector<float>> GgufFile::GetFloats(std::string_view key) const {
  constexpr char kWanted[] = "an array of floats";
  Result<const GgufArray*> array = Get<GgufArray>(key, kWanted);
  if (!array.ok()) return array.status();
  const bool is_f64 = (*array)->element_type == GgufValueType::kF64;
  if (!is_f64 && (*array)->element_type != GgufValueType::kF32) return WrongType(key, kWanted);
  std::vector<float> values((*array)->count);
  for (uint64_t i = 0; i < values.size(); ++i) {
    values[i] = is_f64 ? static_cast<float>(ElementAt<double>((*array)->bytes, i))
                       : ElementAt<float>((*array)->bytes, i);
  }
  return values;
}

}  // namespace sluice
