#include "formats/gguf.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <numeric>
#include <utility>

#include "formats/checked.h"
#include "formats/quote.h"

namespace sluice {
namespace {

constexpr uint64_t kMaxHeaderBytes = uint64_t{256} << 20;
constexpr uint64_t kMaxKeyBytes = 65535;  // the specification's bound
constexpr uint64_t kMaxTensorNameBytes = 1024;
constexpr uint32_t kMaxDims = 4;
constexpr uint64_t kMaxAlignment = 65536;
// The least that one entry takes: bounds the counts before anything is read.
constexpr uint64_t kMinKeyValueBytes = 8 + 4 + 1;
constexpr uint64_t kMinTensorBytes = 8 + 4 + 8 + 4 + 8;

constexpr uint64_t kWindowBytes = 1 << 20;
// Strings up to this length lie in the object itself.
constexpr uint64_t kShortStringBytes = 15;
constexpr uint64_t kMallocBytes = 16;  // what it adds to an allocation
// Pointers and color of a node of a map, and malloc's part.
constexpr uint64_t kNodeBytes = 64;

// Bytes of a scalar of the metadata; 0 for strings, arrays and unknown types.
uint64_t ScalarBytes(uint32_t type) {
  switch (static_cast<GgufValueType>(type)) {
    case GgufValueType::kU8:
    case GgufValueType::kI8:
    case GgufValueType::kBool:
      return 1;
    case GgufValueType::kU16:
    case GgufValueType::kI16:
      return 2;
    case GgufValueType::kU32:
    case GgufValueType::kI32:
    case GgufValueType::kF32:
      return 4;
    case GgufValueType::kU64:
    case GgufValueType::kI64:
    case GgufValueType::kF64:
      return 8;
    case GgufValueType::kString:
    case GgufValueType::kArray:
      return 0;
  }
  return 0;
}

// Reads forward through a source, keeping one window of it.
class Cursor {
 public:
  // Also counts the memory of what is made of the bytes; the window is there from the beginning.
  Cursor(const ByteSource& source, uint64_t max_memory_bytes)
      : source_(source),
        max_memory_bytes_(max_memory_bytes),
        memory_bytes_(std::min(kWindowBytes, source.size_bytes())) {}

  // To be called before the memory is taken. Its sum cannot overflow: it follows from a header of
  // 256 MiB at most.
  Status Hold(uint64_t bytes) {
    memory_bytes_ += bytes;
    if (memory_bytes_ <= max_memory_bytes_) return {};
    return {ErrorCode::kDoesNotFit,
            fmt::format("a header that takes more than the {} bytes of memory that are allowed",
                        max_memory_bytes_)};
  }
  // Without the window.
  uint64_t held_bytes() const {
    return memory_bytes_ - std::min(kWindowBytes, source_.size_bytes());
  }

  uint64_t position() const { return position_; }
  uint64_t remaining() const { return source_.size_bytes() - position_; }

  Status Read(std::span<std::byte> out) {
    if (out.size() > remaining()) {
      return {ErrorCode::kTruncated,
              fmt::format("the header goes on at offset {} for at least {} bytes, but the file "
                          "ends at {}",
                          position_, out.size(), source_.size_bytes())};
    }
    if (out.size() > kMaxHeaderBytes || position_ > kMaxHeaderBytes - out.size()) {
      return {ErrorCode::kLimitExceeded,
              fmt::format("a header of more than {} bytes", kMaxHeaderBytes)};
    }
    while (!out.empty()) {
      if (position_ < window_begin_ || position_ - window_begin_ >= window_.size()) {
        if (Status s = Refill(); !s.ok()) return s;
      }
      const uint64_t at = position_ - window_begin_;
      const size_t count = std::min<size_t>(out.size(), window_.size() - at);
      std::memcpy(out.data(), window_.data() + at, count);
      out = out.subspan(count);
      position_ += count;
    }
    return {};
  }

  template <typename T>
  Status ReadScalar(T* value) {
    static_assert(std::endian::native == std::endian::little);
    return Read(std::as_writable_bytes(std::span(value, 1)));
  }

  Status ReadString(uint64_t max_bytes, const char* what, std::string* text) {
    uint64_t length = 0;
    if (Status s = ReadScalar(&length); !s.ok()) return s;
    if (length > remaining()) {
      return {ErrorCode::kTruncated,
              fmt::format("{} at offset {} of {} bytes passes the file's end", what, position_,
                          length)};
    }
    if (length > max_bytes) {
      return {ErrorCode::kLimitExceeded,
              fmt::format("{} at offset {} of {} bytes, at most {} are read", what, position_,
                          length, max_bytes)};
    }
    if (length > kShortStringBytes) {
      if (Status s = Hold(std::max(length, 2 * kShortStringBytes) + kMallocBytes); !s.ok())
        return s;
    }
    text->resize(length);
    return Read(std::as_writable_bytes(std::span(*text)));
  }

