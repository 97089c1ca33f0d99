#include "formats/npy.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <string_view>
#include <system_error>
#include <utility>

#include "formats/checked.h"
#include "formats/mapped_file.h"
#include "formats/quote.h"

namespace sluice {
namespace {

constexpr std::string_view kMagic("\x93NUMPY\x01\x00", 8);
constexpr uint64_t kPreambleBytes = 10;  // magic and the header's length
constexpr uint64_t kMaxFileBytes = uint64_t{1} << 30;

Status WriteAllAt(int descriptor, const std::string& path, uint64_t offset,
                  std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t count =
        pwrite(descriptor, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      return {ErrorCode::kIo,
              fmt::format("{}: write failed: {}", path, std::generic_category().message(errno))};
    }
    bytes = bytes.subspan(static_cast<size_t>(count));
    offset += static_cast<uint64_t>(count);
  }
  return {};
}

bool CountValues(const std::vector<uint64_t>& shape, uint64_t* count) {
  *count = 1;
  for (const uint64_t dim : shape) {
    if (!CheckedMul(*count, dim, count)) return false;
  }
  return true;
}

// Cuts the text between `begin` and the next `end` out of `text`.
bool Between(std::string_view text, std::string_view begin, char end, std::string_view* out) {
  const size_t at = text.find(begin);
  if (at == std::string_view::npos) return false;
  text.remove_prefix(at + begin.size());
  const size_t stop = text.find(end);
  if (stop == std::string_view::npos) return false;
  *out = text.substr(0, stop);
  return true;
}

// "3, 4" or "5," or nothing.
bool ParseShape(std::string_view text, std::vector<uint64_t>* shape) {
  while (true) {
    while (!text.empty() && (text.front() == ' ' || text.front() == ',')) text.remove_prefix(1);
    if (text.empty()) return true;
    uint64_t dim = 0;
    const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), dim);
    if (error != std::errc() || shape->size() == 32) return false;
    shape->push_back(dim);
    text.remove_prefix(static_cast<size_t>(stop - text.data()));
    if (!text.empty() && text.front() != ',') return false;
  }
}

Result<NpyArray> ParseNpy(std::string_view text) {
  if (!text.starts_with(kMagic)) {
    return Status(ErrorCode::kCorrupt, "does not begin with the magic of .npy version 1.0");
  }
  if (text.size() < kPreambleBytes) return Status(ErrorCode::kTruncated, "ends in its header");
  const auto length = static_cast<uint64_t>(static_cast<unsigned char>(text[8])) |
                      static_cast<uint64_t>(static_cast<unsigned char>(text[9])) << 8;
  if (length > text.size() - kPreambleBytes) {
    return Status(ErrorCode::kTruncated, "ends in its header");
  }
  const std::string_view header = text.substr(kPreambleBytes, length);
  std::string_view type, order, dims;
  NpyArray array;
  if (!Between(header, "'descr': '", '\'', &type) ||
      !Between(header, "'fortran_order': ", ',', &order) ||
      !Between(header, "'shape': (", ')', &dims) || !ParseShape(dims, &array.shape)) {
    return Status(ErrorCode::kCorrupt, "its header does not describe an array");
  }
  if ((type != "<f4" && type != "<i8") || order != "False") {
    return Status(ErrorCode::kUnsupported,
                  fmt::format("type {}, fortran_order {}", Quoted(type), Quoted(order)));
  }
  array.type = type == "<f4" ? DType::kF32 : DType::kI64;
  const std::string_view data = text.substr(kPreambleBytes + length);
  uint64_t count = 0;
  uint64_t size_bytes = 0;
  if (!CountValues(array.shape, &count) || !CheckedMul(count, SizeOf(array.type), &size_bytes) ||
      size_bytes > data.size()) {
    return Status(ErrorCode::kTruncated,
                  fmt::format("{} bytes of data, its shape takes more", data.size()));
  }
  if (size_bytes < data.size()) {
    return Status(ErrorCode::kCorrupt,
                  fmt::format("{} bytes after the array", data.size() - size_bytes));
  }
  if (array.type == DType::kF32) array.floats.resize(count);
  if (array.type == DType::kI64) array.ints.resize(count);
  void* out = array.type == DType::kF32 ? static_cast<void*>(array.floats.data())
                                        : static_cast<void*>(array.ints.data());
  if (size_bytes != 0) std::memcpy(out, data.data(), size_bytes);
  return array;
}

}  // namespace

