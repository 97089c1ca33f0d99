// Builds the bytes of GGUF and safetensors files for tests: correct ones, and ones with any single
// thing wrong.
#ifndef SLUICE_TESTS_SUPPORT_FOREIGN_FILES_H_
#define SLUICE_TESTS_SUPPORT_FOREIGN_FILES_H_

#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/mapped_file.h"

namespace sluice {

inline std::span<const std::byte> BytesOf(std::string_view text) {
  return std::as_bytes(std::span(text));
}

template <typename T>
std::string LittleEndian(T value) {
  std::string bytes(sizeof(T), '\0');
  std::memcpy(bytes.data(), &value, sizeof(T));
  return bytes;
}

// The length, the header, the data.
inline std::string SafetensorsBytes(const std::string& header, const std::string& data) {
  return LittleEndian<uint64_t>(header.size()) + header + data;
}

struct GgufTensorBytes {
  std::string name;
  std::vector<uint64_t> dims;  // fastest first, as in the file
  uint32_t type = 0;
  std::string data;
};

// Everything public, so that a test can spoil it.
struct GgufBytes {
  std::string magic = "GGUF";
  uint32_t version = 3;
  std::vector<std::string> entries;  // of the metadata
  uint64_t key_count = 0;
  std::vector<GgufTensorBytes> tensors;
  std::vector<uint64_t> offsets;  // one for each tensor; empty: one after the other, aligned
  uint64_t alignment = 32;

  static std::string String(std::string_view text);
  // A key with its type and the bytes of its value.
  GgufBytes& Add(std::string_view key, uint32_t type, const std::string& value);
  GgufBytes& AddU32(std::string_view key, uint32_t value);
  GgufBytes& AddF32(std::string_view key, float value);
  GgufBytes& AddString(std::string_view key, std::string_view value);
  GgufBytes& AddStrings(std::string_view key, const std::vector<std::string>& values);
  GgufBytes& AddTensor(GgufTensorBytes tensor);
  // The same with data of zeros, as long as F32 makes it.
  GgufBytes& AddF32Tensor(std::string_view name, std::vector<uint64_t> dims);

  // Drops a key or a tensor that is there.
  GgufBytes& Remove(std::string_view key);
  GgufTensorBytes& Tensor(std::string_view name);
  GgufBytes& RemoveTensor(std::string_view name);

  std::string Header() const;
  std::string Build() const;
};

// A whole small model of architecture "llama": 1 layer, hidden 32, 2 heads, 1 KV head, FFN 64,
// 8 tokens, tied. All weights are 0.
GgufBytes TinyLlamaGguf();

}  // namespace sluice

#endif  // SLUICE_TESTS_SUPPORT_FOREIGN_FILES_H_
