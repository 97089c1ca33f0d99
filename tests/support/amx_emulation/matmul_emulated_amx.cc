#include "tests/support/amx_emulation/matmul_emulated_amx.h"

#include "kernels/cpu/amx/matmul_tiles.h"
#include "tests/support/amx_emulation/emulated_tiles.h"

namespace sluice::test {

void MatmulEmulatedAmx(const MatmulArgs& args, CUstream_st*) { MatmulTiles<EmulatedTiles>(args); }

}  // namespace sluice::test
