#include "tools/open_model.h"

#include <fmt/format.h>

#include "tools/interrupt.h"
#include "tools/model_cache.h"
#include "tools/output.h"
#include "tools/progress.h"

namespace sluice {
namespace {

std::string PlacementText(const EngineInfo& info) {
  if (!info.gpu.empty()) return "in GPU memory";
  if (info.streamed_bytes == 0) return "resident";
  return fmt::format("{} resident, {} stream from disk through a ring of {}",
                     FormatBytes(info.resident_bytes), FormatBytes(info.streamed_bytes),
                     FormatBytes(info.ring_bytes));
}

// What became of a GPU that is there; "" where none is.
std::string GpuLine(const EngineInfo& info) {
  if (!info.gpu.empty()) {
    return fmt::format("GPU {}: {} of {} taken", OnOneLine(info.gpu), FormatBytes(info.vram_bytes),
                       FormatBytes(info.vram_budget_bytes));
  }
  return info.gpu_found ? "the GPU is not used: " + OnOneLine(info.no_gpu_reason) : "";
}

std::string ChoicesLine(const EngineInfo& info, const ModelOptions& options) {
  return fmt::format(
      "{}{}: isa {}{}, {} thread{}, context {} of {} tokens, weights {} ({}; {}), KV cache {} "
      "({}), activations {}, loaded in {:.2f} s",
      info.architecture, info.model_name.empty() ? "" : " " + Printable(info.model_name), info.isa,
      PrefillText(info), info.threads, info.threads == 1 ? "" : "s", info.context_tokens,
      info.model_context_tokens, FormatBytes(info.weight_bytes), PlacementText(info), info.io,
      FormatBytes(info.kv_cache_bytes), options.kv, FormatBytes(info.activation_bytes),
      info.load_s);
}

}  // namespace

std::string PrefillText(const EngineInfo& info) {
  if (info.prefill == PrefillType::kInt8) return "";
  const std::string by = info.f16_library.empty() ? "" : " by " + OnOneLine(info.f16_library);
  return fmt::format(", prefill in {}{}", PrefillTypeName(info.prefill), by);
}

Result<std::unique_ptr<Engine>> OpenModel(const ModelOptions& options, std::string* file) {
  Result<std::string> path = SluiceFileFor(options.model, options.quiet);
  if (!path.ok()) return path.status();
  if (file != nullptr) *file = *path;
  EngineOptions engine_options = options.ToEngineOptions();
  engine_options.model_path = *path;
  Result<std::unique_ptr<Engine>> engine = [&] {
    Progress bar("loading", Progress::Unit::kBytes, options.quiet);
    engine_options.load_progress = [&bar](uint64_t done, uint64_t total) {
      bar.Update(done, total);
      return !Interrupted();
    };
    return Engine::Open(engine_options);
  }();
  if (!engine.ok()) return engine.status();
  if (Interrupted()) return InterruptedStatus();
  if (!options.quiet) {
    PrintLine(ChoicesLine((*engine)->info(), options));
    const std::string gpu = GpuLine((*engine)->info());
    if (!gpu.empty()) PrintLine(gpu);
    const std::string& note = (*engine)->info().isa_note;
    if (!note.empty()) PrintLine(fmt::format("a faster table does not run: {}", note));
  }
  return engine;
}

Status WriteTraceIfWanted(const ModelOptions& options, const Engine& engine) {
  return options.trace.empty() ? Status() : engine.WriteTrace(options.trace);
}

int64_t ContextUsed(const Completion& completion) {
  return completion.prompt_tokens + static_cast<int64_t>(completion.tokens.size());
}

std::string TimingsLine(const Engine& engine, const Completion& completion) {
  const Timings& t = completion.timings;
  std::string line = fmt::format("prompt {} tokens", completion.prompt_tokens);
  if (t.cached_tokens > 0) line += fmt::format(" ({} cached)", t.cached_tokens);
  line += fmt::format(", {:.1f} tokens/s; answer {} tokens, {:.1f} tokens/s; context {} of {}",
                      t.prefill_tokens_per_s(), completion.tokens.size(), t.decode_tokens_per_s(),
                      ContextUsed(completion), engine.info().context_tokens);
  for (const TierReport& tier : engine.tiers()) {
    line += fmt::format(
        "; {} {} {}, {} read, {:.2f} s stalled", tier.name, FormatBytes(tier.resident_bytes),
        tier.name == "disk" ? "streaming" : "resident", FormatBytes(tier.read_bytes), tier.stall_s);
  }
  return line;
}

}  // namespace sluice
