#include "tests/support/amx_emulation/emulated_tiles.h"

#include <bit>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace sluice::test {
namespace {

struct Register {
  int rows = 0;
  int row_bytes = 0;
  uint8_t bytes[kTileRegisterRows][kTileRegisterRowBytes] = {};
};

struct State {
  bool configured = false;
  Register registers[kTileRegisters];
  int64_t products = 0;
  int64_t configurations = 0;
};

thread_local State state;

void Check(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "AMX emulation: %s\n", what);
  std::abort();
}

Register& At(int tile) {
  Check(tile >= 0 && tile < kTileRegisters, "there are eight registers");
  Check(state.configured, "no configuration");
  Register& r = state.registers[tile];
  Check(r.rows > 0, "a register without a shape");
  return r;
}

// The shapes of sums (m x n), a (m x k) and b (k x n), as TDPBSSD and its kin want them.
void CheckProduct(int sums, int a, int b) {
  Check(sums != a && sums != b && a != b, "operands must be three registers");
  Check(At(sums).row_bytes % 4 == 0 && At(a).row_bytes % 4 == 0 && At(b).row_bytes % 4 == 0,
        "rows are whole elements of four bytes");
  Check(At(sums).rows == At(a).rows, "sums and a have different rows");
  Check(At(a).row_bytes / 4 == At(b).rows, "a's columns are not b's rows");
  Check(At(sums).row_bytes == At(b).row_bytes, "sums and b have different columns");
  ++state.products;
}

float Bf16At(const uint8_t* bytes) {
  uint16_t bits;
  std::memcpy(&bits, bytes, 2);
  const float value = std::bit_cast<float>(uint32_t{bits} << 16);
  return std::fpclassify(value) == FP_SUBNORMAL ? std::copysign(0.0f, value) : value;
}

}  // namespace

void EmulatedTiles::Configure(const TileConfig& config) {
  Check(reinterpret_cast<uintptr_t>(&config) % alignof(TileConfig) == 0, "a misplaced structure");
  Check(config.palette == 1, "the palette is not 1");
  Check(config.start_row == 0, "kernels begin with the first row");
  for (uint8_t byte : config.reserved) Check(byte == 0, "reserved bytes are set");
  Check(!state.configured, "configured twice without a release");
  for (int tile = 0; tile < 16; ++tile) {
    const int rows = config.rows[tile];
    const int row_bytes = config.row_bytes[tile];
    Check(tile < kTileRegisters || (rows == 0 && row_bytes == 0), "there are eight registers");
    Check(rows <= kTileRegisterRows, "more than 16 rows");
    Check(row_bytes <= kTileRegisterRowBytes, "rows of more than 64 bytes");
    Check((rows == 0) == (row_bytes == 0), "rows without bytes, or bytes without rows");
    if (tile >= kTileRegisters) continue;
    state.registers[tile] = {};
    state.registers[tile].rows = rows;
    state.registers[tile].row_bytes = row_bytes;
  }
  state.configured = true;
  ++state.configurations;
}

void EmulatedTiles::Release() { state.configured = false; }

bool EmulatedTiles::configured() { return state.configured; }
int64_t EmulatedTiles::products() { return state.products; }
int64_t EmulatedTiles::configurations() { return state.configurations; }

void EmulatedTiles::Zero(int tile) { std::memset(At(tile).bytes, 0, sizeof(At(tile).bytes)); }

void EmulatedTiles::Load(int tile, const void* from, int64_t stride) {
  Register& r = At(tile);
  std::memset(r.bytes, 0, sizeof(r.bytes));
  for (int row = 0; row < r.rows; ++row) {
    std::memcpy(r.bytes[row], static_cast<const uint8_t*>(from) + row * stride,
                static_cast<size_t>(r.row_bytes));
  }
}

void EmulatedTiles::Store(int tile, void* to, int64_t stride) {
  const Register& r = At(tile);
  for (int row = 0; row < r.rows; ++row) {
    std::memcpy(static_cast<uint8_t*>(to) + row * stride, r.bytes[row],
                static_cast<size_t>(r.row_bytes));
  }
}

void EmulatedTiles::AddBytes(int sums, int a, int b, bool signed_b) {
  CheckProduct(sums, a, b);
  Register& result = At(sums);
  const Register& left = At(a);
  const Register& right = At(b);
  const int columns = right.row_bytes / 4;
  for (int m = 0; m < result.rows; ++m) {
    uint32_t row[kTileRegisterRowBytes / 4];  // wraps
    std::memcpy(row, result.bytes[m], sizeof(row));
    for (int k = 0; k < left.row_bytes; ++k) {
      const int x = static_cast<int8_t>(left.bytes[m][k]);
      const uint8_t* bytes = right.bytes[k / 4] + k % 4;
      for (int n = 0; n < columns; ++n) {
        const int w = signed_b ? static_cast<int8_t>(bytes[4 * n]) : bytes[4 * n];
        row[n] += static_cast<uint32_t>(x * w);
      }
    }
    std::memcpy(result.bytes[m], row, sizeof(row));
  }
}

// Subnormal numbers count as zero, rounding is to nearest even, and the sum's order is the SDM's:
// pair by pair, each product with an FMA (the SDM's two sums of even and odd elements).
void EmulatedTiles::AddBf16(int sums, int a, int b) {
  CheckProduct(sums, a, b);
  const Register& left = At(a);
  const Register& right = At(b);
  const auto flushed = [](float x) {
    return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(0.0f, x) : x;
  };
  for (int m = 0; m < At(sums).rows; ++m) {
    for (int n = 0; n < right.row_bytes / 4; ++n) {
      float halves[2] = {0, 0};
      for (int k = 0; k < left.row_bytes / 4; ++k) {
        for (int i = 0; i < 2; ++i) {
          const float x = Bf16At(left.bytes[m] + 4 * k + 2 * i);
          const float w = Bf16At(right.bytes[k] + 4 * n + 2 * i);
          halves[i] = flushed(std::fma(x, w, halves[i]));
        }
      }
      uint8_t* place = At(sums).bytes[m] + 4 * n;
      float before;
      std::memcpy(&before, place, 4);
      const float sum = flushed(flushed(before) + flushed(halves[0] + halves[1]));
      std::memcpy(place, &sum, 4);
    }
  }
}

}  // namespace sluice::test
