// Checksums of a piece that several threads take at once: each verifies other chunks, while they
// lie in its cache.
#ifndef SLUICE_OFFLOAD_PIECE_VERIFIER_H_
#define SLUICE_OFFLOAD_PIECE_VERIFIER_H_

#include <atomic>
#include <cstdint>
#include <mutex>
#include <span>

#include "formats/sluice_file.h"
#include "formats/status.h"

namespace sluice {

class PieceVerifier {
 public:
  // New bytes are in the piece's memory. Nobody may be inside Verify.
  void Reset(uint64_t size_bytes);

  // Returns when all chunks were verified, by this thread and others that called it. Any thread.
  // Error: kCorrupt of the first bad chunk, to all callers.
  Status Verify(const SluiceFile& file, PieceId piece, std::span<const std::byte> bytes);

 private:
  std::atomic<uint32_t> next_ = 0;
  std::atomic<uint32_t> left_ = 0;
  std::atomic<bool> failed_ = false;
  uint32_t chunks_ = 0;
  std::mutex mutex_;
  Status first_error_;  // with mutex_
};

}  // namespace sluice

#endif  // SLUICE_OFFLOAD_PIECE_VERIFIER_H_
