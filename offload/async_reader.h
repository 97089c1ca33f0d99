// Reads of whole ranges over a Storage: cut into chunks, continued after short reads, tried again
// after errors that may pass.
#ifndef SLUICE_OFFLOAD_ASYNC_READER_H_
#define SLUICE_OFFLOAD_ASYNC_READER_H_

#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <vector>

#include "offload/storage.h"

namespace sluice {

// For one thread at a time.
class AsyncReader {
 public:
  struct Finished {
    uint64_t tag = 0;
    Status status;  // kIo or kTruncated with path, offset and cause
  };

  static constexpr uint32_t kDefaultChunkBytes = 4u << 20;

  // `storage` outlives the reader; `path` is for messages; `file_size_bytes` as the file was when
  // it was opened. REQUIRES: chunk_bytes is a multiple of storage->alignment().
  AsyncReader(Storage* storage, std::string path, uint64_t file_size_bytes,
              uint32_t chunk_bytes = kDefaultChunkBytes);

  // Starts to fill `out` from `offset_bytes`. Its end may lie beyond the end of the file by less
  // than the alignment, for the last, unaligned bytes of a file. REQUIRES: offset, size and address
  // are multiples of the storage's alignment; the tag is not in use.
  void Read(uint64_t offset_bytes, std::span<std::byte> out, uint64_t tag);

  // Ranges that are not finished.
  size_t pending() const { return pending_; }

  // Waits until the storage answers once, and appends the ranges that finished (perhaps none).
  // A range that failed finishes when the last of its reads came back. REQUIRES: pending() > 0.
  void Wait(std::vector<Finished>* finished);

 private:
  static constexpr int kTries = 3;
  // Of one chunk that the system puts off (EAGAIN, EINTR): without an end it would hang for ever.
  static constexpr int kDelays = 10000;

  struct Range {
    uint64_t tag = 0;
    uint32_t unfinished_chunks = 0;
    Status status;
    bool used = false;
  };
  struct Chunk {
    uint32_t range = 0;
    uint64_t offset_bytes = 0;
    std::byte* buffer = nullptr;
    uint32_t size_bytes = 0;
    int failures = 0;
    int delays = 0;
  };

  void SubmitWhatFits();
  void Handle(const StorageDone& done, std::vector<Finished>* finished);
  void Finish(const Chunk& chunk, std::vector<Finished>* finished);

  Storage* storage_;
  std::string path_;
  uint64_t file_size_bytes_;
  uint32_t chunk_bytes_;
  std::deque<Chunk> waiting_;
  std::vector<Chunk> in_flight_;  // by the tag that the storage sees
  std::vector<uint32_t> free_;    // places in in_flight_
  std::vector<Range> ranges_;
  size_t pending_ = 0;
  std::vector<StorageDone> done_;
};

}  // namespace sluice

#endif  // SLUICE_OFFLOAD_ASYNC_READER_H_
