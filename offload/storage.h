// The seam to the drive: reads of one file that are on their way at the same time. Only what the
// operating system does lies below it; short reads, retries and messages are AsyncReader's.
#ifndef SLUICE_OFFLOAD_STORAGE_H_
#define SLUICE_OFFLOAD_STORAGE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "formats/status.h"

namespace sluice {

struct StorageRead {
  uint64_t offset_bytes = 0;
  std::byte* buffer = nullptr;
  uint32_t size_bytes = 0;
  uint64_t tag = 0;  // the caller's, returned with the result
};

struct StorageDone {
  uint64_t tag = 0;
  int64_t result = 0;  // bytes read, fewer than asked for perhaps, 0 at the end; or -errno
};

// One file, used by one thread at a time.
class Storage {
 public:
  // Waits for reads that are on their way: nothing writes to a buffer afterwards.
  virtual ~Storage() = default;

  // What was chosen, for people: "io_uring, O_DIRECT, registered buffers".
  virtual const std::string& description() const = 0;
  // Offsets, sizes and buffers must be multiples of it (1, or 4096 for direct reads).
  virtual uint32_t alignment() const = 0;
  // Reads that may be on their way at once.
  virtual int depth() const = 0;

  // REQUIRES: fewer than depth() reads on their way. The buffer belongs to the read until its
  // result came.
  virtual void Submit(const StorageRead& read) = 0;
  // Waits for a result at least, and appends all that there are.
  // REQUIRES: a read is on its way.
  virtual void Wait(std::vector<StorageDone>* done) = 0;
};

enum class IoMethod : uint8_t { kAuto, kUring, kPread };

struct StorageOptions {
  IoMethod method = IoMethod::kAuto;  // kAuto: io_uring where the system allows it, else pread
  bool direct = true;                 // O_DIRECT where the file system allows it
  int depth = 16;
  // Memory that most reads go to, registered with io_uring where the lock limit allows it.
  std::span<std::byte> buffer;
};

// The file stays the caller's to close; its descriptor is opened anew for direct reads.
// Errors: kUnsupported when io_uring is asked for and refused, with the reason; kIo.
Result<std::unique_ptr<Storage>> OpenStorage(const std::string& path,
                                             const StorageOptions& options);

// Whether io_uring can be used by this process; else why not, and the cure.
Status ProbeUring();

}  // namespace sluice

#endif  // SLUICE_OFFLOAD_STORAGE_H_
