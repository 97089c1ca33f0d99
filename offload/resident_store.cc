// All weights in one arena, read and verified before the store is handed out.
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <thread>
#include <vector>

#include "offload/host_arena.h"
#include "offload/weight_store.h"

namespace sluice {
namespace {

class ResidentStore : public WeightStore {
 public:
  ResidentStore(std::shared_ptr<const SluiceFile> file, HostArena arena)
      : WeightStore(std::move(file)), arena_(std::move(arena)) {}

  // Readers take the next piece each until there is none, an error, or the caller asks for the end.
  Status Load(int threads, const LoadProgress& progress) {
    std::vector<std::thread> readers;
    for (int i = 1; i < threads; ++i) readers.emplace_back([&] { ReadPieces(progress); });
    ReadPieces(progress);
    for (std::thread& reader : readers) reader.join();
    return first_error_;
  }

  Result<WeightLease> Acquire(GroupId group) override { return WeightLease(this, group); }
  void Hint(std::span<const GroupId>) override {}

  StoreStats stats() const override {
    StoreStats stats;
    stats.ram.resident_bytes = arena_.bytes().size();
    stats.disk.read_bytes = arena_.bytes().size();
    return stats;
  }

 protected:
  Result<const std::byte*> TakePiece(PieceId id) override {
    return static_cast<const std::byte*>(PieceBytes(id).data());
  }
  void Release(GroupId) override {}

 private:
  // The arena is an image of the file's data, from the first piece on.
  std::span<std::byte> PieceBytes(PieceId id) const {
    const PieceEntry& piece = file().pieces()[id];
    return arena_.bytes().subspan(piece.offset_bytes - file().pieces()[0].offset_bytes,
                                  piece.size_bytes);
  }

  void ReadPieces(const LoadProgress& progress) {
    const uint64_t count = file().pieces().size();
    for (uint64_t i = next_piece_++; i < count && !stop_; i = next_piece_++) {
      const auto id = static_cast<PieceId>(i);
      const std::span<std::byte> bytes = PieceBytes(id);
      Status status = file().source().ReadAt(file().pieces()[id].offset_bytes, bytes);
      if (status.ok()) status = file().VerifyPiece(id, bytes);
      const std::lock_guard lock(mutex_);
      done_bytes_ += bytes.size();
      if (status.ok() && progress && !progress(done_bytes_, arena_.bytes().size())) {
        status = Status(ErrorCode::kCancelled, file().path() + ": loading was cancelled");
      }
      if (!status.ok()) {
        if (first_error_.ok()) first_error_ = status;
        stop_ = true;
      }
    }
  }

  HostArena arena_;
  std::atomic<uint64_t> next_piece_ = 0;
  std::atomic<bool> stop_ = false;
  std::mutex mutex_;
  uint64_t done_bytes_ = 0;  // with mutex_
  Status first_error_;       // with mutex_
};

}  // namespace

Result<std::unique_ptr<WeightStore>> OpenResidentStore(std::shared_ptr<const SluiceFile> file,
                                                       uint64_t budget_bytes, int threads,
                                                       const LoadProgress& progress) {
  const uint64_t size_bytes = file->source().size_bytes() - file->metadata_size_bytes();
  if (size_bytes > budget_bytes) {
    return Status(ErrorCode::kDoesNotFit,
                  fmt::format("{}: weights of {} bytes do not fit into {} bytes of memory",
                              file->path(), size_bytes, budget_bytes));
  }
  Result<HostArena> arena = HostArena::Allocate(size_bytes);
  if (!arena.ok()) return arena.status();
  auto store = std::make_unique<ResidentStore>(std::move(file), std::move(*arena));
  if (Status status = store->Load(std::max(threads, 1), progress); !status.ok()) return status;
  return std::unique_ptr<WeightStore>(std::move(store));
}

}  // namespace sluice
