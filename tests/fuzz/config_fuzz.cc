// Configurations: config.json of a Hugging Face checkpoint, and sluice's own JSON. What is accepted
// must be valid and survive its own JSON.
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "formats/model_config.h"
#include "loaders/architecture.h"
#include "loaders/hf_config.h"
#include "tests/fuzz/measured_input.h"

namespace {

using namespace sluice;

void Require(bool promise) {
  if (!promise) std::abort();
}

// What a configuration describes may be far larger than it; reading it must not take more.
Result<ModelConfig> Measured(Result<ModelConfig> (*read)(std::string_view), std::string_view text) {
  const MeasuredInput measured(text.size());
  return read(text);
}

void Check(const Result<ModelConfig>& config) {
  if (!config.ok()) return;
  Require(config->Validate().ok());
  const Result<ModelConfig> again = ModelConfig::FromJson(config->ToJson());
  Require(again.ok() && *again == *config);
  if (config->rope.dim > 1024) return;  // larger ones are only slower
  for (const float frequency : RopeFrequencies(config->rope, 4096))
    Require(std::isfinite(frequency));
  if (config->num_layers <= 64) (void)DescribeModel(*config);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  Check(Measured(ModelConfigFromHuggingFace, text));
  Check(Measured(ModelConfig::FromJson, text));
  return 0;
}
