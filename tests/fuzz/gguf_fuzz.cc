// A GGUF file, from its first byte to its rows. What is accepted must be consistent.
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <span>
#include <vector>

#include "formats/gguf.h"
#include "formats/mapped_file.h"
#include "loaders/checkpoint_source.h"
#include "tests/fuzz/measured_input.h"

namespace {

using namespace sluice;

// Where a promise of the parser is broken.
void Require(bool promise) {
  if (!promise) std::abort();
}

void CheckDirectory(const GgufFile& file, uint64_t size_bytes) {
  for (const GgufTensor& tensor : file.tensors()) {
    Require(tensor.offset_bytes <= size_bytes);
    Require(tensor.size_bytes <= size_bytes - tensor.offset_bytes);
    Require(file.FindTensor(tensor.name) == &tensor);
  }
  for (const auto& [key, value] : file.metadata()) {
    // Every getter on every value: whatever its type is, an answer and not a crash.
    (void)file.GetUint(key);
    (void)file.GetFloat(key);
    (void)file.GetBool(key);
    (void)file.GetString(key);
    (void)file.GetStrings(key);
    (void)file.GetInts(key);
    (void)file.GetFloats(key);
  }
}

void DecodeRows(const CheckpointSource& source, const ByteSource& file) {
  for (const SourceTensor& tensor : source.tensors) {
    std::vector<std::byte> row(SourceRowBytes(tensor.type, tensor.cols));
    std::vector<float> values(tensor.cols);
    const uint64_t last = tensor.offset_bytes + (tensor.rows - 1) * row.size();
    Require(file.ReadAt(last, row).ok());
    DecodeSourceRow(tensor.type, row.data(), tensor.cols, values.data());
    for (const uint32_t at : tensor.row_order) {
      Require(at < (tensor.rows == 1 ? tensor.cols : tensor.rows));
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const MeasuredInput measured(size);
  const std::span bytes(reinterpret_cast<const std::byte*>(data), size);
  const MemoryBytes memory(bytes);
  const Result<GgufFile> file = GgufFile::Read(memory);
  if (!file.ok()) return 0;
  CheckDirectory(*file, size);
  const Result<CheckpointSource> source = OpenGguf(std::make_unique<MemoryBytes>(bytes));
  if (source.ok()) DecodeRows(*source, memory);
  return 0;
}
