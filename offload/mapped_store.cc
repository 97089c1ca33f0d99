// Weights in a read-only mapping of the file.
#include <atomic>

#include "offload/weight_store.h"

namespace sluice {
namespace {

class MappedStore : public WeightStore {
 public:
  MappedStore(std::shared_ptr<const SluiceFile> file, FileMapping mapping)
      : WeightStore(file),
        mapping_(std::move(mapping)),
        verified_(new std::atomic<bool>[file->pieces().size()]()) {}

  Result<WeightLease> Acquire(GroupId group) override { return WeightLease(this, group); }
  void SetGroupsInUse(std::span<const GroupId>) override {}
  std::string io_description() const override { return "mapped"; }

  StoreStats stats() const override {
    StoreStats stats;
    stats.disk.read_bytes = verified_bytes_.load(std::memory_order_relaxed);
    return stats;
  }

 protected:
  Result<const std::byte*> TakePiece(PieceId id) override {
    const PieceEntry& piece = file().pieces()[id];
    const std::span<const std::byte> bytes =
        mapping_.bytes().subspan(piece.offset_bytes, piece.size_bytes);
    // Two workers may both verify; that costs time once and is harmless.
    if (!verified_[id].load(std::memory_order_acquire)) {
      if (Status status = file().VerifyPiece(id, bytes); !status.ok()) return status;
      if (!verified_[id].exchange(true, std::memory_order_acq_rel)) {
        verified_bytes_.fetch_add(piece.size_bytes, std::memory_order_relaxed);
      }
    }
    return bytes.data();
  }

  void Release(GroupId) override {}

 private:
  FileMapping mapping_;
  std::unique_ptr<std::atomic<bool>[]> verified_;
  std::atomic<uint64_t> verified_bytes_ = 0;
};

}  // namespace

Result<std::unique_ptr<WeightStore>> OpenMappedStore(std::shared_ptr<const SluiceFile> file) {
  if (file->disk_file() == nullptr) {
    return Status(ErrorCode::kInvalidArgument, file->path() + ": only a file can be mapped");
  }
  Result<FileMapping> mapping = FileMapping::Map(*file->disk_file());
  if (!mapping.ok()) return mapping.status();
  return std::unique_ptr<WeightStore>(
      std::make_unique<MappedStore>(std::move(file), std::move(*mapping)));
}

}  // namespace sluice
