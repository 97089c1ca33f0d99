#include "kernels/cpu/amx/products_bf16.h"
#include "tests/support/amx_emulation/emulated_tiles.h"
#include "tests/support/amx_emulation/matmul_emulated_amx.h"

namespace sluice::test {

void MatmulBf16EmulatedAmx(const MatmulArgs& args, CUstream_st*) {
  MatmulBf16<TileProducts<EmulatedTiles>>(args);
}

}  // namespace sluice::test
