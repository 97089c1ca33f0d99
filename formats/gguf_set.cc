#include "formats/gguf_set.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>

namespace sluice {
namespace {

constexpr char kNumberKey[] = "split.no";  // from 0
constexpr char kCountKey[] = "split.count";
constexpr char kTensorsKey[] = "split.tensors.count";

constexpr uint64_t kMaxShards = 65535;  // the keys have 16 bits

// What a shard says about the set.
struct Shard {
  uint64_t number = 0;
  uint64_t count = 1;  // 1: not split
  uint64_t tensors = 0;
};

Result<Shard> ShardOf(const GgufFile& header) {
  Shard shard;
  if (!header.Has(kCountKey)) return shard;
  for (const auto& [key, value] :
       {std::pair(kNumberKey, &shard.number), std::pair(kCountKey, &shard.count),
        std::pair(kTensorsKey, &shard.tensors)}) {
    Result<uint64_t> read = header.GetUint(key);
    if (!read.ok()) return read.status();
    *value = *read;
  }
  if (shard.count > kMaxShards || shard.number >= shard.count) {
    return Status(ErrorCode::kCorrupt,
                  fmt::format("{} is {} of {} shards", kNumberKey, shard.number, shard.count));
  }
  return shard;
}

std::string Ending(uint64_t number, uint64_t count) {
  return fmt::format("-{:05}-of-{:05}.gguf", number + 1, count);
}

// Reads shard `number` and compares what it says with `first`, of the shard that was given.
Result<GgufFile> ReadShard(const ByteSource& file, uint64_t number, const Shard& first,
                           uint64_t max_memory_bytes) {
  Result<GgufFile> header = GgufFile::Read(file, max_memory_bytes);
  if (!header.ok()) return header;
  Result<Shard> shard = ShardOf(*header);
  if (!shard.ok()) return shard.status().WithContext(file.name());
  if (shard->number != number || shard->count != first.count) {
    return Status(ErrorCode::kCorrupt, fmt::format("{}: says that it is shard {} of {}",
                                                   file.name(), shard->number + 1, shard->count));
  }
  if (shard->tensors != first.tensors) {
    return Status(ErrorCode::kCorrupt,
                  fmt::format("{}: belongs to a set of {} tensors, another shard to one of {}",
                              file.name(), shard->tensors, first.tensors));
  }
  return header;
}

// Five digits; 0 if there is something else.
uint64_t FiveDigits(std::string_view text) {
  uint64_t value = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return 0;
    value = value * 10 + static_cast<uint64_t>(c - '0');
  }
  return value;
}

}  // namespace

std::vector<std::string> GgufShardPaths(const std::string& path) {
  constexpr size_t kEnding = sizeof("-00001-of-00003.gguf") - 1;
  if (path.size() < kEnding) return {path};
  const size_t prefix = path.size() - kEnding;
  const uint64_t number = FiveDigits(std::string_view(path).substr(prefix + 1, 5));
  const uint64_t count = FiveDigits(std::string_view(path).substr(prefix + 10, 5));
  if (number == 0 || number > count || path.substr(prefix) != Ending(number - 1, count)) {
    return {path};
  }
  std::vector<std::string> paths;
  for (uint64_t i = 0; i < count; ++i) paths.push_back(path.substr(0, prefix) + Ending(i, count));
  return paths;
}

Result<GgufSet> OpenGgufSet(std::unique_ptr<ByteSource> file, uint64_t max_memory_bytes) {
  const std::string path = file->name();
  Result<GgufFile> given = GgufFile::Read(*file, max_memory_bytes);
  if (!given.ok()) return given.status();
  Result<Shard> shard = ShardOf(*given);
  if (!shard.ok()) return shard.status().WithContext(path);
  GgufSet set;
  if (shard->count == 1) {
    set.header = *std::move(given);
    set.files.push_back(std::move(file));
    return set;
  }
  const std::string ending = Ending(shard->number, shard->count);
  if (!path.ends_with(ending)) {
    return Status(ErrorCode::kUnsupported,
                  fmt::format("{}: shard {} of {}, whose name has to end in {} to find the others",
                              path, shard->number + 1, shard->count, ending));
  }
  // What was given is read again in its turn.
  *given = GgufFile();
  const std::vector<std::string> paths = GgufShardPaths(path);
  for (uint64_t number = 0; number < shard->count; ++number) {
    std::unique_ptr<ByteSource> source;
    if (number == shard->number) {
      source = std::move(file);
    } else {
      Result<std::unique_ptr<ReadOnlyFile>> opened = ReadOnlyFile::Open(paths[number]);
      if (!opened.ok()) return opened.status();
      source = *std::move(opened);
    }
    const uint64_t held = set.header.memory_bytes();
    Result<GgufFile> header =
        ReadShard(*source, number, *shard, max_memory_bytes - std::min(held, max_memory_bytes));
    if (!header.ok()) return header.status();
    if (number == 0) {
      set.header = *std::move(header);
    } else if (Status s = set.header.AddShard(*header, static_cast<uint32_t>(number)); !s.ok()) {
      return s.WithContext(source->name());
    }
    set.files.push_back(std::move(source));
  }
  if (set.header.tensors().size() != shard->tensors) {
    return Status(ErrorCode::kCorrupt,
                  fmt::format("{}: its {} shards have {} tensors, not {}", path, shard->count,
                              set.header.tensors().size(), shard->tensors));
  }
  return set;
}

}  // namespace sluice
