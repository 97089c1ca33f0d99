// Weights in RAM, and weights that stream from disk through a ring (offload/README.md).
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#include <unordered_set>
#include <vector>

#include "formats/checked.h"
#include "offload/async_reader.h"
#include "offload/host_arena.h"
#include "offload/piece_loader.h"
#include "offload/piece_verifier.h"
#include "offload/slot_pool.h"
#include "offload/weight_store.h"

namespace sluice {
namespace {

using Clock = std::chrono::steady_clock;

constexpr uint64_t kNotResident = ~uint64_t{0};
constexpr uint32_t kNotStreamed = ~uint32_t{0};

// What is asked of the drive at once: enough to fill its queue while finished pieces are handed on.
constexpr uint64_t kBytesOnTheWay = uint64_t{64} << 20;

constexpr uint64_t kMostJoinedBytes = uint64_t{32} << 20;

class TieredStore : public WeightStore {
 public:
  TieredStore(std::shared_ptr<const SluiceFile> file, const Placement& placement)
      : WeightStore(std::move(file)), placement_(placement) {}

  ~TieredStore() override {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    wake_reader_.notify_all();
    if (reader_.joinable()) reader_.join();
  }

  Status Open(const TieredOptions& options) {
    trace_ = options.trace;
    AssignHomes();
    Result<HostArena> arena = HostArena::Allocate(arena_bytes_);
    if (!arena.ok()) return arena.status().WithContext("weights that stay in memory");
    arena_ = std::move(*arena);
    Result<HostArena> ring = HostArena::Allocate(placement_.ring_bytes);
    if (!ring.ok()) return ring.status().WithContext("the ring that weights stream through");
    ring_ = std::move(*ring);
    if (file().disk_file() != nullptr) {
      Result<FileMapping> mapping = FileMapping::Map(*file().disk_file());
      if (!mapping.ok()) return mapping.status();
      mapping_.emplace(std::move(*mapping));
      // Rows are read one by one: what lies beside them is not wanted.
      madvise(const_cast<std::byte*>(mapping_->bytes().data()), mapping_->bytes().size(),
              MADV_RANDOM);
    }
    Result<std::unique_ptr<Storage>> storage = OpenDrive(options);
    if (!storage.ok()) return storage.status();
    storage_ = std::move(*storage);
    if (Status status = LoadResident(options); !status.ok()) return status;
    if (!cycle_.empty()) {
      pool_.emplace(placement_.ring_bytes, cycle_);
      reader_ = std::thread([this] { Read(); });
    }
    return Status();
  }

  Result<WeightLease> Acquire(GroupId group) override {
    if (pool_) {
      const std::lock_guard lock(mutex_);
      pool_->Acquire(group);
      wake_reader_.notify_one();
    }
    return WeightLease(this, group);
  }

  void SetGroupsInUse(std::span<const GroupId> groups) override {
    if (!pool_) return;
    const std::unordered_set<GroupId> in_use(groups.begin(), groups.end());
    const std::lock_guard lock(mutex_);
    for (GroupId group = 0; group < file().groups().size(); ++group) {
      pool_->SetSkipped(group, !in_use.empty() && in_use.count(group) == 0);
    }
    wake_reader_.notify_one();
  }

  Result<const std::byte*> TakeTile(TensorId tensor, uint64_t row) override {
    const TilePlace place = PlaceOfTile(tensor, row);
    if (resident_offset_[place.piece] != kNotResident) return WeightStore::TakeTile(tensor, row);
    return TakeMappedTile(place, file().tensors()[tensor].layout.tile_bytes);
  }

  StoreStats stats() const override {
    const std::lock_guard lock(mutex_);
    StoreStats stats;
    stats.ram.resident_bytes = arena_bytes_ + ring_.bytes().size();
    stats.disk.resident_bytes = placement_.streamed_bytes;
    stats.disk.read_bytes = arena_bytes_ + streamed_bytes_;
    stats.disk.late_bytes = late_bytes_;
    stats.disk.stall_s = stall_s_;
    return stats;
  }

  std::string io_description() const override { return storage_->description(); }

