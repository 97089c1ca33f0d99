#include "offload/async_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace sluice {

AsyncReader::AsyncReader(Storage* storage, std::string path, uint64_t file_size_bytes,
                         uint32_t chunk_bytes)
    : storage_(storage),
      path_(std::move(path)),
      file_size_bytes_(file_size_bytes),
      chunk_bytes_(chunk_bytes),
      in_flight_(static_cast<size_t>(storage->depth())) {
  for (auto i = static_cast<uint32_t>(in_flight_.size()); i-- > 0;) free_.push_back(i);
}

void AsyncReader::Read(uint64_t offset_bytes, std::span<std::byte> out, uint64_t tag) {
  const auto unused =
      std::find_if(ranges_.begin(), ranges_.end(), [](const Range& range) { return !range.used; });
  const auto index = static_cast<uint32_t>(unused - ranges_.begin());
  if (unused == ranges_.end()) ranges_.emplace_back();
  Range& range = ranges_[index];
  range = {tag, 0, Status(), true};
  for (size_t begin = 0; begin < out.size(); begin += chunk_bytes_) {
    const auto size = static_cast<uint32_t>(std::min<size_t>(chunk_bytes_, out.size() - begin));
    waiting_.push_back({index, offset_bytes + begin, out.data() + begin, size, 0, 0});
    ++range.unfinished_chunks;
  }
  ++pending_;
  SubmitWhatFits();
}

void AsyncReader::SubmitWhatFits() {
  while (!waiting_.empty() && !free_.empty()) {
    const uint32_t place = free_.back();
    free_.pop_back();
    in_flight_[place] = waiting_.front();
    waiting_.pop_front();
    const Chunk& chunk = in_flight_[place];
    storage_->Submit({chunk.offset_bytes, chunk.buffer, chunk.size_bytes, place});
  }
}

void AsyncReader::Wait(std::vector<Finished>* finished) {
  done_.clear();
  storage_->Wait(&done_);
  for (const StorageDone& done : done_) Handle(done, finished);
  SubmitWhatFits();
}

// What came back: all of a chunk, a part of it (the rest is read again), or an error, which is
// tried again if it may pass.
void AsyncReader::Handle(const StorageDone& done, std::vector<Finished>* finished) {
  const auto place = static_cast<uint32_t>(done.tag);
  Chunk chunk = in_flight_[place];
  free_.push_back(place);
  Range& range = ranges_[chunk.range];
  const uint64_t wanted = std::min<uint64_t>(
      chunk.size_bytes, file_size_bytes_ - std::min(file_size_bytes_, chunk.offset_bytes));
  if (done.result >= 0 && static_cast<uint64_t>(done.result) >= wanted) {
    return Finish(chunk, finished);
  }
  if (!range.status.ok()) return Finish(chunk, finished);  // the range has failed already
  if (done.result > 0) {
    // A direct read goes on at an aligned place: bytes behind the last one are read twice.
    const auto got =
        static_cast<uint32_t>(done.result) / storage_->alignment() * storage_->alignment();
    if (got == 0) ++chunk.failures;
    chunk.offset_bytes += got;
    chunk.buffer += got;
    chunk.size_bytes -= got;
  } else if (done.result == 0) {
    range.status = Status(
        ErrorCode::kTruncated,
        fmt::format("{}: the file ends at or before byte {}; it had {} bytes when it was opened",
                    path_, chunk.offset_bytes, file_size_bytes_));
    return Finish(chunk, finished);
  } else if (done.result != -EINTR && done.result != -EAGAIN) {
    ++chunk.failures;
  } else if (++chunk.delays >= kDelays) {
    chunk.failures = kTries;
  }
  if (chunk.failures >= kTries) {
    range.status = Status(
        ErrorCode::kIo, fmt::format("{}: reading {} bytes at offset {}: {} (tried {} times)", path_,
                                    chunk.size_bytes, chunk.offset_bytes,
                                    done.result < 0 ? std::strerror(static_cast<int>(-done.result))
                                                    : "the reads stay short",
                                    kTries));
    return Finish(chunk, finished);
  }
  waiting_.push_front(chunk);
}

void AsyncReader::Finish(const Chunk& chunk, std::vector<Finished>* finished) {
  Range& range = ranges_[chunk.range];
  if (--range.unfinished_chunks > 0) return;
  finished->push_back({range.tag, range.status});
  range.used = false;
  --pending_;
}

}  // namespace sluice
