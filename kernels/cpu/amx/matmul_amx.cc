#include "kernels/cpu/amx/amx.h"
#include "kernels/cpu/amx/matmul_tiles.h"
#include "kernels/cpu/avx512.h"

namespace sluice {
namespace {

// Below, vpdpbusd is as fast or faster: a register of 16 tokens costs the same for fewer, about as
// much as AVX-512 takes for 8 to 12 of them (kernels/README.md).
constexpr int64_t kFewestTokens = 12;

}  // namespace

void MatmulAmx(const MatmulArgs& args, CUstream_st* stream) {
  if (args.tokens < kFewestTokens || !args.layout->type.quantized()) {
    return MatmulAvx512(args, stream);
  }
  MatmulTiles<AmxTiles>(args);
}

}  // namespace sluice
