#include <algorithm>

#include "kernels/cuda/launchers.h"
#include "kernels/cuda/matmul_float.h"
#include "kernels/cuda/matmul_int.h"

namespace sluice::SLUICE_CUDA_NAMESPACE {
namespace {

int64_t ChunkEnd(const MatmulArgs& args, const GpuLayout& layout) {
  return std::min(args.block_end, layout.num_chunks);
}

IntMatrix MatrixOf(const MatmulArgs& args, const GpuLayout& layout) {
  const auto narrow = [](int64_t value) { return static_cast<int32_t>(value); };
  const int64_t before_last = layout.header_bytes + (layout.num_chunks - 1) * layout.chunk_bytes;
  return {args.tiles,
          args.bias,
          args.y,
          args.y_stride,
          args.rows,
          narrow(args.num_tiles),
          narrow(layout.tile_bytes),
          narrow(layout.header_bytes),
          narrow(layout.chunk_bytes),
          narrow(layout.tile_bytes - before_last),
          narrow(layout.padded_cols),
          narrow(layout.num_chunks),
          narrow(args.block_begin),
          narrow(ChunkEnd(args, layout)),
          layout.offset,
          layout.whole_rows,
          layout.super_scales,
          args.add_to_y};
}

// Whether one kernel can take both.
bool GoTogether(const IntMatmul& matmul, const MatmulArgs& args, const GpuLayout& layout) {
  const QuantizedActivations& x = matmul.x;
  return matmul.tokens == args.tokens && matmul.bits == layout.bits &&
         matmul.group_size == layout.group_size && x.values == args.xq->values &&
         x.scales == args.xq->scales && x.sums == args.xq->sums && x.groups == args.xq->groups &&
         x.padded_cols == args.xq->padded_cols;
}

void StartInt(const IntMatmul& matmul, CUstream_st* stream) {
  if (matmul.tokens <= MostTokensOfFew(matmul.group_size)) {
    return MatmulFewTokens(matmul, stream);
  }
  MatmulManyTokens(matmul, stream);
}

}  // namespace

ActivationForm Activations(const WeightType& type) {
  return type.quantized() ? ActivationForm::kQuantized : ActivationForm::kFloat;
}

void MatmulSeveral(const MatmulArgs* args, int64_t count, CUstream_st* stream) {
  bool done[kMostMatmuls] = {};
  for (int64_t i = 0; i < count; ++i) {
    if (done[i]) continue;
    const Result<GpuLayout> layout = MakeGpuLayout(*args[i].layout);
    if (!layout.ok()) continue;  // the caller asked before: MakeGpuLayout is the answer
    if (!args[i].layout->type.quantized()) {
      MatmulFloat({*layout, args[i].tiles, args[i].num_tiles, args[i].rows, args[i].x,
                   args[i].x_stride, args[i].tokens, args[i].bias, args[i].add_to_y, args[i].y,
                   args[i].y_stride, args[i].block_begin, ChunkEnd(args[i], *layout)},
                  stream);
      continue;
    }
    IntMatmul matmul = {{MatrixOf(args[i], *layout)},         1,           layout->bits,
                        static_cast<int>(layout->group_size), *args[i].xq, args[i].tokens};
    for (int64_t j = i + 1; j < count; ++j) {
      if (done[j] || !args[j].layout->type.quantized()) continue;
      const Result<GpuLayout> other = MakeGpuLayout(*args[j].layout);
      if (!other.ok() || !GoTogether(matmul, args[j], *other)) continue;
      matmul.matrices[matmul.count++] = MatrixOf(args[j], *other);
      done[j] = true;
    }
    StartInt(matmul, stream);
  }
}

void Matmul(const MatmulArgs& args, CUstream_st* stream) { MatmulSeveral(&args, 1, stream); }

}  // namespace sluice::SLUICE_CUDA_NAMESPACE
