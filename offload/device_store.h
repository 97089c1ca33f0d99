// Weights that all lie in the memory of one device.
#ifndef SLUICE_OFFLOAD_DEVICE_STORE_H_
#define SLUICE_OFFLOAD_DEVICE_STORE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "formats/tile_layout.h"
#include "offload/device.h"
#include "offload/weight_store.h"

namespace sluice {

// How weights lie on a device: injected by who knows what its operations read.
class DeviceLayout {
 public:
  virtual ~DeviceLayout() = default;
  // Bytes of `num_tiles` tiles of a tensor: `num_tiles` times those of one. Errors: kUnsupported
  // for a type that the device's operations do not know.
  virtual Result<uint64_t> SizeBytes(const TileLayout& layout, uint64_t num_tiles) const = 0;
  // Writes them from the file's, all of `out`.
  virtual void Arrange(const TileLayout& layout, const std::byte* tiles, uint64_t num_tiles,
                       std::span<std::byte> out) const = 0;
};

// Device memory that OpenDeviceStore takes for this file. Errors: those of `layout`, with the
// tensor's name; kCorrupt where the size overflows.
Result<uint64_t> DeviceStoreBytes(const SluiceFile& file, const DeviceLayout& layout);

// Copies all groups but the embedding to the device, arranged as it wants them, in one allocation;
// the rows of an embedding stay where `source` has them. Leases give pointers of the device.
// Arranging is divided among `threads` threads. `device` outlives the store. Errors: kOutOfMemory,
// kCancelled, those of `layout`, of `source` and of the device.
Result<std::unique_ptr<WeightStore>> OpenDeviceStore(std::unique_ptr<WeightStore> source,
                                                     std::shared_ptr<const SluiceFile> file,
                                                     Device* device, DeviceId id,
                                                     const DeviceLayout& layout, int threads,
                                                     const LoadProgress& progress);

}  // namespace sluice

#endif  // SLUICE_OFFLOAD_DEVICE_STORE_H_
