#include "kernels/cpu/amx/tile.h"
#include "kernels/cpu/peak_loops.h"

namespace sluice {

namespace {

constexpr int64_t kProducts = 4;

// Two operands on each side and four sums, as long products want them: no instruction waits for the
// one before it. `multiply` does the four of a round.
template <class Multiply>
int64_t Repeat(int64_t rounds, int64_t operations, const Multiply& multiply) {
  rounds = rounds / 8 + 1;  // each takes about nine times as long as one of avx512's
  alignas(64) static constexpr uint8_t kBytes[16][64] = {};
  TileConfig config;
  for (int tile = 0; tile < kTileRegisters; ++tile) config.Set(tile, 16, 64);
  const ConfiguredTiles<AmxTiles> shapes(config);
  AmxTiles::Load<0>(kBytes, 64);
  AmxTiles::Load<1>(kBytes, 64);
  AmxTiles::Load<2>(kBytes, 64);
  AmxTiles::Load<3>(kBytes, 64);
  AmxTiles::Zero<4>();
  AmxTiles::Zero<5>();
  AmxTiles::Zero<6>();
  AmxTiles::Zero<7>();
  for (int64_t round = 0; round < rounds; ++round) multiply();
  return rounds * operations;
}

}  // namespace

int64_t ArithmeticPeakAmx(int64_t rounds) {
  return Repeat(rounds, kProducts * 16 * 16 * 64 * 2, [] {
    AmxTiles::AddSignedSigned<4, 0, 2>();
    AmxTiles::AddSignedSigned<5, 0, 3>();
    AmxTiles::AddSignedSigned<6, 1, 2>();
    AmxTiles::AddSignedSigned<7, 1, 3>();
  });
}

int64_t ArithmeticPeakBf16Amx(int64_t rounds) {
  return Repeat(rounds, kProducts * 16 * 16 * 32 * 2, [] {
    AmxTiles::AddBf16<4, 0, 2>();
    AmxTiles::AddBf16<5, 0, 3>();
    AmxTiles::AddBf16<6, 1, 2>();
    AmxTiles::AddBf16<7, 1, 3>();
  });
}

}  // namespace sluice
