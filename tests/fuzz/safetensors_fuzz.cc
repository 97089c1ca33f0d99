// A safetensors file: as it is, and as the header of a file whose length fits; and an index.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include "formats/mapped_file.h"
#include "formats/safetensors.h"
#include "tests/fuzz/measured_input.h"

namespace {

using namespace sluice;

void Require(bool promise) {
  if (!promise) std::abort();
}

void ReadAndCheck(const ByteSource& source) {
  const Result<SafetensorsHeader> header = ReadSafetensorsHeader(source);
  if (!header.ok() || header->tensors.empty()) return;
  uint64_t end = header->tensors.front().offset_bytes;
  for (const SafetensorsTensor& tensor : header->tensors) {
    Require(tensor.offset_bytes == end);
    uint64_t size_bytes = SizeOf(tensor.type);
    for (const uint64_t dim : tensor.shape) size_bytes *= dim;
    Require(size_bytes == tensor.size_bytes);
    end += tensor.size_bytes;
  }
  Require(end == source.size_bytes());
}

// A header in front of so many bytes of data that are never read.
class HeaderAndData : public ByteSource {
 public:
  HeaderAndData(std::string_view header, uint64_t data_bytes) : data_bytes_(data_bytes) {
    const uint64_t length = header.size();
    text_.assign(reinterpret_cast<const char*>(&length), 8);
    text_ += header;
  }
  uint64_t size_bytes() const override { return text_.size() + data_bytes_; }
  const std::string& name() const override { return name_; }
  Status ReadAt(uint64_t offset_bytes, std::span<std::byte> out) const override {
    Require(offset_bytes + out.size() <= text_.size());
    if (!out.empty()) std::memcpy(out.data(), text_.data() + offset_bytes, out.size());
    return {};
  }

 private:
  std::string text_;
  uint64_t data_bytes_;
  std::string name_ = "memory";
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const MeasuredInput measured(size);
  ReadAndCheck(MemoryBytes({reinterpret_cast<const std::byte*>(data), size}));
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  // The last byte says how much data follows, so that JSON alone makes a file.
  const uint64_t data_bytes = size == 0 ? 0 : data[size - 1];
  ReadAndCheck(HeaderAndData(text, 0));
  if (size > 0) ReadAndCheck(HeaderAndData(text.substr(0, size - 1), data_bytes));
  const auto index = ParseSafetensorsIndex(text);
  if (!index.ok()) return 0;
  for (const auto& [tensor, file] : *index) Require(file.find('/') == std::string::npos);
  return 0;
}
