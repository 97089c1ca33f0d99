#include "kernels/cpu/amx/amx.h"
#include "kernels/cpu/amx/products_bf16.h"

namespace sluice {

void MatmulBf16Amx(const MatmulArgs& args, CUstream_st*) {
  MatmulBf16<TileProducts<AmxTiles>>(args);
}

}  // namespace sluice