NpyWriter::NpyWriter(int descriptor, std::string path, std::string header, uint64_t values)
    : descriptor_(descriptor),
      path_(std::move(path)),
      header_(std::move(header)),
      values_(values),
      values_left_(values) {}

NpyWriter::NpyWriter(NpyWriter&& other) noexcept { *this = std::move(other); }

NpyWriter& NpyWriter::operator=(NpyWriter&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  std::swap(path_, other.path_);
  std::swap(header_, other.header_);
  std::swap(values_, other.values_);
  std::swap(appended_, other.appended_);
  std::swap(values_left_, other.values_left_);
  return *this;
}

NpyWriter::~NpyWriter() {
  if (descriptor_ >= 0) close(descriptor_);
}

Result<NpyWriter> NpyWriter::Create(const std::string& path, const std::vector<uint64_t>& shape) {
  uint64_t count = 0;
  uint64_t size_bytes = 0;
  if (!CountValues(shape, &count) || !CheckedMul(count, sizeof(float), &size_bytes)) {
    return Status(ErrorCode::kInvalidArgument, path + ": the shape overflows 64 bits");
  }
  std::string dict = fmt::format("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}{}), }}",
                                 fmt::join(shape, ", "), shape.size() == 1 ? "," : "");
  // The data begins at a multiple of 64 bytes, and the header ends with a line feed.
  dict.resize(RoundUp(kPreambleBytes + dict.size() + 1, 64) - kPreambleBytes - 1, ' ');
  dict += '\n';
  if (dict.size() > 0xffff) {
    return Status(ErrorCode::kInvalidArgument, path + ": too many dimensions");
  }
  std::string header(kMagic);
  header += static_cast<char>(dict.size() & 0xff);
  header += static_cast<char>(dict.size() >> 8);
  header += dict;
  const int descriptor = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (descriptor < 0) {
    return Status(ErrorCode::kIo, fmt::format("{}: cannot create: {}", path,
                                              std::generic_category().message(errno)));
  }
  NpyWriter writer(descriptor, path, std::move(header), count);
  if (lseek(descriptor, 0, SEEK_CUR) < 0) {
    return Status(ErrorCode::kInvalidArgument,
                  path + ": values are written in any order, which a pipe cannot take");
  }
  return writer;
}

Status NpyWriter::Append(std::span<const float> values) {
  const Status status = WriteAt(appended_, values);
  if (status.ok()) appended_ += values.size();
  return status;
}

Status NpyWriter::WriteAt(uint64_t first_value, std::span<const float> values) {
  if (values.size() > values_left_ || first_value > values_ ||
      values.size() > values_ - first_value) {
    return {ErrorCode::kInvalidArgument,
            fmt::format("{}: {} values from {} on, the shape has {} and room for {}", path_,
                        values.size(), first_value, values_, values_left_)};
  }
  values_left_ -= values.size();
  return WriteAllAt(descriptor_, path_, header_.size() + first_value * sizeof(float),
                    std::as_bytes(values));
}

Status NpyWriter::Finish() {
  const int descriptor = std::exchange(descriptor_, -1);
  Status status;
  if (values_left_ != 0) {
    status = {ErrorCode::kInvalidArgument,
              fmt::format("{}: {} values are missing", path_, values_left_)};
  } else if (descriptor >= 0) {
    status = WriteAllAt(descriptor, path_, 0, std::as_bytes(std::span(header_)));
  }
  if (descriptor >= 0 && close(descriptor) != 0 && status.ok()) {
    status = {ErrorCode::kIo,
              fmt::format("{}: close failed: {}", path_, std::generic_category().message(errno))};
  }
  return status;
}

Result<NpyArray> ReadNpy(const std::string& path) {
  Result<std::string> text = ReadWholeFile(path, kMaxFileBytes);
  if (!text.ok()) return text.status();
  Result<NpyArray> array = ParseNpy(*text);
  if (!array.ok()) return array.status().WithContext(path);
  return array;
}

}  // namespace sluice
