// What of EngineOptions concerns the choice of a device.
#ifndef SLUICE_RUNTIME_ENGINE_OPTIONS_H_
#define SLUICE_RUNTIME_ENGINE_OPTIONS_H_

#include "formats/status.h"
#include "sluice/engine.h"

namespace sluice {

// A GPU or an error; else, where neither is so, a GPU if one serves.
inline bool GpuIsAskedFor(const EngineOptions& options) {
  return options.isa == "cuda" || options.vram_bytes.value_or(0) > 0;
}
inline bool GpuIsRefused(const EngineOptions& options) {
  return options.vram_bytes == 0u || (!options.isa.empty() && options.isa != "cuda");
}

// Error: kInvalidArgument for options against each other.
Status ValidateGpuOptions(const EngineOptions& options);

}  // namespace sluice

#endif  // SLUICE_RUNTIME_ENGINE_OPTIONS_H_