 private:
  Status Refill() {
    window_begin_ = position_;
    window_.resize(std::min(kWindowBytes, remaining()));
    return source_.ReadAt(window_begin_, window_);
  }

  const ByteSource& source_;
  uint64_t position_ = 0;
  const uint64_t max_memory_bytes_;
  uint64_t memory_bytes_;
  uint64_t window_begin_ = 0;
  std::vector<std::byte> window_;
};

}  // namespace

// Parses one header into a GgufFile.
class GgufParser {
 public:
  GgufParser(const ByteSource& source, uint64_t max_memory_bytes)
      : source_(source), cursor_(source, max_memory_bytes) {}

  Status Parse() {
    uint64_t tensor_count = 0;
    uint64_t key_count = 0;
    if (Status s = ParsePreamble(&tensor_count, &key_count); !s.ok()) return s;
    for (uint64_t i = 0; i < key_count; ++i) {
      if (Status s = ParseKeyValue(); !s.ok()) return s;
    }
    if (Status s = ReadAlignment(); !s.ok()) return s;
    for (uint64_t i = 0; i < tensor_count; ++i) {
      if (Status s = ParseTensor(); !s.ok()) return s;
    }
    file_.memory_bytes_ = cursor_.held_bytes();
    return PlaceTensors();
  }

  GgufFile Take() { return std::move(file_); }

 private:
  Status ParsePreamble(uint64_t* tensor_count, uint64_t* key_count) {
    char magic[4] = {};
    if (Status s = cursor_.Read(std::as_writable_bytes(std::span(magic))); !s.ok()) return s;
    if (std::string_view(magic, 4) != "GGUF") {
      return {ErrorCode::kCorrupt, "does not begin with the magic bytes GGUF"};
    }
    if (Status s = cursor_.ReadScalar(&file_.version_); !s.ok()) return s;
    if (file_.version_ != 2 && file_.version_ != 3) {
      const bool swapped = file_.version_ != 0 && (file_.version_ & 0xffffff) == 0;
      return {ErrorCode::kUnsupported,
              swapped ? "a big-endian GGUF file"
                      : fmt::format("GGUF version {} (2 and 3 are read)", file_.version_)};
    }
    if (Status s = cursor_.ReadScalar(tensor_count); !s.ok()) return s;
    if (Status s = cursor_.ReadScalar(key_count); !s.ok()) return s;
    if (*key_count > cursor_.remaining() / kMinKeyValueBytes ||
        *tensor_count > cursor_.remaining() / kMinTensorBytes) {
      return {ErrorCode::kTruncated,
              fmt::format("declares {} keys and {} tensors, more than its {} bytes can hold",
                          *key_count, *tensor_count, source_.size_bytes())};
    }
    return {};
  }

  Status ParseKeyValue() {
    std::string key;
    if (Status s = cursor_.ReadString(kMaxKeyBytes, "a metadata key", &key); !s.ok()) return s;
    if (key.empty()) return {ErrorCode::kCorrupt, "an empty metadata key"};
    const uint64_t node_bytes = kNodeBytes + sizeof(std::string) + sizeof(GgufValue);
    if (Status s = cursor_.Hold(node_bytes); !s.ok()) return s;
    uint32_t type = 0;
    if (Status s = cursor_.ReadScalar(&type); !s.ok()) return s;
    GgufValue value;
    Status s = static_cast<GgufValueType>(type) == GgufValueType::kArray
                   ? ParseArray(&value)
                   : ParseScalar(type, &value);
    if (!s.ok()) return s.WithContext("metadata key " + Quoted(key));
    const auto [entry, inserted] = file_.metadata_.try_emplace(std::move(key), std::move(value));
    if (inserted) return {};
    return {ErrorCode::kCorrupt, "metadata key " + Quoted(entry->first) + " appears twice"};
  }

  template <typename Stored, typename T>
  Status ParseNumber(GgufValue* value) {
    T number;
    if (Status s = cursor_.ReadScalar(&number); !s.ok()) return s;
    value->value = static_cast<Stored>(number);
    return {};
  }

