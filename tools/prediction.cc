#include "tools/prediction.h"

#include "formats/sluice_file.h"
#include "loaders/model_outline.h"
#include "tools/machine_rates.h"

namespace sluice {

std::optional<Plan> PredictionOf(const Engine& engine, const ModelOptions& options,
                                 const std::string& path) {
  const EngineInfo& info = engine.info();
  if (options.io == "mmap" || !info.gpu.empty()) return std::nullopt;
  const Result<std::shared_ptr<const SluiceFile>> file = SluiceFile::Open(path);
  const Result<std::vector<PlaceRule>> rules = ParsePlaceRules(options.place);
  if (!file.ok() || !rules.ok()) return std::nullopt;
  const ModelOutline outline = OutlineFile(**file);
  RatesRequest rates_request;
  rates_request.isa = info.isa;
  rates_request.threads = info.threads;
  rates_request.file = path;
  rates_request.only_known = true;
  rates_request.bf16_prompts = info.prefill == PrefillType::kBf16;
  const Result<RatesReport> rates = RatesFor(outline, rates_request);
  if (!rates.ok()) return std::nullopt;
  PlanRequest request;
  request.context_tokens = info.context_tokens;
  request.kv_bytes_per_value = options.kv == "f32" ? 4 : 2;
  request.ram_bytes = info.ram_budget_bytes;
  request.bf16_prompts = rates_request.bf16_prompts;
  request.rules = *rules;
  const Result<Plan> plan = MakePlan(outline, request, rates->rates);
  if (!plan.ok()) return std::nullopt;
  const bool guessed = plan->placement.streamed_bytes > 0 && rates->drive_origin == "assumed";
  return guessed ? std::nullopt : std::optional<Plan>(*plan);
}

}  // namespace sluice
