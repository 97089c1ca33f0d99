#include <cstdio>
#include <cstdlib>

#include "kernels/select.h"
#include "tests/support/amx_emulation/emulated_tiles.h"
#include "tests/support/amx_emulation/matmul_emulated_amx.h"

namespace sluice::test {
namespace {

template <void (*matmul)(const MatmulArgs&, CUstream_st*)>
void AndRelease(const MatmulArgs& args, CUstream_st* stream) {
  matmul(args, stream);
  if (!EmulatedTiles::configured()) return;
  std::fprintf(stderr, "AMX emulation: a kernel leaves its thread's registers configured\n");
  std::abort();
}

}  // namespace

const OpTable& EmulatedAmxTable() {
  static const OpTable table = [] {
    OpTable emulated = kAvx512Table;
    emulated.name = "amx, emulated";
    emulated.matmul = [](const MatmulArgs& args, CUstream_st* stream) {
      if (!args.layout->type.quantized()) return kAvx512Table.matmul(args, stream);
      AndRelease<MatmulEmulatedAmx>(args, stream);
    };
    emulated.matmul_bf16 = AndRelease<MatmulBf16EmulatedAmx>;
    return emulated;
  }();
  return table;
}

}  // namespace sluice::test
