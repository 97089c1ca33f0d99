#include "loaders/checkpoint.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <unordered_map>
#include <utility>

#include "formats/sluice_file.h"
#include "loaders/checkpoint_source.h"
#include "loaders/other_layouts.h"

namespace sluice {
namespace {

// Rows [row_begin, row_begin + row_count) of a tensor whose rows lie in another order.
Status ReadReorderedRows(const ByteSource& file, const SourceTensor& tensor, uint64_t row_begin,
                         uint64_t row_count, std::span<std::byte> out) {
  const uint64_t row_bytes = SourceRowBytes(tensor.type, tensor.cols);
  const std::span order = std::span(tensor.row_order).subspan(row_begin, row_count);
  std::vector<std::byte> rows;
  for (uint64_t done = 0; done < row_count;) {
    // Neighbours lie near each other, so one read gets many, and some that are not wanted.
    uint64_t first = order[done], last = order[done], count = 1;
    for (; done + count < row_count; ++count) {
      const uint64_t row = order[done + count];
      if (std::max(last, row) - std::min(first, row) >= kReorderedRows) break;
      first = std::min(first, row);
      last = std::max(last, row);
    }
    rows.resize((last - first + 1) * row_bytes);
    if (Status s = file.ReadAt(tensor.offset_bytes + first * row_bytes, rows); !s.ok()) return s;
    for (uint64_t i = 0; i < count; ++i) {
      std::memcpy(out.data() + (done + i) * row_bytes,
                  rows.data() + (order[done + i] - first) * row_bytes, row_bytes);
    }
    done += count;
  }
  return {};
}

// The one row of a vector whose elements lie in another order.
Status ReadReorderedElements(const ByteSource& file, const SourceTensor& tensor,
                             std::span<std::byte> row) {
  const uint64_t element_bytes = row.size() / tensor.cols;
  const auto [first, last] = std::minmax_element(tensor.row_order.begin(), tensor.row_order.end());
  std::vector<std::byte> source((uint64_t{*last} - *first + 1) * element_bytes);
  const Status s = file.ReadAt(tensor.offset_bytes + *first * element_bytes, source);
  for (uint64_t i = 0; i < tensor.cols && s.ok(); ++i) {
    std::memcpy(row.data() + i * element_bytes,
                source.data() + (tensor.row_order[i] - *first) * element_bytes, element_bytes);
  }
  return s;
}

}  // namespace

struct Checkpoint::Impl {
  CheckpointSource source;
  std::unordered_map<std::string, size_t> index;
  uint64_t size_bytes = 0;
};

Checkpoint::Checkpoint(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Checkpoint::Checkpoint(Checkpoint&&) noexcept = default;
Checkpoint& Checkpoint::operator=(Checkpoint&&) noexcept = default;
Checkpoint::~Checkpoint() = default;

namespace {

Result<CheckpointSource> OpenFile(const std::string& path, uint64_t max_memory_bytes) {
  Result<std::unique_ptr<ReadOnlyFile>> file = ReadOnlyFile::Open(path);
  if (!file.ok()) return file.status();
  char magic[4] = {};
  if ((*file)->size_bytes() >= sizeof(magic)) {
    Status s = (*file)->ReadAt(0, std::as_writable_bytes(std::span(magic)));
    if (!s.ok()) return s;
  }
  if (std::string_view(magic, sizeof(magic)) == "GGUF")
    return OpenGguf(*std::move(file), max_memory_bytes);
  if (Status s = RefuseGitLfsPointer(**file); !s.ok()) return s;
  constexpr char kOther[] =
      ": not a GGUF file, nor a .sluice file; for safetensors give the directory with config.json";
  return Status(ErrorCode::kUnsupported, path + kOther);
}

}  // namespace

Result<Checkpoint> Checkpoint::Open(const std::string& path, uint64_t max_memory_bytes) {
  struct stat info {};
  const bool is_directory = stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
  Result<CheckpointSource> source = is_directory ? OpenHuggingFaceDirectory(path, max_memory_bytes)
                                                 : OpenFile(path, max_memory_bytes);
  if (!source.ok()) return source.status();
  auto impl = std::make_unique<Impl>();
  impl->source = *std::move(source);
  for (const SourceTensor& tensor : impl->source.tensors) {
    impl->index.emplace(tensor.name, impl->index.size());
    impl->size_bytes += SourceRowBytes(tensor.type, tensor.cols) * tensor.rows;
  }
  return Checkpoint(std::move(impl));
}

const ModelConfig& Checkpoint::config() const { return impl_->source.config; }
const std::vector<SourceTensor>& Checkpoint::tensors() const { return impl_->source.tensors; }
const std::string& Checkpoint::tokenizer_json() const { return impl_->source.tokenizer_json; }
const std::string& Checkpoint::chat_template() const { return impl_->source.chat_template; }
const std::string& Checkpoint::description() const { return impl_->source.description; }
uint64_t Checkpoint::size_bytes() const { return impl_->size_bytes; }

const SourceTensor* Checkpoint::Find(const std::string& name) const {
  const auto found = impl_->index.find(name);
  return found == impl_->index.end() ? nullptr : &impl_->source.tensors[found->second];
}

Result<uint64_t> Checkpoint::Identity() const {
  std::string identity;
  for (const std::unique_ptr<ByteSource>& file : impl_->source.files) {
    struct stat info {};
    if (stat(file->name().c_str(), &info) != 0) {
      return Status(ErrorCode::kIo, fmt::format("{}: {}", file->name(), std::strerror(errno)));
    }
    identity += fmt::format("{}\n{} {} {}\n", LastPathComponent(file->name()), info.st_size,
                            info.st_mtim.tv_sec, info.st_mtim.tv_nsec);
  }
  return HashBytes(std::as_bytes(std::span<const char>(identity)));
}

Status Checkpoint::ReadRows(const SourceTensor& tensor, uint64_t row_begin, uint64_t row_count,
                            std::span<std::byte> out) const {
  const uint64_t row_bytes = SourceRowBytes(tensor.type, tensor.cols);
  const bool in_range = row_begin <= tensor.rows && row_count <= tensor.rows - row_begin;
  if (!in_range || out.size() != row_count * row_bytes) {
    return {ErrorCode::kInvalidArgument,
            fmt::format("rows {} to {} of {} into {} bytes: tensor {}", row_begin,
                        row_begin + row_count, tensor.rows, out.size(), tensor.name)};
  }
  const ByteSource& file = *impl_->source.files[tensor.file_index];
  Status s;
  if (tensor.row_order.empty() || row_count == 0) {
    s = file.ReadOnce(tensor.offset_bytes + row_begin * row_bytes, out);
  } else if (tensor.row_order.size() == tensor.cols && tensor.rows == 1) {
    s = ReadReorderedElements(file, tensor, out);
  } else {
    s = ReadReorderedRows(file, tensor, row_begin, row_count, out);
  }
  return s.ok() ? s : s.WithContext("tensor " + tensor.file_name);
}

}  // namespace sluice
