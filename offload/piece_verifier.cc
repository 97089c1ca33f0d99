#include "offload/piece_verifier.h"

#include <algorithm>

#include "formats/checked.h"

namespace sluice {

namespace {

std::span<const std::byte> ChunkOf(std::span<const std::byte> piece, uint64_t chunk) {
  const uint64_t begin = chunk * kSluiceChunkBytes;
  return piece.subspan(begin, std::min(kSluiceChunkBytes, piece.size() - begin));
}

}  // namespace

void PieceVerifier::Reset(uint64_t size_bytes) {
  chunks_ = static_cast<uint32_t>(CeilDiv(size_bytes, kSluiceChunkBytes));
  failed_ = false;
  first_error_ = Status();
  next_ = 0;
  left_ = chunks_;
}

Status PieceVerifier::Verify(const SluiceFile& file, PieceId piece,
                             std::span<const std::byte> bytes) {
  while (next_.load(std::memory_order_relaxed) < chunks_) {
    const uint32_t chunk = next_.fetch_add(1);
    if (chunk >= chunks_) break;
    if (Status status = file.VerifyChunk(piece, chunk, ChunkOf(bytes, chunk)); !status.ok()) {
      const std::lock_guard lock(mutex_);
      if (first_error_.ok()) first_error_ = status;
      failed_ = true;
    }
    if (left_.fetch_sub(1) == 1) left_.notify_all();
  }
  for (uint32_t left = left_.load(); left != 0; left = left_.load()) left_.wait(left);
  if (!failed_) return Status();
  const std::lock_guard lock(mutex_);
  return first_error_;
}

}  // namespace sluice
