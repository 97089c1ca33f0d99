#include "formats/gguf_set.h"

#include <fmt/format.h>

#include <string>
#include <utility>

namespace sluice {
namespace {

constexpr char kNumberKey[] = "split.no";  // from 0
constexpr char kCountKey[] = "split.count";
constexpr char kTensorsKey[] = "split.tensors.count";

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
  if (shard.number >= shard.count) {
    return Status(ErrorCode::kCorrupt,
                  fmt::format("{} is {} of {} shards", kNumberKey, shard.number, shard.count));
  }
  return shard;
}

std::string Ending(uint64_t number, uint64_t count) {
  return fmt::format("-{:05}-of-{:05}.gguf", number + 1, count);
}

// Reads shard `number` and compares what it says with `first`, of the shard that was given.
Result<GgufFile> ReadShard(const ByteSource& file, uint64_t number, const Shard& first) {
  Result<GgufFile> header = GgufFile::Read(file);
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

}  // namespace

Result<GgufSet> OpenGgufSet(std::unique_ptr<ByteSource> file) {
  const std::string path = file->name();
  Result<GgufFile> given = GgufFile::Read(*file);
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
  const std::string prefix = path.substr(0, path.size() - ending.size());
  for (uint64_t number = 0; number < shard->count; ++number) {
    std::unique_ptr<ByteSource> source;
    if (number == shard->number) {
      source = std::move(file);
    } else {
      Result<std::unique_ptr<ReadOnlyFile>> opened =
          ReadOnlyFile::Open(prefix + Ending(number, shard->count));
      if (!opened.ok()) return opened.status();
      source = *std::move(opened);
    }
    Result<GgufFile> header = ReadShard(*source, number, *shard);
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