  Status ParseScalar(uint32_t type, GgufValue* value) {
    value->type = static_cast<GgufValueType>(type);
    switch (value->type) {
      case GgufValueType::kU8:
        return ParseNumber<uint64_t, uint8_t>(value);
      case GgufValueType::kI8:
        return ParseNumber<int64_t, int8_t>(value);
      case GgufValueType::kU16:
        return ParseNumber<uint64_t, uint16_t>(value);
      case GgufValueType::kI16:
        return ParseNumber<int64_t, int16_t>(value);
      case GgufValueType::kU32:
        return ParseNumber<uint64_t, uint32_t>(value);
      case GgufValueType::kI32:
        return ParseNumber<int64_t, int32_t>(value);
      case GgufValueType::kU64:
        return ParseNumber<uint64_t, uint64_t>(value);
      case GgufValueType::kI64:
        return ParseNumber<int64_t, int64_t>(value);
      case GgufValueType::kF32:
        return ParseNumber<double, float>(value);
      case GgufValueType::kF64:
        return ParseNumber<double, double>(value);
      case GgufValueType::kBool: {
        uint8_t byte = 0;
        if (Status s = cursor_.ReadScalar(&byte); !s.ok()) return s;
        if (byte > 1) return {ErrorCode::kCorrupt, fmt::format("a bool of value {}", byte)};
        value->value = byte == 1;
        return {};
      }
      case GgufValueType::kString: {
        std::string text;
        if (Status s = cursor_.ReadString(kMaxHeaderBytes, "a string", &text); !s.ok()) return s;
        value->value = std::move(text);
        return {};
      }
      case GgufValueType::kArray:
        break;
    }
    return {ErrorCode::kCorrupt, fmt::format("unknown value type {}", type)};
  }

  Status ParseArray(GgufValue* value) {
    value->type = GgufValueType::kArray;
    GgufArray array;
    uint32_t type = 0;
    if (Status s = cursor_.ReadScalar(&type); !s.ok()) return s;
    if (Status s = cursor_.ReadScalar(&array.count); !s.ok()) return s;
    array.element_type = static_cast<GgufValueType>(type);
    if (array.element_type == GgufValueType::kArray) {
      return {ErrorCode::kUnsupported, "an array of arrays"};
    }
    const bool is_string = array.element_type == GgufValueType::kString;
    const uint64_t element_bytes = is_string ? 8 : ScalarBytes(type);
    if (element_bytes == 0) {
      return {ErrorCode::kCorrupt, fmt::format("an array of unknown type {}", type)};
    }
    if (array.count > cursor_.remaining() / element_bytes) {
      return {ErrorCode::kTruncated,
              fmt::format("an array of {} elements passes the file's end", array.count)};
    }
    if (array.count > kMaxHeaderBytes / element_bytes) {
      return {ErrorCode::kLimitExceeded, fmt::format("an array of {} elements", array.count)};
    }
    const uint64_t held_bytes = is_string ? sizeof(std::string) : element_bytes;
    if (Status s = cursor_.Hold(array.count * held_bytes); !s.ok()) return s;
    if (is_string) {
      array.strings.reserve(array.count);
      for (uint64_t i = 0; i < array.count; ++i) {
        std::string text;
        if (Status s = cursor_.ReadString(kMaxHeaderBytes, "a string", &text); !s.ok()) return s;
        array.strings.push_back(std::move(text));
      }
    } else {
      array.bytes.resize(array.count * element_bytes);
      if (Status s = cursor_.Read(array.bytes); !s.ok()) return s;
    }
    value->value = std::move(array);
    return {};
  }

  Status ReadAlignment() {
    constexpr char kKey[] = "general.alignment";
    if (!file_.Has(kKey)) return {};
    Result<uint64_t> alignment = file_.GetUint(kKey);
    if (!alignment.ok()) return alignment.status();
    if (!std::has_single_bit(*alignment) || *alignment > kMaxAlignment) {
      return {ErrorCode::kCorrupt, fmt::format("{} is {}, not a power of two up to {}", kKey,
                                               *alignment, kMaxAlignment)};
    }
    alignment_ = *alignment;
    return {};
  }

  Status ParseTensor() {
    GgufTensor tensor;
    // The directory's vector doubles as it grows; the index by name has the name once more.
    constexpr uint64_t kTensorBytes = 3 * sizeof(GgufTensor) + kMaxDims * sizeof(uint64_t) +
                                      kNodeBytes + sizeof(std::string) + sizeof(size_t);
    if (Status held = cursor_.Hold(kTensorBytes); !held.ok()) return held;
    Status s = cursor_.ReadString(kMaxTensorNameBytes, "a tensor name", &tensor.name);
    if (!s.ok()) return s;
    if (s = cursor_.Hold(tensor.name.size() + 1); !s.ok()) return s;
    if (tensor.name.empty()) return {ErrorCode::kCorrupt, "a tensor without a name"};
    if (s = ParseTensorInfo(&tensor); !s.ok()) {
      return s.WithContext("tensor " + Quoted(tensor.name));
    }
    const bool inserted =
        file_.tensor_index_.try_emplace(tensor.name, file_.tensors_.size()).second;
    if (!inserted) {
      return {ErrorCode::kCorrupt, "tensor " + Quoted(tensor.name) + " appears twice"};
    }
    file_.tensors_.push_back(std::move(tensor));
    return {};
  }

