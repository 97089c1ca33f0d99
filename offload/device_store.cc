#include "offload/device_store.h"

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "formats/checked.h"

namespace sluice {
namespace {

constexpr uint64_t kAlignment = 256;
constexpr uint64_t kNotResident = ~uint64_t{0};

class DeviceStore final : public WeightStore {
 public:
  DeviceStore(std::unique_ptr<WeightStore> source, std::shared_ptr<const SluiceFile> file,
              Device* device, DeviceId id)
      : WeightStore(file, id), source_(std::move(source)), device_(device) {}

  // Where each piece will lie, and the memory for all of them.
  Status Allocate(const DeviceLayout& layout) {
    offsets_.assign(file().pieces().size(), kNotResident);
    sizes_.assign(file().pieces().size(), 0);
    uint64_t total = 0;
    for (const GroupEntry& group : file().groups()) {
      if (group.kind == GroupKind::kEmbedding) continue;
      for (TensorId id = group.first_tensor; id < group.first_tensor + group.tensor_count; ++id) {
        if (Status s = PlaceTensor(layout, id, &total); !s.ok()) return s;
      }
    }
    Result<DeviceBuffer> memory = device_->Allocate(total);
    if (!memory.ok()) return memory.status().WithContext("weights");
    memory_ = std::move(*memory);
    return Status();
  }

  Status Load(const DeviceLayout& layout, const LoadProgress& progress) {
    Result<Uploader> uploader = Uploader::Create(device_, largest_);
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
                                        memory_.data() + offsets_[part.piece], sizes_[part.piece]);
              !s.ok()) {
            return s;
          }
          done += sizes_[part.piece];
          if (progress && !progress(done, resident_bytes_)) {
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
  StoreStats stats() const override { return source_->stats(); }
  std::string io_description() const override {
    return "resident on " + device_->name() + ", loaded " + source_->io_description();
  }

 protected:
  Result<const std::byte*> TakePiece(PieceId piece) override {
    if (offsets_[piece] == kNotResident) {
      return Status(ErrorCode::kInternal, file().path() + ": piece " + std::to_string(piece) +
                                              " is not on " + device_->name());
    }
    return memory_.data() + offsets_[piece];
  }
  void Release(GroupId) override {}

 private:
  // Two pinned buffers in turns: one is filled while the other is on its way.
  class Uploader {
   public:
    static Result<Uploader> Create(Device* device, uint64_t buffer_bytes) {
      Uploader uploader;
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
      layout.Arrange(tiles, *from, part.num_tiles, {slot.buffer.data(), size_bytes});
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
    DeviceStream stream_;  // ends first, and waits for its copies out of the buffers
  };

  Status PlaceTensor(const DeviceLayout& layout, TensorId id, uint64_t* total) {
    const TensorEntry& tensor = file().tensors()[id];
    for (const WeightPart& part : PartsOf(id)) {
      const Result<uint64_t> size = layout.SizeBytes(tensor.layout, part.num_tiles);
      if (!size.ok()) {
        return size.status().WithContext(file().path() + ": tensor '" + std::string(tensor.name) +
                                         "'");
      }
      uint64_t rounded = 0;
      offsets_[part.piece] = *total;
      sizes_[part.piece] = *size;
      if (!CheckedRoundUp(*size, kAlignment, &rounded) || !CheckedAdd(*total, rounded, total)) {
        return Status(ErrorCode::kCorrupt, file().path() + ": the weights' size overflows");
      }
      largest_ = std::max(largest_, *size);
      resident_bytes_ += *size;
    }
    return Status();
  }

  std::unique_ptr<WeightStore> source_;
  Device* device_;
  DeviceBuffer memory_;
  std::vector<uint64_t> offsets_;  // by piece
  std::vector<uint64_t> sizes_;
  uint64_t largest_ = 0;
  uint64_t resident_bytes_ = 0;
};

}  // namespace

Result<std::unique_ptr<WeightStore>> OpenDeviceStore(std::unique_ptr<WeightStore> source,
                                                     std::shared_ptr<const SluiceFile> file,
                                                     Device* device, DeviceId id,
                                                     const DeviceLayout& layout,
                                                     const LoadProgress& progress) {
  auto store = std::make_unique<DeviceStore>(std::move(source), std::move(file), device, id);
  if (Status s = store->Allocate(layout); !s.ok()) return s;
  if (Status s = store->Load(layout, progress); !s.ok()) return s;
  return std::unique_ptr<WeightStore>(std::move(store));
}

}  // namespace sluice