 protected:
  Result<const std::byte*> TakePiece(PieceId piece) override {
    if (resident_offset_[piece] != kNotResident) {
      return static_cast<const std::byte*>(arena_.bytes().data() + resident_offset_[piece]);
    }
    if (stream_index_[piece] == kNotStreamed) {
      return TakeMappedTile({piece, 0}, file().pieces()[piece].size_bytes);
    }
    Result<const std::byte*> memory = WaitFor(piece);
    if (!memory.ok()) return memory;
    const Status status = verifiers_[stream_index_[piece]].Verify(
        file(), piece, {*memory, file().pieces()[piece].size_bytes});
    if (status.ok()) return memory;
    const std::lock_guard lock(mutex_);
    pool_->Fail(piece);
    errors_[piece] = status;
    return status;
  }

  std::span<const WeightPart> PartsOf(TensorId tensor) const override {
    return joined_[tensor].empty() ? WeightStore::PartsOf(tensor) : joined_[tensor];
  }

  void DonePiece(PieceId piece) override {
    if (stream_index_[piece] == kNotStreamed) return;
    const std::lock_guard lock(mutex_);
    pool_->Done(piece);
    wake_reader_.notify_one();
  }

  void Release(GroupId group) override {
    if (!pool_) return;
    const std::lock_guard lock(mutex_);
    pool_->Release(group);
    wake_reader_.notify_one();
  }

 private:
  void AssignHomes() {
    resident_offset_.assign(file().pieces().size(), kNotResident);
    stream_index_.assign(file().pieces().size(), kNotStreamed);
    joined_.resize(file().tensors().size());
    for (GroupId id = 0; id < file().groups().size(); ++id) {
      const GroupEntry& group = file().groups()[id];
      if (group.kind == GroupKind::kEmbedding) continue;
      for (TensorId tensor = group.first_tensor; tensor < group.first_tensor + group.tensor_count;
           ++tensor) {
        const TensorEntry& entry = file().tensors()[tensor];
        const bool resident = placement_.tiers[id] == Tier::kRam || entry.layout.tile_rows == 1;
        for (PieceId piece = entry.first_piece; piece < entry.first_piece + entry.piece_count;
             ++piece) {
          const uint32_t size_bytes = file().pieces()[piece].size_bytes;
          if (resident) {
            resident_offset_[piece] = arena_bytes_;
            arena_bytes_ += size_bytes;
          } else {
            stream_index_[piece] = static_cast<uint32_t>(cycle_.size());
            cycle_.push_back({piece, id, size_bytes});
          }
        }
        if (resident) JoinParts(tensor);
      }
    }
    verifiers_ = std::make_unique<PieceVerifier[]>(cycle_.size());
    read_begin_.resize(cycle_.size());
    const uint64_t chunks =
        CeilDiv(file().source().size_bytes(), kSluiceChunkBytes) + file().pieces().size();
    mapped_verified_ = std::make_unique<std::atomic<bool>[]>(chunks);
  }

  // A resident tensor's pieces lie side by side in their order: those whose tiles follow each other
  // without padding become one part, named by the first. Fewer parts are fewer times that threads
  // wait for each other; a pass is cancelled between two.
  void JoinParts(TensorId tensor) {
    const uint64_t tile_bytes = file().tensors()[tensor].layout.tile_bytes;
    std::vector<WeightPart>& joined = joined_[tensor];
    for (const WeightPart& next : WeightStore::PartsOf(tensor)) {
      const uint64_t bytes = joined.empty() ? 0 : joined.back().num_tiles * tile_bytes;
      if (bytes > 0 && bytes + next.num_tiles * tile_bytes <= kMostJoinedBytes &&
          bytes == resident_offset_[next.piece] - resident_offset_[joined.back().piece]) {
        joined.back().row_count += next.row_count;
        joined.back().num_tiles += next.num_tiles;
      } else {
        joined.push_back(next);
      }
    }
  }

  Result<std::unique_ptr<Storage>> OpenDrive(const TieredOptions& options) {
    if (options.open_storage) return options.open_storage(ring_.bytes());
    StorageOptions storage_options;
    storage_options.method = options.io;
    storage_options.direct = options.direct_io;
    storage_options.buffer = ring_.bytes();
    return OpenStorage(file().path(), storage_options);
  }

