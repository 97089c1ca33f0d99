#include "offload/read_rate.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <vector>

#include "formats/mapped_file.h"
#include "offload/host_arena.h"

namespace sluice {
namespace {

constexpr uint64_t kBufferBytes = uint64_t{128} << 20;  // beyond the last cache

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
  const auto depth = static_cast<uint64_t>(options.depth);
  const uint64_t places =
      options.reuse_buffers ? depth : std::max(4 * depth, kBufferBytes / options.chunk_bytes);
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
  uint64_t started = 0;
  const auto submit = [&](uint64_t finished_place) {
    const uint64_t place =
        started < places || !options.reuse_buffers ? started % places : finished_place;
    (*storage)->Submit({next % chunks * options.chunk_bytes,
                        buffer->bytes().data() + place * options.chunk_bytes, options.chunk_bytes,
                        place});
    ++next;
    ++started;
  };
  const auto start = std::chrono::steady_clock::now();
  const auto elapsed = [&] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  int on_the_way = options.depth;
  for (int i = 0; i < options.depth; ++i) submit(0);
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
      submit(end.tag);
      ++on_the_way;
    }
    seconds = elapsed();
  }
  rate.bytes_per_s = static_cast<double>(rate.bytes) / seconds;
  rate.description = (*storage)->description();
  return rate;
}

}  // namespace sluice
