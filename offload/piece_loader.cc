#include "offload/piece_loader.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "offload/async_reader.h"

namespace sluice {
namespace {

constexpr uint64_t kBytesOnTheWay = uint64_t{64} << 20;

// Threads that verify what they are given.
class Verifiers {
 public:
  Verifiers(const SluiceFile& file, int threads) : file_(file) {
    try {
      for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Work(); });
    } catch (const std::system_error&) {
      // A limit on threads: those that exist do the work; without any, Finish does it.
    }
  }
  ~Verifiers() { (void)Finish(); }

  void Add(const PieceToLoad& piece) {
    const std::lock_guard lock(mutex_);
    queue_.push_back(piece);
    added_.notify_one();
  }

  Status error() {
    const std::lock_guard lock(mutex_);
    return first_error_;
  }

  // Waits until all are verified; the first error.
  Status Finish() {
    {
      const std::lock_guard lock(mutex_);
      complete_ = true;
    }
    added_.notify_all();
    if (threads_.empty()) Work();
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
    return error();
  }

 private:
  void Work() {
    std::unique_lock lock(mutex_);
    while (true) {
      added_.wait(lock, [this] { return complete_ || !queue_.empty(); });
      if (queue_.empty()) return;
      const PieceToLoad piece = queue_.front();
      queue_.pop_front();
      lock.unlock();
      const Status status = file_.VerifyPiece(piece.piece, piece.memory);
      lock.lock();
      if (!status.ok() && first_error_.ok()) first_error_ = status;
    }
  }

  const SluiceFile& file_;
  std::mutex mutex_;
  std::condition_variable added_;
  std::deque<PieceToLoad> queue_;
  bool complete_ = false;
  Status first_error_;
  std::vector<std::thread> threads_;
};

}  // namespace

Status LoadPieces(const SluiceFile& file, Storage* storage, std::span<const PieceToLoad> pieces,
                  int threads, const LoadProgress& progress) {
  uint64_t total_bytes = 0;
  for (const PieceToLoad& piece : pieces) total_bytes += piece.memory.size();
  Verifiers verifiers(file, threads);
  AsyncReader reader(storage, file.path(), file.source().size_bytes());
  std::vector<AsyncReader::Finished> finished;
  Status status;
  size_t next = 0;
  uint64_t started_bytes = 0;
  uint64_t done_bytes = 0;
  while (true) {
    while (status.ok() && next < pieces.size() && started_bytes - done_bytes < kBytesOnTheWay) {
      reader.Read(file.pieces()[pieces[next].piece].offset_bytes, pieces[next].memory, next);
      started_bytes += pieces[next].memory.size();
      ++next;
    }
    if (reader.pending() == 0) break;
    finished.clear();
    reader.Wait(&finished);
    for (const AsyncReader::Finished& end : finished) {
      const PieceToLoad& piece = pieces[end.tag];
      done_bytes += piece.memory.size();
      if (end.status.ok()) {
        verifiers.Add(piece);
      } else if (status.ok()) {
        const TensorId tensor = file.pieces()[piece.piece].tensor;
        status =
            end.status.WithContext("tensor '" + std::string(file.tensors()[tensor].name) + "'");
      }
    }
    if (status.ok()) status = verifiers.error();
    if (status.ok() && !finished.empty() && progress && !progress(done_bytes, total_bytes)) {
      status = Status(ErrorCode::kCancelled, file.path() + ": loading was cancelled");
    }
  }
  const Status verified = verifiers.Finish();
  return status.ok() ? verified : status;
}

}  // namespace sluice