  Status LoadResident(const TieredOptions& options) {
    std::vector<PieceToLoad> pieces;
    for (PieceId piece = 0; piece < file().pieces().size(); ++piece) {
      if (resident_offset_[piece] == kNotResident) continue;
      pieces.push_back({piece, arena_.bytes().subspan(resident_offset_[piece],
                                                      file().pieces()[piece].size_bytes)});
    }
    return LoadPieces(file(), storage_.get(), pieces, options.threads, options.progress);
  }

  // Bytes that are read from the file when they are wanted: rows of an embedding.
  Result<const std::byte*> TakeMappedTile(const TilePlace& place, uint64_t size_bytes) {
    const PieceEntry& piece = file().pieces()[place.piece];
    // A page beyond the end of a file that has shrunk is a signal, not an error.
    struct stat now;
    if (!mapping_ || fstat(file().disk_file()->descriptor(), &now) != 0 ||
        static_cast<uint64_t>(now.st_size) < piece.offset_bytes + piece.size_bytes) {
      return Status(
          ErrorCode::kTruncated,
          fmt::format("{}: the file ends before byte {}; it was longer when it was opened",
                      file().path(), piece.offset_bytes + piece.size_bytes));
    }
    const std::span<const std::byte> bytes =
        mapping_->bytes().subspan(piece.offset_bytes, piece.size_bytes);
    const uint64_t last = (place.offset_bytes + size_bytes - 1) / kSluiceChunkBytes;
    for (uint64_t chunk = place.offset_bytes / kSluiceChunkBytes; chunk <= last; ++chunk) {
      std::atomic<bool>& verified = mapped_verified_[piece.first_chunk + chunk];
      if (verified.load(std::memory_order_acquire)) continue;
      const uint64_t begin = chunk * kSluiceChunkBytes;
      const std::span<const std::byte> part =
          bytes.subspan(begin, std::min(kSluiceChunkBytes, bytes.size() - begin));
      // All of it at once: page after page, each a read of its own, takes forty times as long.
      madvise(const_cast<std::byte*>(part.data()), part.size(), MADV_WILLNEED);
      if (Status status = file().VerifyChunk(place.piece, chunk, part); !status.ok()) return status;
      verified.store(true, std::memory_order_release);
      // The page cache keeps what fits; the process does not hold it.
      madvise(const_cast<std::byte*>(part.data()), part.size(), MADV_DONTNEED);
    }
    return bytes.data() + place.offset_bytes;
  }

  // The piece's memory in the ring; waits until it is there.
  Result<const std::byte*> WaitFor(PieceId piece) {
    std::unique_lock lock(mutex_);
    bool waited = false;
    while (true) {
      const SlotPool::Found found = pool_->Find(piece);
      if (found.state == SlotPool::State::kReady || found.state == SlotPool::State::kFailed) {
        if (waited && --waiting_ == 0) {
          const Clock::time_point now = Clock::now();
          stall_s_ += std::chrono::duration<double>(now - stall_begin_).count();
          AddToTrace(Trace::Track::kWait, piece, stall_begin_, now);
        }
        if (found.state == SlotPool::State::kFailed) return errors_[piece];
        pool_->Take(piece);
        return static_cast<const std::byte*>(ring_.bytes().data() + found.ring_offset_bytes);
      }
      if (!reader_error_.ok()) {
        if (waited) --waiting_;
        return reader_error_;
      }
      if (found.state == SlotPool::State::kAbsent) {
        pool_->Demand(piece);
        wake_reader_.notify_one();
      }
      if (!waited && waiting_++ == 0) {
        stall_begin_ = Clock::now();
        late_bytes_ += file().pieces()[piece].size_bytes;
      }
      waited = true;
      arrived_.wait(lock);
    }
  }

  // The reader's life. Its books may be half written when memory runs out: it does not go on then,
  // and whoever waits is told so.
  void Read() {
    try {
      ReadLoop();
    } catch (const std::bad_alloc&) {
      const std::lock_guard lock(mutex_);
      reader_error_ = Status(ErrorCode::kOutOfMemory, "no memory to read weights with");
      arrived_.notify_all();
    }
  }

