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

 private:
  WeightStore* store_ = nullptr;
  GroupId group_ = 0;
};

// Bytes and time per tier, since the store was made.
struct TierStats {
  uint64_t resident_bytes = 0;
  uint64_t read_bytes = 0;
  double stall_s = 0;  // that computation waited for bytes
};

struct StoreStats {
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
  // live at once. Groups that will be wanted next may be named beforehand with Hint.
  virtual Result<WeightLease> Acquire(GroupId group) = 0;
  virtual void Hint(std::span<const GroupId> groups) = 0;

  // The tile that holds row `row` of a tensor, outside any pass (embeddings). Valid until the
  // store ends. Errors as WeightLease::Take.
  Result<const std::byte*> TakeTile(TensorId tensor, uint64_t row);

  virtual StoreStats stats() const = 0;

 protected:
  explicit WeightStore(std::shared_ptr<const SluiceFile> file);

  friend class WeightLease;
  virtual Result<const std::byte*> TakePiece(PieceId piece) = 0;
  virtual void Release(GroupId group) = 0;

  std::span<const WeightPart> PartsOf(TensorId tensor) const;

 private:
  std::shared_ptr<const SluiceFile> file_;
  std::vector<WeightPart> parts_;  // one for each piece of the file, all on the CPU
};

// Parts point into a read-only mapping of the file: an instant start, pages shared by processes.
Result<std::unique_ptr<WeightStore>> OpenMappedStore(std::shared_ptr<const SluiceFile> file);

// Reads all weights into memory, `threads` readers, each piece verified as it arrives.
// Errors: kDoesNotFit if the weights exceed budget_bytes, kOutOfMemory, kCancelled, as Take.
Result<std::unique_ptr<WeightStore>> OpenResidentStore(std::shared_ptr<const SluiceFile> file,
                                                       uint64_t budget_bytes, int threads,
                                                       const LoadProgress& progress);

}  // namespace sluice

#endif  // SLUICE_OFFLOAD_WEIGHT_STORE_H_
