#include <algorithm>

#include "kernels/ref/dequantize.h"
#include "kernels/ref/ref.h"

namespace sluice {
namespace {

constexpr int64_t kTokens = 32;  // that share the dequantization of a block

// Four rows side by side. Written as vectors because GCC 12 interchanges the loops otherwise; the
// sum of each row is taken in the order of the channels all the same.
using Lanes = float __attribute__((vector_size(16)));
constexpr int64_t kVectors = kTileRows / 4;

void AddProducts(const Lanes (*weights)[kVectors], const float* x, int64_t count, Lanes* sums) {
  Lanes sum[kVectors];
  std::copy_n(sums, kVectors, sum);
  for (int64_t k = 0; k < count; ++k) {
    for (int64_t i = 0; i < kVectors; ++i) sum[i] += weights[k][i] * x[k];
  }
  std::copy_n(sum, kVectors, sums);
}

// y of `tokens` tokens and the rows of one tile.
void MultiplyTile(const MatmulArgs& args, int64_t tile, int64_t token_begin, int64_t tokens) {
  Lanes weights[kBlockChannels][kVectors];
  Lanes sums[kTokens][kVectors] = {};
  const std::byte* bytes = args.tiles + tile * static_cast<int64_t>(args.layout->tile_bytes);
  for (int64_t block = args.block_begin; block < args.block_end; ++block) {
    const int64_t count = DequantizeBlock(*args.layout, bytes, static_cast<uint64_t>(block),
                                          reinterpret_cast<float(*)[kTileRows]>(weights));
    for (int64_t t = 0; t < tokens; ++t) {
      const float* x = args.x + (token_begin + t) * args.x_stride + block * kBlockChannels;
      AddProducts(weights, x, count, sums[t]);
    }
  }
  const int64_t first_row = tile * kTileRows;
  const int64_t rows = std::min<int64_t>(kTileRows, args.rows - first_row);
  for (int64_t t = 0; t < tokens; ++t) {
    float* y = args.y + (token_begin + t) * args.y_stride + first_row;
    for (int64_t row = 0; row < rows; ++row) {
      float sum = sums[t][row / 4][row % 4];
      if (args.bias != nullptr) sum += args.bias[first_row + row];
      y[row] = args.add_to_y ? y[row] + sum : sum;
    }
  }
}

}  // namespace

ActivationForm ActivationsRef(const WeightType&) { return ActivationForm::kFloat; }

void MatmulRef(const MatmulArgs& args, CUstream_st*) {
  for (int64_t tile = 0; tile * kTileRows < args.rows; ++tile) {
    for (int64_t token = 0; token < args.tokens; token += kTokens) {
      MultiplyTile(args, tile, token, std::min(kTokens, args.tokens - token));
    }
  }
}

}  // namespace sluice
