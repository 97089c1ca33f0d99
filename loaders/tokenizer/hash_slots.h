// What the open-addressing tables of the tokenizer share. Private to this folder.
#ifndef SLUICE_LOADERS_TOKENIZER_HASH_SLOTS_H_
#define SLUICE_LOADERS_TOKENIZER_HASH_SLOTS_H_

#include <bit>
#include <cstddef>
#include <cstdint>

namespace sluice {

// The finalizer of SplitMix64.
inline uint64_t MixHash(uint64_t h) {
  h = (h ^ (h >> 30)) * 0xBF58476D1CE4E5B9ULL;
  h = (h ^ (h >> 27)) * 0x94D049BB133111EBULL;
  return h ^ (h >> 31);
}

// A power of two of which at most half is taken.
inline size_t SlotCount(size_t entries) { return std::bit_ceil(entries * 2 + 2); }

}  // namespace sluice

#endif  // SLUICE_LOADERS_TOKENIZER_HASH_SLOTS_H_