  // Asks for what the ring has room for, and hands on what comes.
  void ReadLoop() {
    AsyncReader reader(storage_.get(), file().path(), file().source().size_bytes());
    std::vector<AsyncReader::Finished> finished;
    uint64_t bytes_on_the_way = 0;
    std::unique_lock lock(mutex_);
    while (true) {
      while (!stop_ && bytes_on_the_way < kBytesOnTheWay) {
        const std::optional<SlotPool::Read> read = pool_->NextRead();
        if (!read) break;
        verifiers_[stream_index_[read->piece]].Reset(read->size_bytes);
        bytes_on_the_way += read->size_bytes;
        read_begin_[stream_index_[read->piece]] = Clock::now();
        lock.unlock();
        reader.Read(file().pieces()[read->piece].offset_bytes,
                    ring_.bytes().subspan(read->ring_offset_bytes, read->size_bytes), read->piece);
        lock.lock();
      }
      if (reader.pending() == 0) {
        if (stop_) return;
        wake_reader_.wait(lock);
        continue;
      }
      lock.unlock();
      finished.clear();
      reader.Wait(&finished);
      lock.lock();
      for (const AsyncReader::Finished& end : finished) {
        const auto piece = static_cast<PieceId>(end.tag);
        bytes_on_the_way -= file().pieces()[piece].size_bytes;
        streamed_bytes_ += file().pieces()[piece].size_bytes;
        AddToTrace(Trace::Track::kDrive, piece, read_begin_[stream_index_[piece]], Clock::now());
        if (!end.status.ok()) errors_[piece] = NameTensor(end.status, piece);
        pool_->Arrived(piece, end.status.ok());
      }
      if (!finished.empty()) arrived_.notify_all();
    }
  }

  void AddToTrace(Trace::Track track, PieceId piece, Clock::time_point begin,
                  Clock::time_point end) {
    if (trace_ == nullptr) return;
    const PieceEntry& entry = file().pieces()[piece];
    trace_->Add(track, std::string(file().tensors()[entry.tensor].name), begin, end,
                entry.size_bytes);
  }

  Status NameTensor(const Status& status, PieceId piece) const {
    return status.WithContext(
        fmt::format("tensor '{}'", file().tensors()[file().pieces()[piece].tensor].name));
  }

  const Placement placement_;
  HostArena arena_ = *HostArena::Allocate(0);  // resident pieces
  HostArena ring_ = *HostArena::Allocate(0);
  uint64_t arena_bytes_ = 0;
  std::vector<uint64_t> resident_offset_;        // by piece; kNotResident
  std::vector<uint32_t> stream_index_;           // by piece: its place in cycle_; kNotStreamed
  std::vector<std::vector<WeightPart>> joined_;  // by tensor: its parts if it is resident
  std::vector<StreamedPiece> cycle_;
  std::unique_ptr<PieceVerifier[]> verifiers_;  // as cycle_
  std::optional<FileMapping> mapping_;
  std::unique_ptr<std::atomic<bool>[]> mapped_verified_;  // by chunk of the file
  std::unique_ptr<Storage> storage_;

  mutable std::mutex mutex_;  // for all below
  std::condition_variable arrived_, wake_reader_;
  std::optional<SlotPool> pool_;  // none if nothing streams
  std::map<PieceId, Status> errors_;
  Status reader_error_;  // of the reader itself: nothing streams any more
  bool stop_ = false;
  uint64_t streamed_bytes_ = 0;
  uint64_t late_bytes_ = 0;
  double stall_s_ = 0;
  int waiting_ = 0;  // threads that wait for a piece
  Clock::time_point stall_begin_;
  Trace* trace_ = nullptr;
  std::vector<Clock::time_point> read_begin_;  // as cycle_; the reader's

  std::thread reader_;
};

}  // namespace

Result<std::unique_ptr<WeightStore>> OpenTieredStore(std::shared_ptr<const SluiceFile> file,
                                                     const Placement& placement,
                                                     const TieredOptions& options) {
  try {
    auto store = std::make_unique<TieredStore>(std::move(file), placement);
    if (Status status = store->Open(options); !status.ok()) return status;
    return std::unique_ptr<WeightStore>(std::move(store));
  } catch (const std::system_error& error) {
    return Status(ErrorCode::kOutOfMemory, fmt::format("no thread to read with: {}", error.what()));
  } catch (const std::bad_alloc&) {
    return Status(ErrorCode::kOutOfMemory, "no memory for the tables of weights");
  }
}

}  // namespace sluice
