#include "offload/device_store.h"

#include <algorithm>
#include <array>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "formats/checked.h"

namespace sluice {
namespace {

constexpr uint64_t kAlignment = 256;
constexpr uint64_t kNotResident = ~uint64_t{0};

// Where each piece of the weights lies in one allocation.
struct PiecePlaces {
  std::vector<uint64_t> offsets;  // by piece
  std::vector<uint64_t> sizes;
  uint64_t total_bytes = 0;     // of the allocation
  uint64_t resident_bytes = 0;  // of the pieces
  uint64_t largest_bytes = 0;
};

Status TooLarge(const SluiceFile& file) {
  return Status(ErrorCode::kCorrupt, file.path() + ": the weights' size overflows");
}

Status PlaceTensor(const SluiceFile& file, const DeviceLayout& layout, TensorId id,
                   PiecePlaces* places) {
  const TensorEntry& tensor = file.tensors()[id];
  for (PieceId p = tensor.first_piece; p < tensor.first_piece + tensor.piece_count; ++p) {
    const uint64_t num_tiles = CeilDiv(file.pieces()[p].row_count, tensor.layout.tile_rows);
    const Result<uint64_t> size = layout.SizeBytes(tensor.layout, num_tiles);
    if (!size.ok()) {
      return size.status().WithContext(file.path() + ": tensor '" + std::string(tensor.name) + "'");
    }
    places->offsets[p] = places->total_bytes;
    places->sizes[p] = *size;
    if (!CheckedAdd(places->total_bytes, *size, &places->total_bytes)) return TooLarge(file);
    places->largest_bytes = std::max(places->largest_bytes, *size);
    places->resident_bytes += *size;
  }
  // The next tensor begins aligned; pieces of one follow each other tile by tile.
  if (!CheckedRoundUp(places->total_bytes, kAlignment, &places->total_bytes)) return TooLarge(file);
  return Status();
}

Result<PiecePlaces> PlacePieces(const SluiceFile& file, const DeviceLayout& layout) {
  PiecePlaces places;
  places.offsets.assign(file.pieces().size(), kNotResident);
  places.sizes.assign(file.pieces().size(), 0);
  for (const GroupEntry& group : file.groups()) {
    if (group.kind == GroupKind::kEmbedding) continue;
    for (TensorId id = group.first_tensor; id < group.first_tensor + group.tensor_count; ++id) {
      if (Status s = PlaceTensor(file, layout, id, &places); !s.ok()) return s;
    }
  }
  return places;
}

// Arranges a part's tiles, divided among threads where that is worth their start.
void ArrangeAll(const DeviceLayout& layout, const TileLayout& tiles, const std::byte* from,
                uint64_t num_tiles, std::span<std::byte> out, int threads) {
  constexpr uint64_t kBytesOfThread = 256 << 10;
  const uint64_t wanted = std::min<uint64_t>(static_cast<uint64_t>(std::max(threads, 1)),
                                             1 + num_tiles * tiles.tile_bytes / kBytesOfThread);
  const uint64_t of_thread = CeilDiv(num_tiles, wanted);
  const uint64_t out_bytes = out.size() / num_tiles;
  std::vector<std::thread> team;
  const auto arrange = [&](uint64_t first) {
    const uint64_t count = std::min(of_thread, num_tiles - first);
    layout.Arrange(tiles, from + first * tiles.tile_bytes, count,
                   out.subspan(first * out_bytes, count * out_bytes));
  };
  uint64_t first = of_thread;
  try {
    for (; first < num_tiles; first += of_thread) team.emplace_back(arrange, first);
  } catch (const std::system_error&) {
    // The system grants no more threads: this one does the rest.
  }
  for (; first < num_tiles; first += of_thread) arrange(first);
  arrange(0);
  for (std::thread& thread : team) thread.join();
}

class DeviceStore final : public WeightStore {
 public:
  DeviceStore(std::unique_ptr<WeightStore> source, std::shared_ptr<const SluiceFile> file,
              Device* device, DeviceId id)
      : WeightStore(file, id), source_(std::move(source)), device_(device) {
    for (const TensorEntry& tensor : file->tensors()) {
      WeightPart part;
      part.piece = tensor.first_piece;
      part.tensor = static_cast<TensorId>(tensors_.size());
      part.device = id;
      part.row_count = tensor.layout.rows;
      part.num_tiles = tensor.layout.num_tiles;
      tensors_.push_back(part);
    }
  }

  // Where each piece will lie, and the memory for all of them.
  Status Allocate(const DeviceLayout& layout) {
    Result<PiecePlaces> places = PlacePieces(file(), layout);
    if (!places.ok()) return places.status();
    places_ = std::move(*places);
    Result<DeviceBuffer> memory = device_->Allocate(places_.total_bytes);
    if (!memory.ok()) return memory.status().WithContext("weights");
    memory_ = std::move(*memory);
    return Status();
  }

