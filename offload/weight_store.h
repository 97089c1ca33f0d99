// Weights ready to compute with, whatever their tier. The one seam between moving bytes and using
// them: runtime acquires, computes, and gives back.
#ifndef SLUICE_OFFLOAD_WEIGHT_STORE_H_
#define SLUICE_OFFLOAD_WEIGHT_STORE_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "formats/sluice_file.h"
#include "formats/status.h"
#include "offload/placement.h"
#include "offload/storage.h"
#include "offload/trace.h"

namespace sluice {

enum class DeviceKind : uint8_t { kCpu, kCuda };

// Where a part will be computed.
struct DeviceId {
  DeviceKind kind = DeviceKind::kCpu;
  int32_t index = 0;
  bool operator==(const DeviceId&) const = default;
};

// Rows [row_begin, row_begin + row_count) of a tensor, as whole tiles, for one device.
struct WeightPart {
  PieceId piece = 0;
  TensorId tensor = 0;
  DeviceId device;
  uint64_t row_begin = 0;
  uint64_t row_count = 0;
  uint64_t num_tiles = 0;
};

class WeightStore;

// The use of one group during one pass. Move-only; the bytes go back to the store when it ends.
class WeightLease {
 public:
  WeightLease() = default;
  WeightLease(WeightStore* store, GroupId group) : store_(store), group_(group) {}
  WeightLease(WeightLease&& other) noexcept
      : store_(std::exchange(other.store_, nullptr)), group_(other.group_) {}
  WeightLease& operator=(WeightLease&& other) noexcept;
  ~WeightLease();

  GroupId group() const { return group_; }
  // The parts of one tensor of the group, in the order of rows. Cheap.
  std::span<const WeightPart> Parts(TensorId tensor) const;
  // The part's first tile. May wait for bytes on their way; verifies them once, on the calling
  // thread. Any thread, any number of times. The pointer lives as long as the lease.
  // Errors: kIo, kTruncated, kCorrupt with path, tensor and offset.
  Result<const std::byte*> Take(const WeightPart& part) const;
  // No lease will take the part again in this pass: its memory may serve the next one before the
  // lease ends. Without it a group that streams must fit into the ring. After the last use.
  void Done(const WeightPart& part) const;

 private:
  WeightStore* store_ = nullptr;
  GroupId group_ = 0;
};

// Bytes and time per tier, since the store was made.
struct TierStats {
  uint64_t resident_bytes = 0;
  uint64_t read_bytes = 0;
  uint64_t late_bytes = 0;  // of pieces that were waited for
  double stall_s = 0;       // that computation waited for bytes
};

struct StoreStats {
  TierStats vram;
  TierStats ram;
  TierStats disk;
};

// Called with bytes done and bytes in all; false asks for the end. Any thread, one at a time.
using LoadProgress = std::function<bool(uint64_t done_bytes, uint64_t total_bytes)>;

// Thread rules: Acquire from one thread at a time for each pass; leases as WeightLease says.
class WeightStore {
 public:
  virtual ~WeightStore() = default;

  const SluiceFile& file() const { return *file_; }

  // Makes a group ready where it will be computed in this pass. Several leases on one group may
  // live at once.
  virtual Result<WeightLease> Acquire(GroupId group) = 0;

  // The groups that passes use from now on, all others are not read ahead: a pass that wants no
  // logits has no use for the head. Empty: all.
  virtual void SetGroupsInUse(std::span<const GroupId> groups) = 0;

  // The tile that holds row `row` of a tensor, outside any pass (embeddings). Valid until the
  // store ends. Errors as WeightLease::Take.
  virtual Result<const std::byte*> TakeTile(TensorId tensor, uint64_t row);

  virtual StoreStats stats() const = 0;
  // How bytes come: "io_uring, O_DIRECT, registered buffers", "mapped".
  virtual std::string io_description() const = 0;

 protected:
  explicit WeightStore(std::shared_ptr<const SluiceFile> file, DeviceId device = {});

  friend class WeightLease;
  virtual Result<const std::byte*> TakePiece(PieceId piece) = 0;
  virtual void DonePiece(PieceId) {}
  virtual void Release(GroupId group) = 0;

  // One part for each piece, unless an implementation has pieces side by side.
  virtual std::span<const WeightPart> PartsOf(TensorId tensor) const;
  // The piece that holds a row, and where in it the row's tile begins.
  struct TilePlace {
    PieceId piece = 0;
    uint64_t offset_bytes = 0;
  };
  TilePlace PlaceOfTile(TensorId tensor, uint64_t row) const;

 private:
  std::shared_ptr<const SluiceFile> file_;
  std::vector<WeightPart> parts_;  // one for each piece of the file
};

// Parts point into a read-only mapping of the file: an instant start, pages shared by processes.
Result<std::unique_ptr<WeightStore>> OpenMappedStore(std::shared_ptr<const SluiceFile> file);

struct TieredOptions {
  IoMethod io = IoMethod::kAuto;
  bool direct_io = true;   // O_DIRECT where the file system allows it
  int threads = 1;         // that verify while resident groups are loaded
  LoadProgress progress;   // of the resident groups
  Trace* trace = nullptr;  // outlives the store; null: none
  // Instead of OpenStorage: for tests that inject faults. `buffer` is the ring.
  std::function<Result<std::unique_ptr<Storage>>(std::span<std::byte> buffer)> open_storage;
};

// Groups where `placement` says: those in RAM are read and verified before the store is handed out,
// the others stream through a ring in the order of use, verified by the thread that takes them,
// each time they come. Rows of an embedding are read from a mapping of the file.
// A store serves one pass at a time: leases of groups that stream follow each other.
// After an error of a read the next pass tries again. Ending the store waits for reads on their
// way. Errors: kOutOfMemory, kCancelled, kUnsupported (io_uring was asked for and is refused), as
// Take.
Result<std::unique_ptr<WeightStore>> OpenTieredStore(std::shared_ptr<const SluiceFile> file,
                                                     const Placement& placement,
                                                     const TieredOptions& options);

}  // namespace sluice

#endif  // SLUICE_OFFLOAD_WEIGHT_STORE_H_
