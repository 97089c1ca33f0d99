// GGUF, the container of llama.cpp: typed metadata, tensor directory, aligned tensor data.
// Specification: ggml's docs/gguf.md. Read here: versions 2 and 3, little-endian.
#ifndef SLUICE_FORMATS_GGUF_H_
#define SLUICE_FORMATS_GGUF_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "formats/mapped_file.h"
#include "formats/status.h"

namespace sluice {

enum class GgufValueType : uint32_t {
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12,
};

// One array of the metadata, as it lies in the file.
struct GgufArray {
  GgufValueType element_type = GgufValueType::kU8;
  uint64_t count = 0;
  std::vector<std::byte> bytes;      // little-endian elements, unless they are strings
  std::vector<std::string> strings;  // [count] when element_type is kString

  bool operator==(const GgufArray&) const = default;
};

struct GgufValue {
  GgufValueType type = GgufValueType::kU8;
  // Unsigned integers, signed integers, both floats, bool, string, array.
  std::variant<uint64_t, int64_t, double, bool, std::string, GgufArray> value;
};

// A ggml tensor type: blocks of `block_values` consecutive values of a row in `block_bytes` bytes.
struct GgmlType {
  uint32_t id;
  const char* name;  // as llama.cpp prints it, for example "Q4_K"
  uint32_t block_values;
  uint32_t block_bytes;
};
// Null for an id that is unknown or was withdrawn from ggml.
const GgmlType* FindGgmlType(uint32_t id);

struct GgufTensor {
  std::string name;
  const GgmlType* type = nullptr;
  std::vector<uint64_t> shape;  // outermost first (the file has it the other way round); 1 to 4
  uint64_t offset_bytes = 0;    // in the file
  uint64_t size_bytes = 0;
  uint32_t file_index = 0;  // of the shard that has it, in a GgufSet
};

// The validated header of a GGUF file. Immutable after Read and AddShard.
class GgufFile {
 public:
  // Reads metadata and directory, a megabyte at a time. Everything that Read accepts is consistent:
  // keys and tensor names are unique, every row is whole blocks, every tensor is aligned, lies
  // inside the file and shares no byte with another.
  // Errors: kTruncated, kCorrupt, kUnsupported (version, byte order, nested arrays, tensor types),
  // kLimitExceeded (more than 256 MiB of header), kDoesNotFit (more than `max_memory_bytes` of
  // memory to read and to hold it), kIo. Each names the source, and key or tensor.
  static Result<GgufFile> Read(const ByteSource& source, uint64_t max_memory_bytes = UINT64_MAX);

  // Takes over the tensors of another shard, number `file_index` of the set. Error: kCorrupt for a
  // name that is there already.
  Status AddShard(const GgufFile& shard, uint32_t file_index);

  // What this object holds, as far as it is reckoned for Read's bound.
  uint64_t memory_bytes() const { return memory_bytes_; }

  uint32_t version() const { return version_; }
  const std::vector<GgufTensor>& tensors() const { return tensors_; }  // in the file's order
  const GgufTensor* FindTensor(std::string_view name) const;

  const std::map<std::string, GgufValue, std::less<>>& metadata() const { return metadata_; }
  bool Has(std::string_view key) const { return metadata_.find(key) != metadata_.end(); }

  // Values by key. Any integer type is taken where its value fits, and any float type (and no
  // integer) for a float. Errors: kNotFound, kCorrupt (another type, a value out of range); both
  // name the key.
  Result<uint64_t> GetUint(std::string_view key) const;
  Result<double> GetFloat(std::string_view key) const;
  Result<bool> GetBool(std::string_view key) const;
  Result<std::string> GetString(std::string_view key) const;
  // The array stays owned by this object.
  Result<const std::vector<std::string>*> GetStrings(std::string_view key) const;
  // Booleans are 0 and 1.
  Result<std::vector<int64_t>> GetInts(std::string_view key) const;
  Result<std::vector<float>> GetFloats(std::string_view key) const;

 private:
  template <typename T>
  Result<const T*> Get(std::string_view key, const char* wanted) const;

  uint32_t version_ = 0;
  uint64_t memory_bytes_ = 0;
  std::map<std::string, GgufValue, std::less<>> metadata_;
  std::vector<GgufTensor> tensors_;
  std::map<std::string, size_t, std::less<>> tensor_index_;

  friend class GgufParser;
};

}  // namespace sluice

#endif  // SLUICE_FORMATS_GGUF_H_