  Status Load(const DeviceLayout& layout, int threads, const LoadProgress& progress) {
    Result<Uploader> uploader = Uploader::Create(device_, places_.largest_bytes, threads);
    if (!uploader.ok()) return uploader.status();
    uint64_t done = 0;
    for (GroupId id = 0; id < file().groups().size(); ++id) {
      const GroupEntry& group = file().groups()[id];
      if (group.kind == GroupKind::kEmbedding) continue;
      const Result<WeightLease> lease = source_->Acquire(id);
      if (!lease.ok()) return lease.status();
      for (TensorId t = group.first_tensor; t < group.first_tensor + group.tensor_count; ++t) {
        for (const WeightPart& part : lease->Parts(t)) {
          if (Status s = uploader->Send(layout, *lease, part, file().tensors()[t].layout,
                                        memory_.data() + places_.offsets[part.piece],
                                        places_.sizes[part.piece]);
              !s.ok()) {
            return s;
          }
          done += places_.sizes[part.piece];
          if (progress && !progress(done, places_.resident_bytes)) {
            return Status(ErrorCode::kCancelled, "loading was cancelled");
          }
        }
      }
    }
    return uploader->Finish();
  }

  Result<WeightLease> Acquire(GroupId group) override { return WeightLease(this, group); }
  void SetGroupsInUse(std::span<const GroupId>) override {}
  Result<const std::byte*> TakeTile(TensorId tensor, uint64_t row) override {
    return source_->TakeTile(tensor, row);
  }
  StoreStats stats() const override {
    StoreStats stats = source_->stats();
    stats.vram.resident_bytes = places_.resident_bytes;
    return stats;
  }
  std::string io_description() const override {
    return "resident on " + device_->name() + ", loaded " + source_->io_description();
  }

 protected:
  Result<const std::byte*> TakePiece(PieceId piece) override {
    if (places_.offsets[piece] == kNotResident) {
      return Status(ErrorCode::kInternal, file().path() + ": piece " + std::to_string(piece) +
                                              " is not on " + device_->name());
    }
    return memory_.data() + places_.offsets[piece];
  }
  void Release(GroupId) override {}
  // A tensor lies in one piece here, so that each product is one launch.
  std::span<const WeightPart> PartsOf(TensorId tensor) const override {
    return std::span(tensors_).subspan(tensor, 1);
  }

 private:
  // Two pinned buffers in turns: one is filled while the other is on its way.
  class Uploader {
   public:
    static Result<Uploader> Create(Device* device, uint64_t buffer_bytes, int threads) {
      Uploader uploader;
      uploader.threads_ = threads;
      for (Slot& slot : uploader.slots_) {
        Result<DeviceBuffer> buffer = device->Allocate(buffer_bytes, MemorySpace::kPinnedHost);
        if (!buffer.ok()) return buffer.status().WithContext("upload of weights");
        slot.buffer = std::move(*buffer);
        Result<DeviceEvent> sent = device->CreateEvent();
        if (!sent.ok()) return sent.status();
        slot.sent = std::move(*sent);
      }
      Result<DeviceStream> stream = device->CreateStream();
      if (!stream.ok()) return stream.status();
      uploader.stream_ = std::move(*stream);
      return uploader;
    }

    Status Send(const DeviceLayout& layout, const WeightLease& lease, const WeightPart& part,
                const TileLayout& tiles, std::byte* to, uint64_t size_bytes) {
      const Result<const std::byte*> from = lease.Take(part);
      if (!from.ok()) return from.status();
      Slot& slot = slots_[next_];
      next_ = 1 - next_;
      if (Status s = slot.sent.Synchronize(); !s.ok()) return s;
      ArrangeAll(layout, tiles, *from, part.num_tiles, {slot.buffer.data(), size_bytes}, threads_);
      lease.Done(part);
      if (Status s = stream_.Copy(to, slot.buffer.data(), size_bytes, CopyDirection::kHostToDevice);
          !s.ok()) {
        return s;
      }
      return stream_.Record(slot.sent);
    }

    Status Finish() { return stream_.Synchronize(); }

   private:
    struct Slot {
      DeviceBuffer buffer;
      DeviceEvent sent;
    };
    std::array<Slot, 2> slots_;
    size_t next_ = 0;
    int threads_ = 1;
    DeviceStream stream_;  // ends first, and waits for its copies out of the buffers
  };

  std::unique_ptr<WeightStore> source_;
  Device* device_;
  DeviceBuffer memory_;
  PiecePlaces places_;
  std::vector<WeightPart> tensors_;  // by tensor
};

}  // namespace

Result<uint64_t> DeviceStoreBytes(const SluiceFile& file, const DeviceLayout& layout) {
  const Result<PiecePlaces> places = PlacePieces(file, layout);
  if (!places.ok()) return places.status();
  return places->total_bytes;
}

Result<std::unique_ptr<WeightStore>> OpenDeviceStore(std::unique_ptr<WeightStore> source,
                                                     std::shared_ptr<const SluiceFile> file,
                                                     Device* device, DeviceId id,
                                                     const DeviceLayout& layout, int threads,
                                                     const LoadProgress& progress) {
  auto store = std::make_unique<DeviceStore>(std::move(source), std::move(file), device, id);
  if (Status s = store->Allocate(layout); !s.ok()) return s;
  if (Status s = store->Load(layout, threads, progress); !s.ok()) return s;
  return std::unique_ptr<WeightStore>(std::move(store));
}

}  // namespace sluice
