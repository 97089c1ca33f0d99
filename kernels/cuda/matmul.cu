#include <algorithm>

#include "kernels/cuda/launchers.h"
#include "kernels/cuda/matmul_float.h"
#include "kernels/cuda/matmul_int.h"

namespace sluice::SLUICE_CUDA_NAMESPACE {

ActivationForm Activations(const WeightType& type) {
  return type.quantized() ? ActivationForm::kQuantized : ActivationForm::kFloat;
}

void Matmul(const MatmulArgs& args, CUstream_st* stream) {
  const Result<GpuLayout> layout = MakeGpuLayout(*args.layout);
  if (!layout.ok()) return;  // the caller asked before: MakeGpuLayout is the answer
  const int64_t chunk_end = std::min(args.block_end, layout->num_chunks);
  if (args.layout->type.quantized()) {
    const IntMatmul matmul = {*layout,  args.tiles,    args.num_tiles,   args.rows,
                              *args.xq, args.tokens,   args.bias,        args.add_to_y,
                              args.y,   args.y_stride, args.block_begin, chunk_end};
    if (args.tokens <= MostTokensOfFew(*layout)) return MatmulFewTokens(matmul, stream);
    return MatmulManyTokens(matmul, stream);
  }
  MatmulFloat({*layout, args.tiles, args.num_tiles, args.rows, args.x, args.x_stride, args.tokens,
               args.bias, args.add_to_y, args.y, args.y_stride, args.block_begin, chunk_end},
              stream);
}

}  // namespace sluice::SLUICE_CUDA_NAMESPACE
