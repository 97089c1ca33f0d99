// How fast a drive gives the bytes of a file, as the tiered store would ask for them.
#ifndef SLUICE_OFFLOAD_READ_RATE_H_
#define SLUICE_OFFLOAD_READ_RATE_H_

#include <cstdint>
#include <string>

#include "formats/status.h"
#include "offload/storage.h"

namespace sluice {

struct ReadRateOptions {
  IoMethod method = IoMethod::kAuto;
  bool direct = true;
  int depth = 16;
  uint32_t chunk_bytes = 1u << 20;  // a multiple of 4,096
  double seconds = 2;
  // Where in the file to begin, as a part of it: runs that follow each other read other places.
  double begin = 0;
  // Each read goes to the memory of one that has just finished, which may lie in a cache still, as
  // programs that measure drives do it. Otherwise to ever new memory, as those of a ring do.
  bool reuse_buffers = false;
};

struct ReadRate {
  double bytes_per_s = 0;
  uint64_t bytes = 0;
  std::string description;  // of the storage
};

// Reads the file in order, round its end, for that time. Errors: those of OpenStorage; kIo;
// kInvalidArgument for a file of less than one chunk.
Result<ReadRate> MeasureReadRate(const std::string& path, const ReadRateOptions& options);

}  // namespace sluice

#endif  // SLUICE_OFFLOAD_READ_RATE_H_
