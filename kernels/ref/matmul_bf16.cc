#include <algorithm>

#include "formats/half.h"
#include "kernels/ref/bf16.h"
#include "kernels/ref/dequantize.h"
#include "kernels/ref/ref.h"

namespace sluice {
namespace {

constexpr int64_t kTokens = 32;  // that share the dequantization of a block

void MultiplyTile(const MatmulArgs& args, int64_t tile, int64_t first_token, int64_t tokens) {
  float weights[kBlockChannels][kTileRows];
  float sums[kTokens][kTileRows] = {};
  const std::byte* bytes = args.tiles + tile * static_cast<int64_t>(args.layout->tile_bytes);
  for (int64_t block = args.block_begin; block < args.block_end; ++block) {
    const int64_t count =
        DequantizeBlock(*args.layout, bytes, static_cast<uint64_t>(block), weights);
    for (int64_t k = 0; k < count; ++k) {
      for (float& w : weights[k]) w = Bf16ToFloat(FloatToBf16(w));
    }
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t k = 0; k < count; ++k) {
        const int64_t channel = block * kBlockChannels + k;
        const float x =
            Bf16ToFloat(args.x_bf16->values[Bf16Place(*args.x_bf16, first_token + t, channel)]);
        for (int64_t row = 0; row < kTileRows; ++row) sums[t][row] += weights[k][row] * x;
      }
    }
  }
  const int64_t first_row = tile * kTileRows;
  const int64_t rows = std::min<int64_t>(kTileRows, args.rows - first_row);
  for (int64_t t = 0; t < tokens; ++t) {
    float* y = args.y + (first_token + t) * args.y_stride + first_row;
    for (int64_t row = 0; row < rows; ++row) {
      float sum = sums[t][row];
      if (args.bias != nullptr) sum += args.bias[first_row + row];
      y[row] = args.add_to_y ? y[row] + sum : sum;
    }
  }
}

}  // namespace

void MatmulBf16Ref(const MatmulArgs& args, CUstream_st*) {
  for (int64_t tile = 0; tile * kTileRows < args.rows; ++tile) {
    for (int64_t token = 0; token < args.tokens; token += kTokens) {
      MultiplyTile(args, tile, token, std::min(kTokens, args.tokens - token));
    }
  }
}

}  // namespace sluice
