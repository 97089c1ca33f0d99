// Reads pieces into their homes at the speed of the drive, while other threads verify those that
// have come.
#ifndef SLUICE_OFFLOAD_PIECE_LOADER_H_
#define SLUICE_OFFLOAD_PIECE_LOADER_H_

#include <cstddef>
#include <span>

#include "formats/sluice_file.h"
#include "formats/status.h"
#include "offload/storage.h"
#include "offload/weight_store.h"

namespace sluice {

struct PieceToLoad {
  PieceId piece = 0;
  std::span<std::byte> memory;  // aligned as the storage asks
};

// The calling thread reads, `threads` others verify. The first error ends it; kCancelled when
// `progress` returned false. Returns when no read is on its way.
Status LoadPieces(const SluiceFile& file, Storage* storage, std::span<const PieceToLoad> pieces,
                  int threads, const LoadProgress& progress);

}  // namespace sluice

#endif  // SLUICE_OFFLOAD_PIECE_LOADER_H_