  Status ParseTensorInfo(GgufTensor* tensor) {
    uint32_t dim_count = 0;
    if (Status s = cursor_.ReadScalar(&dim_count); !s.ok()) return s;
    if (dim_count == 0 || dim_count > kMaxDims) {
      return {ErrorCode::kCorrupt, fmt::format("{} dimensions, 1 to 4 are possible", dim_count)};
    }
    tensor->shape.resize(dim_count);
    for (uint32_t i = dim_count; i-- > 0;) {
      if (Status s = cursor_.ReadScalar(&tensor->shape[i]); !s.ok()) return s;
      if (tensor->shape[i] == 0) return {ErrorCode::kCorrupt, "a dimension of 0"};
    }
    uint32_t type = 0;
    if (Status s = cursor_.ReadScalar(&type); !s.ok()) return s;
    if (Status s = cursor_.ReadScalar(&tensor->offset_bytes); !s.ok()) return s;
    tensor->type = FindGgmlType(type);
    if (tensor->type == nullptr) {
      return {ErrorCode::kUnsupported, fmt::format("unknown tensor type {}", type)};
    }
    const uint64_t cols = tensor->shape.back();
    if (cols % tensor->type->block_values != 0) {
      return {ErrorCode::kCorrupt,
              fmt::format("rows of {} values are not whole blocks of {} ({})", cols,
                          tensor->type->block_values, tensor->type->name)};
    }
    uint64_t size_bytes = cols / tensor->type->block_values;
    bool fits = CheckedMul(size_bytes, tensor->type->block_bytes, &size_bytes);
    for (uint32_t i = 0; i + 1 < dim_count && fits; ++i) {
      fits = CheckedMul(size_bytes, tensor->shape[i], &size_bytes);
    }
    if (!fits) return {ErrorCode::kCorrupt, "its dimensions overflow 64 bits"};
    tensor->size_bytes = size_bytes;
    return {};
  }

  // Offsets in the directory count from the data's begin, which is known only after it.
  Status PlaceTensors() {
    const uint64_t data_begin = RoundUp(cursor_.position(), alignment_);
    for (GgufTensor& tensor : file_.tensors_) {
      const std::string name = "tensor " + Quoted(tensor.name);
      if (tensor.offset_bytes % alignment_ != 0) {
        return {ErrorCode::kCorrupt, fmt::format("{}: offset {} is not a multiple of {}", name,
                                                 tensor.offset_bytes, alignment_)};
      }
      uint64_t end = 0;
      if (!CheckedAdd(tensor.offset_bytes, data_begin, &tensor.offset_bytes) ||
          !CheckedAdd(tensor.offset_bytes, tensor.size_bytes, &end) || end > source_.size_bytes()) {
        return {ErrorCode::kTruncated,
                fmt::format("{}: {} bytes from offset {} on pass the end of the file at {}", name,
                            tensor.size_bytes, tensor.offset_bytes, source_.size_bytes())};
      }
    }
    std::vector<size_t> order(file_.tensors_.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::sort(order.begin(), order.end(), [this](size_t a, size_t b) {
      return file_.tensors_[a].offset_bytes < file_.tensors_[b].offset_bytes;
    });
    for (size_t i = 1; i < order.size(); ++i) {
      const GgufTensor& before = file_.tensors_[order[i - 1]];
      const GgufTensor& tensor = file_.tensors_[order[i]];
      if (before.offset_bytes + before.size_bytes > tensor.offset_bytes) {
        return {ErrorCode::kCorrupt,
                fmt::format("tensors {} and {} overlap", Quoted(before.name), Quoted(tensor.name))};
      }
    }
    return {};
  }

  const ByteSource& source_;
  Cursor cursor_;
  uint64_t alignment_ = 32;
  GgufFile file_;
};

Result<GgufFile> GgufFile::Read(const ByteSource& source, uint64_t max_memory_bytes) {
  GgufParser parser(source, max_memory_bytes);
  if (Status s = parser.Parse(); !s.ok()) return s.WithContext(source.name());
  return parser.Take();
}

}  // namespace sluice
