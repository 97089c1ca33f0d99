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

Status KvCache::CopyBlock(uint32_t from, uint32_t to) {
  for (const KvLayer& layer : layers_) {
    std::byte* target = layer.blocks + to * layer.block_bytes;
    const std::byte* source = layer.blocks + from * layer.block_bytes;
    const auto size_bytes = static_cast<uint64_t>(layer.block_bytes);
    if (stream_ == nullptr) {
      std::memcpy(target, source, size_bytes);
    } else if (Status s = stream_->Copy(target, source, size_bytes, CopyDirection::kDeviceToDevice);
               !s.ok()) {
      return s.WithContext("KV cache");
    }
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
