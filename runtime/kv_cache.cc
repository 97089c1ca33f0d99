#include "runtime/kv_cache.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "formats/checked.h"

namespace sluice {
namespace {

uint64_t LayerBlockBytes(const LayerStateDescription& layer, KvType type) {
  return static_cast<uint64_t>(2 * kKvBlockTokens * layer.num_kv_heads * layer.head_dim *
                               KvTypeBytes(type));
}

size_t BlocksFor(int64_t tokens) {
  return static_cast<size_t>((tokens + kKvBlockTokens - 1) / kKvBlockTokens);
}

}  // namespace

uint64_t KvCache::BlockBytes(std::span<const LayerStateDescription> layers, KvType type) {
  uint64_t bytes = 0;
  for (const LayerStateDescription& layer : layers) bytes += LayerBlockBytes(layer, type);
  return bytes;
}

Result<std::unique_ptr<KvCache>> KvCache::Create(std::span<const LayerStateDescription> layers,
                                                 KvType type, int64_t num_blocks, Device* device,
                                                 DeviceStream* stream) {
  uint64_t size_bytes = 0;
  if (num_blocks <= 0 || num_blocks > INT32_MAX ||
      !CheckedMul(BlockBytes(layers, type), static_cast<uint64_t>(num_blocks), &size_bytes)) {
    return Status(ErrorCode::kOutOfMemory, fmt::format("a KV cache of {} blocks", num_blocks));
  }
  Result<Arena> arena = Arena::Allocate(device, size_bytes);
  if (!arena.ok()) return arena.status().WithContext("KV cache");
  std::vector<KvLayer> views;
  std::byte* next = arena->data();
  for (const LayerStateDescription& layer : layers) {
    const auto block_bytes = static_cast<int64_t>(LayerBlockBytes(layer, type));
    views.push_back({next, block_bytes, type, layer.num_kv_heads, layer.head_dim});
    next += block_bytes * num_blocks;
  }
  return std::unique_ptr<KvCache>(
      new KvCache(std::move(*arena), std::move(views), num_blocks, stream));
}

KvCache::KvCache(Arena arena, std::vector<KvLayer> layers, int64_t num_blocks, DeviceStream* stream)
    : arena_(std::move(arena)),
      stream_(stream),
      layers_(std::move(layers)),
      reference_counts_(static_cast<size_t>(num_blocks), 0) {
  free_.reserve(reference_counts_.size());
  for (int64_t block = num_blocks; block-- > 0;) free_.push_back(static_cast<uint32_t>(block));
}

uint32_t KvCache::TakeFree() {
  const uint32_t block = free_.back();
  free_.pop_back();
  reference_counts_[block] = 1;
  return block;
}

void KvCache::Drop(uint32_t block) {
  if (--reference_counts_[block] == 0) free_.push_back(block);
}

Status KvCache::Copy(std::byte* to, const std::byte* from, uint64_t size_bytes) {
  if (stream_ == nullptr) {
    std::memcpy(to, from, size_bytes);
    return Status();
  }
  return stream_->Copy(to, from, size_bytes, CopyDirection::kDeviceToDevice)
      .WithContext("KV cache");
}

Status KvCache::CopyRows(std::byte* to, const std::byte* from, uint64_t pitch_bytes,
                         uint64_t row_bytes, uint64_t rows) {
  if (stream_ != nullptr) {
    return stream_->CopyRows(to, from, pitch_bytes, row_bytes, rows).WithContext("KV cache");
  }
  for (uint64_t i = 0; i < rows; ++i) {
    std::memcpy(to + i * pitch_bytes, from + i * pitch_bytes, row_bytes);
  }
  return Status();
}

Status KvCache::CopyBlock(uint32_t from, uint32_t to) {
  for (const KvLayer& layer : layers_) {
    if (Status s =
            Copy(layer.blocks + to * layer.block_bytes, layer.blocks + from * layer.block_bytes,
                 static_cast<uint64_t>(layer.block_bytes));
        !s.ok()) {
      return s;
    }
  }
  return Status();
}

Status KvCache::CopySlots(int64_t from, int64_t to, int64_t count) {
  for (const KvLayer& layer : layers_) {
    const int64_t slot_bytes = layer.head_dim * KvTypeBytes(layer.type);
    const auto place = [&](int64_t slot) {
      return layer.blocks + slot / kKvBlockTokens * layer.block_bytes +
             slot % kKvBlockTokens * slot_bytes;
    };
    // K and V of each head are a matrix of the block's slots.
    const auto matrix_bytes = static_cast<uint64_t>(kKvBlockTokens * slot_bytes);
    if (Status s = CopyRows(place(to), place(from), matrix_bytes,
                            static_cast<uint64_t>(count * slot_bytes),
                            static_cast<uint64_t>(2 * layer.num_kv_heads));
        !s.ok()) {
      return s;
    }
  }
  return Status();
}

Status KvCache::KeepPath(BlockTable* table, int64_t begin, std::span<const int64_t> nodes) {
  const int64_t slots = static_cast<int64_t>(table->blocks.size()) * kKvBlockTokens;
  for (size_t i = 0; i < nodes.size(); ++i) {
    const int64_t after = i == 0 ? 0 : nodes[i - 1] + 1;
    if (begin < 0 || nodes[i] < after || nodes[i] >= slots - begin) {
      return Status(ErrorCode::kInvalidArgument,
                    fmt::format("KV cache: node {} of a tree at {} cannot be kept after {}",
                                nodes[i], begin, after - 1));
    }
  }
  const auto moves = [&](size_t i) { return nodes[i] != static_cast<int64_t>(i); };
  if (nodes.empty() || !moves(nodes.size() - 1)) return Status();
  if (Status s = Reserve(table, slots, begin); !s.ok()) return s;
  for (size_t i = 0; i < nodes.size();) {
    const int64_t from = begin + nodes[i];
    const int64_t to = begin + static_cast<int64_t>(i);
    if (!moves(i)) {
      ++i;
      continue;
    }
    // A run goes as one, as far as its blocks go and its copies do not overlap.
    const int64_t most = std::min(
        {from - to, kKvBlockTokens - from % kKvBlockTokens, kKvBlockTokens - to % kKvBlockTokens});
    int64_t count = 1;
    while (count < most && i + static_cast<size_t>(count) < nodes.size() &&
           nodes[i + static_cast<size_t>(count)] == nodes[i] + count) {
      ++count;
    }
    if (Status s = CopySlots(Slot(*table, from), Slot(*table, to), count); !s.ok()) return s;
    i += static_cast<size_t>(count);
  }
  return Status();
}

Status KvCache::Reserve(BlockTable* table, int64_t tokens, int64_t first_written) {
  const size_t wanted = std::max(BlocksFor(tokens), table->blocks.size());
  const auto first_block = static_cast<size_t>(first_written / kKvBlockTokens);
  size_t needed = wanted - table->blocks.size();
  for (size_t i = first_block; i < table->blocks.size(); ++i) {
    if (reference_counts_[table->blocks[i]] > 1) ++needed;
  }
  if (needed > free_.size()) {
    return Status(ErrorCode::kOutOfMemory,
                  fmt::format("KV cache: {} blocks of {} tokens are free, {} are needed",
                              free_.size(), kKvBlockTokens, needed));
  }
  for (size_t i = first_block; i < table->blocks.size(); ++i) {
    const uint32_t shared = table->blocks[i];
    if (reference_counts_[shared] == 1) continue;
    const uint32_t copy = TakeFree();
    if (Status s = CopyBlock(shared, copy); !s.ok()) {
      Drop(copy);
      return s;
    }
    Drop(shared);
    table->blocks[i] = copy;
  }
  while (table->blocks.size() < wanted) table->blocks.push_back(TakeFree());
  return Status();
}

BlockTable KvCache::Share(const BlockTable& table, int64_t tokens) {
  BlockTable shared;
  shared.blocks.assign(table.blocks.begin(),
                       table.blocks.begin() + static_cast<ptrdiff_t>(BlocksFor(tokens)));
  for (uint32_t block : shared.blocks) ++reference_counts_[block];
  return shared;
}

void KvCache::Truncate(BlockTable* table, int64_t tokens) {
  while (table->blocks.size() > BlocksFor(tokens)) {
    Drop(table->blocks.back());
    table->blocks.pop_back();
  }
}

}  // namespace sluice
