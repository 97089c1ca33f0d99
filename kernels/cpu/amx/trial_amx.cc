#include "kernels/cpu/amx/amx.h"
#include "kernels/cpu/amx/trial.h"

namespace sluice {

bool TryTiles() { return TryTilesOf<AmxTiles>(); }

}  // namespace sluice
