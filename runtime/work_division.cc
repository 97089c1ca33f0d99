#include "runtime/work_division.h"

#include <algorithm>

#include "kernels/ops.h"
#include "runtime/activations.h"

namespace sluice {
namespace {

// Tokens whose products take less time than the weights do to be read.
constexpr int64_t kFewTokens = 3;

// Weights of a range for few tokens: kernels read four streams of a quarter each, and shorter ones
// end before the processor has noticed that it reads a stream.
constexpr int64_t kStreamsBytes = 256 << 10;

constexpr int64_t kTokensOfTile = 8;

}  // namespace

int64_t Grain(int64_t items, int threads) {
  return std::max<int64_t>(1, items / (threads * kRangesPerThread));
}

// For few tokens ranges that are long reads, as many for each thread; for several a multiple of
// four tiles, because kernels take two or four at a time, and for many no more than they take
// together, since each of them is long work.
int64_t TileGrain(int64_t tiles, uint64_t tile_bytes, int64_t tokens, int threads) {
  if (tokens >= 64) return std::clamp<int64_t>(tiles / (8 * threads) / 2 * 2, 2, 16);
  if (tokens > kFewTokens) return std::max<int64_t>(Grain(tiles, threads) / 4 * 4, 4);
  const int64_t bytes = tiles * static_cast<int64_t>(tile_bytes);
  const int64_t ranges =
      std::clamp<int64_t>(bytes / (threads * kStreamsBytes), 1, kRangesPerThread) * threads;
  return std::max<int64_t>((tiles + ranges - 1) / ranges, 1);
}

// Whole tokens, whose KV heads lie side by side in the cache, and several of one sequence, which
// read its context once; of fewer tokens than threads as many KV heads as there are for each
// thread.
int64_t AttentionGrain(int64_t tokens, int64_t kv_heads, int threads, int64_t longest_run) {
  if (tokens < threads) return (tokens * kv_heads + threads - 1) / threads;
  const int64_t tile = std::min({kTokensOfTile, longest_run, tokens / threads});
  return std::max(Grain(tokens, threads), tile) * kv_heads;
}

int64_t AttentionSplits(int64_t tokens, int threads, int64_t longest_length) {
  const int64_t splits = (longest_length + kAttentionSplitKeys - 1) / kAttentionSplitKeys;
  const bool few = tokens <= kTokensOfTile * threads && threads > 1;
  return few && splits > 1 && splits * tokens <= Activations::kAttentionParts ? splits : 0;
}

}  // namespace sluice
