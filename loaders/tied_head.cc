#include "loaders/tied_head.h"

#include <algorithm>
#include <optional>
#include <span>
#include <string>

namespace sluice {
namespace {

constexpr uint64_t kValuesAtOnce = uint64_t{1} << 18;

std::optional<SourceType> PlainTypeOf(const ForeignTensor& tensor) {
  for (const SourceType type : {SourceType::kF32, SourceType::kF16, SourceType::kBF16}) {
    if (tensor.type_name == SourceTypeName(type)) return type;
  }
  return std::nullopt;
}

// Values of a tensor, read in order.
class Values {
 public:
  Values(const ForeignTensor& tensor, SourceType type, const ByteSource& file)
      : tensor_(tensor), type_(type), file_(file) {}

  uint64_t count() const { return tensor_.size_bytes / SourceRowBytes(type_, 1); }
  SourceType type() const { return type_; }

  Status Read(uint64_t first, uint64_t count) {
    bytes_.resize(SourceRowBytes(type_, count));
    return file_.ReadAt(tensor_.offset_bytes + SourceRowBytes(type_, first), bytes_)
        .WithContext("tensor " + tensor_.name);
  }
  const std::vector<std::byte>& bytes() const { return bytes_; }
  std::vector<float> Decoded() const {
    std::vector<float> values(bytes_.size() / SourceRowBytes(type_, 1));
    DecodeSourceRow(type_, bytes_.data(), values.size(), values.data());
    return values;
  }

 private:
  const ForeignTensor& tensor_;
  SourceType type_;
  const ByteSource& file_;
  std::vector<std::byte> bytes_;
};

Result<bool> Differ(Values* a, Values* b) {
  for (uint64_t done = 0; done < a->count(); done += kValuesAtOnce) {
    const uint64_t count = std::min(kValuesAtOnce, a->count() - done);
    for (Values* values : {a, b}) {
      if (Status s = values->Read(done, count); !s.ok()) return s;
    }
    const bool same_bytes = a->type() == b->type() && a->bytes() == b->bytes();
    if (!same_bytes && a->Decoded() != b->Decoded()) return true;
  }
  return false;
}

}  // namespace

Result<bool> HeadIsAnother(const TensorDialect& dialect, const std::vector<ForeignTensor>& foreign,
                           const std::vector<std::unique_ptr<ByteSource>>& files) {
  const ForeignTensor *embedding = nullptr, *head = nullptr;
  for (const ForeignTensor& tensor : foreign) {
    const std::optional<std::string> name = dialect.CanonicalName(tensor.name);
    if (name == "embed.weight") embedding = &tensor;
    if (name == "head.weight") head = &tensor;
  }
  if (embedding == nullptr || head == nullptr) return false;
  const std::optional<SourceType> embedding_type = PlainTypeOf(*embedding);
  const std::optional<SourceType> head_type = PlainTypeOf(*head);
  if (embedding->shape != head->shape || !embedding_type || !head_type) return true;
  Values a(*embedding, *embedding_type, *files[embedding->file_index]);
  Values b(*head, *head_type, *files[head->file_index]);
  return Differ(&a, &b);
}

}  // namespace sluice
