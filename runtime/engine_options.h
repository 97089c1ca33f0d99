// What of EngineOptions concerns the choice of a device.
#ifndef SLUICE_RUNTIME_ENGINE_OPTIONS_H_
#define SLUICE_RUNTIME_ENGINE_OPTIONS_H_

#include <algorithm>
#include <cstdint>

#include "formats/status.h"
#include "sluice/engine.h"

namespace sluice {

inline constexpr int64_t kUsualBatchTokens = 512;
// A panel of weights in f16 costs its dequantization once for all tokens of a pass.
inline constexpr int64_t kMostF16BatchTokens = 4096;

// Tokens of a pass where EngineOptions::max_batch_tokens leaves it open.
inline int64_t DefaultBatchTokens(bool f16_prompts, int64_t context_tokens, int64_t sequences) {
  if (!f16_prompts) return kUsualBatchTokens;
  const int64_t tokens =
      std::min(context_tokens, kMostF16BatchTokens) * std::min(sequences, kMostF16BatchTokens);
  return std::clamp(tokens, kUsualBatchTokens, kMostF16BatchTokens);
}

// A GPU or an error; else, where neither is so, a GPU if one serves.
inline bool GpuIsAskedFor(const EngineOptions& options) {
  return options.isa == "cuda" || options.vram_bytes.value_or(0) > 0 ||
         options.prefill == PrefillType::kF16;
}
inline bool GpuIsRefused(const EngineOptions& options) {
  return options.vram_bytes == 0u || (!options.isa.empty() && options.isa != "cuda");
}

// Error: kInvalidArgument for options against each other.
Status ValidateGpuOptions(const EngineOptions& options);

}  // namespace sluice

#endif  // SLUICE_RUNTIME_ENGINE_OPTIONS_H_
