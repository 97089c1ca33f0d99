// The paged KV cache (Kwon et al., 2023): a pool of blocks of 16 tokens, the same block ids for all
// layers, block tables with reference counts, copy on write.
#ifndef SLUICE_RUNTIME_KV_CACHE_H_
#define SLUICE_RUNTIME_KV_CACHE_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "formats/status.h"
#include "kernels/ops.h"
#include "loaders/architecture.h"
#include "offload/arena.h"

namespace sluice {

// The blocks of one sequence, in the order of its tokens. Owned by the caller, given back with
// KvCache::Truncate(table, 0).
struct BlockTable {
  std::vector<uint32_t> blocks;
};

// Thread-compatible. Memory is taken once, at Create; pages are touched when tokens come.
class KvCache {
 public:
  // Room for num_blocks blocks, in the memory of `device`, whose stream copies blocks in the order
  // of the passes on it; both null: the host's. Errors: as Arena::Allocate.
  static Result<std::unique_ptr<KvCache>> Create(std::span<const LayerStateDescription> layers,
                                                 KvType type, int64_t num_blocks,
                                                 Device* device = nullptr,
                                                 DeviceStream* stream = nullptr);

  // Bytes of one block over all layers.
  static uint64_t BlockBytes(std::span<const LayerStateDescription> layers, KvType type);

  int64_t num_blocks() const { return static_cast<int64_t>(reference_counts_.size()); }
  int64_t free_blocks() const { return static_cast<int64_t>(free_.size()); }
  uint64_t size_bytes() const { return arena_.size_bytes(); }
  const KvLayer& layer(int64_t index) const { return layers_[static_cast<size_t>(index)]; }

  // Makes the table hold at least `tokens` slots, of which those from `first_written` on may be
  // written: a shared block among them is copied. All or nothing.
  // Errors: kOutOfMemory when the pool has too few free blocks; those of a device that is lost.
  Status Reserve(BlockTable* table, int64_t tokens, int64_t first_written);

  // Another table with the blocks of the first `tokens` tokens, shared.
  BlockTable Share(const BlockTable& table, int64_t tokens);

  // Of a draft tree in the slots from `begin` on, keeps the nodes of one path, which it moves to
  // the slots from `begin` on; those behind them may be written again. `nodes` ascend. Blocks that
  // are shared are copied first. On a device the copies are queued: a node that moves takes one for
  // each layer, and so does a run of them in one block that moves by as much or more.
  // Errors: kInvalidArgument for nodes that do not ascend or lie outside the table; as Reserve.
  Status KeepPath(BlockTable* table, int64_t begin, std::span<const int64_t> nodes);

  // Gives back the blocks that the first `tokens` tokens do not need.
  void Truncate(BlockTable* table, int64_t tokens);

  // Where token `position` of the table's sequence is stored.
  static int64_t Slot(const BlockTable& table, int64_t position) {
    return int64_t{table.blocks[static_cast<size_t>(position / kKvBlockTokens)]} * kKvBlockTokens +
           position % kKvBlockTokens;
  }

 private:
  KvCache(Arena arena, std::vector<KvLayer> layers, int64_t num_blocks, DeviceStream* stream);
  Status Copy(std::byte* to, const std::byte* from, uint64_t size_bytes);
  Status CopyRows(std::byte* to, const std::byte* from, uint64_t pitch_bytes, uint64_t row_bytes,
                  uint64_t rows);
  Status CopyBlock(uint32_t from, uint32_t to);
  // K and V of `count` slots, which lie in one block, to others in one block.
  Status CopySlots(int64_t from, int64_t to, int64_t count);
  uint32_t TakeFree();
  void Drop(uint32_t block);

  Arena arena_;
  DeviceStream* stream_;  // null: blocks lie on the host
  std::vector<KvLayer> layers_;
  std::vector<uint32_t> reference_counts_;
  std::vector<uint32_t> free_;  // a stack, lowest id on top at first
};

}  // namespace sluice

#endif  // SLUICE_RUNTIME_KV_CACHE_H_
