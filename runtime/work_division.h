// How operations are divided among the threads of a team.
#ifndef SLUICE_RUNTIME_WORK_DIVISION_H_
#define SLUICE_RUNTIME_WORK_DIVISION_H_

#include <cstdint>

namespace sluice {

// Ranges of an operation that each thread gets, so that a late thread holds up little.
inline constexpr int64_t kRangesPerThread = 8;

// Items of a range, at least 1.
int64_t Grain(int64_t items, int threads);

// Tiles of weights of a range.
int64_t TileGrain(int64_t tiles, uint64_t tile_bytes, int64_t tokens, int threads);

// (token, KV head) items of a range. longest_run: tokens in a row of one sequence.
int64_t AttentionGrain(int64_t tokens, int64_t kv_heads, int threads, int64_t longest_run);

// Splits that the contexts of few tokens are divided into, so that all threads have work and none
// reads what another reads; 0: tokens and heads are divided.
int64_t AttentionSplits(int64_t tokens, int threads, int64_t longest_length);

}  // namespace sluice

#endif  // SLUICE_RUNTIME_WORK_DIVISION_H_
