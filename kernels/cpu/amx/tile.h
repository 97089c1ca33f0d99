// Intel AMX: the tile instructions (Intel SDM volume 1, chapter 18), one function each. Kernels are
// templates over the class, so that tests run them with tests/support/amx_emulation instead.
//
// The instructions are written out because GCC 12's intrinsics say too little about memory: its
// _tile_loadconfig names 8 of the 64 bytes that it reads and its _tile_loadd none, so that stores
// to what they read may be dropped.
#ifndef SLUICE_KERNELS_CPU_AMX_TILE_H_
#define SLUICE_KERNELS_CPU_AMX_TILE_H_

#include <cstdint>

namespace sluice {

inline constexpr int kTileRegisters = 8;
inline constexpr int kTileRegisterRows = 16;      // at most
inline constexpr int kTileRegisterRowBytes = 64;  // at most

// What LDTILECFG reads.
struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};  // of each register; those from kTileRegisters on stay 0
  uint8_t rows[16] = {};

  void Set(int tile, int tile_rows, int tile_row_bytes) {
    rows[tile] = static_cast<uint8_t>(tile_rows);
    row_bytes[tile] = static_cast<uint16_t>(tile_row_bytes);
  }
};
static_assert(sizeof(TileConfig) == 64);

// Only where AMX runs (kernels/amx_support.h). A thread's registers have shapes from Configure to
// Release, and every other function is for the time between.
struct AmxTiles {
  static void Configure(const TileConfig& config) {
    __asm__ volatile("ldtilecfg %0" : : "m"(config));
  }
  static void Release() { __asm__ volatile("tilerelease"); }

  template <int tile>
  static void Zero() {
    __asm__ volatile("tilezero %%tmm%c0" : : "i"(tile));
  }
  // Rows that lie `stride` bytes apart.
  template <int tile>
  static void Load(const void* from, int64_t stride) {
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2"
                     :
                     : "r"(from), "r"(stride), "i"(tile)
                     : "memory");
  }
  template <int tile>
  static void Store(void* to, int64_t stride) {
    __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)"
                     :
                     : "r"(to), "r"(stride), "i"(tile)
                     : "memory");
  }

  // sums[m][n] += sum over k and i < 4 of a[m][4 k + i] * b[k][4 n + i], in 32 bits.
  template <int sums, int a, int b>
  static void AddSignedSigned() {
    __asm__ volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(sums), "i"(a), "i"(b));
  }
  // The same with unsigned bytes in b.
  template <int sums, int a, int b>
  static void AddSignedUnsigned() {
    __asm__ volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(sums), "i"(a), "i"(b));
  }
  // sums[m][n] += sum over k and i < 2 of a[m][2 k + i] * b[k][2 n + i], bf16 to float32. Subnormal
  // numbers are zero, and the order of the sum is the processor's.
  template <int sums, int a, int b>
  static void AddBf16() {
    __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(sums), "i"(a), "i"(b));
  }
};

// Shapes for the registers as long as it lives.
template <class Tiles>
class ConfiguredTiles {
 public:
  explicit ConfiguredTiles(const TileConfig& config) { Tiles::Configure(config); }
  ~ConfiguredTiles() { Tiles::Release(); }
  ConfiguredTiles(const ConfiguredTiles&) = delete;
  ConfiguredTiles& operator=(const ConfiguredTiles&) = delete;
};

}  // namespace sluice

#endif  // SLUICE_KERNELS_CPU_AMX_TILE_H_
