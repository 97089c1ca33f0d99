// sluice plan: what fits where, and how fast it will be, before any weight is read.
#include <fmt/format.h>
#include <sys/stat.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "formats/mapped_file.h"
#include "loaders/checkpoint.h"
#include "loaders/model_outline.h"
#include "runtime/planner.h"
#include "tools/cli.h"
#include "tools/gpu_plan.h"
#include "tools/machine_rates.h"
#include "tools/model_cache.h"
#include "tools/options.h"
#include "tools/output.h"

namespace sluice {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kDefaultContext = 8192;
constexpr uint64_t kMaxConfigBytes = 1 << 20;

struct PlanOptions {
  std::string model;
  std::string quant = "auto";
  int64_t context_tokens = 0;
  int64_t sequences = 1;
  std::string kv = "f16";
  uint64_t ram_bytes = 0;
  std::optional<uint64_t> vram_bytes;
  std::string place;
  std::string isa;
  std::string prefill = "int8";
  int threads = 0;
  bool measure = false;
  std::string rates_file;
  bool json = false;
  bool quiet = false;
};

bool IsDirectory(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

// A .sluice file, a config.json by itself, or a checkpoint with its weights.
Result<ModelOutline> Outline(const PlanOptions& options) {
  Result<QuantizationPlan> quantization = ParseQuantization(options.quant);
  if (!quantization.ok()) return quantization.status();
  if (options.model.size() > 5 && options.model.ends_with(".json")) {
    Result<std::string> text = ReadWholeFile(options.model, kMaxConfigBytes);
    if (!text.ok()) return text.status();
    Result<ModelOutline> outline = OutlineConfig(*text, *quantization);
    return outline.ok() ? outline
                        : Result<ModelOutline>(outline.status().WithContext(options.model));
  }
  if (!IsDirectory(options.model)) {
    Result<bool> is_sluice = IsSluiceFile(options.model);
    if (!is_sluice.ok()) return is_sluice.status();
    if (*is_sluice) {
      Result<std::shared_ptr<const SluiceFile>> file = SluiceFile::Open(options.model);
      if (!file.ok()) return file.status();
      return OutlineFile(**file);
    }
  }
  Result<Checkpoint> checkpoint = Checkpoint::Open(options.model);
  if (!checkpoint.ok()) return checkpoint.status();
  return OutlineCheckpoint(*checkpoint, *quantization);
}

int64_t KvBytes(const std::string& kv) { return kv == "f32" ? 4 : kv == "f16" ? 2 : 1; }

struct Report {
  ModelOutline outline;
  PlanRequest request;
  Plan plan;
  RatesReport rates;
  GpuPlan gpu;
};

Json SpeedJson(const Speed& speed) {
  return {{"tokens_per_s", speed.tokens_per_s},
          {"bound", BoundName(speed.bound)},
          {"drive_s", speed.drive_s},
          {"processor_s", speed.processor_s}};
}

Json MatmulJson(const std::vector<MatmulRate>& rates) {
  Json json = Json::object();
  for (const MatmulRate& rate : rates) {
    json[rate.type] = {{"one_token_bytes_per_s", rate.one_token_bytes_per_s},
                       {"batch_bytes_per_s", rate.batch_bytes_per_s}};
    if (rate.bf16_batch_bytes_per_s > 0)
      json[rate.type]["bf16_batch_bytes_per_s"] = rate.bf16_batch_bytes_per_s;
  }
  return json;
}

std::string ReportJson(const Report& report) {
  const Plan& plan = report.plan;
  Json types = Json::object();
  for (const OutlineType& type : report.outline.types) {
    types[type.name] = {{"parameters", type.parameters}, {"bytes", type.size_bytes}};
  }
  Json prefill = SpeedJson(plan.prefill);
  prefill["products"] = report.request.bf16_prompts ? "bf16" : "int8";
  const Json json = {{"source", report.outline.source},
                     {"runs", report.outline.description.has_value()},
                     {"parameters", report.outline.parameters()},
                     {"weight_bytes", report.outline.weight_bytes()},
                     {"weights", types},
                     {"context_tokens", report.request.context_tokens},
                     {"sequences", report.request.sequences},
                     {"kv_bytes_per_token", plan.kv_bytes_per_token},
                     {"kv_cache_bytes", plan.kv_bytes},
                     {"activation_bytes", plan.activation_bytes},
                     {"overhead_bytes", plan.overhead_bytes},
                     {"ram_budget_bytes", report.request.ram_bytes},
                     {"ram_smallest_bytes", plan.smallest_ram_bytes},
                     {"ram_for_all_bytes", plan.resident_ram_bytes},
                     {"tiers",
                      {{"ram",
                        {{"resident_bytes", plan.placement.resident_bytes},
                         {"ring_bytes", plan.placement.ring_bytes}}},
                       {"disk",
                        {{"streamed_bytes_per_pass", plan.placement.streamed_bytes},
                         {"gathered_bytes", plan.placement.gathered_bytes}}}}},
                     {"gpu", GpuPlanJson(report.gpu)},
                     {"isa", report.rates.isa},
                     {"threads", report.rates.threads},
                     {"drive_bytes_per_s", report.rates.rates.drive_bytes_per_s},
                     {"busy_drive_bytes_per_s", report.rates.rates.busy_drive_bytes_per_s},
                     {"drive_rate", report.rates.drive_origin},
                     {"memory_bytes_per_s", report.rates.rates.memory_bytes_per_s},
                     {"verification_bytes_per_s", report.rates.rates.verification_bytes_per_s},
                     {"measured_while_busy", report.rates.busy},
                     {"matmul", MatmulJson(report.rates.rates.matmul)},
                     {"decode", SpeedJson(plan.decode)},
                     {"prefill", prefill},
                     {"decode_with_a_gib_more_ram", plan.decode_with_a_gib_more}};
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string SpeedLine(const char* name, const char* unit, const Speed& speed) {
  std::string line = fmt::format("{:<14}{:.3g} {}, bound by the {}", name, speed.tokens_per_s, unit,
                                 BoundName(speed.bound));
  if (speed.drive_s > 0) {
    line += fmt::format(" (a pass: {:.3g} s for the drive, {:.3g} s for the processor)",
                        speed.drive_s, speed.processor_s);
  }
  return line + "\n";
}

std::string DriveNote(const RatesReport& rates) {
  const double busy = rates.rates.busy_drive_bytes_per_s;
  return busy > 0
             ? fmt::format("{:.2f} while the processor works; {}", busy / 1e9, rates.drive_origin)
             : rates.drive_origin;
}

std::string ReportText(const Report& report) {
  const ModelOutline& outline = report.outline;
  const Plan& plan = report.plan;
  const Placement& placement = plan.placement;
  std::string text =
      fmt::format("{:<14}{}; {:.3g} billion parameters, {} layers, context {}\n", "model",
                  OnOneLine(outline.source), static_cast<double>(outline.parameters()) / 1e9,
                  outline.num_layers, outline.context_length);
  if (!outline.description)
    text += fmt::format("{:<14}{}\n", "", "sluice does not run it: " + OnOneLine(outline.why_not));
  std::string types;
  for (const OutlineType& type : outline.types) {
    types +=
        fmt::format("{}{} {}", types.empty() ? "" : ", ", type.name, FormatBytes(type.size_bytes));
  }
  text += fmt::format("{:<14}{} ({})\n", "weights", FormatBytes(outline.weight_bytes()), types);
  text += fmt::format("{:<14}{} per token and sequence; {} of {} tokens: {}\n", "KV cache",
                      FormatBytes(plan.kv_bytes_per_token),
                      report.request.sequences == 1
                          ? "a sequence"
                          : fmt::format("{} sequences", report.request.sequences),
                      report.request.context_tokens, FormatBytes(plan.kv_bytes));
  text += fmt::format("{:<14}activations {}, tokenizer and the like {}\n", "besides",
                      FormatBytes(plan.activation_bytes), FormatBytes(plan.overhead_bytes));
  text += fmt::format("{:<14}{} (smallest that works {}, all in memory {})\n", "RAM budget",
                      FormatBytes(report.request.ram_bytes), FormatBytes(plan.smallest_ram_bytes),
                      FormatBytes(plan.resident_ram_bytes));
  text += fmt::format("{:<14}RAM {}", "placement", FormatBytes(placement.resident_bytes));
  if (placement.streamed_bytes > 0) {
    text += fmt::format(" and a ring of {}; disk {} read in every pass",
                        FormatBytes(placement.ring_bytes), FormatBytes(placement.streamed_bytes));
  }
  if (placement.gathered_bytes > 0)
    text += fmt::format("; embedding {} by rows", FormatBytes(placement.gathered_bytes));
  text += "\n";
  text += GpuPlanText(report.gpu);
  text += fmt::format("{:<14}{}, {} threads; drive {:.2f} GB/s ({}), memory {:.1f} GB/s\n",
                      "machine", report.rates.isa, report.rates.threads,
                      report.rates.rates.drive_bytes_per_s / 1e9, DriveNote(report.rates),
                      report.rates.rates.memory_bytes_per_s / 1e9);
  if (report.rates.busy) {
    text += fmt::format("{:<14}{}\n", "",
                        "measured while other programs used the processors: it may be faster; not "
                        "kept, the next plan measures again");
  }
  text += SpeedLine("decode", "tokens/s", plan.decode);
  text += SpeedLine("prefill", report.request.bf16_prompts ? "tokens/s in bf16" : "tokens/s",
                    plan.prefill);
  text +=
      fmt::format("{:<14}{:.3g} tokens/s of decoding\n", "1 GiB more", plan.decode_with_a_gib_more);
  return text;
}

Status MakeReport(const PlanOptions& options) {
  Result<ModelOutline> outline = Outline(options);
  if (!outline.ok()) return outline.status();
  Result<std::vector<PlaceRule>> rules = ParsePlaceRules(options.place);
  if (!rules.ok()) return rules.status();
  const MachineFacts machine = ProbeMachine();
  Report report;
  report.outline = std::move(*outline);
  PlanRequest& request = report.request;
  request.context_tokens = options.context_tokens > 0
                               ? options.context_tokens
                               : std::min(report.outline.context_length, kDefaultContext);
  request.sequences = options.sequences;
  request.kv_bytes_per_value = KvBytes(options.kv);
  request.ram_bytes =
      options.ram_bytes > 0 ? options.ram_bytes : DefaultBudget(machine.available_bytes);
  request.bf16_prompts = options.prefill == "bf16";
  request.f16_prompts = options.prefill == "f16";
  if (request.f16_prompts && options.vram_bytes == 0u) {
    return Status(ErrorCode::kInvalidArgument, "prefill in f16 and no GPU memory (--vram 0)");
  }
  request.rules = *rules;
  report.gpu = PlanGpu(report.outline, request, options.vram_bytes, machine);
  // What does not fit is said before anything is measured.
  if (Result<Plan> memory = PlanMemory(report.outline, request); !memory.ok())
    return memory.status().WithContext(options.model);
  Result<RatesReport> rates =
      options.rates_file.empty()
          ? RatesFor(report.outline, {.isa = options.isa,
                                      .threads = options.threads,
                                      .file = options.model,
                                      .measure_anew = options.measure,
                                      .quiet = options.quiet,
                                      .bf16_prompts = request.bf16_prompts})
          : RatesInFile(options.rates_file, report.outline, request.bf16_prompts);
  if (!rates.ok()) return rates.status();
  report.rates = std::move(*rates);
  Result<Plan> plan = MakePlan(report.outline, request, report.rates.rates);
  if (!plan.ok()) return plan.status();
  report.plan = std::move(*plan);
  return WriteStdout(options.json ? ReportJson(report) : ReportText(report));
}

}  // namespace

void AddPlanVerb(Cli* cli) {
  auto options = std::make_shared<PlanOptions>();
  CLI::App* verb = cli->AddVerb(
      "plan", "Says what fits where and how fast a model will be, before anything is read",
      "  sluice plan model.sluice --ram 16G\n"
      "  sluice plan Llama-3-70B/config.json --quant int4 --ctx 8192 --ram 24G\n"
      "  sluice plan model.gguf --parallel 16 --ctx 4096 --json | jq .decode\n"
      "  sluice plan model.sluice --isa avx512 --prefill bf16\n"
      "  sluice plan model.sluice --json > here.json; then elsewhere: --rates here.json\n",
      [options] { return MakeReport(*options); });
  AddTextOption(verb, "MODEL", &options->model,
                "A .sluice file, what convert reads, or a config.json by itself")
      .Required();
  AddTextOption(verb, "--quant", &options->quant,
                "Of a model that is not converted yet, as for convert")
      .ShowDefault();
  AddCountOption(verb, "--ctx", &options->context_tokens,
                 "Context length (default: the model's own, at most 8192)");
  AddCountOption(verb, "--parallel", &options->sequences, "Sequences at once").ShowDefault();
  AddChoiceOption(verb, "--kv", &options->kv, {"f32", "f16", "int8", "fp8"},
                  "Type of the KV cache");
  AddSizeOption(verb, "--ram", &options->ram_bytes, "Memory budget (default: what is free)");
  AddSizeOrNoneOption(verb, "--vram", &options->vram_bytes,
                      "Bound on GPU memory; 0: no GPU (default: what is free on the GPU)");
  AddTextOption(verb, "--place", &options->place,
                "Where weights live, over the planner: layers.0-19.ffn=disk,head=ram")
      .Type("RULES");
  const DeclaredOption isa =
      AddChoiceOption(verb, "--isa", &options->isa, {"ref", "avx2", "avx512", "amx"},
                      "Instruction set (default: the fastest that runs)");
  AddPrefillOption(verb, &options->prefill);
  const DeclaredOption threads = AddThreadsOption(verb, &options->threads);
  const DeclaredOption measure = AddFlag(verb, "--measure", &options->measure,
                                         "Measure this machine anew, best while nothing else runs");
  AddTextOption(verb, "--rates", &options->rates_file,
                "Speeds from this file, which plan --json wrote, perhaps of another machine, "
                "instead of this machine's")
      .Type("FILE.json")
      .Excludes(isa)
      .Excludes(threads)
      .Excludes(measure);
  AddFlag(verb, "--json", &options->json, "As a JSON object");
  AddQuietOption(verb, &options->quiet);
}

}  // namespace sluice
