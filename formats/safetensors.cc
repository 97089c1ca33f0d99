#include "formats/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <optional>
#include <set>
#include <span>
#include <utility>

#include "formats/checked.h"
#include "formats/quote.h"
#include "formats/strict_json.h"

namespace sluice {
namespace {

using Json = nlohmann::json;

constexpr uint64_t kLengthBytes = 8;
constexpr uint64_t kMaxHeaderBytes = 100'000'000;
constexpr size_t kMaxDims = 8;
constexpr char kMetadataKey[] = "__metadata__";

// Fills a header from the events of the JSON parser. There is no tree in between: a header of
// 100 MB would make one of several GB.
class HeaderHandler : public nlohmann::json_sax<Json> {
 public:
  explicit HeaderHandler(SafetensorsHeader* header) : header_(header) {}

  const Status& status() const { return status_; }

  bool null() override { return Unexpected("null"); }
  bool boolean(bool /*value*/) override { return Unexpected("a bool"); }
  bool number_integer(number_integer_t /*value*/) override {
    return Unexpected("a negative number");
  }
  bool number_float(number_float_t /*value*/, const string_t& /*text*/) override {
    return Unexpected("a number with a fraction, or too large");
  }
  bool binary(binary_t& /*value*/) override { return Unexpected("binary data"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (place_ == Place::kShape) {
      if (tensor_.shape.size() == kMaxDims) {
        return Fail(ErrorCode::kLimitExceeded, "more than 8 dimensions");
      }
      tensor_.shape.push_back(value);
      return true;
    }
    if (place_ == Place::kOffsets) {
      if (offset_count_ == 2) return Fail(ErrorCode::kCorrupt, "data_offsets has not two values");
      offsets_[offset_count_++] = value;
      return true;
    }
    return Unexpected("a number");
  }

  bool string(string_t& value) override {
    if (place_ == Place::kMetadata) {
      header_->metadata.at(key_) = std::move(value);
      return true;
    }
    if (place_ != Place::kTensor || key_ != "dtype") return Unexpected("a string");
    const std::optional<DType> type = DTypeFromName(value);
    if (!type.has_value()) {
      return Fail(ErrorCode::kUnsupported, "unknown dtype " + Quoted(value));
    }
    tensor_.type = *type;
    return true;
  }

  bool key(string_t& name) override {
    key_ = std::move(name);
    switch (place_) {
      case Place::kRoot:
        if (!names_.insert(key_).second) {
          return Fail(ErrorCode::kCorrupt, Quoted(key_) + " appears twice");
        }
        return true;
      case Place::kMetadata:
        if (!header_->metadata.try_emplace(key_).second) {
          return Fail(ErrorCode::kCorrupt, "metadata key " + Quoted(key_) + " appears twice");
        }
        return true;
      default:
        return TensorKey();
    }
  }

  bool start_object(size_t /*count*/) override {
    switch (place_) {
      case Place::kOutside:
        place_ = Place::kRoot;
        return true;
      case Place::kRoot:
        if (key_ == kMetadataKey) {
          place_ = Place::kMetadata;
          return true;
        }
        place_ = Place::kTensor;
        tensor_ = {};
        tensor_.name = key_;
        seen_members_ = 0;
        offset_count_ = 0;
        return true;
      default:
        return Unexpected("an object");
    }
  }

  bool end_object() override {
    if (place_ == Place::kTensor) {
      place_ = Place::kRoot;
      return EndTensor();
    }
    place_ = place_ == Place::kMetadata ? Place::kRoot : Place::kOutside;
    return true;
  }

  bool start_array(size_t /*count*/) override {
    if (place_ == Place::kTensor && key_ == "shape") {
      place_ = Place::kShape;
    } else if (place_ == Place::kTensor && key_ == "data_offsets") {
      place_ = Place::kOffsets;
    } else {
      return Unexpected("an array");
    }
    return true;
  }

  bool end_array() override {
    place_ = Place::kTensor;
    return true;
  }

  bool parse_error(size_t position, const std::string& /*token*/,
                   const nlohmann::detail::exception& /*error*/) override {
    return Fail(ErrorCode::kCorrupt,
                fmt::format("the header is not valid UTF-8 JSON near its byte {}", position));
  }

 private:
  enum class Place { kOutside, kRoot, kMetadata, kTensor, kShape, kOffsets };

  bool Fail(ErrorCode code, const std::string& problem) {
    const bool in_tensor =
        place_ != Place::kOutside && place_ != Place::kRoot && place_ != Place::kMetadata;
    status_ = Status(code, in_tensor ? "tensor " + Quoted(tensor_.name) + ": " + problem : problem);
    return false;
  }

  bool Unexpected(const char* what) {
    const std::string where =
        place_ == Place::kOutside ? "the header" : "the value of " + Quoted(key_);
    return Fail(ErrorCode::kCorrupt, fmt::format("{} is {}", where, what));
  }

  bool TensorKey() {
    constexpr const char* kMembers[] = {"dtype", "shape", "data_offsets"};
    for (unsigned i = 0; i < 3; ++i) {
      if (key_ != kMembers[i]) continue;
      if ((seen_members_ & (1u << i)) != 0) {
        return Fail(ErrorCode::kCorrupt, Quoted(key_) + " appears twice");
      }
      seen_members_ |= 1u << i;
      return true;
    }
    return Fail(ErrorCode::kCorrupt, "unknown member " + Quoted(key_));
  }

  bool EndTensor() {
    const auto fail = [this](ErrorCode code, const std::string& problem) {
      status_ = Status(code, "tensor " + Quoted(tensor_.name) + ": " + problem);
      return false;
    };
    if (seen_members_ != 7) {
      return fail(ErrorCode::kCorrupt, "needs dtype, shape and data_offsets");
    }
    if (offset_count_ != 2) return fail(ErrorCode::kCorrupt, "data_offsets has not two values");
    uint64_t size_bytes = SizeOf(tensor_.type);
    for (const uint64_t dim : tensor_.shape) {
      if (!CheckedMul(size_bytes, dim, &size_bytes)) {
        return fail(ErrorCode::kCorrupt, "its shape overflows 64 bits");
      }
    }
    if (offsets_[1] < offsets_[0] || offsets_[1] - offsets_[0] != size_bytes) {
      return fail(ErrorCode::kCorrupt,
                  fmt::format("data_offsets [{}, {}], its shape and dtype take {} bytes",
                              offsets_[0], offsets_[1], size_bytes));
    }
    tensor_.offset_bytes = offsets_[0];
    tensor_.size_bytes = size_bytes;
    header_->tensors.push_back(std::move(tensor_));
    return true;
  }

  SafetensorsHeader* header_;
  Place place_ = Place::kOutside;
  std::string key_;
  std::set<std::string> names_;
  SafetensorsTensor tensor_;
  unsigned seen_members_ = 0;
  uint64_t offsets_[2] = {};
  size_t offset_count_ = 0;
  Status status_;
};

// Offsets become positions in the file; the data must be tiled.
Status PlaceTensors(uint64_t data_begin, uint64_t data_bytes, SafetensorsHeader* header) {
  // Empty tensors come before what begins at the same place.
  std::stable_sort(header->tensors.begin(), header->tensors.end(),
                   [](const SafetensorsTensor& a, const SafetensorsTensor& b) {
                     return std::pair(a.offset_bytes, a.size_bytes) <
                            std::pair(b.offset_bytes, b.size_bytes);
                   });
  uint64_t end = 0;
  for (SafetensorsTensor& tensor : header->tensors) {
    if (tensor.offset_bytes != end) {
      return {
          ErrorCode::kCorrupt,
          fmt::format("tensor {} begins at byte {} of the data, {} byte {}", Quoted(tensor.name),
                      tensor.offset_bytes,
                      tensor.offset_bytes < end ? "inside what ends at" : "after a gap from", end)};
    }
    if (tensor.size_bytes > data_bytes - end) {
      return {ErrorCode::kTruncated,
              fmt::format("tensor {} of {} bytes at byte {} of the data, the file has {}",
                          Quoted(tensor.name), tensor.size_bytes, end, data_bytes)};
    }
    end += tensor.size_bytes;
    tensor.offset_bytes += data_begin;
  }
  if (end != data_bytes) {
    return {ErrorCode::kCorrupt,
            fmt::format("{} bytes after the last tensor belong to none", data_bytes - end)};
  }
  return {};
}

Result<SafetensorsHeader> ReadHeader(const ByteSource& source) {
  static_assert(std::endian::native == std::endian::little);
  uint64_t length = 0;
  if (source.size_bytes() < kLengthBytes) {
    return Status(ErrorCode::kTruncated, "shorter than the header's length of 8 bytes");
  }
  if (Status s = source.ReadAt(0, std::as_writable_bytes(std::span(&length, 1))); !s.ok()) return s;
  if (length > source.size_bytes() - kLengthBytes) {
    return Status(ErrorCode::kTruncated,
                  fmt::format("a header of {} bytes in a file of {}", length, source.size_bytes()));
  }
  if (length > kMaxHeaderBytes) {
    return Status(
        ErrorCode::kLimitExceeded,
        fmt::format("a header of {} bytes, at most {} are read", length, kMaxHeaderBytes));
  }
  std::string json(length, '\0');
  Status s = source.ReadAt(kLengthBytes, std::as_writable_bytes(std::span(json)));
  if (!s.ok()) return s;
  if (!json.starts_with('{')) {
    return Status(ErrorCode::kCorrupt, "the header does not begin with '{'");
  }
  SafetensorsHeader header;
  HeaderHandler handler(&header);
  if (!Json::sax_parse(json, &handler)) {
    return handler.status().ok() ? Status(ErrorCode::kCorrupt, "the header is not valid JSON")
                                 : handler.status();
  }
  const uint64_t data_begin = kLengthBytes + length;
  s = PlaceTensors(data_begin, source.size_bytes() - data_begin, &header);
  if (!s.ok()) return s;
  return header;
}

bool IsPlainFileName(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos &&
         name.find('\0') == std::string::npos;
}

}  // namespace

Result<SafetensorsHeader> ReadSafetensorsHeader(const ByteSource& source) {
  Result<SafetensorsHeader> header = ReadHeader(source);
  if (!header.ok()) return header.status().WithContext(source.name());
  return header;
}

Result<std::map<std::string, std::string>> ParseSafetensorsIndex(std::string_view json) {
  Result<Json> index = ParseStrictJson(json, /*max_depth=*/8);
  if (!index.ok()) return index.status();
  const auto weight_map = index->is_object() ? index->find("weight_map") : index->end();
  if (!index->is_object() || weight_map == index->end() || !weight_map->is_object()) {
    return Status(ErrorCode::kCorrupt, "no object 'weight_map'");
  }
  std::map<std::string, std::string> files;
  for (const auto& [tensor, file] : weight_map->items()) {
    if (!file.is_string()) {
      return Status(ErrorCode::kCorrupt,
                    "weight_map: the file of " + Quoted(tensor) + " is not a string");
    }
    const auto& name = file.get_ref<const std::string&>();
    if (!IsPlainFileName(name)) {
      return Status(ErrorCode::kCorrupt,
                    fmt::format("weight_map: the file of {} is {}, not a plain file name",
                                Quoted(tensor), Quoted(name)));
    }
    files.emplace(tensor, name);
  }
  if (files.empty()) return Status(ErrorCode::kCorrupt, "weight_map is empty");
  return files;
}

}  // namespace sluice
