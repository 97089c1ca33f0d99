#include "offload/read_rate.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <thread>
#include <vector>

#include "formats/mapped_file.h"
#include "offload/host_arena.h"

namespace sluice {
namespace {

constexpr uint64_t kMemoryBytes = uint64_t{256} << 20;  // of each thread
constexpr int kMemoryPasses = 6;
constexpr uint64_t kBufferBytes = uint64_t{128} << 20;  // beyond the last cache

// Eight chains, so that no addition waits for the one before.
uint64_t SumOf(std::span<const std::byte> bytes) {
  uint64_t sums[8] = {};
  const auto* words = reinterpret_cast<const uint64_t*>(bytes.data());
  for (size_t i = 0; i + 8 <= bytes.size() / 8; i += 8) {
    for (size_t j = 0; j < 8; ++j) sums[j] += words[i + j];
  }
  uint64_t sum = 0;
  for (uint64_t part : sums) sum += part;
  return sum;
}

}  // namespace

Result<ReadRate> MeasureReadRate(const std::string& path, const ReadRateOptions& options) {
  Result<std::unique_ptr<ReadOnlyFile>> file = ReadOnlyFile::Open(path);
  if (!file.ok()) return file.status();
  const uint64_t chunks = (*file)->size_bytes() / options.chunk_bytes;
  if (chunks == 0) {
    return Status(
        ErrorCode::kInvalidArgument,
        fmt::format("{}: {} bytes are too few to measure with", path, (*file)->size_bytes()));
  }
  // Reads go to ever new memory, as those of a ring do: a buffer that stays in the cache is faster
  // than what streaming sees.
  const uint64_t places = std::max<uint64_t>(4 * static_cast<uint64_t>(options.depth),
                                             kBufferBytes / options.chunk_bytes);
  Result<HostArena> buffer = HostArena::Allocate(places * options.chunk_bytes);
  if (!buffer.ok()) return buffer.status();
  StorageOptions storage_options;
  storage_options.method = options.method;
  storage_options.direct = options.direct;
  storage_options.depth = options.depth;
  storage_options.buffer = buffer->bytes();
  std::memset(buffer->bytes().data(), 0,
              buffer->bytes().size());  // pages exist before the clock runs
  Result<std::unique_ptr<Storage>> storage = OpenStorage(path, storage_options);
  if (!storage.ok()) return storage.status();

  uint64_t next = static_cast<uint64_t>(options.begin * static_cast<double>(chunks));
  const auto submit = [&] {
    (*storage)->Submit({next % chunks * options.chunk_bytes,
                        buffer->bytes().data() + next % places * options.chunk_bytes,
                        options.chunk_bytes, next});
    ++next;
  };
  const auto start = std::chrono::steady_clock::now();
  const auto elapsed = [&] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  int on_the_way = options.depth;
  for (int i = 0; i < options.depth; ++i) submit();
  ReadRate rate;
  double seconds = 0;
  std::vector<StorageDone> done;
  while (on_the_way > 0) {
    done.clear();
    (*storage)->Wait(&done);
    const bool over = elapsed() >= options.seconds;
    for (const StorageDone& end : done) {
      --on_the_way;
      if (end.result < 0) {
        return Status(ErrorCode::kIo,
                      fmt::format("{}: {}", path, std::strerror(static_cast<int>(-end.result))));
      }
      rate.bytes += static_cast<uint64_t>(end.result);
      if (over) continue;
      submit();
      ++on_the_way;
    }
    seconds = elapsed();
  }
  rate.bytes_per_s = static_cast<double>(rate.bytes) / seconds;
  rate.description = (*storage)->description();
  return rate;
}

double MeasureMemoryRate(int threads) {
  Result<HostArena> memory = HostArena::Allocate(kMemoryBytes * static_cast<uint64_t>(threads));
  if (!memory.ok()) return 0;
  std::memset(memory->bytes().data(), 1, memory->bytes().size());
  double best = 0;
  std::atomic<uint64_t> sink = 0;  // so that the reads cannot be left out
  for (int pass = 0; pass < kMemoryPasses; ++pass) {
    std::atomic<int> ready = 0;
    const auto read = [&](int thread) {
      ++ready;
      while (ready < threads) std::this_thread::yield();
      sink += SumOf(
          memory->bytes().subspan(kMemoryBytes * static_cast<uint64_t>(thread), kMemoryBytes));
    };
    const auto start = std::chrono::steady_clock::now();
    std::vector<std::thread> others;
    for (int i = 1; i < threads; ++i) others.emplace_back(read, i);
    read(0);
    for (std::thread& other : others) other.join();
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    best = std::max(best, static_cast<double>(memory->bytes().size()) / seconds);
  }
  return best;
}

}  // namespace sluice
